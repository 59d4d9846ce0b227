// Covers: G04

#include "engine/given_away.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace mangrove {
namespace {

using ::testing::HasSubstr;

constexpr PageId kLeft(1000);
constexpr ConfigNumber kLeftConfig(3);
constexpr Epoch kBefore(5);
constexpr Epoch kAfter(6);
constexpr Version kOlder{kBefore, 1};
constexpr Version kGiven{kBefore, 2};

class GivenAwayTest : public testing::Test {
 protected:
  absl::Status Flush(PageRange range, const absl::Status& status = absl::OkStatus()) {
    return given_away_.EndFlush(given_away_.BeginFlush(range), status);
  }

  std::map<PageId, int> noted_;
  GivenAway given_away_{[this](PageId page, bool is_there) { noted_[page] += is_there ? 1 : -1; }, 4};
};

TEST_F(GivenAwayTest, WhatWentBackIsSaidByOneFlush) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.WentBack(kLeft, kLeftConfig, kOlder, kAfter);
  EXPECT_TRUE(Flush({kLeft + 1, 5}).ok());
  const absl::Status lost = Flush({PageId(999), 3});
  EXPECT_TRUE(absl::IsDataLoss(lost)) << lost;
  EXPECT_THAT(std::string(lost.message()), HasSubstr(ToString(kLeft)));
  EXPECT_TRUE(Flush({PageId(999), 3}).ok());
}

TEST_F(GivenAwayTest, AFlushThatFailsSaysNothingOfIt) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.WentBack(kLeft, kLeftConfig, kOlder, kAfter);
  EXPECT_TRUE(absl::IsUnavailable(Flush({kLeft, 1}, absl::UnavailableError("a disk"))));
  EXPECT_TRUE(absl::IsDataLoss(Flush({kLeft, 1})));
}

TEST_F(GivenAwayTest, FlushesThatWereUnderWaySayItAsWell) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  const GivenAway::UnderWay first = given_away_.BeginFlush({kLeft, 1});
  const GivenAway::UnderWay second = given_away_.BeginFlush({kLeft, 1});
  given_away_.WentBack(kLeft, kLeftConfig, kOlder, kAfter);
  EXPECT_TRUE(absl::IsDataLoss(given_away_.EndFlush(first, absl::OkStatus())));
  const GivenAway::UnderWay third = given_away_.BeginFlush({kLeft, 1});
  EXPECT_TRUE(given_away_.EndFlush(third, absl::OkStatus()).ok());
  EXPECT_TRUE(absl::IsDataLoss(given_away_.EndFlush(second, absl::OkStatus())));
  EXPECT_TRUE(Flush({kLeft, 1}).ok());
}

TEST_F(GivenAwayTest, AFlushThatNoProgramAskedForLeavesItToTheNext) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.WentBack(kLeft, kLeftConfig, kOlder, kAfter);
  const GivenAway::UnderWay silent = given_away_.BeginFlush({kLeft, 1});
  EXPECT_TRUE(given_away_.EndFlush(silent, absl::OkStatus(), SayLost::kNo).ok());
  EXPECT_TRUE(absl::IsDataLoss(Flush({kLeft, 1})));
  EXPECT_TRUE(Flush({kLeft, 1}).ok());
}

TEST_F(GivenAwayTest, WhatTheDisksHaveIsNotLost) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.WentBack(kLeft, kLeftConfig, kGiven, kAfter);
  EXPECT_TRUE(Flush({kLeft, 1}).ok());
}

// The news came late: what was given away since was written after it.
TEST_F(GivenAwayTest, OldNewsIsNotOfWhatCameAfter) {
  given_away_.Add(kLeft, kLeftConfig, {kAfter, 1});
  given_away_.WentBack(kLeft, kLeftConfig, kOlder, kAfter);
  EXPECT_TRUE(Flush({kLeft, 1}).ok());
}

TEST_F(GivenAwayTest, APageThatWasAllocatedAnewIsAnotherOne) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.WentBack(kLeft, ConfigNumber(4), {}, kAfter);
  EXPECT_TRUE(Flush({kLeft, 1}).ok());
  EXPECT_EQ(given_away_.size(), 0u);
}

TEST_F(GivenAwayTest, AFlushForgetsWhatItBeganWith) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.Add(kLeft + 1, kLeftConfig, kGiven);
  const GivenAway::UnderWay flush = given_away_.BeginFlush({kLeft, 2});
  given_away_.Add(kLeft + 1, kLeftConfig, {kAfter, 1});  // Again, meanwhile: the flush may have come before.
  EXPECT_TRUE(given_away_.EndFlush(flush, absl::OkStatus()).ok());
  EXPECT_FALSE(given_away_.AnyOf({kLeft, 1}));
  EXPECT_TRUE(given_away_.AnyOf({kLeft, 2}));
  EXPECT_EQ(noted_[kLeft], 0);
  EXPECT_EQ(noted_[kLeft + 1], 1);
}

TEST_F(GivenAwayTest, AnOlderStoreIsNotWhatWasGivenAway) {
  given_away_.Add(kLeft, kLeftConfig, kGiven);
  given_away_.Flushed(kLeft, kLeftConfig, kOlder);
  given_away_.Flushed(kLeft, ConfigNumber(2), kGiven);
  EXPECT_TRUE(given_away_.AnyOf({kLeft, 1}));
  given_away_.Flushed(kLeft, kLeftConfig, kGiven);
  EXPECT_FALSE(given_away_.AnyOf({kLeft, 1}));
}

TEST_F(GivenAwayTest, OfTooManyEachThatGoesBackCountsAsLost) {
  for (uint64_t i = 0; i < 5; ++i) given_away_.Add(kLeft + i, kLeftConfig, kGiven);
  EXPECT_EQ(given_away_.size(), 4u);
  EXPECT_TRUE(given_away_.AnyOf({kLeft + 100, 1}));
  given_away_.WentBack(kLeft + 4, kLeftConfig, kOlder, kAfter);
  const absl::Status lost = Flush({kLeft, 100});
  EXPECT_TRUE(absl::IsDataLoss(lost)) << lost;
}

}  // namespace
}  // namespace mangrove
