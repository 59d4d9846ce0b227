// Applets that wait for the same thing.

#pragma once

#include <utility>
#include <vector>

#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

// Owned by the loop.
class Waiters {
 public:
  explicit Waiters(Clock* clock) : clock_(clock) {}

  // Until WakeAll, or `deadline`: whether it was the former.
  Task<bool> Wait(TimeNs deadline) {
    Outcome<bool> outcome(clock_);
    outcomes_.push_back(outcome);
    Clock* const clock = clock_;  // This may be gone when the wait is over.
    const Clock::TimerId timer = clock->CallAt(deadline, [outcome]() mutable { outcome.Set(false); });
    const bool woken = co_await outcome.Get();
    clock->Cancel(timer);
    co_return woken;
  }
  void WakeAll() {
    for (Outcome<bool>& outcome : std::exchange(outcomes_, {})) outcome.Set(true);
  }

 private:
  Clock* const clock_;
  std::vector<Outcome<bool>> outcomes_;  // Some may be over.
};

}  // namespace mangrove
