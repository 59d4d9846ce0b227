// The tables of `mangrove-sim --scale`.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/ids.h"

namespace mangrove::sim {

struct ScaledCluster {
  std::string name;
  std::vector<NodeId> nodes;
};

// As "8,512,4x16x64": so many nodes each, or groups of groups of nodes. Nothing if it is not that, or of too many or too few.
std::optional<std::vector<ScaledCluster>> ParseScale(std::string_view text);

// One table of the membership, one of the directory and of memory; on stderr, what is done.
void PrintScale(const std::vector<ScaledCluster>& clusters);

}  // namespace mangrove::sim
