// How long a node that stops waits for the anchors, by how long its lease is. Each takes some milliseconds where they answer; where
// what is said gets lost, it is said again.

#pragma once

#include "net/runtime/clock.h"
#include "recovery/timing.h"

namespace mangrove {

// Until another anchor leads: as long as the one that hands over keeps at it itself.
constexpr DurationNs HandOverPatience(const RecoveryTiming& timing) { return timing.election; }
// Until the view has gone on without it.
constexpr DurationNs LeavePatience(const RecoveryTiming& timing) { return timing.lease / 2; }

}  // namespace mangrove
