// What weights a leader derives from the disks' sizes.
// Covers: G13

#include "recovery/disk_weights.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "directory/address.h"
#include "directory/locator.h"

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

TEST(DiskWeights, AMoveHasToFit) {
  const DiskRooms rooms = Rooms({1000, 1000, 100});
  const DiskWeights then = {{NodeId(3), 2}};
  // What the small one loses comes to the others.
  EXPECT_TRUE(Fit(rooms, Rooms({500, 500, 100}), {}, then));
  EXPECT_FALSE(Fit(rooms, Rooms({930, 500, 100}), {}, then));
  EXPECT_FALSE(Fit(rooms, Rooms({500, 930, 100}), {}, then));
  // And the other way round: a fifth of a half, or so, of all.
  EXPECT_FALSE(Fit(rooms, Rooms({300, 300, 30}), then, {}));
  EXPECT_TRUE(Fit(Rooms({1000, 1000, 1000}), Rooms({300, 300, 30}), then, {}));
  // Who gets nothing may be full: and what does not change gets nothing.
  EXPECT_TRUE(Fit(rooms, Rooms({1000, 1000, 100}), then, then));
}

// What is reckoned against what the locator does, of one copy. (Of two a small disk gets somewhat more, for which room is spared.)
TEST(DiskWeights, WhatComesToADiskIsReckonedAsItComes) {
  constexpr uint64_t kSegments = 20'000;
  const std::set<NodeId> nodes{NodeId(1), NodeId(2), NodeId(3), NodeId(4)};
  const DiskWeights now{{NodeId(2), 8}, {NodeId(3), 3}};
  const DiskWeights then{{NodeId(1), 12}, {NodeId(2), 4}, {NodeId(3), 6}};
  const Locator before(nodes, now);
  const Locator after(nodes, then);
  std::map<NodeId, uint32_t> comes;
  for (uint64_t i = 0; i < kSegments; ++i) {
    const PageId page(i * kSegmentPages);
    const NodeId to = after.CoreHolders(page, 1).at(0);
    if (before.CoreHolders(page, 1).at(0) != to) ++comes[to];
  }
  // Room for a bit more, or a bit less, than a quarter more than that, of a disk of which a sixteenth stays free.
  const auto fits = [&](NodeId node, double share) {
    DiskRooms rooms = Rooms({1'000'000, 1'000'000, 1'000'000, 1'000'000});
    rooms[node] = static_cast<uint32_t>(1.25 * share * comes[node] * 16 / 15);
    DiskRooms used = Rooms({0, 0, 0, 0});
    used[node == NodeId(1) ? NodeId(2) : NodeId(1)] = kSegments;
    return Fit(rooms, used, now, then);
  };
  EXPECT_EQ(comes.count(NodeId(2)), 0u);
  for (const uint64_t node : {1, 3, 4}) {
    EXPECT_TRUE(fits(NodeId(node), 1.06)) << node;
    EXPECT_FALSE(fits(NodeId(node), 0.94)) << node;
  }
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
