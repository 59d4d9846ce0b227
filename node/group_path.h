// Groups as operators write them: "2/5" is group 5 of group 2, the number 2 * 64 + 5.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace mangrove {

std::string GroupPath(uint64_t group);

// A path of numbers below 64, at most nine of them; or a group's number alone. InvalidArgument says what is wrong.
absl::StatusOr<uint64_t> ParseGroupPath(const std::string& text);

}  // namespace mangrove
