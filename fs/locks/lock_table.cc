#include "fs/locks/lock_table.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kMostLocks = LockTable::kPagesOfBucket * kLocksOfPage;
constexpr DurationNs kPatience = 5 * kSecond;
// Where this node, or another one, has not heard of a view yet.
constexpr DurationNs kLookAgain = 5 * kMillisecond;
// The last one.
constexpr uint64_t kWaitsBucket = LockTable::kBuckets - 1;

uint64_t PagesFor(size_t locks) { return std::max<uint64_t>(1, (locks + kLocksOfPage - 1) / kLocksOfPage); }

absl::Status NotNow(const absl::Status& why) {
  if (absl::IsDataLoss(why) || ErrnoOf(why) == EIO) return PosixError(EIO, why.message());
  return PosixError(ENOLCK, absl::StrCat("no lock can be had for now: ", why.message()));
}

}  // namespace

LockTable::LockTable(PageEngine* engine, Clock* clock, PageRange region, NodeId self, OpenTable* opens,
                     const PlantedBugs& bugs)
    : engine_(engine),
      clock_(clock),
      pages_{region.first + kPages.first, kPages.count},
      self_(self),
      place_(static_cast<uint8_t>(self.value % kNodePlaces)),
      opens_(opens),
      bugs_(bugs),
      watches_(engine->watches()) {
  const auto left = [this](PageId page) {
    const uint64_t number = absl::Uint128Low64(page.value - pages_.first.value);
    RingAt(number < kBuckets ? number : (number - kBuckets) / (kPagesOfBucket - 1));
  };
  watch_ = watches_->Add(pages_, left, [this] {
    for (const Waiter& waiter : waiters_) waiter.wait->Ring();
    TellNews();
  });
}

LockTable::~LockTable() { watches_->Remove(watch_); }

// --- Buckets ----------------------------------------------------------------------------------------------------------

uint64_t LockTable::BucketOf(InodeNumber inode) { return (inode.value * 0x9E3779B97F4A7C15 >> 32) % kWaitsBucket; }

PageId LockTable::PageOf(uint64_t bucket, uint64_t number) const {
  if (number == 0) return pages_.first + bucket;
  return pages_.first + (kBuckets + bucket * (kPagesOfBucket - 1) + number - 1);
}

bool LockTable::Has(PageId page, Rights rights) const {
  const Rights here = engine_->RightsOf(page);
  return here == Rights::kWrite || here == rights;
}

// OK: all of them may be used so in this step of the loop.
Task<absl::Status> LockTable::Hold(uint64_t bucket, uint64_t pages, Rights rights, TimeNs deadline) {
  for (uint64_t held = 0; held < pages;) {
    const PageId page = PageOf(bucket, held);
    if (Has(page, rights)) {
      ++held;
      continue;
    }
    if (clock_->Now() >= deadline)
      co_return absl::DeadlineExceededError("others took their pages away again and again");
    const absl::Status status = co_await engine_->Acquire({page, 1}, rights, deadline);
    if (!status.ok()) co_return status;
    held = 0;  // Others may have gone meanwhile.
  }
  co_return absl::OkStatus();
}

LockBucketHead LockTable::LoadHead(uint64_t bucket) const {
  std::array<std::byte, kLockPageHead> bytes;
  engine_->Load(PageOf(bucket, 0), 0, bytes);
  return ReadLockHead(bytes);
}

LockTable::Bucket LockTable::Load(uint64_t bucket, const LockBucketHead& head) const {
  Bucket loaded{.head = head, .locks = {}};
  std::array<std::byte, kPageSize> bytes;
  for (uint64_t number = 0; number * kLocksOfPage < head.count; ++number) {
    const size_t count = std::min<size_t>(kLocksOfPage, head.count - number * kLocksOfPage);
    const size_t used = kLockPageHead + count * kLockBytes;
    engine_->Load(PageOf(bucket, number), 0, std::span(bytes).first(used));
    ReadLocks(bytes, count, &loaded.locks);
  }
  loaded.locks.EraseIf([this](const FileLock& lock) { return lock.owner.place == place_; });
  for (const FileLock& lock : own_[bucket].locks()) loaded.locks.Add(lock);
  return loaded;
}

// The bucket as it is in this step of the loop, of this view, and may be used so; with what this node holds (L4). To be written it has room
// for what one more lock may take.
Task<absl::StatusOr<LockTable::Bucket>> LockTable::Enter(uint64_t bucket, Rights rights, TimeNs deadline) {
  constexpr size_t kMoreOfOneLock = 2;
  uint64_t pages = 1;
  while (true) {
    const absl::Status status = co_await Hold(bucket, pages, rights, deadline);
    if (!status.ok()) co_return status;
    const View& view = engine_->view();
    LockBucketHead head = LoadHead(bucket);
    if (view.members.contains(self_) && head.epoch <= view.epoch) {
      if (head.count > kMostLocks) {
        co_return PosixError(EIO, absl::StrCat("the page of locks ", ToString(PageOf(bucket, 0)), " is damaged"));
      }
      if (head.epoch < view.epoch) head = {.epoch = view.epoch};  // L3
      const size_t room = rights == Rights::kWrite ? own_[bucket].size() + kMoreOfOneLock : 0;
      const uint64_t needed = std::min(kPagesOfBucket, PagesFor(head.count + room));
      if (needed <= pages) co_return Load(bucket, head);
      pages = needed;
      continue;
    }
    if (clock_->Now() >= deadline) {
      co_return absl::UnavailableError("this node has not heard of the newest view, or is not in it");
    }
    co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
  }
}

// L4. REQUIRES: Enter to write, in the same step. False: there are too many.
bool LockTable::WriteBack(uint64_t number, Bucket* bucket) {
  bucket->locks.EraseIf([this](const FileLock& lock) { return lock.owner.place == place_; });
  const bool forgets = bugs_.forget_own_locks && bucket->head.places == 0;
  for (const FileLock& lock : own_[number].locks()) {
    if (!forgets) bucket->locks.Add(lock);
  }
  const std::vector<FileLock>& locks = bucket->locks.locks();
  if (locks.size() > kMostLocks) return false;
  bucket->head.places |= uint64_t{1} << place_;
  bucket->head.count = static_cast<uint32_t>(locks.size());
  std::array<std::byte, kPageSize> bytes{};
  for (uint64_t page = 0; page < PagesFor(locks.size()); ++page) {
    const auto rest = std::span(locks).subspan(page * kLocksOfPage);
    const auto some = rest.first(std::min(rest.size(), kLocksOfPage));
    if (page == 0) WriteLockHead(bucket->head, bytes);
    WriteLocks(some, bytes);
    engine_->Store(PageOf(number, page), 0, std::span(bytes).first(kLockPageHead + some.size() * kLockBytes));
  }
  put_in_[number] = bucket->head.epoch;
  behind_.erase(number);
  return true;
}

// --- Views ------------------------------------------------------------------------------------------------------------

Task<absl::Status> LockTable::FindUsers(TimeNs deadline) {
  while (users_of_ != engine_->view().epoch) {
    const View view = engine_->view();
    uint64_t users = 0;
    for (const auto& [node, incarnation] : view.members) {
      const uint64_t place = node.value % kNodePlaces;
      if (place == place_) continue;
      const absl::StatusOr<bool> uses = co_await opens_->IsInUse(place, incarnation, deadline);
      if (!uses.ok()) co_return uses.status();
      if (*uses) users |= uint64_t{1} << place;
    }
    if (view.epoch != engine_->view().epoch) continue;
    users_ = users;
    users_of_ = view.epoch;
  }
  co_return absl::OkStatus();
}

// L5
Task<absl::StatusOr<LockTable::Bucket>> LockTable::EnterWhenAllAreIn(uint64_t bucket, Rights rights) {
  const TimeNs deadline = clock_->Now() + kPatience;
  while (true) {
    const absl::Status status = co_await FindUsers(deadline);
    if (!status.ok()) co_return NotNow(status);
    absl::StatusOr<Bucket> entered = co_await Enter(bucket, rights, deadline);
    if (!entered.ok()) co_return NotNow(entered.status());
    if (users_of_ == engine_->view().epoch) {
      const uint64_t missing = users_ & ~entered->head.places;
      if (missing == 0 || bugs_.lock_unasked) co_return entered;
      if (clock_->Now() >= deadline) {
        co_return NotNow(absl::UnavailableError(
            absl::StrCat("the node of place ", std::countr_zero(missing), " has not said which ones it holds")));
      }
      co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
    }
  }
}

Task<absl::Status> LockTable::PutIn(uint64_t bucket, TimeNs deadline) {
  absl::StatusOr<Bucket> entered = co_await Enter(bucket, Rights::kWrite, deadline);
  if (!entered.ok()) co_return entered.status();
  // What others have put in meanwhile may leave less room than there was.
  if (!WriteBack(bucket, &*entered)) co_return absl::ResourceExhaustedError("there are too many locks");
  co_return absl::OkStatus();
}

Task<absl::Status> LockTable::Renew() {
  const TimeNs deadline = clock_->Now() + kSecond;
  const auto is_due = [this](uint64_t bucket) {
    return put_in_[bucket] != engine_->view().epoch || behind_.contains(bucket);
  };
  if (!opens_->HasBegun()) co_return absl::OkStatus();
  engine_->SetKeepInRam(pages_, true);
  uint64_t due = 0;
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) due += is_due(bucket) ? 1 : 0;
  if (due == kBuckets) {  // At once, as far as that goes.
    (co_await engine_->Acquire({pages_.first, kBuckets}, Rights::kWrite, deadline)).IgnoreError();
  }
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (!is_due(bucket)) continue;
    const absl::Status status = co_await PutIn(bucket, deadline);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// --- Locks are given back ---------------------------------------------------------------------------------------------

void LockTable::RingAt(uint64_t bucket) const {
  for (const Waiter& waiter : waiters_) {
    if (waiter.bucket == bucket) waiter.wait->Ring();
  }
}

// This node's have changed: others are to know, now or with the next Renew.
Task<bool> LockTable::TellOthers(uint64_t bucket) {
  RingAt(bucket);
  behind_.insert(bucket);
  const absl::Status status = co_await PutIn(bucket, clock_->Now() + kSecond);
  if (!status.ok()) TellNews();
  co_return status.ok();
}

Task<bool> LockTable::Clear(FileLock range) {
  range.owner.place = place_;
  const uint64_t bucket = BucketOf(range.inode);
  if (!own_[bucket].Clear(range)) co_return true;
  co_return co_await TellOthers(bucket);
}

Task<bool> LockTable::ClearAll(std::function<bool(const FileLock&)> is) {
  std::vector<uint64_t> changed;
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (own_[bucket].EraseIf(is)) changed.push_back(bucket);
  }
  bool all = true;
  for (const uint64_t bucket : changed) {
    const bool told = co_await TellOthers(bucket);
    all = all && told;
  }
  co_return all;
}

Task<bool> LockTable::ClearHandle(uint16_t mount, uint64_t handle) {
  return ClearAll([=](const FileLock& lock) { return lock.owner.mount == mount && lock.handle == handle; });
}

Task<bool> LockTable::ClearMount(uint16_t mount) {
  return ClearAll([=](const FileLock& lock) { return lock.owner.mount == mount; });
}

Task<bool> LockTable::Retire() {
  engine_->SetKeepInRam(pages_, false);
  return ClearAll([](const FileLock&) { return true; });
}

// --- Locks are set ----------------------------------------------------------------------------------------------------

Task<absl::StatusOr<std::optional<FileLock>>> LockTable::Find(FileLock lock) {
  lock.owner.place = place_;
  const absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(BucketOf(lock.inode), Rights::kRead);
  if (!bucket.ok()) co_return bucket.status();
  const FileLock* const other = bucket->locks.FindConflict(lock);
  if (other == nullptr) co_return std::optional<FileLock>();
  FileLock found = *other;
  if (found.owner.place != place_) found.pid = 0;  // It is nobody's here.
  co_return std::optional<FileLock>(found);
}

// `is_again`: it was not free before, so it is looked at before the page is taken from those who wait too.
Task<absl::Status> LockTable::TryToSet(FileLock lock, bool is_again) {
  const uint64_t number = BucketOf(lock.inode);
  const absl::Status in_the_way = PosixError(EAGAIN, "another owner's lock is in the way");
  if (is_again) {
    const absl::StatusOr<Bucket> looked_at = co_await EnterWhenAllAreIn(number, Rights::kRead);
    if (!looked_at.ok()) co_return looked_at.status();
    if (looked_at->locks.FindConflict(lock) != nullptr) co_return in_the_way;
  }
  absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(number, Rights::kWrite);
  if (!bucket.ok()) co_return bucket.status();
  if (bucket->locks.FindConflict(lock) != nullptr) {
    // As flock(2) has it: to become another one, a lock is given back first.
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
    co_return PosixError(ENOLCK, absl::StrCat("there are ", kMostLocks, " locks on this file and those beside it"));
  }
  RingAt(number);  // It may be less than what was there.
  co_return absl::OkStatus();
}

Task<absl::Status> LockTable::Set(FileLock lock, std::shared_ptr<LockWait> wait) {
  lock.owner.place = place_;
  absl::Status status = co_await TryToSet(lock, false);
  if (ErrnoOf(status) != EAGAIN || wait == nullptr) co_return status;
  const uint64_t number = BucketOf(lock.inode);
  waiters_.push_back({number, wait.get()});
  const bool is_named = lock.kind == LockKind::kRange;
  if (is_named) {
    own_[kWaitsBucket].Add(lock);
    co_await TellOthers(kWaitsBucket);
  }
  status = co_await WaitToSet(lock, wait);
  std::erase_if(waiters_, [&](const Waiter& waiter) { return waiter.wait == wait.get(); });
  bool is_first = true;  // Another of the same owner may wait for the same.
  const auto is_this = [&](const FileLock& other) { return other == lock && std::exchange(is_first, false); };
  if (is_named && own_[kWaitsBucket].EraseIf(is_this)) co_await TellOthers(kWaitsBucket);
  co_return status;
}

Task<absl::Status> LockTable::WaitToSet(FileLock lock, std::shared_ptr<LockWait> wait) {
  // What a bell is for is seen here at the latest.
  constexpr DurationNs kListen = kSecond;
  bool has_looked_for_ring = lock.kind == LockKind::kFile;
  while (!wait->is_cancelled()) {
    const absl::Status status = co_await TryToSet(lock, true);
    if (ErrnoOf(status) != EAGAIN) co_return status;
    if (!has_looked_for_ring) {
      has_looked_for_ring = true;
      const absl::StatusOr<bool> ring = co_await IsInARing(lock);
      if (!ring.ok()) co_return ring.status();
      if (*ring) co_return PosixError(EDEADLK, "its owner waits for what this one has");
      continue;  // What was free meanwhile may not be rung again.
    }
    co_await wait->Listen(clock_->Now() + kListen);
  }
  co_return PosixError(EINTR, "the wait for a lock was ended");
}

// Whether somebody who is in the way waits, maybe by others, for what the lock's owner has. All waits are named before they begin, so of those
// who wait in a ring one at least sees it; two may.
Task<absl::StatusOr<bool>> LockTable::IsInARing(FileLock lock) {
  const absl::StatusOr<Bucket> waits = co_await EnterWhenAllAreIn(kWaitsBucket, Rights::kRead);
  if (!waits.ok()) co_return waits.status();
  std::set<LockOwner> seen{lock.owner};
  std::vector<FileLock> wanted{lock};
  while (!wanted.empty()) {
    const FileLock one = wanted.back();
    wanted.pop_back();
    const absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(BucketOf(one.inode), Rights::kRead);
    if (!bucket.ok()) co_return bucket.status();
    for (const LockOwner& owner : bucket->locks.OwnersInTheWay(one)) {
      if (owner == lock.owner) co_return true;
      if (!seen.insert(owner).second) continue;
      for (const FileLock& wait : waits->locks.locks()) {
        if (wait.owner == owner) wanted.push_back(wait);
      }
    }
  }
  co_return false;
}

}  // namespace mangrove::fs
