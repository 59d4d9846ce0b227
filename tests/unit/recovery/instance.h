// A start of a node, and who it knows, shortly.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "net/ids.h"
#include "recovery/roster.h"

namespace mangrove {

inline NodeInstance Instance(uint64_t node, uint64_t incarnation = 1) {
  return {NodeId(node), Incarnation(incarnation)};
}

// Of a configuration that names these anchors.
inline Roster RosterOf(std::initializer_list<uint64_t> anchors) {
  Roster roster;
  for (uint64_t node : anchors) roster.nodes[NodeId(node)] = {.name = "n" + std::to_string(node), .votes = 1};
  return roster;
}

}  // namespace mangrove
