// The door to time. Protocol code learns the time here and nowhere else.

#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace mangrove {

// Nanoseconds since an arbitrary start, monotonic, not comparable between nodes.
using TimeNs = int64_t;
// A span of time in nanoseconds.
using DurationNs = int64_t;

constexpr DurationNs kMicrosecond = 1'000;
constexpr DurationNs kMillisecond = 1'000'000;
constexpr DurationNs kSecond = 1'000'000'000;
// Later than every time that occurs.
constexpr TimeNs kForever = INT64_MAX;

// Owned by one loop: every call, and every callback, happens on it. Implemented by the real loop (net/runtime/loop.h)
// and by the simulator's clock.
class Clock {
 public:
  using TimerId = uint64_t;  // 0 is no timer.

  virtual ~Clock() = default;

  virtual TimeNs Now() const = 0;
  // Now() may be of the beginning of the loop's turn; this is not.
  virtual TimeNs ExactNow() const { return Now(); }

  // Runs `callback` once, on the loop, not before `deadline` and never from inside this call.
  virtual TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) = 0;

  // Runs `callback` once, on the loop, after everything that is already due; never from inside this call.
  virtual void CallSoon(absl::AnyInvocable<void()> callback) = 0;

  // The callback of `timer` will not run. Does nothing if it has run, or for 0.
  virtual void Cancel(TimerId timer) = 0;
};

}  // namespace mangrove
