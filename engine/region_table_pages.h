// What the table of regions needs of the pages that it is kept in, and of the core holders of what it allocates.
// Implemented on the page engine; in tests by a fake that can crash anywhere.
//
// Contract:
//  P1  Between Lock's OK and Unlock the pages are here: Load works, and Store if the lock is exclusive. No other applet and
//      no other node loads or stores an exclusively locked page meanwhile, nor stores a share-locked one. A shared lock
//      admits shared ones. Locks are not counted: whoever holds a page locked does not lock it again.
//  P2  What was stored is seen by whoever locks the page next, on any node. If this node dies, a page goes back to a
//      version that was flushed, or was being flushed; never to a part of a Store.
//  P3  Flush works on pages that the caller has locked. OK: what they hold survives the loss of nodes, as flushes do.
//      Otherwise it may or may not.
//  P4  PutExtent and DropExtent are OK when every core holder has done it durably. Otherwise any of them may have. Both may
//      be repeated. An extent of a newer configuration number replaces what was there, content included; an older one
//      changes nothing.
//  P5  Errors: Unavailable (a node is needed and does not answer), DeadlineExceeded (a lock is held too long), DataLoss
//      (every copy of a page is lost or corrupt), ResourceExhausted (a disk, or the RAM cache).
//
// Owned by the loop.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/version.h"
#include "engine/mangrove.h"
#include "net/page_buffer.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class TablePages {
 public:
  virtual ~TablePages() = default;

  // Brings the pages here in few messages and locks all of them, or none. Returns the lock's number.
  virtual Task<absl::StatusOr<uint64_t>> Lock(PageRange range, LockMode mode, TimeNs deadline) = 0;
  virtual void Unlock(uint64_t lock_id) = 0;

  virtual void Load(PageId page, std::span<std::byte, kPageBytes> out) = 0;
  virtual void Store(PageId page, std::span<const std::byte, kPageBytes> bytes) = 0;
  virtual Task<absl::Status> Flush(PageRange range, TimeNs deadline) = 0;

  // Makes `range` allocated pages, all zeros, at its core holders, `replicas` for each page.
  virtual Task<absl::Status> PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                                       TimeNs deadline) = 0;
  // Takes content and storage from `range`, of extents numbered at most `config`; each page was put with `replicas` or more.
  virtual Task<absl::Status> DropExtent(PageRange range, ConfigNumber config, uint32_t replicas, TimeNs deadline) = 0;

  // Are all pages of `range` lost (so that they may be allocated anew)? As those who are responsible for them say now.
  virtual Task<absl::StatusOr<bool>> AreLost(PageRange range, TimeNs deadline) = 0;
};

}  // namespace mangrove
