// How many pages something is about, and which the first of them are. Pure.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "directory/address.h"

namespace mangrove {

class RangeSummary {
 public:
  // So many ranges are named at most.
  explicit RangeSummary(size_t most = 16) : most_(most) {}

  // In any order; what follows the last one is one with it. REQUIRES: none of the pages is there already.
  void Add(PageRange range) {
    if (range.count == 0) return;
    pages_ += range.count;
    const bool continues = is_last_named_ && last_end_ == range.first;
    last_end_ = range.end();
    if (continues) {
      first_.back().count += range.count;
    } else if (first_.size() < most_) {
      first_.push_back(range);
      is_last_named_ = true;
    } else {
      unnamed_ += range.count;
      is_last_named_ = false;
    }
  }
  // Pages that somebody else has counted, and not named.
  void AddUnnamed(uint64_t pages) {
    pages_ += pages;
    unnamed_ += pages;
  }

  uint64_t pages() const { return pages_; }
  const std::vector<PageRange>& first() const { return first_; }
  uint64_t unnamed() const { return unnamed_; }  // Pages that are in none of these.
  bool empty() const { return pages_ == 0; }
  friend bool operator==(const RangeSummary& a, const RangeSummary& b) {
    return a.pages_ == b.pages_ && a.first_ == b.first_ && a.unnamed_ == b.unnamed_;
  }

 private:
  size_t most_;
  uint64_t pages_ = 0;
  uint64_t unnamed_ = 0;
  std::vector<PageRange> first_;
  PageId last_end_;
  bool is_last_named_ = false;
};

}  // namespace mangrove
