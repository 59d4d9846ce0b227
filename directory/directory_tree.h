// The RAM directory: a B-link tree of pages, see docs/DIRECTORY.md. Every node runs this code on the same pages.
//
// Pages and links:
//   T1  The pages that are reached from a parent's entry, by the child and the right links from there, divide the entry's
//       interval (up to the next entry, or the parent's high key) without gap or overlap, all of the level below. A page's
//       interval never grows. A right link that leads out of the entry's interval is never followed, since the key that is
//       looked for is within; it may be stale.
//   T2  The root keeps its address. It is about the whole space, and has no right sibling.
//   T3  After each link the page is checked: its level, and that its low key is where the link says that it begins. A key at
//       or behind its high key is looked for to its right. Whatever does not fit starts again from the root.
//   T4  A split creates the right page, then stores the left one with its new high key and right link, then posts the right
//       page in the parent. Until it is posted it is found by the link; whoever wants to change something and finds it so
//       posts it first.
// Locks:
//   T5  One operation holds one lock at a time. Under it, it waits for: Create (split, rebuild), the child's Read and
//       Collect (rebuild, a parent's lock), hand_over (Move, a leaf's lock). No Create, and nobody who answers a Collect or
//       a hand_over, waits for a directory page.
//   T6  A store is made in the step that checks what justifies it: what the page holds under the lock, and that this node
//       has answered no round of claims about the place since its walk began at the root. So what a node gets in a page that
//       is no part of the tree any more, it got before it said what it claims.
// Lost pages:
//   T7  Under the parent's lock: the parent still names the child for the key, no copy of it is left (or what is left is no
//       page of that level), then one round of claims of the child's interval as the parent says it, new pages of them,
//       and one store of the parent, if no other round about the place was answered meanwhile. An unposted page that is
//       lost is posted first.
//   T8  PageAccess never goes back: it gives the last store of a page, or DataLoss from then on.
//
// Nodes believe what on_written says: it is called in the step of the store. By T6 and T7 no two nodes believe to be
// responsible for one segment, as long as claims are what nodes believe, and what a node believes of itself counts before what others
// believe of a third one (directory/claims.h, C1).

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/claims.h"
#include "directory/directory_page.h"
#include "directory/page_access.h"
#include "directory/planted_bugs.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// How full pages get: tests make small ones. REQUIRES: at least 4 of each, at most what a page holds.
struct DirectoryLimits {
  size_t runs = kMaxDirectoryRuns;
  size_t children = kMaxDirectoryChildren;
};

// Owned by one loop. Must outlive its tasks. Every task ends with DeadlineExceeded when its time is up, with Unavailable
// when the tree does not come to rest, and passes on the errors of the pages and the claims.
class DirectoryTree {
 public:
  // In the very step in which a run is written, or taken out: nobody else can have seen it. Must not suspend, nor call
  // the tree.
  using OnWritten = absl::AnyInvocable<void(const DirectoryEntry&, const DirectoryOrder&)>;
  using HandOver = absl::AnyInvocable<Task<absl::Status>()>;

  struct Found {
    std::optional<DirectoryEntry> entry;  // The whole run, as far as its leaf has it.
    PageInterval gap;                     // Without an entry: the gap around the page, within its leaf.
    DirectoryOrder order;
    int depth = 0;          // Levels.
    int pages_fetched = 0;  // Pages that were not here.
  };
  struct PathStep {
    PageRef ref;
    PageInterval keys;
    uint8_t level = 0;
    size_t entries = 0;
    PageRef right;  // Page 0: none.
  };

  DirectoryTree(PageRef root, PageAccess* access, ClaimSource* claims, Clock* clock, const PlantedBugs* bugs,
                DirectoryLimits limits = {});
  DirectoryTree(const DirectoryTree&) = delete;
  DirectoryTree& operator=(const DirectoryTree&) = delete;

  // From pages that are here, alone: nothing if that is not enough. What it says may be outdated, as Find's.
  std::optional<Found> Peek(PageId page) const;
  Task<absl::StatusOr<Found>> Find(PageId page, TimeNs deadline);

  // Makes `node` responsible for those segments of `range` that nobody is responsible for, in term 1, and for those whose
  // responsible node is gone (ClaimSource::IsGone), in the next term. Returns every run of
  // the range afterwards, cut to it, in order. After an error some of the range may have been given.
  // InvalidArgument: no range of whole segments of the space. REQUIRES: `node` is this node, for T6's sake.
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> Appoint(PageRange range, NodeId node, OnWritten on_written,
                                                            TimeNs deadline);

  // Moves the segment from `from` to `to`, in the next term. Under its leaf's lock `hand_over` is awaited before; its error is
  // passed on and leaves everything as it was. It has to end by the deadline itself. It is called again if the leaf is
  // rebuilt meanwhile, and the move may fail after it: `from` must go on claiming the segment, in its term, until it
  // knows how the move ended. FailedPrecondition: the segment is not `from`'s. REQUIRES: `to` is this node.
  Task<absl::Status> Move(PageId segment, NodeId from, NodeId to, HandOver hand_over, OnWritten on_written,
                          TimeNs deadline);

  // Takes out what is `node`'s in the interval, and raises the order of the leaves where something was. on_written gets
  // what was taken out. REQUIRES: `node` is this node, or claims nothing.
  Task<absl::Status> Remove(PageInterval interval, NodeId node, DirectoryOrder order, OnWritten on_written,
                            TimeNs deadline);

  // For people. Visit goes from leaf to leaf, in order: `visit` gets the pages from the root to the leaf, and its runs in the
  // interval, cut to it; false ends it. Must not suspend. What the leaves say is of different times.
  using LeafVisitor =
      absl::AnyInvocable<bool(const std::vector<PathStep>& path, const std::vector<DirectoryEntry>& runs)>;
  Task<absl::Status> Visit(PageInterval interval, LeafVisitor visit, TimeNs deadline);
  // The runs in the interval, cut to it, in order, at most `most`; and the pages from the root to a leaf.
  Task<absl::StatusOr<std::vector<DirectoryEntry>>> List(PageInterval interval, size_t most, TimeNs deadline);
  Task<absl::StatusOr<std::vector<PathStep>>> Walk(PageId page, TimeNs deadline);

  // The content of a root that has these claims beneath it; at a cluster's first start there are none. Creates the pages
  // beneath. The caller stores it, if no round but that of the claims was answered since before they were collected.
  Task<absl::StatusOr<PageBuffer>> BuildRoot(Claims claims, TimeNs deadline);

 private:
  // A page on the way, and how it was come by.
  struct Step {
    PageRef ref;
    PageBuffer content;
    PageId start;                // Where the interval begins, as said by the page before.
    bool by_right_link = false;  // Else its parent names it.
  };
  // A page that is not named by a parent.
  struct Unposted {
    int level = 0;
    PageId start;
    PageRef ref;
  };
  struct Lost {
    int level = 0;
    PageId start;
    PageRef ref;
    bool by_right_link = false;
  };
  // The walks of one operation towards one key.
  struct Search {
    PageId key;
    TimeNs deadline = 0;
    int restarts = 0;
    int fetched = 0;
    // Of the last walk:
    uint64_t rounds = 0;  // At its beginning.
    absl::InlinedVector<Step, 5> path;
    absl::InlinedVector<Unposted, 1> unposted;
    std::optional<Lost> lost;
  };
  // A lock, let go at the end of its scope.
  class Held {
   public:
    Held() = default;
    Held(PageAccess* access, uint64_t lock) : access_(access), lock_(lock) {}
    Held(Held&& other) noexcept : access_(std::exchange(other.access_, nullptr)), lock_(other.lock_) {}
    Held& operator=(Held&& other) noexcept {
      std::swap(access_, other.access_);
      std::swap(lock_, other.lock_);
      return *this;
    }
    ~Held() { Release(); }
    void Release() {
      if (PageAccess* access = std::exchange(access_, nullptr)) access->Unlock(lock_);
    }
    PageBuffer Load() const { return access_->LoadLocked(lock_); }
    void Store(const DirectoryPage& page) { access_->StoreLocked(lock_, *SerializeDirectoryPage(page)); }

   private:
    PageAccess* access_ = nullptr;
    uint64_t lock_ = 0;
  };
  struct LockedPage {
    PageRef ref;
    DirectoryPage page;
    Held held;
  };
  // Pages made of claims.
  struct Built {
    std::vector<DirectoryChild> top;  // Of the highest level yet, in order.
    std::vector<PageRef> all;
  };

  // After so many pages the loop's other work is let in.
  static constexpr int kPagesAtOnce = 16;
  static absl::Status CheckInSpace(PageInterval interval);

  // --- directory_tree.cc
  // Walks to the page of the level that has the key. Aborted: try again. DataLoss with `lost` set: Repair first.
  Task<absl::Status> Descend(Search* search, int level);
  // The same for changes: what is unposted on the way is posted (Aborted then).
  Task<absl::Status> Reach(Search* search, int level);
  Task<absl::StatusOr<LockedPage>> LockPage(Search* search, int level);  // Reaches it first.
  Task<absl::StatusOr<LockedPage>> LockReached(Search* search, int level);
  Task<absl::Status> DescendToLeaf(Search* search);  // As often as it takes.
  // After a failed try: OK to try again.
  Task<absl::Status> Retry(Search* search, absl::Status why);
  Task<absl::StatusOr<PageBuffer>> Fetch(Search* search, PageRef ref);
  // Has this node answered a round about the key since the walk began?
  bool IsVoid(const Search& search) const { return claims_->RoundsAbout(search.key, search.rounds) != 0; }
  absl::Status LostError(Search* search, const Lost& lost) const;
  static std::vector<PathStep> PathOf(const Search& search);

  // --- directory_change.cc
  Task<absl::StatusOr<PageId>> AppointIn(Search* search, PageInterval interval, NodeId node, OnWritten* on_written,
                                         std::vector<DirectoryEntry>* runs);
  // OK: it has ended, as `outcome` says.
  Task<absl::Status> MoveIn(Search* search, NodeId from, NodeId to, HandOver* hand_over, OnWritten* on_written,
                            absl::Status* outcome);
  Task<absl::StatusOr<PageId>> RemoveIn(Search* search, PageInterval interval, NodeId node, DirectoryOrder order,
                                        OnWritten* on_written);
  // Makes room for an entry at `wanted`; lets the lock go. Aborted when done.
  Task<absl::Status> Split(Search* search, LockedPage locked, PageId wanted);
  Task<absl::Status> SplitRoot(Search* search, LockedPage locked, DirectoryPage left, PageId cut);
  // Names the page in its parent, unless it is named there or a round about it was answered after the first `rounds`.
  Task<absl::Status> Post(Unposted unposted, uint64_t rounds, TimeNs deadline);

  // --- directory_rebuild.cc
  Task<absl::Status> Repair(Search* search, Lost lost);
  Task<absl::Status> Rebuild(Search* search, LockedPage* parent, size_t index, int level);
  Task<absl::Status> BuildLeaves(Claims* claims, PageInterval interval, PageRef right, TimeNs deadline, Built* built);
  Task<absl::Status> BuildAbove(int level, PageInterval interval, PageRef right, TimeNs deadline, Built* built);
  Task<absl::Status> CreateFirst(DirectoryPage page, TimeNs deadline, Built* built);
  void Retire(const Built& built);

  const PageRef root_;
  PageAccess* const access_;
  ClaimSource* const claims_;
  Clock* const clock_;
  const PlantedBugs* const bugs_;
  const DirectoryLimits limits_;
};

}  // namespace mangrove
