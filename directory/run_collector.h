// Runs of a long range, put together leaf by leaf: no step moves or frees more than a few thousand of them.

#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "directory/directory_edit.h"
#include "directory/directory_page.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class RunCollector {
 public:
  // Behind those that are there. A run that goes on where the last one ends, alike, becomes one with it.
  void Append(const std::vector<DirectoryEntry>& runs) {
    for (const DirectoryEntry& run : runs) {
      if (chunks_.back().size() < kChunk) {
        const size_t before = chunks_.back().size();
        AppendRun(&chunks_.back(), run);
        size_ += chunks_.back().size() - before;
      } else {
        std::vector<DirectoryEntry> last{chunks_.back().back()};
        AppendRun(&last, run);
        chunks_.back().back() = last.front();
        if (last.size() == 1) continue;
        chunks_.push_back({run});
        ++size_;
      }
    }
  }
  size_t size() const { return size_; }

  // All of them, at most `most`. Nothing is left here.
  Task<std::vector<DirectoryEntry>> Take(size_t most, Clock* clock) {
    std::vector<DirectoryEntry> all = std::move(chunks_.front());
    if (chunks_.size() > 1) {
      std::vector<DirectoryEntry> first = std::exchange(all, {});
      all.reserve(size_);
      all.insert(all.end(), first.begin(), first.end());
    }
    for (size_t i = 1; i < chunks_.size(); ++i) {
      const std::vector<DirectoryEntry> chunk = std::move(chunks_[i]);
      all.insert(all.end(), chunk.begin(), chunk.end());
      co_await YieldTo(clock);
    }
    if (all.size() > most) all.resize(most);
    co_return all;
  }

 private:
  static constexpr size_t kChunk = 4096;
  std::vector<std::vector<DirectoryEntry>> chunks_{1};
  size_t size_ = 0;
};

}  // namespace mangrove
