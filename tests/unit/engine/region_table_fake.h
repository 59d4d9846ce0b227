// Pages of the region table in memory, with two core holders of what is allocated; any step can fail or be the last one
// before a crash.

#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/region_table_pages.h"
#include "net/check.h"
#include "net/runtime/task.h"

namespace mangrove {

// Time stands still; what is to run soon runs when the test says so.
class FakeTableClock final : public Clock {
 public:
  TimeNs Now() const override { return 0; }
  TimerId CallAt(TimeNs, absl::AnyInvocable<void()>) override { CHECK(false && "nobody sleeps here"); }
  void CallSoon(absl::AnyInvocable<void()> callback) override { queue_.push_back(std::move(callback)); }
  void Cancel(TimerId) override {}
  void RunAll() {
    while (!queue_.empty()) {
      auto next = std::move(queue_.front());
      queue_.pop_front();
      next();
    }
  }

 private:
  std::deque<absl::AnyInvocable<void()>> queue_;
};

class FakeTablePages final : public TablePages {
 public:
  using Bytes = std::array<std::byte, kPageBytes>;
  // How much of the step is done before it fails.
  enum class Effect { kNone, kHalf, kAll };
  struct Fault {
    int step = 0;  // Counted from ArmFault on, the first is 1.
    Effect effect = Effect::kNone;
    bool crash = false;  // Of every node: nothing has any effect from then on, until Reboot.
  };

  explicit FakeTablePages(FakeTableClock* clock) : clock_(clock) {}

  void ArmFault(const Fault& fault) {
    fault_ = fault;
    steps_ = 0;
  }
  bool fault_happened() const { return fault_.step > 0 && steps_ >= fault_.step; }
  void Disarm() { fault_ = {}; }
  void Reboot() {
    dead_ = false;
    ram = durable;
    locks_.clear();
    Disarm();
  }

  Task<absl::StatusOr<uint64_t>> Lock(PageRange range, LockMode mode, TimeNs deadline) override {
    if (const std::optional<Effect> fault = co_await Step()) co_return absl::UnavailableError("fault in Lock");
    for (const absl::uint128 page : lost) {
      if (range.Contains(PageId(page))) co_return absl::DataLossError("every copy is lost");
    }
    while (IsLocked(range, mode)) {
      if (deadline == 0) co_return absl::DeadlineExceededError("locked by someone else");
      Outcome<bool> unlocked(clock_);
      waiters_.push_back(unlocked);
      co_await unlocked.Get();
    }
    locks_[++last_lock_] = {range, mode};
    co_return last_lock_;
  }
  void Unlock(uint64_t lock_id) override {
    locks_.erase(lock_id);
    for (Outcome<bool>& waiter : std::exchange(waiters_, {})) waiter.Set(true);
  }
  void Load(PageId page, std::span<std::byte, kPageBytes> out) override {
    if (!dead_) CHECK(Holds(page, LockMode::kShared));
    const Bytes& bytes = ram[page.value];
    std::copy(bytes.begin(), bytes.end(), out.begin());
  }
  void Store(PageId page, std::span<const std::byte, kPageBytes> bytes) override {
    if (dead_) return;
    CHECK(Holds(page, LockMode::kExclusive));
    std::copy(bytes.begin(), bytes.end(), ram[page.value].begin());
  }
  Task<absl::Status> Flush(PageRange range, TimeNs) override {
    const std::optional<Effect> fault = co_await Step();
    if (!fault || *fault != Effect::kNone) {
      for (PageId page = range.first; page < range.end(); page = page + 1) {
        durable[page.value] = ram[page.value];
        was_durable.emplace(page.value, ram[page.value]);
      }
    }
    if (fault) co_return absl::UnavailableError("fault in Flush");
    co_return absl::OkStatus();
  }
  Task<absl::Status> PutExtent(PageRange range, ConfigNumber config, uint32_t, bool, TimeNs) override {
    ++puts;
    const std::optional<Effect> fault = co_await Step();
    if (fault && *fault == Effect::kNone) co_return absl::UnavailableError("fault in PutExtent");
    for (auto& holder : holders) {
      for (PageId page = range.first; page < range.end(); page = page + 1) {
        CHECK(holder[page.value] < config.value);  // A number is never used twice.
        holder[page.value] = config.value;
      }
      if (fault && *fault == Effect::kHalf) break;
    }
    if (fault) co_return absl::UnavailableError("fault in PutExtent");
    co_return absl::OkStatus();
  }
  Task<absl::Status> DropExtent(PageRange range, ConfigNumber config, uint32_t, TimeNs) override {
    ++drops;
    const std::optional<Effect> fault = co_await Step();
    if (fault && *fault == Effect::kNone) co_return absl::UnavailableError("fault in DropExtent");
    for (auto& holder : holders) {
      for (auto it = holder.lower_bound(range.first.value); it != holder.end() && it->first < range.end().value;) {
        it = it->second <= config.value ? holder.erase(it) : std::next(it);
      }
      if (fault && *fault == Effect::kHalf) break;
    }
    if (fault) co_return absl::UnavailableError("fault in DropExtent");
    co_return absl::OkStatus();
  }
  Task<absl::StatusOr<bool>> AreLost(PageRange range, TimeNs) override {
    for (PageId page = range.first; page < range.end(); page = page + 1) {
      if (lost.count(page.value) == 0) co_return false;
    }
    co_return true;
  }

  // T1: what a page says was flushed, or is zeros.
  bool SaysOnlyWhatWasFlushed() const {
    return std::all_of(ram.begin(), ram.end(),
                       [this](const auto& entry) { return entry.second == Bytes{} || was_durable.count(entry) > 0; });
  }
  size_t locks() const { return locks_.size(); }

  std::map<absl::uint128, Bytes> ram;
  std::map<absl::uint128, Bytes> durable;
  std::set<std::pair<absl::uint128, Bytes>> was_durable;
  std::set<absl::uint128> lost;
  std::array<std::map<absl::uint128, uint64_t>, 2> holders;  // Configuration numbers of allocated pages.
  int puts = 0;
  int drops = 0;

 private:
  // Every operation waits once, so that others run meanwhile. Nothing: it works.
  Task<std::optional<Effect>> Step() {
    Outcome<bool> turn(clock_);
    clock_->CallSoon([turn]() mutable { turn.Set(true); });
    co_await turn.Get();
    if (dead_) co_return std::optional(Effect::kNone);
    if (++steps_ != fault_.step) co_return std::optional<Effect>();
    dead_ = fault_.crash;
    co_return std::optional(fault_.effect);
  }
  bool IsLocked(PageRange range, LockMode mode) const {
    return std::any_of(locks_.begin(), locks_.end(), [&](const auto& lock) {
      const bool both_shared = mode == LockMode::kShared && lock.second.second == LockMode::kShared;
      return lock.second.first.Overlaps(range) && !both_shared;
    });
  }
  bool Holds(PageId page, LockMode mode) const {
    return std::any_of(locks_.begin(), locks_.end(), [&](const auto& lock) {
      return lock.second.first.Contains(page) && (mode == LockMode::kShared || lock.second.second == mode);
    });
  }

  FakeTableClock* const clock_;
  Fault fault_;
  int steps_ = 0;
  bool dead_ = false;
  std::map<uint64_t, std::pair<PageRange, LockMode>> locks_;
  std::vector<Outcome<bool>> waiters_;
  uint64_t last_lock_ = 0;
};

}  // namespace mangrove
