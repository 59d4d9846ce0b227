// What the directory needs of the pages that it is made of. engine/ implements it over the page engine, tests over memory.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "net/ids.h"
#include "net/page_buffer.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// A page and the node that made it, which orders the requests for it while it is there: how a directory page is reached
// without asking the directory.
struct PageRef {
  PageId page;
  NodeId responsible;
  friend constexpr bool operator==(const PageRef&, const PageRef&) = default;
};

class PageAccess {
 public:
  virtual ~PageAccess() = default;

  // The page's content where it can be read without asking another node; null otherwise.
  virtual PageBuffer Peek(PageRef ref) = 0;
  // DataLoss: no copy of the page is left, and none ever will be. Unavailable, DeadlineExceeded: as everywhere.
  virtual Task<absl::StatusOr<PageBuffer>> Read(PageRef ref, TimeNs deadline) = 0;

  // Locks the page exclusively; until it is unlocked nobody else reads or writes it, on any node. The number is for the
  // two calls after it. Errors as Read's.
  virtual Task<absl::StatusOr<uint64_t>> Lock(PageRef ref, TimeNs deadline) = 0;
  virtual PageBuffer LoadLocked(uint64_t lock) = 0;
  virtual void StoreLocked(uint64_t lock, const PageBytes& content) = 0;  // At once: nobody sees a part of it.
  virtual void Unlock(uint64_t lock) = 0;

  // A new page, which nobody else knows of, with that content. This node is responsible for it.
  virtual Task<absl::StatusOr<PageRef>> Create(const PageBytes& content, TimeNs deadline) = 0;
  // The page is reached by nobody any more, but for walks that are under way: its memory may be given back.
  virtual void Retire(PageRef ref) = 0;
};

}  // namespace mangrove
