// Where a node stands among the groups, and who passes its pulses on.
//
// A node's short identity has 6 bits for each level: its place in its group in the lowest, its group's place in the group of groups
// above them, and so on (net/ids.h). So nodes of one group are neighbours by their numbers.

#pragma once

#include <cstdint>
#include <set>

#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove {

// A view of so few needs no monitors, whatever the numbers say: its leader hears everybody itself.
constexpr size_t kFewNodes = kGroupNodes;

// The member of the node's group that passes pulses on to the leader of the anchors: the first anchor of the group, or else its first
// member. Follows from the view, so that nobody has to be elected, and who takes the place of one that is lost is known with the
// view without it. 0: nobody, the node pulses to the leader itself: in a view of few, for a monitor, and for who is not in the view.
inline NodeId MonitorOf(const View& view, NodeId node, const std::set<NodeId>& anchors, size_t few_nodes) {
  if (view.members.size() <= few_nodes || !view.members.contains(node)) return NodeId();
  const NodeId first(GroupOf(node) << kGroupBits);
  NodeId monitor;
  for (auto member = view.members.lower_bound(first); member != view.members.end(); ++member) {
    if (GroupOf(member->first) != GroupOf(node)) break;
    if (monitor.value == 0) monitor = member->first;
    if (!anchors.contains(member->first)) continue;
    monitor = member->first;
    break;
  }
  return monitor == node ? NodeId() : monitor;
}

}  // namespace mangrove
