// A fileset's pages as they are in the engine of this node: fs/pages.h over its operations and its transactions.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "directory/planted_bugs.h"
#include "engine/node_operations.h"
#include "engine/page_watches.h"
#include "fs/locks/lock_table.h"
#include "fs/open_table.h"
#include "fs/page_copies.h"
#include "fs/pages.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/runtime/task.h"

namespace mangrove {
class PageEngine;
class Transactions;
}  // namespace mangrove

namespace mangrove::fs {

// NodeOperations::Allocate, of pages of this filesystem's.
using AllocatePages = std::function<Task<absl::Status>(PageRange pages, AllocateOptions options, TimeNs deadline)>;

// The node that it is of. All outlive whoever has it.
struct EnginePagesNode {
  PageEngine* engine = nullptr;
  Transactions* transactions = nullptr;
  Clock* clock = nullptr;
  Entropy* entropy = nullptr;
  NodeId self;
  uint64_t incarnation = 0;
  std::function<int64_t()> wall_ns;  // Nanoseconds since 1970.
  AllocatePages allocate;            // NodeOperations::AllocateAhead.
  const PlantedBugs* bugs = &kNoPlantedBugs;
  // As NodeOperations' of this name.
  std::function<Task<absl::StatusOr<SpaceTotals>>(TimeNs deadline)> space;
};

class EnginePages final : public Pages {
 public:
  // `region`: known to this node's memory. `client`: of nobody else.
  EnginePages(const EnginePagesNode& node, PageRange region, ClientId client);
  ~EnginePages() override = default;

  Task<absl::StatusOr<uint64_t>> Begin() override;
  Task<absl::StatusOr<std::string>> Read(uint64_t transaction, uint64_t page, Intent intent) override;
  std::optional<std::string> Glance(uint64_t page) override;
  Task<absl::Status> Write(uint64_t transaction, uint64_t page, uint32_t offset, std::string bytes) override;
  Task<bool> BringNear(std::vector<uint64_t> pages, bool and_around) override;
  Task<absl::Status> Commit(uint64_t transaction) override;
  Task<absl::Status> SyncTransactions() override;
  void Abort(uint64_t transaction) override;
  Task<absl::Status> ReadData(uint64_t offset, std::span<std::byte> out) override;
  Task<absl::Status> WriteData(uint64_t transaction, uint64_t offset, std::span<const std::byte> bytes) override;
  Task<absl::Status> Flush(PageSpan pages) override;
  Task<absl::Status> FlushAndSync(std::vector<PageSpan> pages) override;
  Task<absl::Status> Allocate(PageSpan pages, uint32_t replicas) override;
  bool HasRoom(uint64_t page) const override;
  Task<absl::StatusOr<Space>> GetSpace() override;
  Task<absl::Status> PublishOpen(InodeNumber inode, bool open) override;
  Task<absl::StatusOr<bool>> RenewOpens() override;
  Task<absl::Status> EndOpens() override;
  Task<absl::StatusOr<bool>> IsOpenElsewhere(InodeNumber inode) override;
  FileLocks* locks() override { return &locks_; }
  LockTable& lock_table() { return locks_; }
  PageCopies* copies() override { return &copies_; }
  Task<absl::Status> BackOff(int attempt) override;
  uint64_t NodePlace() const override { return node_.self.value % kNodePlaces; }
  uint64_t Incarnation() const override { return node_.incarnation; }
  int64_t NowNs() const override { return node_.wall_ns(); }
  uint64_t Random() override;

 private:
  class Copies final : public PageCopies {
   public:
    explicit Copies(EnginePages* pages);
    ~Copies() override { OnNone(); }
    bool Has(uint64_t page) const override { return pages_->Glance(page).has_value(); }
    DurationNs UsableFor() const override;
    void NoteWrite(uint64_t transaction, uint64_t page) { written_[transaction].insert(page); }
    // It has ended; or, with `happened` false, nothing of it has happened.
    void NoteEnd(uint64_t transaction, bool happened);

   private:
    void OnFirst() override;
    void OnNone() override;
    EnginePages* const pages_;
    const std::shared_ptr<PageWatches> watches_;
    uint64_t guard_ = 0;
    std::map<uint64_t, std::set<uint64_t>> written_;  // Pages by transactions that are open.
  };

  void LetIn();
  Task<absl::Status> FlushAll(std::vector<PageSpan> pages);
  std::vector<PageRange> RangesAround(std::vector<uint64_t> pages, bool and_around) const;
  TimeNs Deadline() const;
  GlobalAddress PlaceOf(uint64_t page) const { return AddressOf(region_.first + page); }

  const EnginePagesNode node_;
  const PageRange region_;
  const ClientId client_;
  OpenTable table_;
  LockTable locks_;
  Copies copies_{this};
  Epoch renewed_in_;  // The view.
  // Transactions that are open, and who waits for one to end.
  int open_ = 0;
  std::deque<Outcome<bool>> waiting_;
};

}  // namespace mangrove::fs
