// What weights a leader derives from the disks' sizes.
// Covers: G13

#include "recovery/disk_weights.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace mangrove {
namespace {

// Of nodes 1, 2 and so on.
DiskRooms Rooms(const std::vector<uint32_t>& mib) {
  DiskRooms rooms;
  for (const uint32_t room : mib) rooms[NodeId(rooms.size() + 1)] = room;
  return rooms;
}

TEST(DiskWeights, DisksOfOneSizeHaveTheFullWeight) {
  EXPECT_EQ(WeightsFor(Rooms({})), DiskWeights());
  EXPECT_EQ(WeightsFor(Rooms({7})), DiskWeights());
  EXPECT_EQ(WeightsFor(Rooms({500'000, 500'000, 470'000})), DiskWeights());
}

TEST(DiskWeights, ASmallDiskHasTheNearestStepAndNeverNone) {
  const DiskWeights weights = WeightsFor(Rooms({1600, 800, 450, 290, 100, 1, 1500}));
  EXPECT_EQ(weights, (DiskWeights{{NodeId(2), 8}, {NodeId(3), 4}, {NodeId(4), 3}, {NodeId(5), 1}, {NodeId(6), 1}}));
}

TEST(DiskWeights, WhoComesIsWeighedBesideTheOthers) {
  EXPECT_EQ(WeightBeside(Rooms({1000, 1000}), {}, 1000), 16);
  EXPECT_EQ(WeightBeside(Rooms({1000, 1000}), {}, 5000), 16);
  EXPECT_EQ(WeightBeside(Rooms({1000, 1000}), {}, 250), 4);
  EXPECT_EQ(WeightBeside(Rooms({1000, 1000}), {}, 1), 1);
  EXPECT_EQ(WeightBeside(Rooms({1000, 250}), {{NodeId(2), 4}}, 500), 8);
  // The largest one is not there any more.
  EXPECT_EQ(WeightBeside(Rooms({500, 250}), {{NodeId(1), 8}, {NodeId(2), 4}}, 1000), 16);
  EXPECT_EQ(WeightBeside({}, {}, 7), 16);
}

TEST(DiskWeights, MostIsAskedOfTheDiskThatIsFullFirst) {
  EXPECT_EQ(MostAskedOf(Rooms({500, 500}), {}), 1000U);
  EXPECT_EQ(MostAskedOf(Rooms({100, 300}), {}), 2000U);
  EXPECT_EQ(MostAskedOf(Rooms({100, 400}), {{NodeId(1), 4}}), 1000U);
  // The most and the largest.
  DiskRooms rooms;
  for (uint64_t node = 1; node <= 4096; ++node) rooms[NodeId(node)] = UINT32_MAX;
  EXPECT_EQ(MostAskedOf(rooms, {}), 1000U);
}

TEST(DiskWeights, ChangesAreWorthAMoveOnlyIfMarkedlyMoreFits) {
  EXPECT_TRUE(AreWorthAMove(Rooms({1000, 1000, 100}), {}, {{NodeId(3), 2}}));
  EXPECT_FALSE(AreWorthAMove(Rooms({1000, 1000, 800}), {}, WeightsFor(Rooms({1000, 1000, 800}))));
  EXPECT_FALSE(AreWorthAMove(Rooms({1000, 100}), {{NodeId(2), 2}}, {{NodeId(2), 2}}));
  EXPECT_FALSE(AreWorthAMove(Rooms({1000, 1000}), {}, {{NodeId(2), 8}}));
}

// However sizes drift: what was changed to is not changed at once again.
TEST(DiskWeights, NothingGoesToAndFro) {
  for (uint32_t small = 1; small <= 2000; ++small) {
    const DiskRooms rooms = Rooms({1000, 1000, small});
    const DiskWeights weights = WeightsFor(rooms);
    for (const uint32_t percent : {92, 96, 104, 108}) {
      const DiskRooms drifted = Rooms({1000, 1000, 1 + small * percent / 100});
      const DiskWeights then = WeightsFor(drifted);
      if (!AreWorthAMove(drifted, weights, then)) continue;
      EXPECT_FALSE(AreWorthAMove(rooms, then, weights)) << small << " and " << percent << " % of it";
    }
  }
}

}  // namespace
}  // namespace mangrove
