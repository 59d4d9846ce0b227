// The buckets, and what is asked of them at once.

#include "fs/locks/lock_table.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/locks/lock_limits.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

uint64_t PagesFor(size_t locks) { return std::max<uint64_t>(1, (locks + kLocksOfPage - 1) / kLocksOfPage); }

}  // namespace

LockTable::LockTable(PageEngine* engine, Clock* clock, PageRange region, NodeId self, const PlantedBugs& bugs)
    : engine_(engine),
      clock_(clock),
      pages_{region.first + kPages.first, kPages.count},
      marks_{region.first + kMarks.first, kMarks.count},
      self_(self),
      place_(static_cast<uint8_t>(self.value % kNodePlaces)),
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
    if (clock_->Now() >= deadline) co_return absl::DeadlineExceededError("others took its pages away again and again");
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
      if (head.epoch < view.epoch) head = {.epoch = view.epoch};  // L3
      if (head.count > kMostLocks) {
        co_return PosixError(EIO, absl::StrCat("the page of locks ", ToString(PageOf(bucket, 0)), " is damaged"));
      }
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

// L4. REQUIRES: Enter to write, in the same step. False: there are too many. Of waits those that fit are there.
bool LockTable::WriteBack(uint64_t number, Bucket* bucket) {
  bucket->locks.EraseIf([this](const FileLock& lock) { return lock.owner.place == place_; });
  const bool forgets = bugs_.forget_own_locks && bucket->head.places == 0;
  for (const FileLock& lock : own_[number].locks()) {
    const bool fits = number != kWaitsBucket || bucket->locks.size() < kMostLocks;
    if (fits && !forgets) bucket->locks.Add(lock);
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

// L5. What is in the way for a moment is waited for. Unavailable: it was for longer, or `wait` is cancelled; who has one comes again.
Task<absl::StatusOr<LockTable::Bucket>> LockTable::EnterWhenAllAreIn(uint64_t bucket, Rights rights,
                                                                     const LockWait* wait) {
  const TimeNs deadline = clock_->Now() + (wait == nullptr ? kLockPatience : kSecond);
  while (true) {
    if (wait != nullptr && wait->is_cancelled()) co_return absl::UnavailableError("nobody waits any more");
    absl::StatusOr<Bucket> entered = co_await TryToEnter(bucket, rights, deadline);
    if (entered.ok() || ErrnoOf(entered.status()) == EIO) co_return entered;
    if (clock_->Now() >= deadline) co_return absl::UnavailableError(entered.status().message());
    co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
  }
}

Task<absl::StatusOr<LockTable::Bucket>> LockTable::TryToEnter(uint64_t bucket, Rights rights, TimeNs deadline) {
  const absl::Status status = co_await FindMarked(deadline);
  if (!status.ok()) co_return status;
  absl::StatusOr<Bucket> entered = co_await Enter(bucket, rights, deadline);
  if (!entered.ok()) co_return entered;
  if (marked_of_ != engine_->view().epoch) co_return absl::UnavailableError("there is another view");
  const uint64_t missing = marked_ & ~entered->head.places;
  if (missing == 0 || bugs_.lock_unasked) co_return entered;
  marked_of_ = {};  // It may have retired.
  co_return absl::UnavailableError(
      absl::StrCat("the node of place ", std::countr_zero(missing), " has not said which locks it has"));
}

void LockTable::RingAt(uint64_t bucket) const {
  for (const Waiter& waiter : waiters_) {
    if (waiter.bucket == bucket) waiter.wait->Ring();
  }
}

Task<absl::StatusOr<std::optional<FileLock>>> LockTable::Find(FileLock lock) {
  lock.owner.place = place_;
  const absl::StatusOr<Bucket> bucket = co_await EnterWhenAllAreIn(BucketOf(lock.inode), Rights::kRead, nullptr);
  if (!bucket.ok()) co_return NoLockNow(bucket.status());
  const FileLock* const other = bucket->locks.FindConflict(lock);
  if (other == nullptr) co_return std::optional<FileLock>();
  FileLock found = *other;
  if (found.owner.place != place_) found.pid = 0;  // It is nobody's here.
  co_return std::optional<FileLock>(found);
}

// --- Locks are given back ---------------------------------------------------------------------------------------------

// What is cut in two is one more.
Task<absl::Status> LockTable::CutInTwo(FileLock range) {
  const uint64_t bucket = BucketOf(range.inode);
  absl::StatusOr<Bucket> entered = co_await Enter(bucket, Rights::kWrite, clock_->Now() + kLockPatience);
  if (!entered.ok()) co_return NoLockNow(entered.status());
  const LockList before = own_[bucket];
  own_[bucket].Clear(range);
  if (!WriteBack(bucket, &*entered)) {
    own_[bucket] = before;
    co_return TooManyLocks();
  }
  RingAt(bucket);
  co_return absl::OkStatus();
}

Task<absl::Status> LockTable::Clear(FileLock range) {
  range.owner.place = place_;
  const uint64_t bucket = BucketOf(range.inode);
  LockList after = own_[bucket];
  if (!after.Clear(range)) co_return absl::OkStatus();
  if (after.size() > own_[bucket].size()) co_return co_await CutInTwo(range);
  own_[bucket] = std::move(after);
  co_await TellOthers(std::vector<uint64_t>(1, bucket));
  co_return absl::OkStatus();
}

Task<bool> LockTable::ClearAll(std::function<bool(const FileLock&)> is) {
  std::vector<uint64_t> changed;
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (own_[bucket].EraseIf(is)) changed.push_back(bucket);
  }
  if (changed.empty()) co_return true;
  co_return co_await TellOthers(std::move(changed));
}

Task<bool> LockTable::ClearHandle(uint16_t mount, uint64_t handle) {
  return ClearAll([=](const FileLock& lock) { return lock.owner.mount == mount && lock.handle == handle; });
}

Task<bool> LockTable::ClearMount(uint16_t mount) {
  return ClearAll([=](const FileLock& lock) { return lock.owner.mount == mount; });
}

}  // namespace mangrove::fs
