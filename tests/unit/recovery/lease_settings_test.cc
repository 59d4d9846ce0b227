// Everything about leases is in proportion to their length.
//
// Covers: C02

#include "recovery/lease_settings.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

TEST(RecoveryTiming, TheUsualLeaseGivesTheUsualTiming) {
  const RecoveryTiming usual;
  const RecoveryTiming timing = TimingOf(kDefaultLeaseMs * kMillisecond, kDefaultReplaceAfterS * kSecond);
  EXPECT_EQ(timing.pulse, usual.pulse);
  EXPECT_EQ(timing.lease, usual.lease);
  EXPECT_EQ(timing.silent, usual.silent);
  EXPECT_EQ(timing.unreachable, usual.unreachable);
  EXPECT_EQ(timing.replace_after, usual.replace_after);
  EXPECT_EQ(timing.heartbeat, usual.heartbeat);
  EXPECT_EQ(timing.election, usual.election);
}

TEST(RecoveryTiming, ALongerLeaseIsLongerInAllThatGoesWithIt) {
  for (const uint32_t lease_ms : {kLeastLeaseMs, 1001U, 2500U, kMostLeaseMs}) {
    const RecoveryTiming timing = TimingOf(lease_ms * kMillisecond, 20 * kSecond);
    EXPECT_EQ(timing.lease, lease_ms * kMillisecond);
    EXPECT_EQ(timing.replace_after, 20 * kSecond);
    EXPECT_EQ(timing.silent, 3 * timing.pulse);
    EXPECT_EQ(timing.election, 6 * timing.heartbeat);
    EXPECT_LT(timing.silent, timing.lease / 2);
    EXPECT_LT(timing.election, timing.lease / 2);
  }
}

}  // namespace
}  // namespace mangrove
