// How many pages of each segment the index refers to, counted over its tables. An entry that was overwritten counts until
// the tables are merged, so a count is never less than what the tables have; 0 is proof that they have none. Where a table
// does not say what it has, every segment has pages without number.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace mangrove::store {

using PagesBySegment = std::map<uint64_t, uint64_t>;

// Thread-safe.
class LivePages {
 public:
  void Add(const PagesBySegment& pages) { Change(pages, 1); }
  void Remove(const PagesBySegment& pages) { Change(pages, -1); }
  void SetUnknown() {
    const std::lock_guard lock(mutex_);
    unknown_ = true;
  }
  void Clear() {
    const std::lock_guard lock(mutex_);
    pages_.clear();
  }
  uint64_t Of(uint64_t segment) const {
    const std::lock_guard lock(mutex_);
    if (unknown_) return UINT32_MAX;
    const auto it = pages_.find(segment);
    return it == pages_.end() ? 0 : static_cast<uint64_t>(it->second);
  }

  // Called, on any thread, when tables were written or merged. Set once, before there are any.
  std::function<void()> on_change;

 private:
  void Change(const PagesBySegment& pages, int64_t sign) {
    const std::lock_guard lock(mutex_);
    for (const auto& [segment, count] : pages) {
      int64_t& sum = pages_[segment];
      sum += sign * static_cast<int64_t>(count);
      if (sum == 0) pages_.erase(segment);
    }
  }

  mutable std::mutex mutex_;
  // Guarded by mutex_, as is what follows.
  absl::flat_hash_map<uint64_t, int64_t> pages_;
  bool unknown_ = false;
};

}  // namespace mangrove::store
