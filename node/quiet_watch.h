// When a node that stops, and has flushed, may go: others may still be flushing to its disk, where the whole cluster is stopped. It waits
// until nothing has been asked of it for a while; for those that say that they stop as well and still have to flush, as long as it
// might have flushed itself; for others that work on, not long.
//
// Pure.

#pragma once

#include <algorithm>
#include <cstdint>

#include "net/runtime/clock.h"

namespace mangrove {

class QuietWatch {
 public:
  static constexpr DurationNs kQuiet = 400 * kMillisecond;
  static constexpr DurationNs kMostForOthers = 3 * kSecond;

  // `flush_until`: no longer for those that flush. `taken`: the messages about pages that the node has taken, ever.
  QuietWatch(TimeNs now, TimeNs flush_until, uint64_t taken)
      : flush_until_(std::max(flush_until, now + kMostForOthers)),
        busy_until_(now + kMostForOthers),
        quiet_since_(now),
        taken_(taken) {}

  // To be called again and again, more often than kQuiet. True: it may go.
  bool Look(TimeNs now, uint64_t taken, bool others_flush) {
    if (taken != taken_ || others_flush) quiet_since_ = now;
    taken_ = taken;
    if (others_flush) {
      busy_until_ = std::max(busy_until_, now + kQuiet);  // What they have sent last is still to be served.
      return now >= flush_until_;
    }
    return now >= busy_until_ || now - quiet_since_ >= kQuiet;
  }

 private:
  const TimeNs flush_until_;
  TimeNs busy_until_;
  TimeNs quiet_since_;
  uint64_t taken_;
};

}  // namespace mangrove
