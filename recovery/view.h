// A view of the cluster: which node incarnations are in it, and whose disks are behind. Views follow each other, numbered by their
// epochs; which one holds the anchors decide, in their log.
//
// A node's disk is current when it has everything of its pages that was ever acknowledged; otherwise it is behind. While a node is
// in the view, what is acknowledged is stored on its disk too, whether that is behind or not. So a disk falls behind when its node
// leaves the view, and the epoch of the first view without it says by how much. Who is not in the view and has been in one is behind.

#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "net/ids.h"

namespace mangrove {

// Of a disk that had nothing to begin with: it is behind since before any view.
constexpr Epoch kBlankDisk{1};

// What makes the view of `epoch` of the one before it.
struct ViewChange {
  static constexpr size_t kMostNodes = 128;  // In one change: that join, leave or have caught up.

  Epoch epoch;
  std::vector<NodeInstance> joins;  // Each in the place of an older incarnation of its node, if that is there.
  std::vector<NodeId> leaves;
  std::vector<NodeId> blank;      // Of those that join: whose disk is empty, or another one.
  std::vector<NodeId> caught_up;  // Members that stay as they are, and whose disks are current from this view on.

  size_t size() const { return joins.size() + leaves.size() + caught_up.size(); }
  bool empty() const { return size() == 0; }
  friend bool operator==(const ViewChange&, const ViewChange&) = default;
};

struct View {
  Epoch epoch;  // 0: before the first, with nobody in it.
  std::map<NodeId, Incarnation> members;
  // One of them, as long as it stays: responsible for what no other node can be named for. 0: nobody is there.
  NodeId root;
  // Whose disks are behind, in the view or not: since which view. kBlankDisk: they had nothing to begin with.
  std::map<NodeId, Epoch> behind;

  bool Has(NodeInstance node) const {
    const auto found = members.find(node.node);
    return found != members.end() && found->second == node.incarnation;
  }
  // Epochs go up by one; the first is any above kBlankDisk.
  bool IsNext(Epoch next) const { return epoch.value == 0 ? next > kBlankDisk : next.value == epoch.value + 1; }
  // REQUIRES: IsNext(change.epoch).
  void Apply(const ViewChange& change) {
    epoch = change.epoch;
    ApplyToDisks(change);
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

 private:
  // Who joins in the place of its older incarnation has missed nothing; who had left is named already; of who was never in a view,
  // and has a disk that is not blank, nothing else is known than that disk.
  void ApplyToDisks(const ViewChange& change) {
    for (NodeId node : change.leaves) behind.try_emplace(node, change.epoch);
    for (NodeId node : change.blank) behind[node] = kBlankDisk;
    for (NodeId node : change.caught_up) behind.erase(node);
  }
};

}  // namespace mangrove
