// How much of something may go on in a time: a token bucket whose tokens may be taken before they are there.
//
//  B1  In any time no more is let go than a rate of `per_second` allows, but for what is in a full bucket, and one amount.
//  B2  Each amount has its turn, after those that were taken before it: what is larger than the bucket waits no longer than its
//      part of the rate takes. So nobody starves.
//
// Pure. Owned by the loop.

#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/numeric/int128.h"
#include "net/runtime/clock.h"

namespace mangrove {

class TokenBucket {
 public:
  // `per_second` 0: not limited. `burst`: for how long nothing has to be taken until the bucket is full.
  TokenBucket(uint64_t per_second, DurationNs burst) : per_second_(per_second), burst_(burst) {}

  uint64_t per_second() const { return per_second_; }

  // When it may go; now, or later.
  TimeNs Take(TimeNs now, uint64_t amount) {
    if (per_second_ == 0) return now;
    const TimeNs goes = std::max(now, full_at_ - burst_);
    const absl::uint128 cost = (absl::uint128(amount) * uint64_t{kSecond} + (per_second_ - 1)) / per_second_;
    full_at_ = std::max(now, full_at_) + static_cast<DurationNs>(std::min<absl::uint128>(cost, uint64_t{kMostCost}));
    return goes;
  }
  // Would the least amount have to wait?
  bool IsEmpty(TimeNs now) const { return now < full_at_ - burst_; }

 private:
  static constexpr DurationNs kMostCost = 1'000'000 * kSecond;  // So that times do not overflow.

  uint64_t per_second_;
  DurationNs burst_;
  TimeNs full_at_ = 0;  // If nothing more is taken.
};

}  // namespace mangrove
