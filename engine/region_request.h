// What an operator asks of a region, as text.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove {

struct RegionRequest {
  std::string name;
  WithoutQuorum without_quorum = WithoutQuorum::kRefuse;
};

// "refuse" or "read".
const char* Name(WithoutQuorum without_quorum);

// {"region": its name, "without_quorum": "refuse" or "read"}; or InvalidArgument.
absl::StatusOr<RegionRequest> ParseRegionRequest(const std::string& json);

}  // namespace mangrove
