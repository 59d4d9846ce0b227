// Who drains or is lost leaves the anchors' log and the cluster.
// Covers: C03, C06

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/recovery/anchor_steps.h"

namespace mangrove {
namespace {

using Kind = NodeRequest::Kind;

class AnchorLeaving : public AnchorTest {
 protected:
  // Three anchors, all in the view.
  void Begin() {
    BeginThree();
    for (uint64_t node : {1, 2, 3}) pulsing_.insert(Instance(node));
    RunUntil([&] { return Leader() != 0 && Now().members.size() == 3; });
    ASSERT_EQ(Now().disks.size(), 3u);
  }
  const NodeDatabase& Database() { return At(Leader()).database(); }
  const View& Now() { return Database().view(); }
  // One that does not lead, other than `not_this`.
  uint64_t Follower(uint64_t not_this = 0) const {
    for (uint64_t node : {1, 2, 3}) {
      if (node != Leader() && node != not_this) return node;
    }
    return 0;
  }
  void Ask(Kind kind, uint64_t node) {
    At(Leader()).Receive(Instance(Leader()), NodeRequest{.kind = kind, .node = NodeId(node)}, now_);
    Deliver();
  }
  // Of the anchors that may take over `node` has the whole log, and has answered last.
  void LetAnswerLast(uint64_t node) {
    const auto before = cut_;
    for (uint64_t other : {1, 2, 3}) {
      if (other != node) cut_.insert({NodeId(Leader()), NodeId(other)});
    }
    RunFor(2 * RecoveryTiming().heartbeat);
    cut_ = before;
  }
  // REQUIRES: somebody leads. Returns who does then.
  uint64_t LeaderAfterHandOver(std::set<NodeId> staying) {
    const uint64_t leader = Leader();
    EXPECT_TRUE(At(leader).HandOver(std::move(staying), now_).ok());
    RunUntil([&] { return Leader() != 0 && Leader() != leader; });
    return Leader();
  }
  void Stop(uint64_t node) {
    pulsing_.erase(Instance(node));
    silent_.insert(NodeId(node));
  }
  // By all that pulse, knowing the view.
  void SayMoved() {
    for (NodeInstance node : pulsing_) {
      Pulse pulse{.sent_at = now_, .epoch = Now().epoch, .unreachable = {}};
      pulse.moved = Now().move;
      At(Leader()).Receive(node, pulse, now_);
    }
    Deliver();
  }
  void RunUntilItKeepsNothing(uint64_t node) {
    RunUntil([&] {
      SayMoved();
      return !Now().disks.contains(NodeId(node));
    });
  }
  void ExpectGone(uint64_t node) {
    RunUntil([&] { return !Database().Has(NodeId(node)); });
    EXPECT_FALSE(Now().disks.contains(NodeId(node)));
    EXPECT_FALSE(Now().behind.contains(NodeId(node)));
    EXPECT_FALSE(Now().draining.contains(NodeId(node)));
    EXPECT_FALSE(Now().lost.contains(NodeId(node)));
    silent_.erase(NodeId(node));
    PulseTo(Leader(), Instance(node, 2), Now().epoch);
    Deliver();
    EXPECT_TRUE(LastAnswer(node)->is_removed);
    RunFor(kSecond);
    EXPECT_FALSE(Database().Has(NodeId(node)));  // The configuration names it still.
    EXPECT_FALSE(Now().members.contains(NodeId(node)));
    EXPECT_EQ(VotesIn(Leader()).at(NodeId(node)), 0u);
  }
};

TEST_F(AnchorLeaving, WhoDrainsLosesItsPagesThenItsVotesAndIsRemovedWhenItHasStopped) {
  Begin();
  const uint64_t node = Follower();
  Ask(Kind::kDrain, node);
  RunFor(kSecond);
  EXPECT_EQ(VotesIn(Leader()).at(NodeId(node)), 1u);  // It keeps pages still.
  RunUntilItKeepsNothing(node);
  RunUntil([&] { return VotesIn(Leader()).at(NodeId(node)) == 0; });
  RunFor(2 * kSecond);
  EXPECT_TRUE(Database().Has(NodeId(node)));
  EXPECT_TRUE(Now().members.contains(NodeId(node)));
  EXPECT_FALSE(LastAnswer(node)->is_removed);
  Stop(node);
  ExpectGone(node);
}

TEST_F(AnchorLeaving, WhoIsLostLosesItsVotesAtOnceAndIsRemovedWhenItKeepsNoPages) {
  Begin();
  const uint64_t node = Follower();
  Stop(node);
  RunUntil([&] { return !Now().members.contains(NodeId(node)); });
  Ask(Kind::kGiveUp, node);
  RunUntil([&] { return Now().lost.contains(NodeId(node)); });
  RunUntil([&] { return VotesIn(Leader()).at(NodeId(node)) == 0; });
  RunFor(2 * kSecond);
  EXPECT_TRUE(Database().Has(NodeId(node)));
  RunUntilItKeepsNothing(node);
  ExpectGone(node);
}

// It stops when it hears that, and its vote may be needed to take it away.
TEST_F(AnchorLeaving, WhoIsLostAndThereIsToldSoWhenItsVotesAreGone) {
  Begin();
  const uint64_t node = Follower();
  const uint64_t other = Follower(node);
  Stop(node);
  RunUntil([&] { return !Now().members.contains(NodeId(node)); });
  const uint64_t leader = Leader();
  At(leader).Receive(Instance(leader), NodeRequest{.kind = Kind::kGiveUp, .node = NodeId(node)}, now_);
  const auto pass = [&](uint64_t from, uint64_t to) {
    for (const auto& [receiver, message] : Take(NodeId(from)).messages) {
      if (receiver == NodeId(to)) At(to).Receive(Instance(from), message, now_);
    }
  };
  for (int i = 0; i < 300 && !Now().lost.contains(NodeId(node)); ++i) {
    now_ += kMillisecond;
    At(leader).Tick(now_);
    pass(leader, other);
    if (!Now().lost.contains(NodeId(node))) pass(other, leader);
  }
  ASSERT_TRUE(Now().lost.contains(NodeId(node)));
  silent_ = {NodeId(other)};  // What takes the votes away does not come through.
  told_.clear();
  PulseTo(leader, Instance(node, 2), Now().epoch);
  Deliver();
  EXPECT_FALSE(LastAnswer(node)->is_removed);
  silent_.clear();
  RunFor(kSecond);
  PulseTo(leader, Instance(node, 2), Now().epoch);
  Deliver();
  EXPECT_TRUE(LastAnswer(node)->is_removed);
}

TEST_F(AnchorLeaving, WhoDrainsNoMoreHasItsVotesAgain) {
  Begin();
  const uint64_t node = Follower();
  Ask(Kind::kDrain, node);
  RunUntilItKeepsNothing(node);
  RunUntil([&] { return VotesIn(Leader()).at(NodeId(node)) == 0; });
  Ask(Kind::kUndrain, node);
  RunUntil([&] { return VotesIn(Leader()).at(NodeId(node)) == 1; });
  RunUntil([&] {
    SayMoved();
    return Now().disks.contains(NodeId(node));
  });
}

// It lost its disk first: its votes were being taken away, to be given back.
TEST_F(AnchorLeaving, ALostAnchorWithAReplacedDiskKeepsNobodyElseWaiting) {
  Begin();
  const uint64_t lost = Follower();
  const uint64_t drains = Follower(lost);
  Stop(lost);
  RunUntil([&] { return !Now().members.contains(NodeId(lost)); });
  anchors_.erase(NodeId(lost));
  disks_[NodeId(lost)].clear();
  Start(lost);
  silent_.erase(NodeId(lost));
  RunUntil([&] { return At(Leader()).raft()->StandingOf(NodeId(lost)) != Standing::kFull; });
  silent_.insert(NodeId(lost));
  Ask(Kind::kGiveUp, lost);
  RunUntilItKeepsNothing(lost);
  ASSERT_NE(At(Leader()).raft()->StandingOf(NodeId(lost)), Standing::kFull);
  Ask(Kind::kDrain, drains);
  RunUntilItKeepsNothing(drains);
  RunUntil([&] { return VotesIn(Leader()).at(NodeId(drains)) == 0; });
}

// Covers: C11
TEST_F(AnchorLeaving, TheLeaderHandsOverToWhoDoesNotStop) {
  Begin();
  const uint64_t leader = Leader();
  const uint64_t stops = Follower();
  const uint64_t stays = Follower(stops);
  LetAnswerLast(stops);
  EXPECT_EQ(LeaderAfterHandOver({NodeId(stays)}), stays);
  // Where nobody that stays has answered of late, a short while is better than nothing.
  Stop(leader);
  RunFor(2 * RecoveryTiming().election);
  ASSERT_EQ(Leader(), stays);
  EXPECT_EQ(LeaderAfterHandOver({NodeId(leader)}), stops);
}

// Covers: C11
TEST_F(AnchorLeaving, TheLeaderHandsOverToNobodyThatHasSaidThatItLeaves) {
  Begin();
  const uint64_t leaves = Follower();
  const uint64_t stays = Follower(leaves);
  // Heard by the leader alone, which has not taken it out of the view yet.
  At(Leader()).Receive(Instance(leaves),
                       Pulse{.sent_at = now_, .epoch = Now().epoch, .unreachable = {}, .leaves = true}, now_);
  LetAnswerLast(leaves);
  EXPECT_EQ(LeaderAfterHandOver({NodeId(leaves), NodeId(stays)}), stays);
}

// Covers: C11
TEST_F(AnchorLeaving, TheLeaderHandsOverToAMemberOfTheViewBeforeOneThatHasLeftIt) {
  Begin();
  const uint64_t out = Follower();
  const uint64_t stays = Follower(out);
  pulsing_.erase(Instance(out));  // Its anchor answers still.
  RunUntil([&] { return !Now().members.contains(NodeId(out)); });
  LetAnswerLast(out);
  EXPECT_EQ(LeaderAfterHandOver({NodeId(out), NodeId(stays)}), stays);
}

TEST_F(AnchorLeaving, WhoDoesNotLeadTakesNoRequests) {
  Begin();
  const uint64_t node = Follower();
  At(node).Receive(Instance(node), NodeRequest{.kind = Kind::kDrain, .node = NodeId(node)}, now_);
  RunFor(kSecond);
  EXPECT_EQ(Now().draining, std::set<NodeId>());
  EXPECT_EQ(At(node).bad_messages(), 0u);
}

}  // namespace
}  // namespace mangrove
