// The door from a fileset to the pages that it is made of: a region of the engine, page by page, and transactions on it.
//
// Pages are numbered from the region's first on. Those that transactions write are of metadata: they have kMetadataBytes for the
// filesystem, the rest is the engine's. Those of data have all of their bytes, and are never in a transaction; the same page is never
// once this and once that (fs/space.h).
//
// Implemented over the engine (fs/engine_pages.h), and in memory for tests. Owned by the loop.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/attributes.h"
#include "fs/locks/file_lock.h"
#include "fs/page_copies.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kMetadataBytes = 4080;

constexpr uint64_t kNodePlaces = 64;
// So many pages side by side, from a multiple of that on, are on the same disks.
constexpr uint64_t kPagesOfDisks = 512;

enum class Intent : uint8_t { kRead, kWrite };

struct PageSpan {
  uint64_t first = 0;
  uint64_t count = 0;
};

class Pages {
 public:
  virtual ~Pages() = default;

  // A transaction, by its number. Every call of it may answer Aborted: then it has ended, and nothing of it has happened.
  virtual Task<absl::StatusOr<uint64_t>> Begin() = 0;
  // The first kMetadataBytes of the page, which stays locked for others as `intent` says, to the end of the transaction.
  virtual Task<absl::StatusOr<std::string>> Read(uint64_t transaction, uint64_t page, Intent intent) = 0;
  // The same of what is committed, without a transaction, if the page is here now. What is read in one step of the loop is of one moment.
  virtual std::optional<std::string> Glance(uint64_t page) = 0;
  virtual Task<absl::Status> Write(uint64_t transaction, uint64_t page, uint32_t offset, std::string bytes) = 0;
  // These pages are going to be read: they come here, many at a time. `and_around`: those that lie around them are too. A matter of speed
  // alone; what cannot be had is not missed.
  virtual Task<bool> BringNear(std::vector<uint64_t> /*pages*/, bool /*and_around*/) { co_return true; }
  // OK: it has happened for every node, unless this one is lost before SyncTransactions: then it, and what came after it here, never has.
  // Unavailable: it may have happened.
  virtual Task<absl::Status> Commit(uint64_t transaction) = 0;
  // OK: what was committed here before is durable.
  virtual Task<absl::Status> SyncTransactions() = 0;
  virtual void Abort(uint64_t transaction) = 0;

  // Of data pages; bytes from the region's first on, over as many pages as it takes.
  virtual Task<absl::Status> ReadData(uint64_t offset, std::span<std::byte> out) = 0;
  // Aborted: the transaction has ended, and with it the locks under which the pages are the writer's; from then on nothing was written.
  virtual Task<absl::Status> WriteData(uint64_t transaction, uint64_t offset, std::span<const std::byte> bytes) = 0;
  // OK: what anybody wrote to these pages before is durable. DataLoss: it may be lost, with a node that had a page meanwhile.
  virtual Task<absl::Status> Flush(PageSpan pages) = 0;
  // Flush of all of these, and SyncTransactions; at the same time where that can be.
  virtual Task<absl::Status> FlushAndSync(std::vector<PageSpan> pages);

  // Gives pages storage, zeros, on as many disks as `replicas` says (0: as the cluster does). AlreadyExists: it has.
  virtual Task<absl::Status> Allocate(PageSpan pages, uint32_t replicas) = 0;
  // Whether the disks that keep the page have room for more, as far as this node has heard.
  virtual bool HasRoom(uint64_t page) const = 0;
  // How many of these pages, from the first one on, have it.
  uint64_t RoomFrom(PageSpan pages) const;
  // Of the whole space: pages, and how many of them are free.
  virtual Task<absl::StatusOr<Space>> GetSpace() = 0;

  // This node has the inode open once more, or once less: others are to know from when it returns.
  virtual Task<absl::Status> PublishOpen(InodeNumber inode, bool open) = 0;
  // What it has said is to be believed after others were lost, too: to be called once a second or so. True: since the last time nodes have
  // come or gone.
  virtual Task<absl::StatusOr<bool>> RenewOpens() = 0;
  // Nothing is open here. What this node has said before is not looked at any more, until PublishOpen says something.
  virtual Task<absl::Status> EndOpens() = 0;
  // Whether another node that is there has said so; true where that cannot be found out, for the time being.
  virtual Task<absl::StatusOr<bool>> IsOpenElsewhere(InodeNumber inode) = 0;

  // Those of the fileset's files, for this node.
  virtual FileLocks* locks() = 0;
  // What is here of its pages; null: who keeps something of them would not hear when they change.
  virtual PageCopies* copies() { return nullptr; }

  // Waits before a transaction is tried for the `attempt`th time, from 1 on. An error ends the operation.
  virtual Task<absl::Status> BackOff(int attempt) = 0;
  // Which of a fileset's places is this node's own, of those that there are for nodes: below kNodePlaces.
  virtual uint64_t NodePlace() const = 0;
  virtual uint64_t Incarnation() const = 0;  // Another one in each life of the node; not 0.
  virtual int64_t NowNs() const = 0;         // Since 1970, of this node.
  virtual uint64_t Random() = 0;
};

inline uint64_t Pages::RoomFrom(PageSpan pages) const {
  uint64_t count = 0;
  while (count < pages.count && HasRoom(pages.first + count)) {
    count += kPagesOfDisks - (pages.first + count) % kPagesOfDisks;
  }
  return std::min(count, pages.count);
}

inline Task<absl::Status> Pages::FlushAndSync(std::vector<PageSpan> pages) {
  absl::Status status;
  for (const PageSpan& span : pages) {
    if (status.ok()) status = co_await Flush(span);
  }
  if (status.ok()) status = co_await SyncTransactions();
  co_return status;
}

}  // namespace mangrove::fs
