#include "net/levels.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

constexpr std::array<const char*, kSubsystems> kNames = {"net", "pages", "membership", "store"};

std::string RangeText(const LevelRange& range) {
  const int low = range.low;
  const int high = range.high;
  return low == high ? absl::StrCat("level ", low) : absl::StrCat("levels ", low, " to ", high);
}

}  // namespace

std::string NameOfSubsystem(size_t number) {
  return number < kNames.size() ? kNames[number] : absl::StrCat("subsystem ", number);
}

std::optional<Subsystem> SubsystemOf(std::string_view name) {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) return std::nullopt;
  return static_cast<Subsystem>(at - kNames.begin());
}

absl::StatusOr<Levels> CommonLevels(const LevelTable& own, const LevelTable& theirs) {
  Levels common{};
  for (size_t i = 0; i < kLevelPlaces; ++i) {
    common[i] = std::min(own[i].high, theirs[i].high);
    if (common[i] >= std::max(own[i].low, theirs[i].low)) continue;
    return absl::FailedPreconditionError(absl::StrCat("of ", NameOfSubsystem(i), " this node speaks ",
                                                      RangeText(own[i]), " and the other ", RangeText(theirs[i])));
  }
  return common;
}

}  // namespace mangrove
