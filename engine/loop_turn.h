// When a coroutine on the loop has to let others run, that takes many steps of which none waits.
//
// By time, since what a step costs depends on what it meets; and by number, since a simulated clock stands still meanwhile.
//
//   LoopTurn turn(clock);
//   for (...) {
//     ...
//     if (!turn.IsOver()) continue;
//     co_await YieldTo(clock);
//     turn.Begin();
//   }

#pragma once

#include <cstdint>

#include "net/runtime/clock.h"

namespace mangrove {

class LoopTurn {
 public:
  static constexpr DurationNs kLongest = 200 * kMicrosecond;
  static constexpr uint64_t kMostSteps = 1024;

  explicit LoopTurn(Clock* clock) : clock_(clock) { Begin(); }

  void Begin() {
    began_ = clock_->Now();
    steps_ = 0;
  }
  // After each step.
  bool IsOver() { return ++steps_ >= kMostSteps || clock_->Now() - began_ >= kLongest; }

 private:
  Clock* clock_;
  TimeNs began_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace mangrove
