// What the daemon of this host says of its node, for operators' programs.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove {

// The JSON document of NodeOperations::Inspect. Connects for just this call.
absl::StatusOr<std::string> InspectNode(const AttachOptions& options, const std::string& what,
                                        const std::string& argument = "");

}  // namespace mangrove
