// Locks are set, now or when they are free.

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "engine/page_engine.h"
#include "fs/locks/lock_limits.h"

namespace mangrove::fs {
namespace {

bool IsForNow(const absl::Status& status) { return ErrnoOf(status) == EAGAIN || ErrnoOf(status) == ETIMEDOUT; }
bool IsInTheWay(const absl::Status& status) { return ErrnoOf(status) == EBUSY; }

}  // namespace

// EBUSY: another owner's is in the way. `is_again`: it was not free before, so it is looked at before the page is taken from those who wait too.
Task<absl::Status> LockTable::TryToSet(FileLock lock, bool is_again, const LockWait* wait) {
  const uint64_t number = BucketOf(lock.inode);
  const absl::Status in_the_way = PosixError(EBUSY, "another owner's lock is in the way");
  // As flock(2) has it: to become another one, a lock is given back first.
  const bool gives_back = lock.kind == LockKind::kFile && LockList(own_[number]).Clear(lock);
  if (is_again && !gives_back) {
    const absl::StatusOr<Bucket> looked_at = co_await EnterWhenAllAreIn(number, Rights::kRead, wait);
    if (!looked_at.ok()) co_return looked_at.status();
    if (looked_at->locks.FindConflict(lock) != nullptr) co_return in_the_way;
  }
  const absl::Status begun = co_await Begin();
  if (!begun.ok()) co_return begun;
  absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(number, Rights::kWrite, wait);
  if (!bucket.ok()) co_return bucket.status();
  if (bucket->locks.FindConflict(lock) != nullptr) {
    if (lock.kind == LockKind::kFile && own_[number].Clear(lock)) {
      WriteBack(number, &*bucket);
      RingAt(number);
    }
    co_return in_the_way;
  }
  const LockList before = own_[number];
  own_[number].Set(lock);
  if (!WriteBack(number, &*bucket)) {
    own_[number] = before;
    co_return TooManyLocks();
  }
  RingAt(number);  // It may be less than what was there.
  co_return absl::OkStatus();
}

Task<absl::Status> LockTable::Set(FileLock lock, std::shared_ptr<LockWait> wait) {
  lock.owner.place = place_;
  const absl::Status status = co_await SetOrWait(lock, std::move(wait));
  if (IsInTheWay(status)) co_return PosixError(EAGAIN, status.message());
  if (status.ok() || ErrnoOf(status) == EINTR || ErrnoOf(status) == EDEADLK) co_return status;
  co_return ErrnoOf(status) == ENOLCK ? status : NoLockNow(status);
}

Task<absl::Status> LockTable::SetOrWait(FileLock lock, std::shared_ptr<LockWait> wait) {
  absl::Status status = co_await TryToSet(lock, false, wait.get());
  if (wait == nullptr || !(IsInTheWay(status) || IsForNow(status))) co_return status;
  if (wait->is_cancelled()) co_return PosixError(EINTR, "the wait for a lock was ended");
  waiters_.push_back({BucketOf(lock.inode), wait.get()});
  const bool is_named = lock.kind == LockKind::kRange;
  if (is_named) {
    own_[kWaitsBucket].Add(lock);
    co_await TellOthers(std::vector<uint64_t>(1, kWaitsBucket));
  }
  status = co_await WaitToSet(lock, wait);
  std::erase_if(waiters_, [&](const Waiter& waiter) { return waiter.wait == wait.get(); });
  bool is_first = true;  // Another of the same owner may wait for the same.
  const auto is_this = [&](const FileLock& other) { return other == lock && std::exchange(is_first, false); };
  if (is_named && own_[kWaitsBucket].EraseIf(is_this)) co_await TellOthers(std::vector<uint64_t>(1, kWaitsBucket));
  co_return status;
}

// Until it has it, or is cancelled: what is in the way for now is a reason to go on waiting.
Task<absl::Status> LockTable::WaitToSet(FileLock lock, std::shared_ptr<LockWait> wait) {
  // What a bell is for is seen here at the latest; and a ring that the others' waits have closed, where one of them could not be named.
  constexpr DurationNs kListen = kSecond;
  constexpr int kListensToLook = 4;
  for (int listens = 0; !wait->is_cancelled(); ++listens) {
    const absl::Status status = co_await TryToSet(lock, true, wait.get());
    if (!IsInTheWay(status) && !IsForNow(status)) co_return status;
    const bool looks = lock.kind == LockKind::kRange && IsInTheWay(status) && listens % kListensToLook == 0;
    if (looks) {
      // Twice, since one of them may have ended his wait.
      absl::StatusOr<bool> ring = co_await IsInARing(lock, wait.get());
      if (ring.ok() && *ring) ring = co_await IsInARing(lock, wait.get());
      if (ring.ok() && *ring) co_return PosixError(EDEADLK, "its owner waits for what this one has");
    }
    // What became free during the look has rung.
    co_await wait->Listen(clock_->Now() + kListen);
  }
  co_return PosixError(EINTR, "the wait for a lock was ended");
}

// Whether somebody who is in the way waits, maybe by others, for what the lock's owner has. All waits are named before they begin, so of those
// who wait in a ring one at least sees it; two may.
Task<absl::StatusOr<bool>> LockTable::IsInARing(FileLock lock, const LockWait* wait) {
  const absl::StatusOr<Bucket> waits = co_await EnterWhenAllAreIn(kWaitsBucket, Rights::kRead, wait);
  if (!waits.ok()) co_return waits.status();
  std::set<LockOwner> seen{lock.owner};
  std::vector<FileLock> wanted{lock};
  while (!wanted.empty()) {
    const FileLock one = wanted.back();
    wanted.pop_back();
    const absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(BucketOf(one.inode), Rights::kRead, wait);
    if (!bucket.ok()) co_return bucket.status();
    for (const LockOwner& owner : bucket->locks.OwnersInTheWay(one)) {
      if (owner == lock.owner) co_return true;
      if (!seen.insert(owner).second) continue;
      for (const FileLock& other : waits->locks.locks()) {
        if (other.owner == owner) wanted.push_back(other);
      }
    }
  }
  co_return false;
}

}  // namespace mangrove::fs
