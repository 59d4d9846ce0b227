#include "node/quiet_watch.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

constexpr DurationNs kLook = 100 * kMillisecond;

// How long it takes until it may go: `taken` and `flush` say what is seen at a time.
template <typename Taken, typename Flush>
DurationNs Watch(DurationNs flush_until, Taken taken, Flush flush) {
  const TimeNs begin = 1000 * kSecond;
  QuietWatch watch(begin, begin + flush_until, taken(0));
  for (DurationNs passed = kLook; passed < 100 * kSecond; passed += kLook) {
    if (watch.Look(begin + passed, taken(passed), flush(passed))) return passed;
  }
  return 100 * kSecond;
}

const auto kNobody = [](DurationNs) { return false; };
const auto kNothing = [](DurationNs) { return uint64_t{7}; };

// Covers: C11
TEST(QuietWatch, WhoIsAskedForNothingGoesSoon) {
  EXPECT_EQ(Watch(10 * kSecond, kNothing, kNobody), QuietWatch::kQuiet);
}

TEST(QuietWatch, WhatIsAskedBeginsTheQuietAnew) {
  const auto taken = [](DurationNs passed) { return uint64_t{passed < kSecond ? 1u : 2u}; };
  EXPECT_EQ(Watch(10 * kSecond, taken, kNobody), QuietWatch::kQuiet);
  const auto often = [](DurationNs passed) { return static_cast<uint64_t>(std::min(passed, kSecond) / kLook); };
  EXPECT_EQ(Watch(10 * kSecond, often, kNobody), kSecond + QuietWatch::kQuiet);
}

TEST(QuietWatch, OthersThatWorkOnAreNotWaitedForLong) {
  const auto always = [](DurationNs passed) { return static_cast<uint64_t>(passed / kLook); };
  EXPECT_EQ(Watch(10 * kSecond, always, kNobody), QuietWatch::kMostForOthers);
}

TEST(QuietWatch, OthersThatFlushAreWaitedForAsLongAsItMightHaveFlushedItself) {
  const auto flush = [](DurationNs passed) { return passed < 6 * kSecond; };
  EXPECT_EQ(Watch(10 * kSecond, kNothing, flush), 6 * kSecond - kLook + QuietWatch::kQuiet);
  EXPECT_EQ(Watch(4 * kSecond, kNothing, flush), 4 * kSecond);
  EXPECT_EQ(Watch(0, kNothing, flush), QuietWatch::kMostForOthers);
}

}  // namespace
}  // namespace mangrove
