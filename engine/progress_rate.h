// How fast something goes lately, and how long it takes still, from what was said of it about once a second.
//
//  Q1  Rates are those of the last kWindow, as far as that was seen: not those since the start.
//  Q2  Nothing is said before kLeastSeen. The time left is not known, either, while the share does not grow.
//  Q3  What is seen takes no memory but its own.
//
// Pure. Owned by the loop.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "net/runtime/clock.h"

namespace mangrove {

class ProgressRate {
 public:
  static constexpr DurationNs kWindow = 10 * kSecond;
  static constexpr DurationNs kLeastSeen = 2 * kSecond;
  static constexpr DurationNs kBetween = kSecond;

  struct Done {
    uint64_t pages_compared = 0;
    uint64_t pages_copied = 0;
    double share = 0;  // Of all that there is to do; 1 is all.
  };
  struct Estimate {
    double compared_per_second = 0;
    double copied_per_second = 0;
    std::optional<uint64_t> seconds_left;
  };

  // Whether Note is worth the work of finding out what is done.
  bool IsDue(TimeNs now) const { return count_ == 0 || now - At(count_ - 1).at >= kBetween; }
  void Note(TimeNs now, const Done& done);
  std::optional<Estimate> Now(TimeNs now, const Done& done) const;
  void Clear() { count_ = 0; }

 private:
  struct Sample {
    TimeNs at = 0;
    Done done;
  };
  // One is older than the window.
  static constexpr size_t kSamples = kWindow / kBetween + 2;

  // The oldest is 0.
  const Sample& At(size_t index) const { return samples_[(first_ + index) % kSamples]; }

  std::array<Sample, kSamples> samples_;
  size_t first_ = 0;
  size_t count_ = 0;
};

}  // namespace mangrove
