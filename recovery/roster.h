// Who belongs to the cluster, as each node knows it: names, addresses, votes. The anchors' log says so (NodeDatabase); every node
// keeps what it has heard, on its disk too, and pulses with the number of the last change that it knows (D6), so that an anchor
// sends it those behind.
//
// Before a node has heard anything it goes by its configuration: the nodes that the cluster is made with, or that it joins.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "net/ids.h"
#include "recovery/messages.h"
#include "recovery/node_database.h"

namespace mangrove {

struct Roster {
  uint64_t version = 0;                // 0: as the configuration says.
  std::map<NodeId, NodeRecord> nodes;  // Also those that were removed. `last` and `left` say nothing.

  // Those with votes.
  std::set<NodeId> anchors() const;
  // Null: there is none, or it was removed.
  const NodeRecord* Find(NodeId node) const;
  // Of those that were not removed; 0: none is called so.
  NodeId FindName(std::string_view name) const;
  // Whom a node connects with: all that were not removed; and, so that they are told of it if they start again, the last few that were,
  // unless another node has the address now.
  std::vector<NodeId> peers() const;
  // For people: its name where there is one.
  std::string NameOf(NodeId node) const;

  // Whether it was news: a part of what comes next. A node that the cluster does not have, since it is of the configuration alone or of
  // a log before this one, is forgotten with the last part, but for `self`.
  bool Apply(const RosterPart& part, NodeId self);
  // What has changed behind `known`, as much as goes into a message; nothing: nothing has, or this is a configuration's.
  std::optional<RosterPart> Since(uint64_t known) const;

  friend bool operator==(const Roster&, const Roster&) = default;
};

// Of `nodes`, as an anchor's database or a roster has them. REQUIRES: something has changed behind `known`.
RosterPart PartSince(const std::map<NodeId, NodeRecord>& nodes, uint64_t known);

}  // namespace mangrove
