// A view of the cluster: which node incarnations are in it. Views follow each other, numbered by their epochs; which one holds
// the anchors decide, in their log.

#pragma once

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

  bool Has(NodeInstance node) const {
    const auto found = members.find(node.node);
    return found != members.end() && found->second == node.incarnation;
  }
  // REQUIRES: `change` is of the next epoch.
  void Apply(const ViewChange& change) {
    epoch = change.epoch;
    for (const NodeInstance& joins : change.joins) members[joins.node] = joins.incarnation;
    for (NodeId leaves : change.leaves) members.erase(leaves);
  }
  friend bool operator==(const View&, const View&) = default;
};

}  // namespace mangrove
