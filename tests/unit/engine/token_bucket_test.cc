// The rate of copies (engine/token_bucket.h).
//
// Covers: C06

#include "engine/token_bucket.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace mangrove {
namespace {

constexpr TimeNs kStart = 77 * kSecond;
constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(TokenBucket, WithoutALimitNothingWaits) {
  TokenBucket bucket(0, 100 * kMillisecond);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(bucket.Take(kStart, UINT64_MAX), kStart);
  EXPECT_FALSE(bucket.IsEmpty(kStart));
}

TEST(TokenBucket, WhatIsInItGoesAtOnceAndThenTheRateIsHeld) {
  TokenBucket bucket(1000, 100 * kMillisecond);  // A full one has 100.
  EXPECT_EQ(bucket.Take(kStart, 60), kStart);
  EXPECT_FALSE(bucket.IsEmpty(kStart));
  EXPECT_EQ(bucket.Take(kStart, 60), kStart);
  EXPECT_TRUE(bucket.IsEmpty(kStart));
  EXPECT_EQ(bucket.Take(kStart, 60), kStart + 20 * kMillisecond);
  EXPECT_EQ(bucket.Take(kStart, 60), kStart + 80 * kMillisecond);
  EXPECT_EQ(bucket.Take(kStart + 10 * kSecond, 1), kStart + 10 * kSecond);
}

TEST(TokenBucket, AFullOneDoesNotGetFuller) {
  TokenBucket bucket(1000, 100 * kMillisecond);
  EXPECT_EQ(bucket.Take(kStart, 1), kStart);
  const TimeNs later = kStart + 3600 * kSecond;
  EXPECT_EQ(bucket.Take(later, 101), later);
  EXPECT_EQ(bucket.Take(later, 1), later + kMillisecond);
}

// B2
TEST(TokenBucket, WhatIsLargerThanTheBucketHasItsTurn) {
  TokenBucket bucket(1000, 100 * kMillisecond);
  EXPECT_EQ(bucket.Take(kStart, 5000), kStart);
  EXPECT_EQ(bucket.Take(kStart, 5000), kStart + 4900 * kMillisecond);
  EXPECT_EQ(bucket.Take(kStart, 1), kStart + 9900 * kMillisecond);
}

// What divides with a rest is not let go too early, however often.
TEST(TokenBucket, NoMoreGoesThanTheRateHoweverItIsDivided) {
  for (const uint64_t rate : {uint64_t{3}, uint64_t{4097}, kMiB, 7 * kMiB, 1000 * kMiB}) {
    for (const uint64_t amount : {uint64_t{1}, uint64_t{4096}, uint64_t{100 * 4096}}) {
      TokenBucket bucket(rate, 100 * kMillisecond);
      TimeNs last = kStart;
      for (int i = 0; i < 1000; ++i) {
        const TimeNs goes = bucket.Take(last, amount);
        ASSERT_LE(last, goes);
        last = goes;
      }
      // B1: the last one is one amount more.
      const double let_go = 999.0 * static_cast<double>(amount);
      const double allowed = static_cast<double>(rate) * (static_cast<double>(last - kStart) / 1e9 + 0.1);
      EXPECT_LE(let_go, allowed * 1.000001) << rate << " " << amount;
      // Nor is it slower, if a nanosecond for each is left out.
      const double at_least = static_cast<double>(rate) * (static_cast<double>(last - kStart) / 1e9 - 1e-6);
      EXPECT_GE(let_go, at_least) << rate << " " << amount;
    }
  }
}

}  // namespace
}  // namespace mangrove
