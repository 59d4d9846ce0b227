// What it costs to know who is there, in clusters of many nodes: the real code of recovery/, in a world without faults but one kill of
// a member, one of a monitor, and one of the leader. Each message takes 100 to 300 us, each write to a disk 500 us.

#pragma once

#include <cstdint>

#include "net/runtime/clock.h"

namespace mangrove::sim {

struct ScaleResult {
  int nodes = 0;
  // While nothing happens, per second.
  double messages_of_a_member = 0;   // Sent and received, the mean of those that are neither monitors nor anchors.
  double messages_of_a_monitor = 0;  // The busiest one's.
  double messages_of_the_leader = 0;
  // From the kill to the view without the node, at the leader; and from then on until every node knows it.
  DurationNs member_lost = 0;
  DurationNs monitor_lost = 0;
  DurationNs leader_lost = 0;
  DurationNs view_spreads = 0;        // The longest of the three.
  uint64_t leases_ended = 0;          // Of nodes that were not killed, by any of the kills.
  uint64_t messages_of_a_change = 0;  // Of all nodes, beyond what there is anyway, for the longest of the three.
};

constexpr int kFewestScaled = 8;
constexpr int kMostScaled = 4096;

// Three anchors, the first nodes of three groups if there are so many. REQUIRES: kFewestScaled to kMostScaled
// nodes.
ScaleResult RunScale(int nodes, uint64_t seed);

}  // namespace mangrove::sim
