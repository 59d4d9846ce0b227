// Which nodes have locks, and how these come into buckets that a new view has made anew.

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "engine/page_engine.h"
#include "fs/locks/lock_limits.h"
#include "net/little_endian.h"

namespace mangrove::fs {
namespace {

constexpr DurationNs kToMark = 5 * kSecond;
constexpr size_t kMarkBytes = sizeof(uint64_t);

}  // namespace

Incarnation LockTable::OwnLife() const {
  const auto& members = engine_->view().members;
  const auto it = members.find(self_);
  return it == members.end() ? Incarnation{} : it->second;
}

Task<absl::Status> LockTable::Mark(Incarnation life) {
  const PageRange page{marks_.first + place_, 1};
  const TimeNs deadline = clock_->Now() + kToMark;
  absl::Status status;
  do {  // Again, if the page was lost with a node that had taken it meanwhile.
    while (engine_->RightsOf(page.first) != Rights::kWrite) {
      status = co_await engine_->Acquire(page, Rights::kWrite, deadline);
      if (!status.ok()) co_return status;
    }
    std::array<std::byte, kMarkBytes> bytes;
    StoreLittle(bytes.data(), life.value);
    engine_->Store(page.first, 0, bytes);
    status = co_await engine_->Flush(page, deadline);
  } while (absl::IsDataLoss(status) && clock_->Now() < deadline);
  if (status.ok()) life_ = life;
  co_return status;
}

// An earlier table of this life may not have been able to take its mark back: then others wait for what this one has.
Task<absl::Status> LockTable::LookAtOwnMark(TimeNs deadline) {
  const Incarnation life = OwnLife();
  if (life == Incarnation{}) co_return absl::OkStatus();  // Not in the view yet: the next time.
  const absl::StatusOr<bool> is_marked = co_await IsMarked(place_, life, deadline);
  if (!is_marked.ok()) co_return is_marked.status();
  knows_mark_ = true;
  if (*is_marked && life_ == Incarnation{}) life_ = life;
  co_return absl::OkStatus();
}

// Before the first lock of a life. What of it cannot be put in now is with the next Renew.
Task<absl::Status> LockTable::Begin() {
  const Incarnation life = OwnLife();
  if (life == Incarnation{}) co_return absl::UnavailableError("this node is not in the view");
  if (life_ == life) co_return absl::OkStatus();
  engine_->SetKeepInRam(pages_, true);
  const absl::Status status = co_await Mark(life);
  if (!status.ok()) co_return status;
  if (!(co_await PutAllIn(clock_->Now() + kSecond)).ok()) TellNews();
  co_return absl::OkStatus();
}

Task<absl::StatusOr<bool>> LockTable::IsMarked(uint64_t place, Incarnation life, TimeNs deadline) {
  const PageId page = marks_.first + place;
  while (engine_->RightsOf(page) == Rights::kNone) {
    const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kRead, deadline);
    if (!status.ok()) co_return status;
  }
  std::array<std::byte, kMarkBytes> bytes;
  engine_->Load(page, 0, bytes);
  co_return LoadLittle<uint64_t>(bytes.data()) == life.value;
}

Task<absl::Status> LockTable::FindMarked(TimeNs deadline) {
  while (marked_of_ != engine_->view().epoch) {
    const View view = engine_->view();
    uint64_t marked = 0;
    for (const auto& [node, life] : view.members) {
      const uint64_t place = node.value % kNodePlaces;
      if (place == place_) continue;
      const absl::StatusOr<bool> is_marked = co_await IsMarked(place, life, deadline);
      if (!is_marked.ok()) co_return is_marked.status();
      if (*is_marked) marked |= uint64_t{1} << place;
    }
    if (view.epoch != engine_->view().epoch) continue;
    marked_ = marked;
    marked_of_ = view.epoch;
  }
  co_return absl::OkStatus();
}

bool LockTable::IsDue(uint64_t bucket) const {
  return put_in_[bucket] != engine_->view().epoch || behind_.contains(bucket);
}

Task<absl::Status> LockTable::PutIn(uint64_t bucket, TimeNs deadline) {
  absl::StatusOr<Bucket> entered = co_await Enter(bucket, Rights::kWrite, deadline);
  if (!entered.ok()) co_return entered.status();
  if (!WriteBack(bucket, &*entered)) co_return TooManyLocks();
  co_return absl::OkStatus();
}

// A bucket that is in the way keeps nobody from the others. The first one's error; EIO only if there is no other.
Task<absl::Status> LockTable::PutAllIn(TimeNs deadline) {
  uint64_t due = 0;
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) due += IsDue(bucket) ? 1 : 0;
  if (due > kBuckets / 2) {  // At once, as far as that goes.
    (co_await engine_->Acquire({pages_.first, kBuckets}, Rights::kWrite, deadline)).IgnoreError();
  }
  absl::Status first;
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (!IsDue(bucket)) continue;
    const absl::Status status = co_await PutIn(bucket, deadline);
    if (first.ok() || (ErrnoOf(first) == EIO && !status.ok())) first = status;
  }
  co_return first;
}

Task<absl::Status> LockTable::Renew() {
  const TimeNs deadline = clock_->Now() + kSecond;
  if (!knows_mark_) {
    const absl::Status status = co_await LookAtOwnMark(deadline);
    if (!status.ok()) co_return status;
  }
  if (life_ == Incarnation{}) co_return absl::OkStatus();
  co_return co_await PutAllIn(deadline);
}

// This node's have changed: others are to know, now or with the next Renew.
Task<bool> LockTable::TellOthers(std::vector<uint64_t> buckets) {
  const TimeNs deadline = clock_->Now() + kSecond;
  for (const uint64_t bucket : buckets) {
    RingAt(bucket);
    behind_.insert(bucket);
  }
  bool all = true;
  for (const uint64_t bucket : buckets) {
    const absl::Status status = co_await PutIn(bucket, deadline);
    all = all && status.ok();
  }
  if (!all) TellNews();
  co_return all;
}

Task<absl::Status> LockTable::Retire() {
  for (uint64_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (own_[bucket].EraseIf([](const FileLock&) { return true; })) behind_.insert(bucket);
  }
  if (life_ == Incarnation{}) co_return absl::OkStatus();
  const absl::Status status = co_await PutAllIn(clock_->Now() + kSecond);
  // What is lost, or damaged, nobody can find there.
  if (!status.ok() && ErrnoOf(status) != EIO) co_return status;
  engine_->SetKeepInRam(pages_, false);
  co_return co_await Mark({});
}

}  // namespace mangrove::fs
