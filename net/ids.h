// Identities that every message, grant and record names.
//
// A node's identity is permanent; an incarnation is one start of that node. Whatever a node was promised, it was
// promised as an incarnation: a restarted node shares nothing with its predecessor but its disk and its name.

#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace mangrove {

// An integer with a type of its own. `Tag` is an incomplete struct that names it.
template <typename Tag, typename Rep = uint64_t>
struct StrongId {
  Rep value = 0;

  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep v) : value(v) {}
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value);
  }
};

// The short identity of a node: 6 bits for each level of groups, the node's own place in the lowest 6. 0 is no node.
using NodeId = StrongId<struct NodeIdTag>;

constexpr int kGroupBits = 6;
constexpr uint64_t kGroupNodes = uint64_t{1} << kGroupBits;
// The number of the node's group. So nodes of one group are neighbours by their numbers.
constexpr uint64_t GroupOf(NodeId node) { return node.value >> kGroupBits; }

// Whoever has a token of a node, and is no node yet: see docs/NET.md, Guests. No node's identity. It is the largest, so that guests
// connect to nodes, and no node to them.
constexpr NodeId kGuestNode{UINT64_MAX};

// Counts the starts of one node: larger than every earlier one of that node, durable before the first message that
// carries it. 0 is no incarnation.
using Incarnation = StrongId<struct IncarnationTag>;

// Number of a view of the cluster. Views are ordered; a message of an older view is refused.
using Epoch = StrongId<struct EpochTag>;

// Names a cluster, unique in space and time. Two clusters never talk.
struct ClusterId {
  uint64_t high = 0;
  uint64_t low = 0;
  friend constexpr auto operator<=>(const ClusterId&, const ClusterId&) = default;
};

// One start of one node.
struct NodeInstance {
  NodeId node;
  Incarnation incarnation;

  friend constexpr auto operator<=>(const NodeInstance&, const NodeInstance&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const NodeInstance& n) {
    return H::combine(std::move(h), n.node, n.incarnation);
  }
};

inline std::string ToString(NodeId id) { return id == kGuestNode ? "a guest" : "node " + std::to_string(id.value); }
inline std::string ToString(const NodeInstance& n) {
  return ToString(n.node) + " incarnation " + std::to_string(n.incarnation.value);
}

}  // namespace mangrove
