// Whether a peer is still there, of which nothing says that it is not: a cable that is cut, or a packet filter, breaks no
// connection. Pure; one per connection.
//
//  N1  Who has sent a message, and heard nothing since, asks after a quarter of its patience; on an idle connection it asks now
//      and then (AskWhenIdle). A peer that speaks level 2 of kNet answers at once, with a credit.
//  N2  Who asked, and has heard nothing at all for its patience, takes the connection for broken. Where this process did not run for two
//      ticks or more, that time does not count.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "net/runtime/clock.h"

namespace mangrove {

// Of Subsystem::kNet, from which on a node answers.
constexpr uint8_t kQuestionsLevel = 2;

// As long as a node is given to renew its lease: who takes longer to answer than that is slow for everybody.
constexpr DurationNs kLeastPatience = kSecond;
constexpr DurationNs PatienceOf(uint32_t lease_ms) {
  return std::max<DurationNs>(lease_ms * kMillisecond, kLeastPatience);
}

// Of all peers together with which nothing is exchanged a node asks at most 64 a second, in a cluster of any size.
constexpr DurationNs AskWhenIdle(DurationNs patience, size_t members) {
  return std::max<DurationNs>(patience / 4, static_cast<DurationNs>(members) * kSecond / 64);
}

class Silence {
 public:
  enum class Verdict {
    kFine,
    kAsk,  // And say so by Asked, if the question could be sent.
    kGone,
  };

  // REQUIRES: before Judge. Also when time has passed of which nothing is known.
  void Reset(TimeNs now, uint64_t received) {
    heard_ = now;
    asked_ = false;
    received_ = received;
  }
  // `received`: how many messages have come, credits and questions among them. `waits`: some have been sent since the last one came.
  Verdict Judge(TimeNs now, uint64_t received, bool waits, DurationNs patience, DurationNs when_idle) {
    if (received != received_) {
      Reset(now, received);
      return Verdict::kFine;
    }
    if (asked_) return now - asked_at_ >= patience ? Verdict::kGone : Verdict::kFine;
    return now - heard_ >= (waits ? patience / 4 : when_idle) ? Verdict::kAsk : Verdict::kFine;
  }
  void Asked(TimeNs now) {
    asked_ = true;
    asked_at_ = now;
  }
  // Since when nothing has come, as far as it was looked at.
  TimeNs heard() const { return heard_; }

 private:
  TimeNs heard_ = 0;
  bool asked_ = false;  // Nothing has come since.
  TimeNs asked_at_ = 0;
  uint64_t received_ = 0;
};

}  // namespace mangrove
