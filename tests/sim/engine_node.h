// The real node under the simulator: the engine's page operations over the simulated doors.

#pragma once

#include <memory>

#include "engine/membership.h"
#include "tests/sim/sim_node.h"

namespace mangrove::sim {

// The cluster's nodes, the first three of them anchors.
MembershipOptions MembersOf(const NodeSetup& setup);
// As the first configurations say it; of one that joins later, as an operator says it, but for votes.
NodeRecord RecordOf(NodeId node);

std::unique_ptr<SimNode> MakeEngineNode(const NodeDoors& doors, const NodeSetup& setup);

}  // namespace mangrove::sim
