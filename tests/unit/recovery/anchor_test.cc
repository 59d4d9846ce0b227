// Anchors step by step: the first start, A1 to A4, and what they tell the nodes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "recovery/anchor.h"
#include "recovery/member.h"
#include "tests/unit/recovery/anchor_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// --- The first start --------------------------------------------------------------------------------------------------

TEST_F(AnchorTest, WhereNobodyHasVotedAllBeginALogInWhichAllVote) {
  for (uint64_t node : {1, 2, 3}) Configure(node, 1);
  Configure(4, 0);
  for (uint64_t node : {1, 2, 3}) Start(node);
  EXPECT_THAT(At(1).awaited(), ElementsAre(NodeId(2), NodeId(3)));
  EXPECT_FALSE(At(1).has_log());
  Deliver();
  for (uint64_t node : {1, 2, 3}) {
    ASSERT_TRUE(At(node).has_log());
    EXPECT_FALSE(At(node).has_voted());
    EXPECT_THAT(At(node).awaited(), IsEmpty());
    EXPECT_EQ(VotesIn(node), kThree);
    EXPECT_EQ(At(node).raft()->standing(), Standing::kFull);
  }
  RunFor(2 * kSecond);
  ASSERT_NE(Leader(), 0u);
  EXPECT_EQ(votes_of_three_, std::set<uint32_t>({1}));
  for (uint64_t node : {1, 2, 3}) {
    EXPECT_TRUE(At(node).has_voted());
    EXPECT_EQ(At(node).leader(), NodeId(Leader()));
  }
}

TEST_F(AnchorTest, EachBeginsWithTheVotesOfTheConfiguration) {
  Configure(1, 2);
  Configure(2, 1);
  Start(1);
  Start(2);
  Deliver();
  EXPECT_EQ(VotesIn(2), (Votes{{NodeId(1), 2}, {NodeId(2), 1}}));
}

TEST_F(AnchorTest, TheFirstStartNeedsEveryAnchor) {
  for (uint64_t node : {1, 2, 3}) Configure(node, 1);
  Start(1);
  Start(2);
  RunFor(3 * kSecond);
  EXPECT_FALSE(At(1).has_log());
  EXPECT_FALSE(At(2).has_log());
  EXPECT_THAT(At(1).awaited(), ElementsAre(NodeId(3)));
  EXPECT_EQ(At(1).leader(), NodeId());
  Start(3);
  RunFor(2 * kSecond);
  EXPECT_NE(Leader(), 0u);
  EXPECT_EQ(votes_of_three_, std::set<uint32_t>({1}));
}

TEST_F(AnchorTest, OneAnchorAloneBeginsAtOnce) {
  Configure(1, 1);
  Configure(2, 0);
  Start(1);
  EXPECT_TRUE(At(1).has_log());
  RunFor(2 * kSecond);
  EXPECT_EQ(Leader(), 1u);
  EXPECT_EQ(VotesIn(1), (Votes{{NodeId(1), 1}}));
}

// Its question was heard, the answers were not.
TEST_F(AnchorTest, WhoIsLateAtTheFirstStartGoesTheLongWay) {
  for (uint64_t node : {1, 2, 3}) Configure(node, 1);
  cut_ = {{NodeId(1), NodeId(3)}, {NodeId(2), NodeId(3)}};
  for (uint64_t node : {1, 2, 3}) Start(node);
  RunFor(2 * kSecond);
  ASSERT_NE(Leader(), 0u);
  EXPECT_FALSE(At(3).has_log());
  cut_.clear();
  RunUntil([&] { return At(3).has_log(); });
  ASSERT_TRUE(At(3).has_log());
  EXPECT_EQ(At(3).raft()->standing(), Standing::kMustLoseVote);
  EXPECT_TRUE(At(3).has_voted());
  RunFor(3 * kSecond);
  EXPECT_EQ(At(3).raft()->standing(), Standing::kFull);
  EXPECT_EQ(votes_of_three_, std::set<uint32_t>({0, 1}));
  EXPECT_EQ(VotesIn(3), kThree);
}

TEST_F(AnchorTest, AReplacedDiskLosesItsVotesAndGetsThemBack) {
  BeginThree();
  anchors_.erase(NodeId(3));
  RunFor(kSecond);
  disks_[NodeId(3)].clear();
  Start(3);
  RunUntil([&] { return At(3).has_log(); });
  ASSERT_TRUE(At(3).has_log());
  EXPECT_EQ(At(3).raft()->standing(), Standing::kMustLoseVote);
  RunFor(3 * kSecond);
  EXPECT_EQ(At(3).raft()->standing(), Standing::kFull);
  EXPECT_EQ(votes_of_three_, std::set<uint32_t>({0, 1}));
  EXPECT_EQ(VotesIn(Leader()), kThree);
  EXPECT_EQ(At(3).database(), At(1).database());
}

// It may have given its vote away: who finds it so must not take the cluster for one that begins.
TEST_F(AnchorTest, WhoseDiskWasReplacedSaysThatItMayHaveVoted) {
  Configure(1, 1);
  Configure(2, 1);
  Start(1);
  Deliver();
  At(1).Receive(Instance(2), Greeting{.has_voted = true, .asks = false}, now_);
  ASSERT_TRUE(At(1).has_log());
  EXPECT_EQ(At(1).raft()->standing(), Standing::kMustLoseVote);
  At(1).Receive(Instance(2), Greeting{.has_voted = false, .asks = true}, now_);
  const AnchorOutput output = Take(NodeId(1));
  ASSERT_THAT(output.messages, SizeIs(1));
  EXPECT_EQ(output.messages[0].first, NodeId(2));
  EXPECT_EQ(output.messages[0].second, RecoveryMessage(Greeting{.has_voted = true, .asks = false}));
}

TEST_F(AnchorTest, WhoHasALogAsksNobody) {
  BeginThree();
  for (uint64_t node : {1, 2, 3}) anchors_.erase(NodeId(node));
  Start(1);
  EXPECT_TRUE(At(1).has_log());
  EXPECT_TRUE(At(1).has_voted());
  EXPECT_THAT(At(1).awaited(), IsEmpty());
  EXPECT_THAT(Take(NodeId(1)).messages, IsEmpty());
}

TEST_F(AnchorTest, WhoIsNoAnchorIsNotAskedAndNotHeard) {
  Configure(1, 1);
  Configure(2, 1);
  Configure(4, 0);
  Start(1);
  for (const auto& [to, message] : Take(NodeId(1)).messages) EXPECT_EQ(to, NodeId(2));
  for (uint64_t node : {4, 9}) {
    At(1).Receive(Instance(node), Greeting{.has_voted = false, .asks = true}, now_);
    At(1).Receive(Instance(node), Greeting{.has_voted = true, .asks = true}, now_);
  }
  EXPECT_FALSE(At(1).has_log());
  EXPECT_THAT(Take(NodeId(1)).messages, IsEmpty());
}

TEST_F(AnchorTest, BeforeThereIsALogNothingIsHandedOver) {
  Configure(1, 1);
  Configure(2, 1);
  Start(1);
  EXPECT_EQ(At(1).HandOver(NodeId(2), now_).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(At(1).raft(), nullptr);
}

// --- A1 ---------------------------------------------------------------------------------------------------------------

TEST_F(AnchorTest, A1TheFirstOutputBringsTheLogsBeginningWithItsMessages) {
  Configure(1, 1);
  Configure(2, 1);
  Start(1);
  Take(NodeId(1));
  EXPECT_THAT(disks_[NodeId(1)], IsEmpty());
  At(1).Receive(Instance(2), Greeting{.has_voted = false, .asks = true}, now_);
  ASSERT_TRUE(At(1).has_log());
  now_ += 5 * kSecond;
  At(1).Tick(now_);  // It stands for election.
  const AnchorOutput output = At(1).TakeOutput(now_);
  ASSERT_THAT(output.messages, testing::Not(IsEmpty()));
  std::set<std::string> keys;
  for (const AnchorRecords::Record& record : output.records) keys.insert(record.key);
  EXPECT_TRUE(keys.contains("anchor/state"));
  EXPECT_TRUE(keys.contains("anchor/snapshot"));
}

// "number: 0: there is nothing to make durable": who drives an anchor may go by either.
// --- A2 ---------------------------------------------------------------------------------------------------------------

TEST_F(AnchorTest, A2TheDatabaseComesBackWithTheLog) {
  compact_after_ = 4;
  for (uint64_t node = 4; node <= 9; ++node) Configure(node, 0);
  pulsing_ = {Instance(4), Instance(5)};
  BeginThree();
  RunFor(2 * kSecond);
  const NodeDatabase before = At(1).database();
  EXPECT_THAT(before.nodes(), SizeIs(9));
  EXPECT_THAT(before.view().members, SizeIs(2));
  EXPECT_GT(At(1).raft()->log().snapshot().index, LogIndex());
  anchors_.clear();
  for (uint64_t node : {1, 2, 3}) Start(node);
  RunFor(2 * kSecond);
  for (uint64_t node : {1, 2, 3}) EXPECT_EQ(At(node).database(), before);
}

TEST_F(AnchorTest, A2WhoMissedMuchLoadsWhatItCameTo) {
  compact_after_ = 4;
  BeginThree();
  silent_ = {NodeId(3)};
  for (uint64_t node = 4; node <= 20; ++node) Configure(node, 0);
  Start(1);
  Start(2);
  RunFor(5 * kSecond);
  const LogIndex gone = At(Leader()).raft()->log().snapshot().index;
  EXPECT_GT(gone, At(3).raft()->log().last());
  EXPECT_THAT(At(3).database().nodes(), SizeIs(3));
  silent_.clear();
  RunFor(2 * kSecond);
  EXPECT_THAT(At(3).database().nodes(), SizeIs(20));
  EXPECT_EQ(At(3).database(), At(1).database());
}

// --- A3 ---------------------------------------------------------------------------------------------------------------

TEST_F(AnchorTest, A3ALeaderGivesNoLeaseBeforeItsFirstCommittedEntry) {
  Configure(1, 1);
  NodeDatabase database({{NodeId(1), NodeRecord{.name = "n1", .address = {}, .votes = 1, .last = Incarnation(1)}}},
                        {.epoch = Epoch(4), .members = {{NodeId(1), Incarnation(1)}}, .root = NodeId(1)});
  PutLog(1, database);
  Start(1);
  now_ += 5 * kSecond;
  At(1).Tick(now_);
  Take(NodeId(1));  // Its vote.
  ASSERT_TRUE(At(1).leads());
  PulseTo(1, Instance(1), Epoch(4));
  PulseTo(1, Instance(9), Epoch());
  const AnchorOutput output = At(1).TakeOutput(now_);  // With its first entry, which is not durable yet.
  ASSERT_NE(output.number, 0u);
  ASSERT_THAT(output.messages, SizeIs(2));
  for (const auto& [to, message] : output.messages)
    EXPECT_EQ(message, RecoveryMessage(PulseAnswer{.to = Incarnation(1)}));
  now_ += 400 * kMillisecond;
  At(1).Tick(now_);
  EXPECT_THAT(At(1).TakeOutput(now_).messages, IsEmpty());
  EXPECT_EQ(At(1).raft()->log().last(), LogIndex(6));  // Nor does it change anything.
  Write(NodeId(1), output);
  At(1).Persisted(output.number, now_);
  Deliver();
  ASSERT_TRUE(LastAnswer(1).has_value());
  EXPECT_EQ(*LastAnswer(1), (PulseAnswer{.lease_from = now_ - 400 * kMillisecond,
                                         .epoch = Epoch(4),
                                         .leader = NodeId(1),
                                         .is_gone = false,
                                         .to = Incarnation(1)}));
}

// --- A4 ---------------------------------------------------------------------------------------------------------------

// The disk is slow: what the leader has proposed is not committed yet.
TEST_F(AnchorTest, A4OneChangeIsUnderWayAtATime) {
  for (uint64_t node : {1, 2, 3}) Configure(node, node == 1 ? 1 : 0);
  PutLog(1, NodeDatabase());
  Start(1);
  RunUntil([&] { return At(1).database().nodes().size() == nodes_.size(); });
  const LogIndex before = At(1).raft()->log().last();
  std::vector<AnchorOutput> outputs;
  for (int i = 0; i < 10; ++i) {
    now_ += 100 * kMillisecond;
    PulseTo(1, Instance(1), Epoch());
    if (i >= 5) PulseTo(1, Instance(2), Epoch());  // It would like to join as well.
    At(1).Tick(now_);
    outputs.push_back(At(1).TakeOutput(now_));
  }
  EXPECT_EQ(At(1).raft()->log().last(), LogIndex(before.value + 1));
  for (const AnchorOutput& output : outputs) {
    Write(NodeId(1), output);
    if (output.number != 0) At(1).Persisted(output.number, now_);
  }
  Deliver();
  EXPECT_TRUE(At(1).database().view().Has(Instance(1)));
}

// --- What nodes are told ----------------------------------------------------------------------------------------------

TEST_F(AnchorTest, WhoPulsesToAFollowerHearsWhoLeads) {
  BeginThree();
  for (uint64_t node : {1, 2, 3}) {
    PulseTo(node, Instance(4), Epoch());
    told_.clear();
    Deliver();
    ASSERT_TRUE(LastAnswer(4).has_value());
    EXPECT_EQ(LastAnswer(4)->leader, NodeId(Leader()));
    if (node == Leader()) continue;
    EXPECT_EQ(*LastAnswer(4),
              (PulseAnswer{
                  .lease_from = 0, .epoch = {}, .leader = NodeId(Leader()), .is_gone = false, .to = Incarnation(1)}));
  }
}

TEST_F(AnchorTest, WhoPulsesBeforeThereIsALogHearsThatNobodyLeads) {
  Configure(1, 1);
  Configure(2, 1);
  Start(1);
  PulseTo(1, Instance(4), Epoch());
  Deliver();
  ASSERT_TRUE(LastAnswer(4).has_value());
  EXPECT_EQ(*LastAnswer(4), (PulseAnswer{.to = Incarnation(1)}));
}

TEST_F(AnchorTest, WhoPulsesJoinsAndGetsLeases) {
  Configure(4, 0);
  pulsing_ = {Instance(1), Instance(4)};
  BeginThree();
  RunFor(kSecond);
  const View& view = At(Leader()).database().view();
  EXPECT_THAT(view.members, SizeIs(2));
  EXPECT_TRUE(view.Has(Instance(1)));
  EXPECT_TRUE(view.Has(Instance(4)));
  PulseTo(Leader(), Instance(4), view.epoch);
  const TimeNs sent_at = now_;
  RunFor(200 * kMillisecond);
  ASSERT_TRUE(LastAnswer(4).has_value());
  EXPECT_GE(LastAnswer(4)->lease_from, sent_at);
  EXPECT_LT(LastAnswer(4)->lease_from, now_);
  EXPECT_EQ(LastAnswer(4)->epoch, view.epoch);
}

// A node costs the leader one message each way and interval.
TEST_F(AnchorTest, AMemberGetsOneAnswerForAPulse) {
  Configure(4, 0);
  pulsing_ = {Instance(4)};
  BeginThree();
  RunFor(kSecond);
  told_.clear();
  RunFor(kSecond);
  const auto& told = told_[NodeId(4)];
  EXPECT_EQ(std::count_if(told.begin(), told.end(), [&](const auto& t) { return t.first == NodeId(Leader()); }), 10);
}

// K1 through the log: none of its followers has answered since.
TEST_F(AnchorTest, ALeaderWithoutItsFollowersGivesNoLease) {
  Configure(4, 0);
  pulsing_ = {Instance(4)};
  BeginThree();
  RunFor(kSecond);
  const uint64_t leader = Leader();
  for (uint64_t node : {1, 2, 3}) {
    if (node != leader) silent_.insert(NodeId(node));
  }
  const TimeNs cut_at = now_;
  told_.clear();
  RunFor(2 * kSecond);
  for (const auto& [from, message] : told_[NodeId(4)]) {
    const auto* answer = std::get_if<PulseAnswer>(&message);
    ASSERT_NE(answer, nullptr);
    EXPECT_LE(answer->lease_from, cut_at);
  }
}

TEST_F(AnchorTest, WhoIsSilentIsToldThatItIsGoneAndTheOthersTheView) {
  Configure(4, 0);
  pulsing_ = {Instance(1), Instance(4)};
  BeginThree();
  RunFor(kSecond);
  const Epoch before = At(1).database().view().epoch;
  pulsing_ = {Instance(1)};
  told_.clear();
  RunFor(3 * kSecond);
  const View& view = At(1).database().view();
  EXPECT_EQ(view, (View{.epoch = Epoch(before.value + 1),
                        .members = {{NodeId(1), Incarnation(1)}},
                        .root = NodeId(1),
                        .behind = {{NodeId(4), Epoch(before.value + 1)}},
                        .disks = {NodeId(1), NodeId(2), NodeId(3), NodeId(4)}}));
  ASSERT_TRUE(LastAnswer(4).has_value());
  EXPECT_TRUE(LastAnswer(4)->is_gone);
  EXPECT_EQ(LastAnswer(4)->epoch, view.epoch);
  const ViewChange change = {.epoch = view.epoch, .joins = {}, .leaves = {NodeId(4)}};
  for (uint64_t node : {1, 4}) {
    const auto& told = told_[NodeId(node)];
    EXPECT_TRUE(std::any_of(told.begin(), told.end(), [&](const auto& t) {
      return t.second == RecoveryMessage(change);
    })) << node;
  }
}

TEST_F(AnchorTest, ALargeViewIsToldInPartsBeforeTheAnswer) {
  Configure(1, 1);
  std::map<NodeId, NodeRecord> records;
  View view = {.epoch = Epoch(4), .members = {}, .root = NodeId(1)};
  for (uint64_t node = 1; node <= 1100; ++node) {
    records[NodeId(node)] = {.name = "n", .address = {}, .votes = node == 1 ? 1u : 0u, .last = Incarnation(1)};
    if (node % 5 != 0) view.members[NodeId(node)] = Incarnation(1);
    if (node % 5 < 2) view.behind[NodeId(node)] = Epoch(node % 5 == 0 ? 4 : 3);
  }
  PutLog(1, NodeDatabase(records, view));
  Start(1);
  RunUntil([&] { return At(1).applied() >= LogIndex(6); });
  told_.clear();
  PulseTo(1, Instance(7), Epoch(3));
  Deliver();
  Member member({.self = Instance(7), .roster = RosterOf({1}), .timing = {}}, now_);
  std::vector<size_t> sizes;
  for (const auto& [from, message] : told_[NodeId(7)]) {
    const auto* part = std::get_if<ViewPart>(&message);
    if (part == nullptr) {
      EXPECT_EQ(member.view(), view);
      continue;
    }
    EXPECT_EQ(part->is_last, part->first + part->nodes.size() == 1100);
    sizes.push_back(part->nodes.size());
    member.Receive(from, *part, now_);
  }
  EXPECT_THAT(sizes, ElementsAre(ViewPart::kMostNodes, ViewPart::kMostNodes, ViewPart::kMostNodes,
                                 1100 - 3 * ViewPart::kMostNodes));
  EXPECT_TRUE(LastAnswer(7).has_value());
  told_.clear();
  now_ += kMillisecond;
  PulseTo(1, Instance(7), Epoch(4));  // Who knows it is not told again.
  Deliver();
  for (const auto& [from, message] : told_[NodeId(7)]) EXPECT_TRUE(std::holds_alternative<PulseAnswer>(message));
}

// Whoever was told of the views goes on from the one without the node: a change alone would leave it in theirs.
TEST_F(AnchorTest, ARemovalOfWhoIsBehindIsToldAsAView) {
  Configure(1, 1);
  DatabaseCommand removal;
  removal.kind = DatabaseCommand::Kind::kRemoveNode;
  removal.node = NodeId(4);
  const std::map<NodeId, NodeRecord> nodes = {
      {NodeId(1), {.name = "n1", .address = {}, .votes = 1, .last = Incarnation(1)}},
      {NodeId(4), {.name = "n4", .address = {}, .votes = 0, .last = Incarnation(1), .left = Epoch(7)}}};
  View view = {.epoch = Epoch(7),
               .members = {{NodeId(1), Incarnation(1)}},
               .root = NodeId(1),
               .behind = {{NodeId(4), Epoch(7)}}};
  PutLog(1, NodeDatabase(nodes, view));
  disks_[NodeId(1)]["anchor/entry/00000000000000000006"] =
      EncodeEntry({Term(2), LogEntry::Kind::kCommand, EncodeCommand(removal)});
  Start(1);
  RunUntil([&] { return At(1).applied() >= LogIndex(6); });
  view.epoch = Epoch(8);
  view.behind.clear();
  EXPECT_EQ(At(1).database().view(), view);
  told_.clear();
  PulseTo(1, Instance(5), Epoch(7));
  Deliver();
  const ViewPart whole = {
      .epoch = Epoch(8), .first = 0, .is_last = true, .nodes = {{NodeId(1), Incarnation(1), {}}}, .root = NodeId(1)};
  ASSERT_FALSE(told_[NodeId(5)].empty());
  EXPECT_EQ(told_[NodeId(5)].front().second, RecoveryMessage(whole));
}

// A member says so in a pulse; the others hear of it as of any view.
TEST_F(AnchorTest, WhoHasCaughtUpIsCurrentInTheNextView) {
  Configure(1, 1);
  Configure(4, 0);
  pulsing_ = {Instance(1), Instance(4)};
  const std::map<NodeId, NodeRecord> nodes = {
      {NodeId(1), {.name = "n1", .address = {}, .votes = 1, .last = Incarnation(1)}},
      {NodeId(4), {.name = "n4", .address = {}, .votes = 0, .last = Incarnation(1)}}};
  const Incarnation one(1);
  PutLog(1, NodeDatabase(nodes, {.epoch = Epoch(7),
                                 .members = {{NodeId(1), one}, {NodeId(4), one}},
                                 .root = NodeId(1),
                                 .behind = {{NodeId(4), kBlankDisk}}}));
  Start(1);
  RunFor(2 * kSecond);
  ASSERT_EQ(At(1).database().view().epoch, Epoch(7));
  told_.clear();
  At(1).Receive(Instance(4), Pulse{.sent_at = now_, .epoch = Epoch(7), .unreachable = {}, .caught_up = true}, now_);
  RunFor(60 * kMillisecond);
  const ViewChange change = {.epoch = Epoch(8), .joins = {}, .leaves = {}, .blank = {}, .caught_up = {NodeId(4)}};
  EXPECT_EQ(At(1).database().view().behind, (std::map<NodeId, Epoch>()));
  for (uint64_t node : {1, 4}) {
    const auto& told = told_[NodeId(node)];
    EXPECT_TRUE(std::any_of(told.begin(), told.end(), [&](const auto& t) {
      return t.second == RecoveryMessage(change);
    })) << node;
  }
}

TEST_F(AnchorTest, WhatIsForMembersIsABadMessage) {
  BeginThree();
  At(1).Receive(Instance(2), PulseAnswer(), now_);
  At(1).Receive(Instance(2), ViewPart(), now_);
  EXPECT_EQ(At(1).bad_messages(), 2u);
}

// --- The configuration ------------------------------------------------------------------------------------------------

TEST_F(AnchorTest, TheConfigurationComesIntoTheDatabase) {
  Configure(4, 0);
  nodes_[NodeId(4)].address = "somewhere:7000";
  BeginThree();
  for (uint64_t node : {1, 2, 3}) {
    std::map<NodeId, NodeRecord> nodes = At(node).database().nodes();
    uint64_t changed = 0;
    for (auto& [id, record] : nodes) {
      EXPECT_GT(record.changed, changed) << id.value;  // D6
      changed = std::exchange(record.changed, 0);
    }
    EXPECT_EQ(nodes, nodes_);
  }
}

// Nor is what the log says of who was in a view and has left it.
TEST_F(AnchorTest, WhatIsInTheDatabaseIsNotProposedAgain) {
  Configure(4, 0);
  pulsing_ = {Instance(4)};
  BeginThree();
  RunFor(kSecond);
  pulsing_.clear();
  RunFor(3 * kSecond);
  ASSERT_THAT(At(1).database().view().members, IsEmpty());
  ASSERT_NE(At(1).database().Find(NodeId(4))->left, Epoch());
  const LogIndex last = At(Leader()).raft()->log().last();
  RunFor(3 * kSecond);
  EXPECT_EQ(At(Leader()).raft()->log().last(), last);
}

TEST_F(AnchorTest, AfterTheFirstViewTheConfigurationCountsNoMore) {
  Configure(4, 0);
  pulsing_ = {Instance(4)};
  BeginThree();
  RunFor(kSecond);
  ASSERT_TRUE(At(1).database().view().Has(Instance(4)));
  const std::map<NodeId, NodeRecord> before = At(1).database().nodes();
  Configure(1, 3);
  Configure(5, 0);
  nodes_[NodeId(4)].name = "renamed";
  for (uint64_t node : {1, 2, 3}) Start(node);
  RunFor(3 * kSecond);
  EXPECT_EQ(At(2).database().nodes(), before);
  EXPECT_EQ(VotesIn(2), kThree);
}

TEST_F(AnchorTest, ARequestChangesANodeAndNothingIsForgotten) {
  Configure(4, 0);
  pulsing_ = {Instance(4)};
  BeginThree();
  RunFor(kSecond);
  ASSERT_TRUE(At(1).database().view().Has(Instance(4)));
  NodeRecord more = *At(1).database().Find(NodeId(1));
  more.votes = 3;
  NodeRecord moved = *At(1).database().Find(NodeId(4));
  moved.address = "moved:1";
  Request({.kind = NodeRequest::Kind::kSet, .node = NodeId(1), .record = more});
  Request({.kind = NodeRequest::Kind::kSet, .node = NodeId(4), .record = moved});
  RunFor(3 * kSecond);
  const NodeDatabase& database = At(2).database();
  EXPECT_EQ(database.Find(NodeId(1))->votes, 3u);
  EXPECT_EQ(database.Find(NodeId(4))->address, "moved:1");
  EXPECT_EQ(database.Find(NodeId(4))->last, Incarnation(1));
  EXPECT_TRUE(database.view().Has(Instance(4)));
  EXPECT_EQ(VotesIn(2), (Votes{{NodeId(1), 3}, {NodeId(2), 1}, {NodeId(3), 1}}));  // One after the other.
}

TEST_F(AnchorTest, AnAnchorMoreIsBroughtUpToDateAndVotes) {
  BeginThree();
  Configure(4, 1);
  for (uint64_t node : {1, 2, 3, 4}) Start(node);
  RunFor(5 * kSecond);
  ASSERT_TRUE(At(4).has_log());
  EXPECT_EQ(At(4).raft()->standing(), Standing::kFull);
  EXPECT_EQ(VotesIn(4), (Votes{{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}, {NodeId(4), 1}}));
  EXPECT_EQ(At(4).database(), At(1).database());
}

}  // namespace
}  // namespace mangrove
