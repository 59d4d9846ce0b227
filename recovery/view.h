// A view of the cluster: which node incarnations are in it, and whose disks are behind. Views follow each other, numbered by their
// epochs; which one holds the anchors decide, in their log.
//
// A node's disk is current when it has everything of its pages that was ever acknowledged; otherwise it is behind. While a node is
// in the view, what is acknowledged is stored on its disk too, whether that is behind or not. So a disk falls behind when its node
// leaves the view, and the epoch of the first view without it says by how much. Who is not in the view and has been in one is behind.
//
// Which disks keep which pages follows from the view as well (directory/locator.h over `disks` and their weights). When these are to
// be others, or to have other weights, pages move: what is stored meanwhile is stored where they are and where they are to be, and once each of the latter has said that it has
// all, the view makes `disks` of them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "net/ids.h"

namespace mangrove {

// Of a disk that had nothing to begin with: it is behind since before any view.
constexpr Epoch kBlankDisk{1};

// How much of the pages a disk keeps beside others: kFullDiskWeight / 2 is half as much as who has that. Never 0.
using DiskWeights = std::map<NodeId, uint8_t>;
// That of each disk of which nothing else is said.
constexpr uint8_t kFullDiskWeight = 16;

struct DiskWeight {
  NodeId node;
  uint8_t weight = kFullDiskWeight;
  friend bool operator==(const DiskWeight&, const DiskWeight&) = default;
};

// What makes the view of `epoch` of the one before it.
struct ViewChange {
  static constexpr size_t kMostNodes = 128;  // In one change: that join, leave or have caught up.

  Epoch epoch;
  std::vector<NodeInstance> joins;  // Each in the place of an older incarnation of its node, if that is there.
  std::vector<NodeId> leaves;
  std::vector<NodeId> blank;      // Of those that join: whose disk is empty, or another one.
  std::vector<NodeId> caught_up;  // Members that stay as they are, and whose disks are current from this view on.
  std::vector<NodeId> place;      // Are to keep pages, besides those that are to or do.
  std::vector<NodeId> unplace;    // Are to keep none.
  std::vector<NodeId> moved;      // Of those that are to keep pages: have all of theirs.
  bool placed = false;            // Those that are to keep pages are the ones that do from now on.
  std::vector<NodeId> drain;      // See View.
  std::vector<NodeId> undrain;
  std::vector<NodeId> lost;
  std::vector<DiskWeight> weigh;  // Of those that are to keep pages: are to have these weights.

  // Nodes that are named, and what is not about single ones.
  size_t size() const {
    return joins.size() + leaves.size() + caught_up.size() + place.size() + unplace.size() + moved.size() +
           (placed ? 1 : 0) + drain.size() + undrain.size() + lost.size() + weigh.size();
  }
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
  std::set<NodeId> disks;       // That keep pages. Empty before the first view alone.
  std::set<NodeId> next_disks;  // That are to; empty: pages do not move.
  Epoch move;                   // Since which view these are; 0: pages do not move.
  std::set<NodeId> moved;       // Of these: have all of theirs.
  std::set<NodeId> draining;    // Are to leave for good, and to keep no pages before.
  std::set<NodeId> lost;        // Never come back, nor what is on their disks: nobody waits for them.
  DiskWeights weights;          // Of `disks`, those that have not the full one.
  DiskWeights next_weights;     // The same, of `next_disks`.

  // Those that keep pages in the end.
  const std::set<NodeId>& wanted_disks() const { return next_disks.empty() ? disks : next_disks; }
  const DiskWeights& wanted_weights() const { return next_disks.empty() ? weights : next_weights; }
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
    ApplyToPlaces(change);
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
    for (NodeId node : change.leaves) {
      behind.try_emplace(node, change.epoch);
      moved.erase(node);  // It lacks what is stored meanwhile, and learns anew.
    }
    for (NodeId node : change.blank) {
      behind[node] = kBlankDisk;
      moved.erase(node);
    }
    for (NodeId node : change.caught_up) behind.erase(node);
  }

  void ApplyToPlaces(const ViewChange& change) {
    draining.insert(change.drain.begin(), change.drain.end());
    for (NodeId node : change.undrain) draining.erase(node);
    lost.insert(change.lost.begin(), change.lost.end());
    moved.insert(change.moved.begin(), change.moved.end());
    if (change.placed) {
      disks = next_disks;
      weights = next_weights;
      EndMove();
    }
    if (change.place.empty() && change.unplace.empty() && change.weigh.empty()) return;
    std::set<NodeId> wanted = wanted_disks();
    DiskWeights weigh = wanted_weights();
    wanted.insert(change.place.begin(), change.place.end());
    for (NodeId node : change.unplace) {
      wanted.erase(node);
      weigh.erase(node);  // Who comes back is weighed anew.
    }
    for (const DiskWeight& disk : change.weigh) {
      weigh[disk.node] = disk.weight;
      if (disk.weight == kFullDiskWeight) weigh.erase(disk.node);
    }
    EndMove();
    if (disks.empty()) {
      disks = std::move(wanted);
      weights = std::move(weigh);
    } else if (wanted != disks || weigh != weights) {
      next_disks = std::move(wanted);
      next_weights = std::move(weigh);
      move = change.epoch;
    }
  }

  void EndMove() {
    next_disks.clear();
    next_weights.clear();
    moved.clear();
    move = Epoch();
  }
};

}  // namespace mangrove
