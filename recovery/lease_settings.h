// What an operator may set of RecoveryTiming, and what follows from it.

#pragma once

#include <cstdint>

#include "net/runtime/clock.h"
#include "recovery/timing.h"

namespace mangrove {

// How long a lease is; the same on all nodes of a cluster, which see to it when they connect. With less than the least there is too
// little of it left while the mappings of a large cache are taken away, which begins up to 400 ms before its end.
constexpr uint32_t kDefaultLeaseMs = 1000;
constexpr uint32_t kLeastLeaseMs = 1000;
constexpr uint32_t kMostLeaseMs = 10'000;
// RecoveryTiming::replace_after; that of the anchor which leads counts.
constexpr uint32_t kDefaultReplaceAfterS = 600;
constexpr uint32_t kLeastReplaceAfterS = 10;
constexpr uint32_t kMostReplaceAfterS = 30 * 24 * 3600;
// RecoveryTiming::reweigh_after, the same.
constexpr uint32_t kDefaultReweighAfterS = 600;

// All that goes with leases is in proportion to them.
constexpr RecoveryTiming TimingOf(DurationNs lease, DurationNs replace_after, DurationNs reweigh_after) {
  const RecoveryTiming usual;
  const auto scaled = [&](DurationNs duration) {
    return duration / kMillisecond * lease / (usual.lease / kMillisecond);
  };
  RecoveryTiming timing;
  timing.pulse = scaled(usual.pulse);
  timing.lease = lease;
  timing.silent = scaled(usual.silent);
  timing.unreachable = scaled(usual.unreachable);
  timing.replace_after = replace_after;
  timing.reweigh_after = reweigh_after;
  timing.heartbeat = scaled(usual.heartbeat);
  timing.election = scaled(usual.election);
  return timing;
}

}  // namespace mangrove
