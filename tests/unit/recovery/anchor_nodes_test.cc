// Nodes that are added and changed while the cluster works, as anchors see it: numbers, groups, what is refused, and who is told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "recovery/roster.h"
#include "tests/unit/recovery/anchor_steps.h"

namespace mangrove {
namespace {

class AnchorNodes : public AnchorTest {
 protected:
  using Kind = NodeRequest::Kind;

  // With a view, so that requests count.
  void Begin() {
    Configure(4, 0);
    pulsing_ = {Instance(4)};
    BeginThree();
    RunFor(kSecond);
    ASSERT_TRUE(Database().view().Has(Instance(4)));
  }
  const NodeDatabase& Database() { return At(Leader()).database(); }
  NodeRequest Add(const std::string& name, uint64_t group = NodeRequest::kAnyGroup) {
    return {.kind = Kind::kAdd,
            .record = {.name = name, .address = name + ":1", .identity = {.space = 7, .time = ++time_}},
            .group = group};
  }
  NodeId NodeCalled(const std::string& name) {
    return Roster{.version = 1, .nodes = Database().nodes()}.FindName(name);
  }
  // 0: it was not taken up.
  uint64_t AddAndFind(const NodeRequest& request) {
    Request(request);
    RunFor(200 * kMillisecond);
    return NodeCalled(request.record.name).value;
  }
  void Set(uint64_t node, uint32_t votes) {
    NodeRecord record = *Database().Find(NodeId(node));
    record.votes = votes;
    Request({.kind = Kind::kSet, .node = NodeId(node), .record = record});
    RunFor(kSecond);
  }
  std::vector<RosterPart> PartsToldTo(uint64_t node) {
    std::vector<RosterPart> parts;
    for (const auto& [from, message] : told_[NodeId(node)]) {
      if (const auto* part = std::get_if<RosterPart>(&message)) parts.push_back(*part);
    }
    return parts;
  }

  uint64_t time_ = 0;
};

// Covers: C01
TEST_F(AnchorNodes, ANodeGetsTheFirstFreePlaceOfItsGroupAndNoNumberTwice) {
  Begin();
  EXPECT_EQ(AddAndFind(Add("a")), 5u);
  EXPECT_EQ(AddAndFind(Add("b", 2)), 2 * kGroupNodes);
  EXPECT_EQ(AddAndFind(Add("c", 2)), 2 * kGroupNodes + 1);
  EXPECT_EQ(AddAndFind(Add("d")), 6u);
  // One that is gone leaves its number to nobody, and its name to anybody.
  Request({.kind = Kind::kGiveUp, .node = NodeId(6)});
  RunFor(kSecond);
  ASSERT_TRUE(Database().Find(NodeId(6))->is_removed);
  EXPECT_EQ(AddAndFind(Add("d")), 7u);
  EXPECT_NE(Database().Find(NodeId(6))->identity, Database().Find(NodeId(7))->identity);
}

// Covers: C01
TEST_F(AnchorNodes, AGroupHasRoomForSixtyFour) {
  Begin();
  for (uint64_t i = 0; i < kGroupNodes; ++i) {
    ASSERT_EQ(AddAndFind(Add("n" + std::to_string(100 + i), 3)), 3 * kGroupNodes + i);
  }
  EXPECT_EQ(AddAndFind(Add("more", 3)), 0u);
  EXPECT_EQ(AddAndFind(Add("more", uint64_t{1} << 54)), 0u) << "there is no such group";
  for (uint64_t i = 5; i < kGroupNodes; ++i) ASSERT_EQ(AddAndFind(Add("o" + std::to_string(i))), i);
  EXPECT_EQ(AddAndFind(Add("more")), kGroupNodes) << "the first group is full";
}

// Covers: C03
TEST_F(AnchorNodes, ANodeThatIsAskedForTwiceIsOne) {
  Begin();
  const NodeRequest add = Add("a");
  Request(add);
  Request(add);
  RunFor(kSecond);
  Request(add);
  RunFor(kSecond);
  EXPECT_EQ(Database().nodes().size(), 5u);
}

TEST_F(AnchorNodes, ANameAndAnAddressAreOneNodes) {
  Begin();
  NodeRequest add = Add("n3");
  EXPECT_EQ(AddAndFind(add), 3u);
  EXPECT_NE(Database().Find(NodeId(3))->address, "n3:2");
  add = Add("new");
  add.record.address = "n3:1";
  EXPECT_EQ(AddAndFind(add), 0u);
  NodeRecord record = *Database().Find(NodeId(4));
  record.address = "n3:1";
  Request({.kind = Kind::kSet, .node = NodeId(4), .record = record});
  RunFor(kSecond);
  EXPECT_EQ(Database().Find(NodeId(4))->address, "n4:1");
}

TEST_F(AnchorNodes, ANodeThatIsThereKeepsItsIdentity) {
  Begin();
  ASSERT_EQ(AddAndFind(Add("a")), 5u);
  const NodeIdentity identity = Database().Find(NodeId(5))->identity;
  NodeRecord record = *Database().Find(NodeId(5));
  record.identity = {.space = 1, .time = 1};
  record.votes = 0;
  record.address = "elsewhere:1";
  Request({.kind = Kind::kSet, .node = NodeId(5), .record = record});
  RunFor(kSecond);
  EXPECT_EQ(Database().Find(NodeId(5))->address, "elsewhere:1");
  EXPECT_EQ(Database().Find(NodeId(5))->identity, identity);
}

// Covers: C04
TEST_F(AnchorNodes, TheLastAnchorKeepsItsVotes) {
  Begin();
  Set(1, 0);
  Set(2, 0);
  EXPECT_EQ(Database().Find(NodeId(1))->votes, 0u);
  EXPECT_EQ(Database().Find(NodeId(2))->votes, 0u);
  Set(3, 0);
  EXPECT_EQ(Database().Find(NodeId(3))->votes, 1u);
  const Votes left = VotesIn(Leader());
  EXPECT_EQ(left.at(NodeId(3)), 1u);
  EXPECT_EQ(left.at(NodeId(1)) + left.at(NodeId(2)), 0u);
}

// A vote that counts, of a node that is not there, would be one less that agrees.
TEST_F(AnchorNodes, WhoIsToVoteAndNeverComesGetsNoVote) {
  Begin();
  NodeRequest add = Add("a");
  add.record.votes = 1;
  ASSERT_EQ(AddAndFind(add), 5u);
  RunFor(5 * kSecond);
  const Votes votes = VotesIn(Leader());
  EXPECT_TRUE(!votes.contains(NodeId(5)) || votes.at(NodeId(5)) == 0);
  // It comes, with an empty disk.
  nodes_[NodeId(5)] = add.record;
  Start(5);
  RunUntil([&] { return VotesIn(Leader()).contains(NodeId(5)) && VotesIn(Leader()).at(NodeId(5)) == 1; });
  EXPECT_TRUE(At(5).has_log());
}

// A record of votes that nobody has is none to go by.
TEST_F(AnchorNodes, TheLastVoteThatCountsStaysThoughAnotherNodeIsToHaveOne) {
  Begin();
  NodeRequest add = Add("never");
  add.record.votes = 1;
  ASSERT_EQ(AddAndFind(add), 5u);
  Set(1, 0);
  Set(2, 0);
  Set(3, 0);
  EXPECT_EQ(Database().Find(NodeId(3))->votes, 1u);
  EXPECT_TRUE(At(3).leads());
}

// Its roster names no other anchor, and it has none of the log.
TEST_F(AnchorNodes, WhoHasJoinedAClusterBeginsNoLogOfItsOwn) {
  const NodeRecord self{.name = "n7", .address = "n7:1", .votes = 1, .changed = 9};
  Anchor anchor({.self = Instance(7), .nodes = {{NodeId(7), self}}, .has_joined = true}, {}, std::nullopt, now_);
  for (int i = 0; i < 100; ++i) {
    now_ += 100 * kMillisecond;
    anchor.Tick(now_);
    const AnchorOutput output = anchor.TakeOutput(now_);
    if (output.number != 0) anchor.Persisted(output.number, now_);
    ASSERT_FALSE(anchor.leads());
  }
  EXPECT_EQ(anchor.raft()->standing(), Standing::kMustLoseVote);
}

TEST_F(AnchorNodes, WhoMayNotFoundAClusterWaits) {
  const NodeRecord self{.name = "n7", .address = "n7:1", .votes = 1};
  Anchor anchor({.self = Instance(7), .nodes = {{NodeId(7), self}}, .may_found = false}, {}, std::nullopt, now_);
  for (int i = 0; i < 100; ++i) {
    now_ += 100 * kMillisecond;
    anchor.Tick(now_);
    static_cast<void>(anchor.TakeOutput(now_));
  }
  EXPECT_FALSE(anchor.has_log());
}

TEST_F(AnchorNodes, WhoDoesNotKnowTheNodeAsItIsChangesNothing) {
  Begin();
  NodeRecord one = *Database().Find(NodeId(4));
  NodeRecord other = one;
  one.address = "one:1";
  other.address = "other:1";
  Request({.kind = Kind::kSet, .node = NodeId(4), .record = one});
  Request({.kind = Kind::kSet, .node = NodeId(4), .record = other});
  RunFor(kSecond);
  EXPECT_EQ(Database().Find(NodeId(4))->address, "one:1");
}

TEST_F(AnchorNodes, WhoKnowsTheNodesIsToldNothing) {
  Begin();
  told_.clear();
  RunFor(kSecond);
  EXPECT_TRUE(PartsToldTo(4).empty());
}

TEST_F(AnchorNodes, WhoDoesNotIsToldWhatHasChanged) {
  Begin();
  const uint64_t known = Database().roster_version();
  ASSERT_EQ(AddAndFind(Add("a")), 5u);
  for (const uint64_t anchor : {1, 2, 3}) {  // Also by who does not lead: a node may know of nobody else.
    RunFor(kSecond);
    told_.clear();
    At(anchor).Receive(Instance(4), Pulse{.sent_at = now_, .epoch = {}, .unreachable = {}, .roster = known}, now_);
    Deliver();
    const std::vector<RosterPart> parts = PartsToldTo(4);
    ASSERT_EQ(parts.size(), 1u) << anchor;
    ASSERT_EQ(parts[0].nodes.size(), 1u);
    EXPECT_EQ(parts[0].nodes[0].first, NodeId(5));
    EXPECT_EQ(parts[0].after, known);
    EXPECT_TRUE(parts[0].is_last);
  }
}

// Before that they are not all there yet: a node would take its leader for none.
TEST_F(AnchorNodes, NobodyIsToldOfTheNodesBeforeTheFirstView) {
  Configure(4, 0);
  BeginThree();
  ASSERT_EQ(Database().view().epoch, Epoch());
  told_.clear();
  for (const uint64_t anchor : {1, 2, 3}) {
    At(anchor).Receive(Instance(9), Pulse{.sent_at = now_, .epoch = {}, .unreachable = {}}, now_);
  }
  Deliver();
  EXPECT_TRUE(PartsToldTo(9).empty());
  EXPECT_EQ(AddAndFind(Add("a")), 0u) << "nor are others added";
}

}  // namespace
}  // namespace mangrove
