// A view of the cluster: which node incarnations are in it. Views follow each other, numbered by their epochs; which one holds
// the anchors decide, in their log.

#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "net/ids.h"

namespace mangrove {

// What makes the view of `epoch` of the one before it.
struct ViewChange {
  static constexpr size_t kMostNodes = 128;  // In one change.

  Epoch epoch;
  std::vector<NodeInstance> joins;  // Each in the place of an older incarnation of its node, if that is there.
  std::vector<NodeId> leaves;

  bool empty() const { return joins.empty() && leaves.empty(); }
  friend bool operator==(const ViewChange&, const ViewChange&) = default;
};

struct View {
  Epoch epoch;  // 0: before the first, with nobody in it.
  std::map<NodeId, Incarnation> members;
  // One of them, as long as it stays: responsible for what no other node can be named for. 0: nobody is there.
  NodeId root;

  bool Has(NodeInstance node) const {
    const auto found = members.find(node.node);
    return found != members.end() && found->second == node.incarnation;
  }
  // Epochs go up by one; the first is any.
  bool IsNext(Epoch next) const { return epoch.value == 0 ? next.value > 0 : next.value == epoch.value + 1; }
  // REQUIRES: IsNext(change.epoch).
  void Apply(const ViewChange& change) {
    epoch = change.epoch;
    const auto joins = [&](NodeId node) {
      return std::any_of(change.joins.begin(), change.joins.end(), [&](NodeInstance n) { return n.node == node; });
    };
    for (const NodeInstance& node : change.joins) members[node.node] = node.incarnation;
    for (NodeId leaves : change.leaves) members.erase(leaves);
    if (members.contains(root) && !joins(root)) return;
    // Of those that have been here before, if there is one.
    const auto stays = std::find_if(members.begin(), members.end(), [&](const auto& m) { return !joins(m.first); });
    root = stays != members.end() ? stays->first : members.empty() ? NodeId() : members.begin()->first;
  }
  friend bool operator==(const View&, const View&) = default;
};

}  // namespace mangrove
