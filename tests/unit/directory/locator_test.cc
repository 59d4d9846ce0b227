#include "directory/locator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

namespace mangrove {
namespace {

const std::set<NodeId> kNodes = {NodeId(3), NodeId(1), NodeId(9), NodeId(4)};

PageId Segment(uint64_t n) { return PageId(absl::uint128(n) * kSegmentPages); }

TEST(Locator, PagesOfASegmentAreKeptTogether) {
  const Locator locator(kNodes);
  for (uint64_t s = 1; s < 50; ++s) {
    EXPECT_EQ(locator.CoreHolders(Segment(s), 2), locator.CoreHolders(Segment(s) + (kSegmentPages - 1), 2));
  }
}

TEST(Locator, ThePrimaryIsTheFirstHolderAndNoHolderIsNamedTwice) {
  const Locator locator(kNodes);
  for (uint64_t s = 1; s < 50; ++s) {
    for (uint32_t replicas = 0; replicas < 7; ++replicas) {
      const std::vector<NodeId> holders = locator.CoreHolders(Segment(s), replicas);
      EXPECT_EQ(holders.size(), std::clamp<size_t>(replicas, 1, kNodes.size()));
      EXPECT_EQ(holders.front(), locator.Primary(Segment(s)));
      EXPECT_EQ(std::set<NodeId>(holders.begin(), holders.end()).size(), holders.size());
    }
  }
}

TEST(Locator, FewerReplicasAreTheFirstOfMore) {
  const Locator locator(kNodes);
  for (uint64_t s = 1; s < 50; ++s) {
    std::vector<NodeId> more = locator.CoreHolders(Segment(s), 3);
    more.pop_back();
    EXPECT_EQ(locator.CoreHolders(Segment(s), 2), more);
  }
}

TEST(Locator, SegmentsAreSpreadEvenly) {
  const Locator locator(kNodes);
  std::map<NodeId, int> primaries;
  std::map<NodeId, int> kept;
  for (uint64_t s = 0; s < 4000; ++s) {
    const std::vector<NodeId> holders = locator.CoreHolders(Segment(s), 2);
    ++primaries[holders.front()];
    for (NodeId node : holders) ++kept[node];
  }
  ASSERT_EQ(primaries.size(), kNodes.size());
  for (const auto& [node, count] : primaries) EXPECT_NEAR(count, 1000, 150) << ToString(node);
  for (const auto& [node, count] : kept) EXPECT_NEAR(count, 2000, 200) << ToString(node);
}

TEST(Locator, WhoGoesLeavesItsPagesToOthersAndNoOtherPageMoves) {
  std::set<NodeId> fewer = kNodes;
  fewer.erase(NodeId(9));
  const Locator with(kNodes);
  const Locator without(fewer);
  std::map<NodeId, int> gained;
  for (uint64_t s = 0; s < 4000; ++s) {
    std::vector<NodeId> before = with.CoreHolders(Segment(s), 2);
    std::vector<NodeId> after = without.CoreHolders(Segment(s), 2);
    if (std::erase(before, NodeId(9)) == 0) {
      EXPECT_EQ(before, after);
      continue;
    }
    EXPECT_EQ(std::erase(after, before.front()), 1U);  // The other stays.
    ++gained[after.front()];
  }
  ASSERT_EQ(gained.size(), fewer.size());
  for (const auto& [node, count] : gained) EXPECT_NEAR(count, 667, 120) << ToString(node);
}

// Three groups, of two, one and two nodes.
const std::set<NodeId> kGrouped = {NodeId(1), NodeId(2), NodeId(kGroupNodes), NodeId(5 * kGroupNodes),
                                   NodeId(5 * kGroupNodes + 1)};

// Covers: G13
TEST(Locator, HoldersAreOfDifferentGroupsAsFarAsThereAreSoMany) {
  const Locator locator(kGrouped);
  std::map<NodeId, int> primaries;
  for (uint64_t s = 1; s < 500; ++s) {
    const std::vector<NodeId> all = locator.CoreHolders(Segment(s), 5);
    EXPECT_EQ(std::set<NodeId>(all.begin(), all.end()), kGrouped);
    std::set<uint64_t> groups;
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(groups.insert(GroupOf(all[i])).second) << s;
    EXPECT_NE(GroupOf(all[3]), GroupOf(all[4])) << s;
    EXPECT_EQ(all.front(), locator.Primary(Segment(s)));
    for (uint32_t replicas = 1; replicas < 5; ++replicas) {
      EXPECT_EQ(locator.CoreHolders(Segment(s), replicas), std::vector<NodeId>(all.begin(), all.begin() + replicas));
    }
    ++primaries[all.front()];
  }
  EXPECT_EQ(primaries.size(), kGrouped.size());
}

// The first node of the group of that path.
NodeId NodeIn(const std::vector<uint64_t>& path, uint64_t place = 0) {
  uint64_t id = 0;
  for (uint64_t group : path) id = id * kGroupNodes + group;
  return NodeId(id * kGroupNodes + place);
}

// Groups of groups: 1/1 and 1/2 of two nodes each, 1/3 of one, and 2/1 of three.
const std::set<NodeId> kNested = {NodeIn({1, 1}, 0), NodeIn({1, 1}, 1), NodeIn({1, 2}, 0), NodeIn({1, 2}, 7),
                                  NodeIn({1, 3}, 0), NodeIn({2, 1}, 0), NodeIn({2, 1}, 1), NodeIn({2, 1}, 2)};

// Covers: C01
TEST(Locator, HoldersAreOfDifferentLargestGroupsFirstAndThenOfDifferentOnesWithinThem) {
  const Locator locator(kNested);
  const auto largest = [](NodeId node) { return GroupOf(node) / kGroupNodes; };
  for (uint64_t s = 1; s < 500; ++s) {
    const std::vector<NodeId> all = locator.CoreHolders(Segment(s), 8);
    EXPECT_EQ(std::set<NodeId>(all.begin(), all.end()), kNested);
    EXPECT_EQ(all.front(), locator.Primary(Segment(s)));
    // One of each, by turns, as long as there are some of both: three of group 2.
    for (size_t i = 0; i < 6; i += 2) EXPECT_NE(largest(all[i]), largest(all[i + 1])) << s;
    std::set<uint64_t> within;
    for (NodeId node : all) {
      if (largest(node) != 1 || within.size() == 3) continue;
      EXPECT_TRUE(within.insert(GroupOf(node)).second) << s;
    }
  }
}

// Covers: C01
TEST(Locator, GroupsOfAnyDepthAreToldApart) {
  const std::vector<uint64_t> deep = {7, 63, 0, 1, 2, 3, 4, 5, 6};
  std::vector<uint64_t> other = deep;
  other.back() = 7;
  std::vector<uint64_t> far = deep;
  far.front() = 8;
  const std::set<NodeId> nodes = {NodeIn(deep, 0), NodeIn(deep, 63), NodeIn(other), NodeIn(far)};
  const Locator locator(nodes);
  for (uint64_t s = 1; s < 200; ++s) {
    const std::vector<NodeId> holders = locator.CoreHolders(Segment(s), 3);
    EXPECT_TRUE(holders[0] == NodeIn(far) || holders[1] == NodeIn(far)) << s;
    EXPECT_NE(GroupOf(holders[1] == NodeIn(far) ? holders[0] : holders[1]), GroupOf(holders[2])) << s;
  }
}

class LocatorOfGroups : public testing::TestWithParam<std::set<NodeId>> {};
INSTANTIATE_TEST_SUITE_P(OneAndTwoLevels, LocatorOfGroups, testing::Values(kGrouped, kNested));

TEST_P(LocatorOfGroups, WhoGoesIsReplacedByOneOther) {
  const Locator with(GetParam());
  for (NodeId gone : GetParam()) {
    std::set<NodeId> fewer = GetParam();
    fewer.erase(gone);
    const Locator without(fewer);
    for (uint64_t s = 1; s < 500; ++s) {
      for (const uint32_t replicas : {1U, 2U, 3U}) {
        std::vector<NodeId> before = with.CoreHolders(Segment(s), replicas);
        const std::vector<NodeId> after = without.CoreHolders(Segment(s), replicas);
        const bool was_holder = std::erase(before, gone) > 0;
        const std::set<NodeId> kept(after.begin(), after.end());
        for (NodeId node : before)
          EXPECT_TRUE(kept.contains(node)) << s << ": " << ToString(node) << " keeps it no more";
        EXPECT_EQ(kept.size(), before.size() + (was_holder ? 1 : 0));
      }
    }
  }
}

TEST(Locator, OfNoNodesNobodyKeepsAnything) {
  EXPECT_EQ(Locator().Primary(Segment(1)), NodeId());
  EXPECT_TRUE(Locator().CoreHolders(Segment(1), 2).empty());
}

TEST(Locator, PlacesNeverChange) {
  const Locator locator({NodeId(1), NodeId(2), NodeId(3)});
  std::vector<uint64_t> places;
  for (uint64_t s = 0; s < 12; ++s) places.push_back(locator.Primary(Segment(s)).value);
  EXPECT_EQ(places, (std::vector<uint64_t>{3, 3, 1, 2, 3, 1, 1, 2, 2, 2, 3, 1}));
}

}  // namespace
}  // namespace mangrove
