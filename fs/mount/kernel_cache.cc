#include "fs/mount/kernel_cache.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove::fs {
namespace {

// The kernel takes an answer in when its caller runs again: mostly some microseconds later.
constexpr DurationNs kAskAgain = 100 * kMicrosecond;
// Less is not worth a drop.
constexpr DurationNs kLeastTime = kMillisecond;
// Who lists a directory with attributes asks for the attributes at once. The kernel counts time in ticks of up to 10 ms.
constexpr DurationNs kListedTime = 5 * kMillisecond;
constexpr DurationNs kListedStays = 20 * kMillisecond;

}  // namespace

KernelCache::~KernelCache() {
  if (copies_ != nullptr) copies_->Remove(this);
  *alive_ = false;
}

void KernelCache::Begin(Clock* clock, PageCopies* copies) {
  CHECK(clock_ == nullptr);
  clock_ = clock;
  if (copies == nullptr) return;
  copies_ = copies;
  copies->Add(this);
}

void KernelCache::Stop() {
  if (copies_ == nullptr) return;
  std::exchange(copies_, nullptr)->Remove(this);
  DropNames();
  for (auto& [number, kept] : std::exchange(kept_, {})) {
    Drop(number, &kept);
    LetGo(&kept);
    for (auto& [doubts, then] : std::exchange(kept.waiting, {})) then();
  }
}

// --- What is told -----------------------------------------------------------------------------------------------------

bool KernelCache::IsOn() {
  if (copies_ == nullptr || is_shared_) return false;
  if (!std::exchange(has_tried_names_, true)) can_drop_names_ = kernel_->DropNames();
  return can_drop_names_;
}

DurationNs KernelCache::TimeToTell(uint64_t number, Mark mark) {
  if (!IsOn() || (mark != Now() && !bugs_->tell_of_before)) return 0;
  if (!copies_->Has(known_->Find(number).inode.value)) return 0;
  const DurationNs time = bugs_->tell_beyond_lease ? 10 * kSecond : copies_->UsableFor() / 2;  // K1
  return time < kLeastTime ? 0 : time;
}

DurationNs KernelCache::TellNames(uint64_t directory, Mark mark) {
  const DurationNs time = TimeToTell(directory, mark);
  if (time == 0) return 0;
  Kept& kept = kept_[directory];
  if (!kept.is_alone && directory != KnownFiles::kRoot) return 0;
  kept.names_told_in = names_dropped_;
  return time;
}

// Names of a listing are as old as the kernel's mark when it takes them in, not when it asked: a drop before that does not reach them.
DurationNs KernelCache::TellListedNames(uint64_t directory, Mark mark) {
  const DurationNs time = std::min(TellNames(directory, mark), kListedTime);
  if (time > 0) kept_[directory].listed_until = clock_->Now() + kListedStays;
  return time;
}

DurationNs KernelCache::TellAttributes(uint64_t number, bool is_alone, Mark mark) {
  if (!IsOn()) return 0;
  Kept& kept = kept_[number];
  kept.is_alone = is_alone;
  const DurationNs time = is_alone ? TimeToTell(number, mark) : 0;
  if (time == 0 || kept.writers > 0 || !AreBytesRight(number, &kept)) return 0;  // K2, K3
  kept.attributes = true;
  longest_ = std::max(longest_, time);
  return time;
}

void KernelCache::DropNames() {
  ++names_dropped_;
  if (has_tried_names_ && can_drop_names_) can_drop_names_ = kernel_->DropNames();
}

void KernelCache::TellAcl(uint64_t number) {
  if (IsOn()) kept_[number].attributes = true;
}

// --- Files that are open ----------------------------------------------------------------------------------------------

bool KernelCache::Open(uint64_t number, bool may_write) {
  Kept& kept = kept_[number];
  if (!may_write && kept.writers == 0 && std::exchange(kept.has_others, false)) {
    kept.has_bytes = true;
    Doubt(number, &kept);
  }
  const bool may_keep =
      IsOn() && kernel_->CanDropBytes() && !may_write && kept.writers == 0 && AreBytesRight(number, &kept);
  ++kept.handles;
  if (may_keep) ++kept.keepers;
  if (!may_write) return may_keep;
  ++kept.writers;
  if (std::exchange(kept.attributes, false)) kernel_->DropAttributes(number);
  return false;
}

void KernelCache::Close(uint64_t number, bool may_write, bool may_keep) {
  const auto it = kept_.find(number);
  if (it == kept_.end()) return;
  if (it->second.handles > 0) --it->second.handles;
  if (may_write && it->second.writers > 0) --it->second.writers;
  if (may_keep && it->second.keepers > 0) --it->second.keepers;
}

void KernelCache::Read(uint64_t number, bool may_keep) {
  Kept& kept = kept_[number];
  (may_keep ? kept.has_bytes : kept.has_others) = true;
}

void KernelCache::WhenBytesAreRight(uint64_t number, std::function<void()> then) {
  const auto it = kept_.find(number);
  if (it == kept_.end() || copies_ == nullptr) return then();
  Kept& kept = it->second;
  if (is_shared_) Doubt(number, &kept);
  if (AreBytesRight(number, &kept)) return then();
  kept.waiting.emplace_back(kept.doubts, std::move(then));
}

void KernelCache::Wrote(uint64_t number) {
  Kept& kept = kept_[number];
  kept.has_others = true;
  Doubt(number, &kept);
}

void KernelCache::Forget(uint64_t number) {
  const auto it = kept_.find(number);
  if (it == kept_.end()) return;
  Kept kept = std::move(it->second);
  kept_.erase(it);
  LetGo(&kept);
  for (auto& [doubts, then] : kept.waiting) then();
}

// --- What changes -----------------------------------------------------------------------------------------------------

void KernelCache::Doubt(uint64_t number, Kept* kept) {
  const bool has_some = kept->has_bytes || (kept->has_others && kept->keepers > 0);
  if (!has_some || copies_ == nullptr) return;
  kept->has_bytes = kept->has_others = false;
  ++kept->doubts;
  if (kept->handles > 0 && !kept->is_dropping) DropBytesBesideReads(number, kept);
}

// Or can be made so at once.
bool KernelCache::AreBytesRight(uint64_t number, Kept* kept) {
  if (kept->doubts == kept->dropped || bugs_->keep_old_bytes) return true;
  if (kept->handles > 0 || kept->is_dropping) return false;
  kernel_->DropBytes(number);
  kept->dropped = kept->doubts;
  return true;
}

void KernelCache::DropBytesBesideReads(uint64_t number, Kept* kept) {
  kept->is_dropping = true;
  kernel_->DropBytesBesideReads(number, [this, number, seen_to = kept->doubts, alive = alive_] {
    if (!*alive) return;
    const auto it = kept_.find(number);
    if (it == kept_.end()) return;
    Kept& dropped = it->second;
    dropped.is_dropping = false;
    dropped.dropped = seen_to;
    if (dropped.doubts != seen_to) DropBytesBesideReads(number, &dropped);
    std::vector<std::function<void()>> right;
    std::erase_if(dropped.waiting, [&](auto& one) {
      if (one.first > seen_to) return false;
      right.push_back(std::move(one.second));
      return true;
    });
    for (auto& then : right) then();
  });
}

bool KernelCache::Drop(uint64_t number, Kept* kept) {
  const bool is_over = clock_->Now() >= kept->listed_until;
  if (kept->names_told_in == names_dropped_ || (is_over && kept->listed_until != 0)) DropNames();
  if (is_over) kept->listed_until = 0;
  if (kept->attributes && kernel_->DropAttributes(number)) kept->attributes = false;
  return is_over && !kept->attributes;
}

// K4. Attributes that are looked for now, and will be told behind this, are of before.
void KernelCache::OnChanged(uint64_t page) {
  const auto numbers = known_->NumbersOf(InodeNumber{page});
  if (!numbers.empty()) ++changed_;
  for (const uint64_t number : numbers) {
    const auto it = kept_.find(number);
    if (it == kept_.end() || !it->second.attributes) continue;
    if (kernel_->DropAttributes(number)) {
      it->second.attributes = false;
    } else {
      AskUntilDropped(number, &it->second);
    }
  }
}

void KernelCache::OnLeaving(uint64_t page, std::function<void()> go) {
  ++left_;
  if (bugs_->leave_undropped) return go();
  std::vector<uint64_t> waits;
  for (const uint64_t number : known_->NumbersOf(InodeNumber{page})) {
    const auto it = kept_.find(number);
    if (it == kept_.end()) continue;
    Doubt(number, &it->second);
    if (!Drop(number, &it->second)) waits.push_back(number);
  }
  if (waits.empty()) return go();
  auto left = std::make_shared<size_t>(waits.size());
  for (const uint64_t number : waits) {
    Kept& kept = kept_.at(number);
    kept.leaving.push_back([left, go] {
      if (--*left == 0) go();
    });
    AskUntilDropped(number, &kept);
  }
}

// At the latest when the kernel has taken the answer in, or has not been there for it, and what was told is over.
void KernelCache::AskUntilDropped(uint64_t number, Kept* kept) {
  const bool asks = clock_->Now() < kept->asks_until;
  kept->asks_until = std::max(clock_->Now() + 2 * longest_, kept->listed_until);
  if (!asks) AskAgain(number);
}

void KernelCache::AskAgain(uint64_t number) {
  clock_->CallAt(clock_->Now() + kAskAgain, [this, number, alive = alive_] {
    if (!*alive) return;
    const auto it = kept_.find(number);
    if (it == kept_.end()) return;
    if (!Drop(number, &it->second) && clock_->Now() < it->second.asks_until) return AskAgain(number);
    it->second.attributes = false;
    it->second.asks_until = 0;
    LetGo(&it->second);
  });
}

void KernelCache::LetGo(Kept* kept) {
  for (auto& go : std::exchange(kept->leaving, {})) go();
}

void KernelCache::OnOther() {
  is_shared_ = true;
  ++left_;
  DropAll();
}

void KernelCache::DropAll() {
  for (auto& [number, kept] : kept_) {
    Doubt(number, &kept);
    if (!Drop(number, &kept)) AskUntilDropped(number, &kept);
  }
}

}  // namespace mangrove::fs
