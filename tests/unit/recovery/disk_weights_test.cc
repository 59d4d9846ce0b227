// What weights a leader derives from the disks' sizes.
// Covers: G13

#include "recovery/disk_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <utility>
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

// Of two groups each keeps a copy: in the group of small disks the two, which are alike, would have weights 1 and 2.
TEST(DiskWeights, WhereLessFitsOfMoreCopiesNothingMoves) {
  const DiskRooms rooms = {{NodeId(1), 1400}, {NodeId(2), 1420}, {NodeId(65), 16'000}, {NodeId(66), 16'000}};
  EXPECT_EQ(WeightsFor(rooms), (DiskWeights{{NodeId(1), 1}, {NodeId(2), 2}}));
  EXPECT_FALSE(AreWorthAMove(rooms, {}, WeightsFor(rooms)));
  const DiskRooms larger = {{NodeId(1), 16'000}, {NodeId(65), 1000}, {NodeId(66), 400}};
  EXPECT_FALSE(AreWorthAMove(larger, {{NodeId(66), 6}}, {{NodeId(65), 1}, {NodeId(66), 1}}));
  const DiskRooms alike = {{NodeId(1), 1000}, {NodeId(2), 250}, {NodeId(65), 1000}, {NodeId(66), 250}};
  EXPECT_TRUE(AreWorthAMove(alike, {}, WeightsFor(alike)));
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

// What is reckoned against what the locator does, of one copy. (Of two a disk may get more, and how many there are is not known.)
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
  // Room for more, or a bit less, than a quarter more than that, of a disk of which a sixteenth stays free.
  const auto fits = [&](NodeId node, double share) {
    DiskRooms rooms = Rooms({1'000'000, 1'000'000, 1'000'000, 1'000'000});
    rooms[node] = static_cast<uint32_t>(1.25 * share * comes[node] * 16 / 15);
    DiskRooms used = Rooms({0, 0, 0, 0});
    used[node == NodeId(1) ? NodeId(2) : NodeId(1)] = kSegments;
    return Fit(rooms, used, now, then);
  };
  EXPECT_EQ(comes.count(NodeId(2)), 0u);
  for (const uint64_t node : {1, 3, 4}) {
    EXPECT_TRUE(fits(NodeId(node), 2.5)) << node;
    EXPECT_FALSE(fits(NodeId(node), 0.94)) << node;
  }
}

// What comes to disks, and what they have, by the locator: of some groups of groups, some disks each, and 1 to 5 copies.
struct Move {
  DiskWeights now;
  DiskWeights then;
  DiskRooms used;
  std::map<NodeId, uint32_t> comes;
};
Move RandomMove(uint64_t seed, uint64_t segments) {
  std::mt19937_64 random(seed);
  constexpr std::array<uint8_t, 8> kSteps = {1, 2, 3, 4, 6, 8, 12, 16};
  const uint64_t groups = 1 + random() % 4;
  const uint64_t outer = 1 + random() % 2;
  const uint32_t replicas = 1 + random() % 5;
  Move move;
  std::set<NodeId> nodes;
  for (uint64_t group = 0; group < groups; ++group) {
    const uint64_t count = 1 + random() % 4;
    for (uint64_t i = 1; i <= count; ++i) {
      const NodeId node((group % outer) << 12 | group << 6 | i);
      nodes.insert(node);
      move.now[node] = kSteps[random() % kSteps.size()];
      move.then[node] = random() % 3 == 0 ? move.now[node] : kSteps[random() % kSteps.size()];
      move.used[node] = 0;
    }
  }
  const Locator before(nodes, move.now);
  const Locator after(nodes, move.then);
  for (uint64_t i = 0; i < segments; ++i) {
    const PageId page((random() % (uint64_t{1} << 40)) * kSegmentPages);
    const std::vector<NodeId> had = before.CoreHolders(page, replicas);
    for (NodeId node : had) ++move.used[node];
    for (NodeId node : after.CoreHolders(page, replicas)) {
      if (std::find(had.begin(), had.end(), node) == had.end()) ++move.comes[node];
    }
  }
  return move;
}

// A disk that would be full before everything has moved is never said to have room, however disks are grouped.
TEST(DiskWeights, OfSeveralGroupsNoDiskIsFilledByAMove) {
  constexpr uint64_t kSegments = 4'000;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const Move move = RandomMove(seed, kSegments);
    DiskRooms rooms;
    for (const auto& [node, used] : move.used) rooms[node] = 1'000'000'000;
    for (const auto& [node, comes] : move.comes) {
      if (comes < kSegments / 500) continue;  // The reckoning may not have seen any.
      // What comes alone, but for what chance makes of a sample: what the disk has others have besides.
      DiskRooms used = move.used;
      const auto other = used.begin()->first == node ? std::next(used.begin()) : used.begin();
      other->second += std::exchange(used[node], 0);
      rooms[node] = std::max(1U, static_cast<uint32_t>(comes - 3 * std::sqrt(comes)));
      EXPECT_FALSE(Fit(rooms, used, move.now, move.then)) << "seed " << seed << ", node " << node.value;
      rooms[node] = 1'000'000'000;
    }
  }
}

// Two groups of which each keeps a copy: what the small disk of a group loses comes to the others of it.
TEST(DiskWeights, WhatComesToADiskComesFromItsGroup) {
  const DiskRooms rooms = {{NodeId(1), 1000}, {NodeId(2), 100}, {NodeId(65), 1000}, {NodeId(66), 1000}};
  const DiskWeights then = {{NodeId(2), 2}};
  // Of 800 in each group 100 are on the small one, and 700 on the other one, which gets 7/18 of all of them; of its half.
  EXPECT_TRUE(Fit(rooms, {{NodeId(1), 300}, {NodeId(2), 100}, {NodeId(65), 200}, {NodeId(66), 200}}, {}, then));
  EXPECT_FALSE(Fit(rooms, {{NodeId(1), 700}, {NodeId(2), 100}, {NodeId(65), 400}, {NodeId(66), 400}}, {}, then));
}

// However sizes drift: what was changed to is not changed at once again.
TEST(DiskWeights, NothingGoesToAndFro) {
  for (uint32_t small = 1; small <= 2000; small += 7) {
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
