// What `mangrove-sim --scale` measures, in clusters that are small enough for a test.
//
// Covers: B11

#include <gtest/gtest.h>

#include "tests/sim/heap.h"
#include "tests/sim/scale.h"
#include "tests/sim/scale_directory.h"
#include "tests/sim/scale_report.h"

namespace mangrove::sim {
namespace {

void ExpectBoundedCost(const std::vector<NodeId>& nodes) {
  const ScaleResult result = RunScale(nodes, nodes.size());
  EXPECT_LT(result.messages_of_a_member, 15);  // A pulse and an answer each 150 ms.
  EXPECT_LT(result.messages_of_a_monitor, 1'000);
  EXPECT_LT(result.messages_of_the_leader, 1'200);
  EXPECT_LT(result.member_lost, 1'200 * kMillisecond);
  EXPECT_LT(result.monitor_lost, 1'200 * kMillisecond);
  EXPECT_LT(result.leader_lost, 2 * kSecond);
  EXPECT_LT(result.view_spreads, 5 * kMillisecond);
  EXPECT_EQ(result.leases_ended, 0u);
  if (!kHeapIsCounted) return;
  // Of what a node knows of each other one.
  EXPECT_LT(result.bytes_of_a_member, 10'000 + 1'000 * nodes.size());
  EXPECT_GT(result.bytes_of_a_member, 100 * nodes.size());
  EXPECT_GE(result.bytes_of_a_monitor, result.bytes_of_a_member);
  EXPECT_GT(result.bytes_of_the_leader, result.bytes_of_a_monitor);
}

TEST(MembershipScale, ANodeCostsTheSameInALargeClusterAndALossDisturbsNobody) {
  for (const size_t nodes : {20, 64, 200}) {
    SCOPED_TRACE(nodes);
    ExpectBoundedCost(NodesInGroups(nodes));
  }
}

TEST(MembershipScale, GroupsInGroupsCostTheSame) { ExpectBoundedCost(NodesInGroups(std::vector<size_t>{3, 4, 16})); }

TEST(Scale, NodesAreNumberedByTheirPlacesInGroupsOfGroups) {
  const std::vector<NodeId> nodes = NodesInGroups(std::vector<size_t>{2, 2, 3});
  const std::vector<NodeId> expected = {NodeId(1),       NodeId(2),           NodeId(64),          NodeId(65),
                                        NodeId(66),      NodeId(64 * 64),     NodeId(64 * 64 + 1), NodeId(64 * 64 + 2),
                                        NodeId(65 * 64), NodeId(65 * 64 + 1), NodeId(65 * 64 + 2)};
  EXPECT_EQ(nodes, expected);
}

TEST(Scale, WhatIsNoClusterIsRefused) {
  const auto clusters = ParseScale("8,4096,4x16x64");
  ASSERT_TRUE(clusters.has_value());
  ASSERT_EQ(clusters->size(), 3u);
  EXPECT_EQ((*clusters)[1].nodes.size(), 4096u);
  EXPECT_EQ((*clusters)[2].nodes.size(), 4095u);  // There is no node 0.
  for (const char* bad :
       {"", "7", "4097", "8,", "8x", "2x65", "5x16x64", "2x4", "1x0x9", "-8", "18446744073709551617"}) {
    EXPECT_FALSE(ParseScale(bad).has_value()) << bad;
  }
}

// The segments of 12 nodes are more than a leaf has room for, those of 24 more than fit into the leaves of one page.
TEST(DirectoryScale, AColdLookupReadsOnePageOfEachLevelAndAWarmOneTheLeaf) {
  for (const auto& [count, levels] : {std::pair<size_t, int>{12, 2}, {24, 3}}) {
    SCOPED_TRACE(count);
    const DirectoryScaleResult result = RunDirectoryScale(NodesInGroups(count), count);
    EXPECT_EQ(result.levels, levels);
    EXPECT_EQ(result.first.pages, levels);
    EXPECT_GE(result.first.messages, 2 * levels);
    EXPECT_GE(result.first.hops, 2 * levels);
    EXPECT_EQ(result.leaf.pages, 1);
    EXPECT_GE(result.leaf.messages, 2);
    EXPECT_LT(result.leaf.messages, 5);
    EXPECT_LT(result.leaf.hops, 3.2);
    EXPECT_LE(result.all.pages, 1);  // The more it has looked up, the more is here.
    if (!kHeapIsCounted) continue;
    EXPECT_GT(result.responsible_bytes, result.idle_bytes);
    EXPECT_GT(result.asking_bytes, result.idle_bytes);
  }
}

}  // namespace
}  // namespace mangrove::sim
