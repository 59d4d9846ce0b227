// The real node under the simulator: the engine's page operations over the simulated doors.

#pragma once

#include <memory>

#include "tests/sim/sim_node.h"

namespace mangrove::sim {

std::unique_ptr<SimNode> MakeEngineNode(const NodeDoors& doors, const NodeSetup& setup);

}  // namespace mangrove::sim
