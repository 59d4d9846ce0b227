// The faults of one mapping that are waiting for a worker or being served, so that a page is served once at a time.
//
//   T1  A page has at most one entry: queued or being served.
//   T2  A fault that meets an entry is dropped and noted there. A queued entry takes on what the fault wants. An entry
//       that is being served may have mapped the page, and lost it again, before the fault came: so whoever ends it wakes
//       the page once more, after the entry is gone, and whoever still waits faults anew.
//
// Not thread-safe: guarded by its owner's lock. Bounded: the owner reads faults only when the queue is empty.

#pragma once

#include <cstddef>
#include <deque>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "directory/address.h"
#include "engine/page_memory.h"

namespace mangrove {

struct PageFault {
  PageId page;
  Rights wanted = Rights::kRead;
  bool write_protect = false;  // The page is mapped already, so a store needs nothing but permission.
};

class FaultTable {
 public:
  // False: dropped, since the page has an entry.
  bool Admit(const PageFault& fault);
  // The oldest queued one, from now on being served.
  std::optional<PageFault> Next();
  // Ends what Next returned. True: the page must be woken (T2).
  bool Finish(PageId page);

  bool HasQueued() const { return !queue_.empty(); }

 private:
  struct Entry {
    PageFault fault;
    bool served = false;
    bool wake = false;
  };
  absl::flat_hash_map<PageId, Entry> entries_;
  std::deque<PageId> queue_;
};

}  // namespace mangrove
