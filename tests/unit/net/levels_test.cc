// Covers: C12
#include "net/levels.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

LevelTable With(LevelRange pages) {
  LevelTable table = kOwnLevels;
  table[static_cast<size_t>(Subsystem::kPages)] = pages;
  return table;
}
constexpr auto kPages = static_cast<size_t>(Subsystem::kPages);

TEST(Levels, TheHighestThatBothSpeakIsUsed) {
  EXPECT_EQ(CommonLevels(With({1, 3}), With({2, 5})).value()[kPages], 3);
  EXPECT_EQ(CommonLevels(With({2, 5}), With({1, 3})).value()[kPages], 3);
  EXPECT_EQ(CommonLevels(With({2, 2}), With({2, 2})).value()[kPages], 2);
  EXPECT_EQ(CommonLevels(kOwnLevels, kOwnLevels).value()[kLevelPlaces - 1], 0);
}

TEST(Levels, WithoutACommonLevelTheSubsystemAndBothRangesAreNamed) {
  for (const auto& [own, theirs] : {std::pair(LevelRange{1, 2}, LevelRange{3, 3}), {{4, 7}, {1, 3}}}) {
    const absl::Status status = CommonLevels(With(own), With(theirs)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(CommonLevels(With({1, 2}), With({3, 3})).status().message(),
            "of pages this node speaks levels 1 to 2 and the other level 3");
}

TEST(Levels, ASubsystemThatOneSideDoesNotKnowIsNotUsedUnlessTheOtherNeedsIt) {
  LevelTable newer = kOwnLevels;
  newer[kSubsystems] = {0, 1};
  EXPECT_EQ(CommonLevels(newer, kOwnLevels).value()[kSubsystems], 0);
  EXPECT_EQ(CommonLevels(newer, newer).value()[kSubsystems], 1);
  newer[kSubsystems] = {1, 1};
  EXPECT_EQ(CommonLevels(kOwnLevels, newer).status().message(),
            "of subsystem 4 this node speaks level 0 and the other level 1");
}

TEST(Levels, EverySubsystemHasANameThatFindsIt) {
  for (size_t i = 0; i < kSubsystems; ++i) {
    EXPECT_EQ(static_cast<size_t>(SubsystemOf(NameOfSubsystem(i)).value()), i);
    EXPECT_LE(kOwnLevels[i].low, kOwnLevels[i].high);
  }
  EXPECT_FALSE(SubsystemOf("tea").has_value());
}

}  // namespace
}  // namespace mangrove
