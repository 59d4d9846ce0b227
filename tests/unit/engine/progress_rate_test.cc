// Covers: C06

#include "engine/progress_rate.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

ProgressRate::Done DoneAt(uint64_t compared, uint64_t copied, double share) { return {compared, copied, share}; }

TEST(ProgressRate, SaysNothingBeforeItHasSeenSome) {
  ProgressRate rate;
  EXPECT_FALSE(rate.Now(kSecond, DoneAt(5, 5, 0.5)).has_value());
  rate.Note(kSecond, {});
  EXPECT_FALSE(rate.Now(2 * kSecond, DoneAt(5, 5, 0.5)).has_value());
  EXPECT_TRUE(rate.Now(3 * kSecond, DoneAt(5, 5, 0.5)).has_value());
}

TEST(ProgressRate, TheTimeLeftFollowsFromTheShareThatIsDone) {
  ProgressRate rate;
  rate.Note(kSecond, {});
  const auto now = rate.Now(5 * kSecond, DoneAt(400, 40, 0.25));
  ASSERT_TRUE(now.has_value());
  EXPECT_DOUBLE_EQ(now->compared_per_second, 100);
  EXPECT_DOUBLE_EQ(now->copied_per_second, 10);
  EXPECT_EQ(now->seconds_left, 12u);
}

TEST(ProgressRate, OnlyTheLastTenSecondsCount) {
  ProgressRate rate;
  uint64_t pages = 0;
  for (int second = 1; second <= 100; ++second) {
    rate.Note(second * kSecond, DoneAt(pages, 0, static_cast<double>(pages) / 100'000));
    pages += second < 80 ? 1000 : 10;
  }
  const auto now = rate.Now(100 * kSecond, DoneAt(pages - 10, 0, static_cast<double>(pages - 10) / 100'000));
  ASSERT_TRUE(now.has_value());
  EXPECT_DOUBLE_EQ(now->compared_per_second, 10);
}

TEST(ProgressRate, WhatStandsStillHasNoTimeLeft) {
  ProgressRate rate;
  for (int second = 1; second <= 30; ++second) rate.Note(second * kSecond, DoneAt(7, 7, 0.5));
  const auto now = rate.Now(30 * kSecond, DoneAt(7, 7, 0.5));
  ASSERT_TRUE(now.has_value());
  EXPECT_DOUBLE_EQ(now->compared_per_second, 0);
  EXPECT_FALSE(now->seconds_left.has_value());
}

TEST(ProgressRate, WhatBeganAnewHasNoTimeLeft) {
  ProgressRate rate;
  rate.Note(kSecond, DoneAt(100, 100, 0.9));
  const auto now = rate.Now(5 * kSecond, DoneAt(0, 0, 0.1));
  ASSERT_TRUE(now.has_value());
  EXPECT_DOUBLE_EQ(now->compared_per_second, 0);
  EXPECT_FALSE(now->seconds_left.has_value());
  rate.Clear();
  EXPECT_FALSE(rate.Now(9 * kSecond, {}).has_value());
}

TEST(ProgressRate, WhatIsSaidTooOftenIsNotKept) {
  ProgressRate rate;
  for (int i = 0; i < 1000; ++i) rate.Note(kSecond + i * kMillisecond, DoneAt(static_cast<uint64_t>(i), 0, 0));
  EXPECT_FALSE(rate.IsDue(kSecond + 999 * kMillisecond));
  EXPECT_TRUE(rate.IsDue(2 * kSecond));
  const auto now = rate.Now(3 * kSecond, DoneAt(2000, 0, 0.5));
  ASSERT_TRUE(now.has_value());
  EXPECT_DOUBLE_EQ(now->compared_per_second, 1000);
}

}  // namespace
}  // namespace mangrove
