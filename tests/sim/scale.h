// What it costs to know who is there, in clusters of many nodes: the real code of recovery/, in a world without faults but one kill of
// a member, one of a monitor, and one of the leader. Each message takes 100 to 300 us, each write to a disk 500 us.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "net/ids.h"
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
  uint64_t messages_of_a_change = 0;  // Of all nodes, with what there is anyway, for the longest of the three.
  // Allocated for a node's part in it, in bytes: its view and the changes to it, all nodes' records, whom it is connected with; the
  // monitor's tables; the leader's log and node database.
  size_t bytes_of_a_member = 0;
  size_t bytes_of_a_monitor = 0;
  size_t bytes_of_the_leader = 0;
};

constexpr size_t kFewestScaled = 8;
constexpr size_t kMostScaled = 4096;

// So many nodes in groups that have 63 each.
std::vector<NodeId> NodesInGroups(size_t count);
// `sizes` from the highest level of groups down to the nodes of each lowest one: {4, 16, 64}. Node 0, which there is not, is left out.
// REQUIRES: 1 to 64 of each.
std::vector<NodeId> NodesInGroups(const std::vector<size_t>& sizes);

// Three anchors, the first nodes of three groups, of the highest level that has so many. REQUIRES: kFewestScaled to kMostScaled
// nodes, in ascending order.
ScaleResult RunScale(const std::vector<NodeId>& nodes, uint64_t seed);

}  // namespace mangrove::sim
