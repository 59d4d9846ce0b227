// The pages of one mapping whose accesses get SIGBUS. The kernel raises no event for them, so the list is all there is.
//
//   P1  A page is listed before it is poisoned, so that a program that got SIGBUS finds it.
//   P2  A page that is forgotten while it is being poisoned stays listed: the program drops it now and, if it meets
//       SIGBUS again, once more.
//
// Thread-safe; no call blocks.

#pragma once

#include <mutex>
#include <vector>

#include "absl/container/btree_map.h"
#include "directory/address.h"

namespace mangrove {

class PoisonedPages {
 public:
  void Begin(PageId page);
  void End(PageId page, bool poisoned);
  // Forgets those in `range`, and returns them.
  std::vector<PageRange> Forget(PageRange range);
  std::vector<PageRange> List() const;

 private:
  mutable std::mutex mutex_;
  absl::btree_map<PageId, bool> pages_;  // True: being poisoned.
};

}  // namespace mangrove
