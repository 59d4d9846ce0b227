// The claims of many nodes about one interval, put together as they come in: each node says its own in parts, in the order of
// addresses. Pure. However many claims there are, no step looks at more than some thousands of them.

#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "engine/directory_pages.h"

namespace mangrove {

class ClaimMerge {
 public:
  // REQUIRES: at least one source.
  ClaimMerge(PageInterval interval, size_t sources);

  bool done() const { return at_ == end_; }
  // The sources that must say more before Take, and about what.
  std::vector<size_t> Missing() const;
  PageInterval Rest(size_t source) const { return {sources_[source].next, end_}; }
  // What a source claims of its Rest, up to `next`; 0: all of it. Sorted by where they begin.
  // InternalError: they are not, or `next` leads nowhere.
  absl::Status Add(size_t source, const std::vector<Claim>& claims, PageId next);
  // Who is right about the next part of the interval; often a part in which nobody claims anything.
  // REQUIRES: nothing is Missing.
  std::vector<DirectoryEntry> Take();

 private:
  struct Source {
    std::vector<Claim> claims;  // Cut to [at_, next).
    PageId next;
  };
  PageId PickCut() const;

  PageId at_;  // Everything before it is taken.
  const PageId end_;
  std::vector<Source> sources_;
};

}  // namespace mangrove
