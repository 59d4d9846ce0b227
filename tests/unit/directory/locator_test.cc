#include "directory/locator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

namespace mangrove {
namespace {

const std::vector<NodeId> kNodes = {NodeId(3), NodeId(1), NodeId(9), NodeId(4)};

PageId Segment(uint64_t n) { return PageId(absl::uint128(n) * kSegmentPages); }

TEST(Locator, PagesOfASegmentHaveOneResponsibleNode) {
  const HashLocator locator(kNodes);
  for (uint64_t s = 1; s < 50; ++s) {
    EXPECT_EQ(locator.Primary(Segment(s)), locator.Primary(Segment(s) + (kSegmentPages - 1)));
  }
}

TEST(Locator, OrderInWhichNodesAreNamedDoesNotMatter) {
  std::vector<NodeId> sorted = kNodes;
  std::sort(sorted.begin(), sorted.end());
  const HashLocator one(kNodes);
  const HashLocator other(sorted);
  for (uint64_t s = 1; s < 200; ++s) EXPECT_EQ(one.CoreHolders(Segment(s), 3), other.CoreHolders(Segment(s), 3));
}

TEST(Locator, PrimaryIsTheResponsibleNodeAndNoHolderIsNamedTwice) {
  const HashLocator locator(kNodes);
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
  const HashLocator locator(kNodes);
  for (uint64_t s = 1; s < 50; ++s) {
    std::vector<NodeId> more = locator.CoreHolders(Segment(s), 3);
    more.pop_back();
    EXPECT_EQ(locator.CoreHolders(Segment(s), 2), more);
  }
}

TEST(Locator, HoldersOfARangeAreThoseOfItsPages) {
  const HashLocator locator(kNodes);
  for (uint64_t length : {1, 2, 3, 20}) {
    const PageRange range{Segment(5) + 17, length * kSegmentPages};
    std::set<NodeId> expected;
    for (uint64_t i = 0; i < range.count; ++i) {
      for (NodeId node : locator.CoreHolders(range.first + i, 2)) expected.insert(node);
    }
    EXPECT_EQ(locator.CoreHolders(range, 2), std::vector<NodeId>(expected.begin(), expected.end()));
  }
}

TEST(Locator, SegmentsAreSpreadEvenly) {
  const HashLocator locator(kNodes);
  std::map<NodeId, int> counts;
  for (uint64_t s = 0; s < 4000; ++s) ++counts[locator.Primary(Segment(s))];
  ASSERT_EQ(counts.size(), kNodes.size());
  for (const auto& [node, count] : counts) EXPECT_NEAR(count, 1000, 150) << ToString(node);
}

TEST(Locator, PlacesNeverChange) {
  const HashLocator locator({NodeId(1), NodeId(2), NodeId(3)});
  std::vector<uint64_t> places;
  for (uint64_t s = 0; s < 12; ++s) places.push_back(locator.Primary(Segment(s)).value);
  EXPECT_EQ(places, (std::vector<uint64_t>{1, 3, 1, 3, 3, 2, 1, 2, 3, 3, 2, 1}));
}

}  // namespace
}  // namespace mangrove
