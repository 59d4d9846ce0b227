// A start of a node, shortly.

#pragma once

#include <cstdint>

#include "net/ids.h"

namespace mangrove {

inline NodeInstance Instance(uint64_t node, uint64_t incarnation = 1) {
  return {NodeId(node), Incarnation(incarnation)};
}

}  // namespace mangrove
