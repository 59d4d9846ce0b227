// The locks of a fileset, in pages that all of its nodes share: who sets one holds its page to write, looks whether it is free, and writes
// it, in one step; who waits keeps the page to read, and is told when another node is about to change it.
//
// Pages lie in buckets, by the file's number: the last bucket has what owners of ranges wait for, so that a ring of them is found.
//
// Nobody flushes these pages, and a node takes along what it had of them when it is lost. But then there is a new view, and each node knows
// what it holds itself:
//
//   L3  A node writes to a bucket that is of its own view, and to an older one only to make it anew: without any locks, of this view. One of a
//       later view it leaves alone, until it has heard of that.
//   L4  With each write a node's locks in the bucket become those that it knows of, and its place is among those that have put theirs in.
//   L5  A lock is given, or said not to be there, when each place is in that may have had one before the view: of the nodes that are
//       in the view, and marked. A node is marked, durably, before it sets its first lock. Who has found no mark in this view need not look
//       again: what a node sets that is marked later is in buckets of this view, or of a later one, since pages come from nodes of one's
//       own view alone.
//   L6  A marked node puts its own in, in every bucket, soon after each new view.
//
// So a node that leaves the view has no locks any more, and a lock that somebody has is given to nobody else as long as he is in
// the view. What leaves it, its programs can use no longer (docs/MEMBERSHIP.md, "Expelled"). A node without locks pays nothing.
//
// Owned by the loop.

#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/planted_bugs.h"
#include "engine/page_watches.h"
#include "fs/locks/file_lock.h"
#include "fs/locks/lock_list.h"
#include "fs/locks/lock_page.h"
#include "fs/pages.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {
class PageEngine;
enum class Rights : uint8_t;
}  // namespace mangrove

namespace mangrove::fs {

class LockTable final : public FileLocks {
 public:
  static constexpr uint64_t kBuckets = 64;
  static constexpr uint64_t kPagesOfBucket = 8;
  // In the zone of what describes the fileset, behind the tables of open files; all have storage since it was made. Marks, a page for each
  // place: 0 the life of its node that has locks 8. Then the buckets' first pages, and the others.
  static constexpr PageSpan kMarks{4352, kNodePlaces};
  static constexpr PageSpan kPages{4608, kBuckets* kPagesOfBucket};

  // `region`: the fileset's pages. All outlive it.
  LockTable(PageEngine* engine, Clock* clock, PageRange region, NodeId self, const PlantedBugs& bugs = kNoPlantedBugs);
  ~LockTable() override;
  LockTable(const LockTable&) = delete;
  LockTable& operator=(const LockTable&) = delete;

  Task<absl::Status> Set(FileLock lock, std::shared_ptr<LockWait> wait) override;
  Task<absl::StatusOr<std::optional<FileLock>>> Find(FileLock lock) override;
  Task<absl::Status> Clear(FileLock range) override;
  Task<bool> ClearHandle(uint16_t mount, uint64_t handle) override;
  Task<bool> ClearMount(uint16_t mount) override;

  // L6, and what others could not hear before. To be called now and then, and when `news` says so.
  Task<absl::Status> Renew();
  // Nothing is held here any more, and nobody has to ask. REQUIRES: no other call is under way.
  Task<absl::Status> Retire();
  // In the middle of the engine's work.
  void SetNews(std::function<void()> news) { news_ = std::move(news); }

 private:
  struct Bucket {
    LockBucketHead head;
    LockList locks;
  };
  struct Waiter {
    uint64_t bucket = 0;
    LockWait* wait = nullptr;
  };

  static uint64_t BucketOf(InodeNumber inode);
  PageId PageOf(uint64_t bucket, uint64_t number) const;
  bool Has(PageId page, Rights rights) const;
  Task<absl::Status> Hold(uint64_t bucket, uint64_t pages, Rights rights, TimeNs deadline);
  Task<absl::StatusOr<Bucket>> Enter(uint64_t bucket, Rights rights, TimeNs deadline);
  Task<absl::StatusOr<Bucket>> EnterWhenAllAreIn(uint64_t bucket, Rights rights, const LockWait* wait);
  Task<absl::StatusOr<Bucket>> TryToEnter(uint64_t bucket, Rights rights, TimeNs deadline);
  Bucket Load(uint64_t bucket, const LockBucketHead& head) const;
  LockBucketHead LoadHead(uint64_t bucket) const;
  bool WriteBack(uint64_t number, Bucket* bucket);
  // lock_marks.cc
  Incarnation OwnLife() const;
  Task<absl::Status> Mark(Incarnation life);
  Task<absl::Status> LookAtOwnMark(TimeNs deadline);
  Task<absl::Status> Begin();
  Task<absl::StatusOr<bool>> IsMarked(uint64_t place, Incarnation life, TimeNs deadline);
  Task<absl::Status> FindMarked(TimeNs deadline);
  bool IsDue(uint64_t bucket) const;
  Task<absl::Status> PutIn(uint64_t bucket, TimeNs deadline);
  Task<absl::Status> PutAllIn(TimeNs deadline);
  Task<bool> TellOthers(std::vector<uint64_t> buckets);
  // lock_waits.cc
  Task<absl::Status> TryToSet(FileLock lock, bool is_again, const LockWait* wait);
  Task<absl::Status> SetOrWait(FileLock lock, std::shared_ptr<LockWait> wait);
  Task<absl::Status> WaitToSet(FileLock lock, std::shared_ptr<LockWait> wait);
  Task<absl::StatusOr<bool>> IsInARing(FileLock lock, const LockWait* wait);
  Task<bool> ClearAll(std::function<bool(const FileLock&)> is);
  Task<absl::Status> CutInTwo(FileLock range);
  void RingAt(uint64_t bucket) const;
  void TellNews() const {
    if (news_) news_();
  }

  PageEngine* const engine_;
  Clock* const clock_;
  const PageRange pages_;
  const PageRange marks_;
  const NodeId self_;
  const uint8_t place_;
  const PlantedBugs& bugs_;
  const std::shared_ptr<PageWatches> watches_;
  uint64_t watch_ = 0;
  std::function<void()> news_;
  Incarnation life_;                      // That is marked; 0: none.
  bool knows_mark_ = false;               // What an earlier table of this node has left.
  std::array<LockList, kBuckets> own_;    // L4
  std::array<Epoch, kBuckets> put_in_{};  // In which view this node's were.
  std::set<uint64_t> behind_;             // Buckets in which they are not as they are here.
  std::vector<Waiter> waiters_;
  Epoch marked_of_;      // The view,
  uint64_t marked_ = 0;  // and the places that L5 is about, but for this node's.
};

}  // namespace mangrove::fs
