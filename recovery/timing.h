// How fast a loss is noticed. The same on all nodes of a cluster.

#pragma once

#include "net/runtime/clock.h"

namespace mangrove {

struct RecoveryTiming {
  DurationNs pulse = 150 * kMillisecond;
  // From the pulse on that the leader has heard. The holder counts a sixteenth less (Member): clocks may differ by 3 % in speed.
  DurationNs lease = kSecond;
  // Without a pulse for so long a node counts as silent: three are missing.
  DurationNs silent = 450 * kMillisecond;
  // Members that have had no connection with each other for so long do not stay in one view.
  DurationNs unreachable = kSecond;
  // Who keeps pages and is away for longer is given up for the time being: others keep what it kept.
  DurationNs replace_after = 600 * kSecond;
  // Weights of disks change when nothing else has for so long: no disk was behind, none came or went, no pages moved. 0: there are none.
  DurationNs reweigh_after = 0;
  // Of the anchors' log, see RaftOptions. A leader is lost and another one elected well within a lease.
  DurationNs heartbeat = 50 * kMillisecond;
  DurationNs election = 300 * kMillisecond;
};

}  // namespace mangrove
