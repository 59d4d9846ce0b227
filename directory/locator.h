// Where pages are kept on disk: which of a set of nodes keep a segment, by a hash of its address and theirs (rendezvous hashing:
// each node has a score for each segment, and those with the best keep it). The same on every node and for ever; and where a
// node comes to the set, or goes, only the segments that it keeps are kept by others. Where the nodes are of several groups
// (net/ids.h), a page's holders are of different ones, as far as there are so many: of the largest groups in which there are
// several, and among those of one such group, of the groups within it.
//
// A node may have a weight: of two, one with twice the weight of the other is the first holder of twice as many segments, and if a
// weight changes, only segments that come to this node, or leave it, change their place. Where all weights are the same the places
// are those without weights. The score is that of weighted rendezvous hashing, -ln(hash) / weight (Schindelhauer and Schomaker,
// "Weighted distributed hash tables", 2005), in integers, so that it is the same on every machine.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "directory/address.h"
#include "net/ids.h"

namespace mangrove {

class Locator {
 public:
  // The weight of a node of which nothing is said.
  static constexpr uint8_t kFullWeight = 16;

  Locator() = default;  // Of no nodes: nobody keeps anything.
  // REQUIRES: weights are 1 to kFullWeight. Those of other nodes are not looked at.
  explicit Locator(const std::set<NodeId>& nodes, const std::map<NodeId, uint8_t>& weights = {});

  // The first of its core holders; 0 if there are no nodes.
  NodeId Primary(PageId page) const;

  // Those that keep the page, the primary first. `replicas` is at least 1, and cut to the number of nodes. Fewer are the first of more.
  std::vector<NodeId> CoreHolders(PageId page, uint32_t replicas) const;

  size_t size() const { return nodes_.size(); }

 private:
  struct Node {
    NodeId id;
    uint64_t hash = 0;
    uint64_t reach = 0;  // Common multiple of all weights, by this node's. 0: all weights are the same.
  };
  struct Scored;

  static std::vector<Scored> InOrder(std::vector<Scored> sorted, int level);
  Scored ScoreOf(const Node& node, uint64_t page_hash) const;
  std::vector<NodeId> OfDifferentGroups(PageId page, size_t count) const;

  std::vector<Node> nodes_;  // By id.
  int group_levels_ =
      0;  // So many levels of groups from the lowest on; in those above they are all of one. 0: of one in each.
};

}  // namespace mangrove
