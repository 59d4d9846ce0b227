#include "fs/mount/kernel_cache.h"

#include <algorithm>
#include <utility>

#include "net/check.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

// The kernel takes an answer in when its caller runs again: mostly some microseconds later.
constexpr DurationNs kAskAgain = 100 * kMicrosecond;
// Less is not worth a drop.
constexpr DurationNs kLeastTime = kMillisecond;
// As the kernel is told, and for its taking an answer in, with its ticks.
constexpr DurationNs kNamesTime = 200 * kMillisecond;
constexpr DurationNs kLeastNamesTime = 20 * kMillisecond;
constexpr DurationNs kTakenIn = 400 * kMillisecond;
static_assert(kNamesTime + kTakenIn <= KernelCache::kNamesLast);
constexpr DurationNs kLongestUntold = 10 * 60 * kSecond;
// A directory that was left alone for so many times as long is like others again.
constexpr int64_t kForgiven = 10;
// After a change the caller goes on by then.
constexpr DurationNs kSettles = 20 * kMillisecond;
// Reads that keep bytes from being dropped end by then, as operations do.
constexpr DurationNs kLongestWait = 10 * kSecond;

}  // namespace

KernelCache::~KernelCache() {
  if (copies_ != nullptr) copies_->Remove(this);
  *alive_ = false;
}

void KernelCache::Begin(Clock* clock, PageCopies* copies, bool keeps_bytes) {
  CHECK(clock_ == nullptr);
  clock_ = clock;
  if (copies == nullptr) return;
  copies_ = copies;
  keeps_bytes_ = keeps_bytes;
  copies->Add(this);
}

void KernelCache::Stop() {
  if (copies_ == nullptr) return;
  *alive_ = false;
  std::exchange(copies_, nullptr)->Remove(this);
  for (auto& [number, kept] : std::exchange(kept_, {})) {
    Drop(number, &kept);
    LetGo(&kept);
    for (const auto& then : kept.waiting) {
      if (*then) std::exchange(*then, nullptr)();
    }
  }
  for (auto& [end, go] : std::exchange(names_end_, {})) go();
}

// --- What is told -----------------------------------------------------------------------------------------------------

DurationNs KernelCache::TellAttributes(uint64_t number, bool is_alone, Mark mark) {
  if (!IsOn()) return 0;
  if (!is_alone) kept_[number].is_of_streams = true;
  if (!is_alone || (mark != Now() && !bugs_->tell_of_before)) return 0;
  if (!copies_->Has(known_->Find(number).inode.value)) return 0;
  const DurationNs time = bugs_->tell_beyond_lease ? 10 * kSecond : copies_->UsableFor() / 2;  // K1
  if (time < kLeastTime) return 0;
  Kept& kept = kept_[number];
  if (kept.writers > 0 || !Settle(number, &kept)) return 0;  // K2, K3
  if (!keeps_bytes_ && kept.keepers > 0) return 0;
  if (kept.changed_at != 0 && clock_->Now() - kept.changed_at < kSettles) return 0;  // K4
  kept.attributes = true;
  longest_ = std::max(longest_, time);
  return time;
}

// K6. What is told is over before others go on without this node, too, wherever it has got to.
DurationNs KernelCache::TellNames(uint64_t directory, Mark mark) {
  if (!IsOn() || moves_ > 0 || mark != Now() || !copies_->Has(known_->Find(directory).inode.value)) return 0;
  const DurationNs time = std::min(kNamesTime, copies_->UsableFor() - kTakenIn);
  if (time < kLeastNamesTime) return 0;
  Kept& kept = kept_[directory];
  if (kept.is_of_streams || (kept.left_at != 0 && clock_->Now() - kept.left_at < kept.untold)) return 0;
  kept.names_until = std::max(kept.names_until, clock_->ExactNow() + time + kTakenIn);
  return time;
}

void KernelCache::BeginMove(uint64_t from, uint64_t to) {
  ++moves_;
  const TimeNs in_from = kept_[from].names_until;
  const TimeNs in_to = kept_[to].names_until;
  kept_[from].names_until = kept_[to].names_until = std::max(in_from, in_to);
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
  const bool are_right = Settle(number, &kept);
  const bool may_keep = IsOn() && keeps_bytes_ && !may_write && kept.writers == 0 && are_right;
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
  if (is_off_) Doubt(number, &kept);
  if (Settle(number, &kept)) return then();
  auto waits = std::make_shared<std::function<void()>>(std::move(then));
  kept.waiting.push_back(waits);
  clock_->CallAt(clock_->Now() + kLongestWait, [waits] {
    if (*waits) std::exchange(*waits, nullptr)();
  });
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
  for (const auto& then : kept.waiting) {
    if (*then) std::exchange(*then, nullptr)();
  }
}

// --- Bytes ------------------------------------------------------------------------------------------------------------

// They are from before something that has changed.
void KernelCache::Doubt(uint64_t number, Kept* kept) {
  const bool has_some = kept->has_bytes || (kept->has_others && kept->keepers > 0);
  if (!has_some || copies_ == nullptr) return;
  kept->has_bytes = kept->has_others = false;
  kept->bytes =
      kept->bytes == Bytes::kDropping || kept->bytes == Bytes::kWrongAgain ? Bytes::kWrongAgain : Bytes::kWrong;
  if (kept->handles > 0) Settle(number, kept);
}

bool KernelCache::Settle(uint64_t number, Kept* kept) {
  if (bugs_->keep_old_bytes) return true;
  if (kept->bytes == Bytes::kWrong && kept->handles == 0) {
    kernel_->DropBytes(number);
    kept->bytes = Bytes::kRight;
  } else if (kept->bytes == Bytes::kWrong) {
    kept->bytes = Bytes::kDropping;
    kernel_->DropBytesBesideReads(number, [this, number, alive = alive_](bool dropped) {
      if (*alive) OnDropped(number, dropped);
    });
  }
  return kept->bytes == Bytes::kRight;
}

void KernelCache::OnDropped(uint64_t number, bool dropped) {
  if (!dropped && std::exchange(keeps_bytes_, false)) {
    LogWarning("bytes that the kernel keeps of a file cannot be dropped; it keeps none from now on");
  }
  const auto it = kept_.find(number);
  if (it == kept_.end()) return;
  Kept& kept = it->second;
  kept.bytes = kept.bytes == Bytes::kWrongAgain ? Bytes::kWrong : Bytes::kRight;
  if (!Settle(number, &kept)) return;
  for (const auto& then : std::exchange(kept.waiting, {})) {
    if (*then) std::exchange(*then, nullptr)();
  }
}

// --- What changes -----------------------------------------------------------------------------------------------------

bool KernelCache::Drop(uint64_t number, Kept* kept) {
  if (kept->attributes && kernel_->DropAttributes(number)) kept->attributes = false;
  return !kept->attributes;
}

// K4. Attributes that are looked for now, and will be told behind this, are of before.
void KernelCache::OnChanged(uint64_t page) {
  const auto numbers = known_->NumbersOf(InodeNumber{page});
  if (!numbers.empty()) ++changed_;
  for (const uint64_t number : numbers) {
    const auto it = kept_.find(number);
    if (it == kept_.end()) continue;
    it->second.changed_at = clock_->Now();
    if (!Drop(number, &it->second)) AskUntilDropped(number, &it->second);
  }
}

void KernelCache::OnLeaving(uint64_t page, std::function<void()> go) {
  ++left_;
  if (bugs_->leave_undropped) return go();
  const TimeNs now = clock_->Now();
  std::vector<uint64_t> waits;
  TimeNs names_until = 0;
  for (const uint64_t number : known_->NumbersOf(InodeNumber{page})) {
    const auto it = kept_.find(number);
    if (it == kept_.end()) continue;
    Kept& kept = it->second;
    if (now < kept.names_until) {
      names_until = std::max(names_until, kept.names_until);
      const bool is_forgiven = now - kept.left_at > kForgiven * kept.untold;
      kept.untold = is_forgiven ? contended_ : std::min(2 * kept.untold, kLongestUntold);
    }
    kept.left_at = now;
    Doubt(number, &kept);
    if (!Drop(number, &kept)) waits.push_back(number);
  }
  if (names_until > 0) {
    go = [this, names_until, go = std::move(go), alive = alive_] { *alive ? GoWithoutNames(names_until, go) : go(); };
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

// When the kernel has no names any more that it was told by the page.
void KernelCache::GoWithoutNames(TimeNs then, std::function<void()> go) {
  if (clock_->Now() >= then) return go();
  const uint64_t end = ++last_end_;
  names_end_.emplace(end, std::move(go));
  clock_->CallAt(then, [this, end, alive = alive_] {
    if (!*alive) return;
    const auto it = names_end_.find(end);
    if (it == names_end_.end()) return;
    const std::function<void()> goes = std::move(it->second);
    names_end_.erase(it);
    goes();
  });
}

// At the latest when the kernel has taken the answer in, or has not been there for it, and what was told is over.
void KernelCache::AskUntilDropped(uint64_t number, Kept* kept) {
  const bool asks = clock_->Now() < kept->asks_until;
  kept->asks_until = clock_->Now() + 2 * longest_;
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

void KernelCache::KeepNothing() {
  is_off_ = true;
  ++left_;
  for (auto& [number, kept] : kept_) {
    Doubt(number, &kept);
    if (!Drop(number, &kept)) AskUntilDropped(number, &kept);
  }
}

}  // namespace mangrove::fs
