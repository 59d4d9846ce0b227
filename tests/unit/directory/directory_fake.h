// The pages of a directory in memory, shared by all nodes of a test, and virtual time.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/claims.h"
#include "directory/directory_page.h"
#include "directory/page_access.h"
#include "net/check.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"
#include "tests/sim/sim_random.h"

namespace mangrove::directory_test {

class FakeClock final : public Clock {
 public:
  TimeNs Now() const override { return now_; }
  TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) override {
    events_.emplace(std::pair(std::max(deadline, now_), ++sequence_), std::move(callback));
    return sequence_;
  }
  void CallSoon(absl::AnyInvocable<void()> callback) override { CallAt(now_, std::move(callback)); }
  void Cancel(TimerId) override { CHECK(false && "nobody cancels here"); }

  bool Step() {
    if (events_.empty()) return false;
    auto event = events_.extract(events_.begin());
    now_ = event.key().first;
    event.mapped()();
    return true;
  }

 private:
  TimeNs now_ = kSecond;
  TimerId sequence_ = 0;
  std::map<std::pair<TimeNs, TimerId>, absl::AnyInvocable<void()>> events_;
};

struct FakePage {
  PageBuffer content;  // Null: lost.
  NodeId last_writer;
  uint64_t lock = 0;  // 0: not locked.
  std::set<const void*> cached_by;
};

// What all nodes share.
struct FakeSpace {
  FakeSpace(FakeClock* the_clock, uint64_t seed) : clock(the_clock), random(seed) {}

  FakeClock* const clock;
  sim::SimRandom random;
  DurationNs longest_delay = 0;     // Of each message; 0: everything happens at once.
  uint64_t failures_per_mille = 0;  // Of calls.
  std::map<absl::uint128, FakePage> pages;
  std::map<uint64_t, absl::uint128> locked;  // By the lock's number.
  uint64_t next_lock = 0;
  absl::uint128 next_page = absl::uint128(1) << 40;
  std::vector<PageRef> retired;  // Their numbers may come back.
  uint64_t stores = 0;
  absl::AnyInvocable<void()> on_lost_root;  // The root is asked for and lost.

  static constexpr PageRef kRoot{kRamDirectoryRootPage, NodeId(1)};

  void Release(uint64_t lock) {
    const auto at = locked.find(lock);
    if (at == locked.end()) return;
    pages.at(at->second).lock = 0;
    locked.erase(at);
  }
  DurationNs Delay() {
    if (longest_delay == 0) return 0;
    return random.Spread(1, random.PerMille(20) ? 20 * longest_delay : longest_delay);
  }
  PageId NewPageOf(NodeId node);
  bool Fails() { return failures_per_mille > 0 && random.PerMille(failures_per_mille); }
};

// One life of a node. Must outlive its tasks.
class FakeAccess final : public PageAccess {
 public:
  FakeAccess(FakeSpace* space, NodeId node) : space_(space), node_(node) {}

  // Its locks are free, and whatever it does comes to nothing.
  void Die() {
    dead_ = true;
    for (const uint64_t lock : std::exchange(locks_, {})) space_->Release(lock);
    for (auto& [id, page] : space_->pages) page.cached_by.erase(this);
  }

  PageBuffer Peek(PageRef ref) override {
    const auto at = space_->pages.find(ref.page.value);
    if (dead_ || at == space_->pages.end() || at->second.lock != 0) return nullptr;
    if (space_->longest_delay > 0 && !at->second.cached_by.contains(this)) return nullptr;
    return at->second.content;
  }
  Task<absl::StatusOr<PageBuffer>> Read(PageRef ref, TimeNs deadline) override;
  Task<absl::StatusOr<uint64_t>> Lock(PageRef ref, TimeNs deadline) override;
  PageBuffer LoadLocked(uint64_t lock) override;
  void StoreLocked(uint64_t lock, const PageBytes& content) override;
  void Unlock(uint64_t lock) override {
    if (locks_.erase(lock) > 0) space_->Release(lock);
  }
  Task<absl::StatusOr<PageRef>> Create(const PageBytes& content, TimeNs deadline) override;
  void Retire(PageRef ref) override;
  size_t most_locks() const { return most_locks_; }

 private:
  // The page, when it is there and nobody has locked it.
  Task<absl::StatusOr<FakePage*>> Reach(PageRef ref, TimeNs deadline);
  absl::Status IsDead() const { return absl::UnavailableError("this life is over"); }

  FakeSpace* const space_;
  const NodeId node_;
  bool dead_ = false;
  std::set<uint64_t> locks_;
  size_t most_locks_ = 0;  // At once.
};

}  // namespace mangrove::directory_test
