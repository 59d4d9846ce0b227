// What a node knows of the cluster's nodes: parts, in their order, from the anchors' database to a node.

#include "recovery/roster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <variant>

#include "recovery/codec.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {
namespace {

constexpr NodeId kSelf(5);

void Set(NodeDatabase& database, uint64_t node, const std::string& name, uint32_t votes = 0) {
  const DatabaseCommand command{.node = NodeId(node), .record = {.name = name, .address = name + ":1", .votes = votes}};
  ASSERT_TRUE(database.Apply(command).ok());
}

// In as many parts as it takes.
int BringUp(const NodeDatabase& database, Roster& roster) {
  int parts = 0;
  while (roster.version < database.roster_version()) {
    const RosterPart part = PartSince(database.nodes(), roster.version);
    // As a message.
    const std::string bytes = EncodeMessage(part);
    const absl::StatusOr<RecoveryMessage> read = DecodeMessage(std::as_bytes(std::span(bytes)));
    EXPECT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(std::get<RosterPart>(*read), part);
    EXPECT_TRUE(roster.Apply(part, kSelf));
    ++parts;
  }
  return parts;
}

// Covers: C08
TEST(Roster, WhatHasChangedIsToldAndNothingElse) {
  NodeDatabase database;
  Set(database, 1, "one", 1);
  Set(database, 5, "five");
  Roster roster;
  EXPECT_EQ(BringUp(database, roster), 1);
  Set(database, 5, "five", 2);
  EXPECT_EQ(PartSince(database.nodes(), roster.version).nodes.size(), 1u);
  EXPECT_EQ(BringUp(database, roster), 1);
  EXPECT_EQ(roster.anchors(), (std::set<NodeId>{NodeId(1), NodeId(5)}));
  ASSERT_TRUE(database.Apply({.kind = DatabaseCommand::Kind::kRemoveNode, .node = NodeId(1)}).ok());
  EXPECT_EQ(BringUp(database, roster), 1);
  EXPECT_EQ(roster.anchors(), std::set<NodeId>{NodeId(5)});
  EXPECT_EQ(roster.Find(NodeId(1)), nullptr);
  EXPECT_EQ(roster.FindName("one"), NodeId());
  EXPECT_EQ(roster.NameOf(NodeId(1)), "one");  // In what is left to be said of it.
}

TEST(Roster, AGreatManyNodesComeInParts) {
  NodeDatabase database;
  for (uint64_t node = 1; node <= NodeDatabase::kMostNodes; ++node) {
    Set(database, node, std::string(node % 7 == 0 ? NodeDatabase::kMostTextBytes - 2 : 3, 'n'));
  }
  Roster roster;
  EXPECT_GT(BringUp(database, roster), 32);
  EXPECT_EQ(roster.nodes, database.nodes());
}

TEST(Roster, ALateOrDoubledPartIsNoNews) {
  NodeDatabase database;
  Set(database, 1, "one");
  const RosterPart first = PartSince(database.nodes(), 0);
  Roster roster;
  ASSERT_TRUE(roster.Apply(first, kSelf));
  Set(database, 1, "one", 3);
  const RosterPart second = PartSince(database.nodes(), roster.version);
  Set(database, 2, "two");
  const RosterPart third = PartSince(database.nodes(), second.version);
  EXPECT_FALSE(roster.Apply(third, kSelf)) << "the second is missing";
  EXPECT_TRUE(roster.Apply(second, kSelf));
  EXPECT_FALSE(roster.Apply(second, kSelf));
  EXPECT_FALSE(roster.Apply(first, kSelf));
  EXPECT_TRUE(roster.Apply(third, kSelf));
  EXPECT_EQ(roster.nodes, database.nodes());
}

// Until the last part: the rest may only be had from those that it names.
TEST(Roster, WhomTheConfigurationAloneNamesIsForgottenWithTheLastPart) {
  Roster roster = RosterOf({1, 2, 3});
  roster.nodes[kSelf] = {.name = "self"};
  const NodeRecord other{.name = "other", .changed = 8};
  EXPECT_TRUE(
      roster.Apply({.after = 0, .version = 8, .is_last = false, .oldest = 8, .nodes = {{NodeId(9), other}}}, kSelf));
  EXPECT_EQ(roster.anchors().size(), 3u);
  const NodeRecord anchor{.name = "anchor", .votes = 1, .changed = 9};
  EXPECT_TRUE(
      roster.Apply({.after = 8, .version = 9, .is_last = true, .oldest = 8, .nodes = {{NodeId(2), anchor}}}, kSelf));
  EXPECT_EQ(roster.anchors(), std::set<NodeId>{NodeId(2)});
  EXPECT_NE(roster.Find(kSelf), nullptr);
  EXPECT_EQ(roster.nodes.size(), 3u);
}

// Its anchors had lost their disks.
TEST(Roster, WhoIsOfAnEarlierLogIsForgotten) {
  NodeDatabase earlier;
  for (uint64_t node : {1, 2, 3, 4}) Set(earlier, node, "n" + std::to_string(node), 1);
  Roster roster;
  BringUp(earlier, roster);
  NodeDatabase founded;
  const DatabaseCommand command{.node = NodeId(2), .record = {.name = "n2", .votes = 1, .changed = 1000}};
  ASSERT_TRUE(founded.Apply(command).ok());
  Set(founded, 4, "n4");
  BringUp(founded, roster);
  EXPECT_EQ(roster.nodes, founded.nodes());
}

TEST(Roster, TheLastThatWereRemovedAreToldOfItAsLongAsNobodyHasTheirAddress) {
  Roster roster;
  roster.nodes[NodeId(1)] = {.name = "there", .address = "a:1", .changed = 1};
  for (uint64_t i = 2; i < 40; ++i) {
    roster.nodes[NodeId(i)] = {
        .name = "gone", .address = "b:" + std::to_string(i), .is_removed = true, .changed = 100 - i};
  }
  roster.nodes[NodeId(2)].address = "a:1";  // The machine has joined anew.
  const std::vector<NodeId> peers = roster.peers();
  EXPECT_EQ(peers.size(), 1u + 15u);
  EXPECT_EQ(peers.front(), NodeId(1));
  EXPECT_EQ(std::count(peers.begin(), peers.end(), NodeId(2)), 0);
  EXPECT_EQ(std::count(peers.begin(), peers.end(), NodeId(3)), 1);
  EXPECT_EQ(std::count(peers.begin(), peers.end(), NodeId(17)), 1);
  EXPECT_EQ(std::count(peers.begin(), peers.end(), NodeId(18)), 0);
}

TEST(Roster, OnADiskItIsWhatItWas) {
  NodeDatabase database;
  Set(database, 1, "one", 1);
  Set(database, 70, "seventy");
  Roster roster;
  BringUp(database, roster);
  const absl::StatusOr<Roster> read = DecodeRoster(EncodeRoster(roster));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, roster);
  EXPECT_FALSE(DecodeRoster("rubbish").ok());
}

}  // namespace
}  // namespace mangrove
