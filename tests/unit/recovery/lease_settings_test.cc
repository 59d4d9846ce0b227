// Everything about leases is in proportion to their length.
//
// Covers: C02

#include "recovery/lease_settings.h"

#include <gtest/gtest.h>

#include "recovery/stop_patience.h"

namespace mangrove {
namespace {

TEST(RecoveryTiming, TheUsualLeaseGivesTheUsualTiming) {
  const RecoveryTiming usual;
  const RecoveryTiming timing =
      TimingOf(kDefaultLeaseMs * kMillisecond, kDefaultReplaceAfterS * kSecond, kDefaultReweighAfterS * kSecond);
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
    const RecoveryTiming timing = TimingOf(lease_ms * kMillisecond, 20 * kSecond, 30 * kSecond);
    EXPECT_EQ(timing.lease, lease_ms * kMillisecond);
    EXPECT_EQ(timing.replace_after, 20 * kSecond);
    EXPECT_EQ(timing.reweigh_after, 30 * kSecond);
    EXPECT_EQ(timing.silent, 3 * timing.pulse);
    EXPECT_EQ(timing.election, 6 * timing.heartbeat);
    EXPECT_LT(timing.silent, timing.lease / 2);
    EXPECT_LT(timing.election, timing.lease / 2);
  }
}

// Covers: C11
TEST(RecoveryTiming, WhoStopsIsAsPatientAsItsLeaseIsLong) {
  const RecoveryTiming usual;
  EXPECT_EQ(HandOverPatience(usual), 300 * kMillisecond);
  EXPECT_EQ(LeavePatience(usual), 500 * kMillisecond);
  for (const uint32_t lease_ms : {1500U, 4000U, kMostLeaseMs}) {
    const RecoveryTiming timing = TimingOf(lease_ms * kMillisecond, 20 * kSecond, 30 * kSecond);
    EXPECT_EQ(HandOverPatience(timing), HandOverPatience(usual) * lease_ms / kDefaultLeaseMs);
    EXPECT_EQ(LeavePatience(timing), LeavePatience(usual) * lease_ms / kDefaultLeaseMs);
    // What is said once more when it was lost: a heartbeat, and a third of a pulse (recovery/member.cc).
    EXPECT_GT(HandOverPatience(timing), 5 * timing.heartbeat);
    EXPECT_GT(LeavePatience(timing), 5 * timing.pulse / 3);
  }
}

}  // namespace
}  // namespace mangrove
