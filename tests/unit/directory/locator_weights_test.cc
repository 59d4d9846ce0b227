// How weights share out what is kept on disk.
// Covers: G13

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "directory/locator.h"

namespace mangrove {
namespace {

using Weights = std::map<NodeId, uint8_t>;

constexpr uint64_t kSegments = 40'000;

PageId SegmentAt(uint64_t n) { return PageId(absl::uint128(n) * kSegmentPages); }

std::set<NodeId> Ids(uint64_t count) {
  std::set<NodeId> nodes;
  for (uint64_t node = 1; node <= count; ++node) nodes.insert(NodeId(node));
  return nodes;
}

// Three groups, of three, two and two nodes.
NodeId In(uint64_t group, uint64_t place) { return NodeId(group * kGroupNodes + place); }
const std::set<NodeId> kInGroups = {In(1, 0), In(1, 1), In(1, 2), In(2, 0), In(2, 1), In(5, 0), In(5, 1)};

std::map<NodeId, double> SharesOf(const Locator& locator, uint32_t replicas) {
  std::map<NodeId, double> shares;
  for (uint64_t s = 0; s < kSegments; ++s) {
    for (const NodeId node : locator.CoreHolders(SegmentAt(s), replicas)) shares[node] += 1.0 / kSegments;
  }
  return shares;
}

// --- Without weights, and with the same ---------------------------------------------------------------------------------

TEST(LocatorWeights, WhereAllAreTheSameThePlacesAreThoseWithoutWeights) {
  for (const std::set<NodeId>& nodes : {Ids(1), Ids(5), Ids(30), kInGroups}) {
    const Locator without(nodes);
    for (const uint8_t weight : {1, 7, 16}) {
      Weights weights;
      for (const NodeId node : nodes) weights[node] = weight;
      const Locator with(nodes, weights);
      for (uint64_t s = 0; s < 2000; ++s) {
        ASSERT_EQ(with.CoreHolders(SegmentAt(s), 3), without.CoreHolders(SegmentAt(s), 3)) << s;
        ASSERT_EQ(with.Primary(SegmentAt(s)), without.Primary(SegmentAt(s))) << s;
      }
    }
  }
}

TEST(LocatorWeights, OfWhomNothingIsSaidHasTheFullWeightAndOthersAreNotLookedAt) {
  const Locator said(Ids(3), {{NodeId(1), 4}, {NodeId(2), Locator::kFullWeight}, {NodeId(3), 16}, {NodeId(9), 1}});
  const Locator unsaid(Ids(3), {{NodeId(1), 4}});
  for (uint64_t s = 0; s < 500; ++s) ASSERT_EQ(said.CoreHolders(SegmentAt(s), 2), unsaid.CoreHolders(SegmentAt(s), 2));
}

// The integers keep the order of the hashes: those of one weight follow each other as they do without weights.
TEST(LocatorWeights, NodesOfOneWeightKeepTheirOrder) {
  const Locator without(Ids(12));
  const Locator with(Ids(12), {{NodeId(5), 1}, {NodeId(9), 3}});
  for (uint64_t s = 0; s < 5000; ++s) {
    std::vector<NodeId> before = without.CoreHolders(SegmentAt(s), 12);
    std::vector<NodeId> after = with.CoreHolders(SegmentAt(s), 12);
    for (auto* nodes : {&before, &after}) {
      std::erase_if(*nodes, [](NodeId node) { return node == NodeId(5) || node == NodeId(9); });
    }
    ASSERT_EQ(before, after) << s;
  }
}

// --- Shares -------------------------------------------------------------------------------------------------------------

TEST(LocatorWeights, TheFirstHoldersAreInProportionToTheWeights) {
  const std::vector<Weights> all = {
      {{NodeId(1), 8}},
      {{NodeId(1), 1}},
      {{NodeId(1), 1}, {NodeId(2), 2}, {NodeId(3), 4}, {NodeId(4), 8}},
      {{NodeId(1), 3}, {NodeId(2), 5}, {NodeId(3), 7}, {NodeId(4), 11}, {NodeId(5), 13}},
  };
  for (const Weights& weights : all) {
    const std::set<NodeId> nodes = Ids(5);
    const auto weight_of = [&](NodeId node) { return weights.contains(node) ? weights.at(node) : 16; };
    double sum = 0;
    for (const NodeId node : nodes) sum += weight_of(node);
    std::map<NodeId, double> shares = SharesOf(Locator(nodes, weights), 1);
    for (const NodeId node : nodes) {
      const double expected = weight_of(node) / sum;
      // Four standard deviations of that many segments.
      EXPECT_NEAR(shares[node], expected, 4 * std::sqrt(expected * (1 - expected) / kSegments)) << ToString(node);
    }
  }
}

// One of w among n - 1 of W is the first holder of w / (w + (n-1) W), and the second where another one is the first.
TEST(LocatorWeights, WithTwoCopiesASmallDiskKeepsWhatDrawingTwoByWeightGives) {
  for (const double weight : {2.0, 4.0, 8.0}) {
    const double others = 4;
    const double all = weight + others * 16;
    const double expected = weight / all + (others * 16 / all) * (weight / (all - 16));
    const double share = SharesOf(Locator(Ids(5), {{NodeId(3), static_cast<uint8_t>(weight)}}), 2)[NodeId(3)];
    EXPECT_NEAR(share, expected, 0.01) << weight;
  }
}

TEST(LocatorWeights, ManyNodesOfTwoSizesShareByTheirSizes) {
  Weights weights;
  for (uint64_t node = 1; node <= 30; ++node) weights[NodeId(node)] = 4;
  double small = 0;
  for (const auto& [node, share] : SharesOf(Locator(Ids(60), weights), 1)) small += node.value <= 30 ? share : 0;
  EXPECT_NEAR(small, 0.2, 0.01);
}

// --- Changes ------------------------------------------------------------------------------------------------------------

TEST(LocatorWeights, WhereOneWeightChangesOnlyWhatThatNodeKeepsMoves) {
  for (const std::set<NodeId>& nodes : {Ids(6), kInGroups}) {
    const Weights others = {{*std::next(nodes.begin()), 8}, {*nodes.rbegin(), 3}};
    Weights light = others;
    light[*nodes.begin()] = 4;
    Weights heavy = others;
    heavy[*nodes.begin()] = 12;
    const Locator before(nodes, light);
    const Locator after(nodes, heavy);
    int moved = 0;
    for (uint64_t s = 0; s < 5000; ++s) {
      for (const uint32_t replicas : {1U, 2U, 3U}) {
        const std::vector<NodeId> then = before.CoreHolders(SegmentAt(s), replicas);
        std::vector<NodeId> now = after.CoreHolders(SegmentAt(s), replicas);
        std::erase_if(now, [&](NodeId node) { return std::find(then.begin(), then.end(), node) != then.end(); });
        if (now.empty()) continue;
        ASSERT_EQ(now, std::vector<NodeId>{*nodes.begin()}) << s;  // It gained; and one other lost.
        ++moved;
      }
    }
    EXPECT_GT(moved, 500);
  }
}

TEST(LocatorWeights, WhoComesTakesFromEachAndNobodyElseGains) {
  const Weights weights = {{NodeId(1), 4}, {NodeId(2), 8}, {NodeId(7), 2}};
  const Locator before(Ids(6), weights);
  const Locator after(Ids(7), weights);
  for (uint64_t s = 0; s < 5000; ++s) {
    const std::vector<NodeId> then = before.CoreHolders(SegmentAt(s), 2);
    for (const NodeId node : after.CoreHolders(SegmentAt(s), 2)) {
      const bool kept = std::find(then.begin(), then.end(), node) != then.end();
      ASSERT_TRUE(kept || node == NodeId(7)) << s;
    }
  }
}

// --- Groups -------------------------------------------------------------------------------------------------------------

TEST(LocatorWeights, HoldersStayInDifferentGroups) {
  const Locator locator(kInGroups, {{In(1, 0), 1}, {In(1, 1), 2}, {In(2, 0), 4}, {In(5, 1), 8}});
  for (uint64_t s = 0; s < 5000; ++s) {
    std::set<uint64_t> groups;
    for (const NodeId node : locator.CoreHolders(SegmentAt(s), 3)) groups.insert(GroupOf(node));
    ASSERT_EQ(groups.size(), 3U) << s;
  }
}

TEST(LocatorWeights, WithinAGroupThatKeepsOneOfEachTheNodesShareByTheirWeights) {
  const Locator locator(kInGroups, {{In(2, 0), 4}});
  std::map<NodeId, double> shares = SharesOf(locator, 3);
  EXPECT_NEAR(shares[In(2, 0)], 0.2, 0.01);
  EXPECT_NEAR(shares[In(2, 1)], 0.8, 0.01);
  EXPECT_NEAR(shares[In(5, 0)], 0.5, 0.01);
}

// --- For ever -----------------------------------------------------------------------------------------------------------

TEST(LocatorWeights, PlacesNeverChange) {
  const Locator locator(Ids(4), {{NodeId(1), 1}, {NodeId(2), 4}, {NodeId(3), 11}});
  std::vector<uint64_t> places;
  uint64_t sum = 0;
  for (uint64_t s = 0; s < 20'000; ++s) {
    for (const NodeId node : locator.CoreHolders(SegmentAt(s), 4)) sum = sum * 31 + node.value;
    if (s < 16) places.push_back(locator.Primary(SegmentAt(s)).value);
  }
  EXPECT_EQ(places, (std::vector<uint64_t>{3, 3, 4, 3, 3, 4, 4, 4, 2, 4, 3, 4, 4, 2, 3, 4}));
  EXPECT_EQ(sum, 6014904511514067684U);
}

}  // namespace
}  // namespace mangrove
