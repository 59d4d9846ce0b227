#include "node/group_path.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "net/ids.h"

namespace mangrove {
namespace {

// The node's own place takes the lowest bits of its number, and the rest are whole levels.
constexpr size_t kMostLevels = 64 / kGroupBits - 1;
constexpr uint64_t kGroups = uint64_t{1} << (kMostLevels * kGroupBits);

}  // namespace

std::string GroupPath(uint64_t group) {
  std::string path = std::to_string(group % kGroupNodes);
  while ((group /= kGroupNodes) > 0) path = absl::StrCat(group % kGroupNodes, "/", path);
  return path;
}

absl::StatusOr<uint64_t> ParseGroupPath(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '/');
  const auto bad = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("the group is \"", text, "\", ", why...));
  };
  if (parts.size() > kMostLevels) return bad("of ", parts.size(), " levels, expected at most ", kMostLevels);
  const uint64_t end = parts.size() == 1 ? kGroups : kGroupNodes;
  uint64_t group = 0;
  for (const std::string& part : parts) {
    uint64_t number = 0;
    if (!absl::SimpleAtoi(part, &number) || number >= end) {
      return bad("expected whole numbers from 0 to ", end - 1, ", with / between them");
    }
    group = group * kGroupNodes + number;
  }
  return group;
}

}  // namespace mangrove
