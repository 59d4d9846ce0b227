// Where pages are kept on disk: which of a set of nodes keep a segment, by a hash of its address and theirs (rendezvous hashing:
// each node has a weight for each segment, and those with the highest keep it). The same on every node and for ever; and where a
// node comes to the set, or goes, only the segments that it keeps are kept by others. Where the nodes are of several groups
// (net/ids.h), a page's holders are of different ones, as far as there are so many: of the largest groups in which there are
// several, and among those of one such group, of the groups within it.

#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "directory/address.h"
#include "net/ids.h"

namespace mangrove {

class Locator {
 public:
  Locator() = default;  // Of no nodes: nobody keeps anything.
  explicit Locator(const std::set<NodeId>& nodes);

  // The first of its core holders; 0 if there are no nodes.
  NodeId Primary(PageId page) const;

  // Those that keep the page, the primary first. `replicas` is at least 1, and cut to the number of nodes. Fewer are the first of more.
  std::vector<NodeId> CoreHolders(PageId page, uint32_t replicas) const;

  size_t size() const { return nodes_.size(); }

 private:
  struct Node {
    NodeId id;
    uint64_t hash = 0;
  };
  std::vector<NodeId> OfDifferentGroups(PageId page, size_t count) const;

  std::vector<Node> nodes_;  // By id.
  int group_levels_ =
      0;  // So many levels of groups from the lowest on; in those above they are all of one. 0: of one in each.
};

}  // namespace mangrove
