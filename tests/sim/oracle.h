// What must hold, whatever happens. The oracle sees every right that a node gets or loses, every load and store, and the
// beginning and end of every flush, lock and allocation. The first breach fails the world.
//
//  O1  At most one node has kWrite on a page, and then no other node has kRead.
//  O2  A load returns the last store in the page's order; a page that was allocated and never written is zeros. An
//      install is a load: from then on the node's programs may look at any moment.
//  O3  When a node dies, what a live node's memory holds is the page's content. Only if none holds it, the content may be
//      any version from the last flushed one to the newest; the first install or load decides which, for good. After the
//      death of a holder the surviving readers' copies may be dropped before anybody knows that they are the last.
//      A node whose lease has ended is as one that has died, as long as that lasts: what it has may be lost, or found again.
//  O4  What was stored before a flush began is never lost once the flush has returned OK.
//  O5  A version that can only have come from the disks, because every life of a node began after the loss, is never
//      followed by an older one: it was completed on every core holder before it was granted.
//  O6  A locked page does not leave its holder, no other node has a right that the lock excludes, and two locks that
//      exclude each other are not held at once.
//  O7  A free page is nowhere accessible, and no Acquire or Lock of it succeeds; an allocated one is not refused. While
//      it is being freed, and after a call that left that open, it may have any of its contents, or zeros, or be lost.
//      So may a page that was refused while it was being allocated, or after a call had left that open: docs/DISKS.md.
//  O8  Every operation has ended by its deadline and a little slack.
//  O9  What is read of a page without a lease is what the node had when its lease ended, as long as that lasts; or what was on its
//      way there at that time. Whatever else is wanted of such a page is refused at once (tests/sim/workload.cc).
//  O10 A flush on a node ends with OK only if no store by this life of the node, made before the flush began, was lost, unless a flush
//      there said DataLoss after the store and before this one began. O4 holds for such stores whatever died while the flush was under way.
//  O11 Once faults have ended and every disk is current, each core holder's disk has the extent of each page that is allocated, and of
//      the page no older version than the last flushed one, nor one that died with its node; no disk has an extent of a free page. Two
//      records of one version are alike. What was damaged by hand is left out.
//  O12 At any time the same is on the disk of each core holder that serves and is current (D2 of engine/disks.h), by the newest view that
//      a node follows: an extent of its own, no record of another, and no older version than the last flushed one. It may be lost where
//      another disk's copy was damaged by hand, and what is here is later: of a flush that failed there, before this disk fell behind.
//
// Pages that Manage has not named are checked for O1 only.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/mangrove.h"
#include "engine/page_memory.h"
#include "tests/sim/disk_copies.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/stamp.h"

namespace mangrove::sim {

// What the oracle knew of the pages when a flush began.
struct FlushTicket {
  struct Page {
    uint32_t page = 0;  // The oracle's own number.
    uint32_t generation = 0;
    uint32_t crashes = 0;
    uint32_t version = 0;
    uint64_t own = 0;   // The last store by the node.
    uint64_t told = 0;  // The same when a flush there last said DataLoss.
  };
  int node = 0;
  PageRange range;
  std::vector<Page> pages;
};

class Oracle final : public MemoryObserver {
 public:
  explicit Oracle(SimWorld* world) : world_(world) {}

  // `range` is used by the workload. Its pages are free.
  void Manage(const PageRange& range);

  // Memory.
  void OnInstall(int node, PageId page, const std::byte* data, Rights rights) override;
  void OnRights(int node, PageId page, Rights rights, bool kept) override;
  void OnLoad(int node, PageId page, const std::byte* data) override;
  void OnStaleLoad(int node, PageId page, const std::byte* data) override;
  void OnStore(int node, PageId page, const Stamp& stamp) override;
  void OnSuspended(int node) override;
  void OnResumed(int node) override;
  // The number of the next store. The caller uses it at once.
  Stamp NextStamp(int node, uint64_t incarnation);

  // A life of the node begins.
  void OnNodeUp(int node);
  // It is over, and with it its memory, its locks and its operations.
  void OnNodeDown(int node);

  // Flushes.
  FlushTicket BeginFlush(int node, const PageRange& range);
  void EndFlush(const FlushTicket& ticket, const absl::Status& status);
  // Is `data` of the page (kPageBytes) a version that every core holder has, because a flush said so?
  bool WasFlushed(PageId page, const std::byte* data) const;

  // Allocation. One call at a time for a page, from Begin to End. Allocate: of free pages. Unallocate: of pages that are
  // not free; after an answer that leaves it open what happened, until one that does not.
  void BeginAllocate(const PageRange& range);
  void EndAllocate(const PageRange& range, const absl::Status& status);
  void BeginUnallocate(const PageRange& range);
  void EndUnallocate(const PageRange& range, const absl::Status& status);
  // Certainly so. Both are false while a call is under way, and after one that left it open.
  bool IsAllocated(PageId page) const;
  bool IsFree(PageId page) const;

  // Locks. `client` names one program of the node.
  void OnLocked(int node, uint64_t client, const PageRange& range, LockMode mode);
  void OnUnlocked(int node, uint64_t client, const PageRange& range, LockMode mode);

  // O7 and the kind of the answer: `before` is what StateOf said when the operation began.
  struct RangeState {
    bool all_allocated = true;
    bool any_free = false;
    bool any_open = false;     // It is being allocated or freed, or a call has left that open.
    bool may_be_lost = false;  // AllowLoss, of one of its pages.
    uint64_t changes = 0;
  };
  RangeState StateOf(const PageRange& range) const;
  // Disks are damaged so that an operation on the page may end with DataLoss from now on.
  void AllowLoss(PageId page);
  bool MayBeLost(PageId page) const;
  void CheckAnswer(const char* operation, int node, const PageRange& range, const RangeState& before,
                   const absl::Status& status);
  // The operation began, and must end by `deadline` of the world's time. Returns what EndOperation takes.
  uint64_t BeginOperation(int node, TimeNs deadline, const char* what, const PageRange& range);
  void EndOperation(uint64_t id);
  size_t operations_under_way() const { return operations_.size(); }

  // O11; `copies_of`: on every disk that keeps pages.
  void CheckCopies(absl::FunctionRef<std::vector<DiskCopy>(PageId)> copies_of);

  // O12; the same.
  void CheckCurrentCopies(absl::FunctionRef<std::vector<DiskCopy>(PageId)> copies_of);

  // After every event: O1 for the pages that the event touched.
  void AfterEvent();

  // How often a page lost unflushed stores with a node.
  uint64_t reverts() const { return reverts_; }
  uint64_t loads() const { return loads_; }
  uint64_t stores() const { return stores_; }
  uint64_t stale_loads() const { return stale_loads_; }

 private:
  enum class Allocation : uint8_t { kFree, kAllocating, kAllocated, kFreeing, kUnknown };

  struct Held {
    int node;
    uint64_t client;
    LockMode mode;
  };

  struct Page {
    PageId id;
    bool managed = false;
    bool may_be_lost = false;
    bool touched = false;
    Allocation allocation = Allocation::kFree;
    bool was_allocated = false;  // Before the Unallocate that is under way.
    bool is_void = false;        // It was being freed, or is; or it was refused while its allocation was open.
    uint64_t allocation_changes = 0;
    uint32_t generation = 0;  // Counts allocations.
    uint32_t crashes = 0;     // Counts how often the newest version was lost, or may have been.
    uint64_t lost_at = 0;     // The world's event of the last time.
    std::array<Rights, kMaxNodes> rights{};
    bool orphaned = false;  // A node that held the newest version, perhaps as its owner, has died.
    uint32_t kept_by = 0;  // Bits of live nodes that took the newest version out of their memory and may have it still.
    // Numbers of stores, in the page's order. [0] is 0: zeros.
    std::vector<uint64_t> versions{0};
    // The content is one of versions[low..high]; certain when they are equal.
    uint32_t low = 0;
    uint32_t high = 0;
    uint32_t flushed = 0;
    // By node, of its present life: the last store; the last one when a flush said DataLoss; the last that was lost. 0: none.
    std::array<uint64_t, kMaxNodes> own{};
    std::array<uint64_t, kMaxNodes> told{};
    std::array<uint64_t, kMaxNodes> lost{};
    std::vector<Held> locks;
  };

  struct StoreRecord {
    uint32_t page = 0;
    uint32_t generation = 0;
    uint32_t version = 0;
    uint64_t writer = 0;
  };

  struct Operation {
    int node;
    TimeNs deadline;
    DurationNs paused_before;
    const char* what;
    PageRange range;
  };

  uint32_t IndexOf(PageId page);
  Page& At(PageId page) { return pages_[IndexOf(page)]; }
  const Page* Find(PageId page) const;
  template <typename F>
  void ForEach(const PageRange& range, F&& f);
  void Touch(uint32_t index);
  bool AnyHolder(const Page& page) const;
  void CheckOwn(Page& page, int node, const FlushTicket::Page& began);
  bool IsSuspended(int node) const { return suspended_[static_cast<size_t>(node)]; }
  void LoseHolder(Page& page, int node);
  void StartGeneration(Page& page);
  void LoseNewest(Page& page);
  // O2, O3: `data` is the page's content now.
  void CheckContent(int node, uint32_t index, const std::byte* data, const char* how);
  bool EveryLifeBeganAfter(uint64_t event) const;
  void SetAllocation(Page& page, Allocation allocation);
  void Decide(Page& page, uint32_t version);
  void CheckWriters(const Page& page);
  // What is wrong with it; empty: nothing.
  std::string CheckCopy(const Page& page, uint32_t index, const DiskCopy& copy) const;
  void CheckLocks(const Page& page, int node, Rights rights);
  void CheckDeadline(uint64_t id);
  void Fail(const Page& page, const std::string& what);
  std::string Describe(const Page& page) const;

  SimWorld* const world_;
  bool any_was_lost_ = false;  // Of the nodes.
  std::vector<Page> pages_;
  absl::flat_hash_map<PageId, uint32_t> index_;
  std::array<bool, kMaxNodes> suspended_{};
  // O9, of nodes that are suspended: the numbers of the stores that their pages show, by the page's number.
  std::array<absl::flat_hash_map<uint32_t, uint64_t>, kMaxNodes> shown_;
  std::array<uint64_t, kMaxNodes> born_{};  // The world's event of each live node's start; 0 for the others.
  std::vector<uint32_t> touched_;
  std::vector<StoreRecord> store_records_{StoreRecord{}};  // By number; 0 is none.
  absl::btree_map<uint64_t, Operation> operations_;
  uint64_t next_operation_ = 0;
  uint64_t reverts_ = 0;
  uint64_t loads_ = 0;
  uint64_t stores_ = 0;
  uint64_t stale_loads_ = 0;
};

}  // namespace mangrove::sim
