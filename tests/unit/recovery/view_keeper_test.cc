// Leases and views as the leader of the anchors decides: K1 to K4.
// Covers: C11

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/recovery/view_keeper_steps.h"

namespace mangrove {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// --- K1 ---------------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, K1NoLeaseBeforeAMajorityFollowedAfterThePulse) {
  AddMember(2);
  const TimeNs came_at = now_;
  Hear(2);
  EXPECT_EQ(LeaseOf(2), 0);
  EXPECT_THAT(keeper_.Confirm(std::nullopt), IsEmpty());
  EXPECT_THAT(keeper_.Confirm(came_at - 1), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
  EXPECT_THAT(keeper_.Confirm(came_at + 1), ElementsAre(Instance(2)));
  EXPECT_EQ(LeaseOf(2), ClockOf(2, came_at));  // By its own clock.
}

TEST_F(ViewKeeperTest, K1AnAnswerNamesTheViewAndNobodyWhoIsGone) {
  AddMember(2);
  GiveLease(2);
  const PulseAnswer answer = keeper_.AnswerTo(Instance(2), Database());
  EXPECT_EQ(answer.epoch, view_.epoch);
  EXPECT_FALSE(answer.is_gone);
}

TEST_F(ViewKeeperTest, K1APulseIsConfirmedOnce) {
  AddMember(2);
  GiveLease(2);
  const TimeNs given = LeaseOf(2);
  now_ += kSecond;
  EXPECT_THAT(keeper_.Confirm(now_), IsEmpty());
  EXPECT_EQ(LeaseOf(2), given);
}

TEST_F(ViewKeeperTest, K1EachIsConfirmedByWhenItsOwnPulseCame) {
  AddMember(2);
  AddMember(3);
  Hear(2);
  now_ += 50 * kMillisecond;
  Hear(3);
  EXPECT_THAT(keeper_.Confirm(now_ - 1), ElementsAre(Instance(2)));
  EXPECT_THAT(keeper_.Confirm(now_ + 1), ElementsAre(Instance(3)));
}

// With a newer pulse always in its place none would be confirmed where the anchors are slow.
TEST_F(ViewKeeperTest, K1AQuorumFromBeforeANewerPulseConfirmsTheOlderOne) {
  AddMember(2);
  const TimeNs first = now_;
  Hear(2);
  now_ += timing_.pulse;
  Hear(2);
  EXPECT_THAT(keeper_.Confirm(now_ - 1), ElementsAre(Instance(2)));
  EXPECT_EQ(LeaseOf(2), ClockOf(2, first));
}

TEST_F(ViewKeeperTest, K1LateAndDoubledPulsesAreNone) {
  AddMember(2);
  Pulse pulse = {.sent_at = ClockOf(2, now_), .epoch = view_.epoch, .unreachable = {}};
  GiveLease(2);
  const TimeNs given = LeaseOf(2);
  now_ += 100 * kMillisecond;
  Hear(Instance(2), pulse);
  pulse.sent_at -= 1;
  Hear(Instance(2), pulse);
  EXPECT_THAT(keeper_.Confirm(now_ + 1), IsEmpty());
  EXPECT_EQ(LeaseOf(2), given);
}

TEST_F(ViewKeeperTest, K1WhoIsNotInTheViewGetsNone) {
  Add(2);
  Hear(2);
  EXPECT_THAT(keeper_.Confirm(now_ + 1), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
}

// --- Elected ----------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, WhatItHeardBeforeItWasElectedCounts) {
  AddMember(2);
  Hear(2);
  now_ += 50 * kMillisecond;
  keeper_.Elected(now_);
  EXPECT_THAT(keeper_.Confirm(now_ + 1), ElementsAre(Instance(2)));
  EXPECT_EQ(LeaseOf(2), ClockOf(2, now_ - 50 * kMillisecond));
}

TEST_F(ViewKeeperTest, EveryLeaseIsRunningWhenALeaderIsElected) {
  AddMember(2);
  keeper_.Elected(now_);
  const TimeNs elected_at = now_;
  for (; now_ < elected_at + timing_.lease; now_ += 10 * kMillisecond) EXPECT_THAT(Leaves(), IsEmpty());
  now_ = elected_at + timing_.lease;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

// An earlier leader may have given one for a later pulse.
TEST_F(ViewKeeperTest, ALeaseForAPulseOfBeforeTheElectionDoesNotEndThatWait) {
  AddMember(2);
  Hear(2);
  now_ += 100 * kMillisecond;
  keeper_.Elected(now_);
  keeper_.Confirm(now_ + 1);
  ASSERT_NE(LeaseOf(2), 0);
  now_ += timing_.lease - 1;
  EXPECT_THAT(Leaves(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, WhoWasJustElectedCallsNobodySilent) {
  AddMember(2);
  Hear(2);
  now_ += timing_.silent;
  keeper_.Elected(now_);
  now_ += timing_.silent - 1;
  Decide();
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(2), 0);
  now_ += 1;
  Decide();
  EXPECT_EQ(LeaseOf(2), 0);
}

TEST_F(ViewKeeperTest, WhoWasToLeaveStaysWithANewElection) {
  AddMember(2);
  GiveLease(2);
  now_ += timing_.silent;
  Decide();
  ASSERT_EQ(LeaseOf(2), 0);
  keeper_.Elected(now_);
  EXPECT_NE(LeaseOf(2), 0);
}

// --- K2 ---------------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, K2WhoIsHeardStays) {
  AddMember(2);
  for (int i = 0; i < 20; ++i) {
    Hear(2);
    keeper_.Confirm(now_);
    EXPECT_NE(LeaseOf(2), 0);
    now_ += timing_.silent - 1;
    EXPECT_TRUE(Decide().empty());
  }
}

TEST_F(ViewKeeperTest, K2WhoIsSilentLeavesAfterItsLastLease) {
  AddMember(2);
  GiveLease(2);
  now_ += 400 * kMillisecond;
  GiveLease(2);
  const TimeNs last = now_;
  for (; now_ < last + timing_.lease; now_ += 10 * kMillisecond) EXPECT_THAT(Leaves(), IsEmpty());
  now_ = last + timing_.lease;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K2ALeaseEndsByThePulseThatItWasGivenForNotByALaterOne) {
  AddMember(2);
  const TimeNs given_for = now_;
  Hear(2);
  now_ += timing_.pulse;
  Hear(2);
  keeper_.Confirm(now_ - 1);
  ASSERT_NE(LeaseOf(2), 0);
  now_ = given_for + timing_.lease - 1;
  EXPECT_THAT(Leaves(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K2WhoIsSilentAndHasNoLeaseLeavesAtOnce) {
  AddMember(2);
  Hear(2);
  now_ += timing_.silent - 1;
  EXPECT_THAT(Leaves(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

// Its pulse came in time; that it may be given is known too late.
TEST_F(ViewKeeperTest, K2WhoIsToLeaveGetsNoLease) {
  AddMember(2);
  GiveLease(2);
  now_ += 100 * kMillisecond;
  Hear(2);
  now_ += timing_.silent;
  EXPECT_THAT(Leaves(), IsEmpty());
  keeper_.Confirm(now_);
  EXPECT_EQ(LeaseOf(2), 0);
  now_ += timing_.lease - timing_.silent - 100 * kMillisecond;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));  // As the first one ends.
}

TEST_F(ViewKeeperTest, K2WhoIsSlowStaysWhenItPulsesAgain) {
  AddMember(2);
  GiveLease(2);
  now_ += timing_.lease - 100 * kMillisecond;
  EXPECT_THAT(Leaves(), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
  Hear(2);
  keeper_.Confirm(now_);
  EXPECT_EQ(LeaseOf(2), 0);  // Until it is decided.
  now_ += 50 * kMillisecond;
  EXPECT_THAT(Leaves(), IsEmpty());
  EXPECT_THAT(keeper_.Confirm(now_), ElementsAre(Instance(2)));
  EXPECT_EQ(LeaseOf(2), ClockOf(2, now_ - 50 * kMillisecond));
  now_ += 50 * kMillisecond;
  EXPECT_THAT(Leaves(), IsEmpty());  // Nor when the lease before has ended.
}

// --- A node in the place of its older incarnation -----------------------------------------------------------------------

TEST_F(ViewKeeperTest, K3WhoStartedAnewJoinsWhenTheLeaseOfTheOneBeforeHasEnded) {
  AddMember(2);
  GiveLease(2);
  const TimeNs given_at = now_;
  for (now_ += 10 * kMillisecond; now_ < given_at + timing_.lease; now_ += 30 * kMillisecond) {
    Hear(2, 2);
    EXPECT_TRUE(Decide().empty());
  }
  now_ = given_at + timing_.lease;
  EXPECT_THAT(Joins(), ElementsAre(Instance(2, 2)));
}

TEST_F(ViewKeeperTest, TheIncarnationBeforeIsHeardNoMore) {
  AddMember(2);
  GiveLease(2);
  now_ += 10 * kMillisecond;
  Hear(2, 2);
  now_ += 10 * kMillisecond;
  Hear(2, 1);
  EXPECT_THAT(keeper_.Confirm(now_), IsEmpty());
  EXPECT_EQ(LeaseOf(2, 1), 0);
  EXPECT_EQ(LeaseOf(2, 2), 0);  // It is not in the view.
}

TEST_F(ViewKeeperTest, WhoStartedAnewAndMayNotJoinStillLeavesAsTheOneBefore) {
  AddMember(2);
  GiveLease(2);
  now_ += timing_.lease;
  Hear(Instance(2, 2), {.sent_at = 0, .epoch = Epoch(6), .unreachable = {}});
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

// --- K3 ---------------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, K3WhoIsNewJoins) {
  AddMember(2);
  GiveLease(2);
  Add(3);
  EXPECT_TRUE(Decide().empty());
  Hear(3);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3)));
}

TEST_F(ViewKeeperTest, K3WhoIsNotInTheDatabaseDoesNotJoin) {
  Hear(3);
  EXPECT_TRUE(Decide().empty());
  Add(3);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3)));
}

TEST_F(ViewKeeperTest, K3WhoIsSilentDoesNotJoin) {
  Add(3);
  Hear(3);
  now_ += timing_.silent - 1;
  EXPECT_THAT(Joins(), ElementsAre(Instance(3)));
  now_ += 1;
  EXPECT_TRUE(Decide().empty());
}

TEST_F(ViewKeeperTest, K3WhoDoesNotKnowTheViewDoesNotJoin) {
  Add(3);
  Hear(Instance(3), {.sent_at = 0, .epoch = Epoch(6), .unreachable = {}});
  EXPECT_TRUE(Decide().empty());
  now_ += 1;
  Hear(3);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3)));
}

TEST_F(ViewKeeperTest, K3AnOlderIncarnationDoesNotJoin) {
  AddMember(3, 5);
  Leave(3);
  Hear(3, 4);
  EXPECT_TRUE(Decide().empty());
  Hear(3, 6);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3, 6)));
}

TEST_F(ViewKeeperTest, K3WhoHasLeftDoesNotComeBackUnderThatIncarnation) {
  AddMember(3);
  Leave(3);
  Hear(3);
  EXPECT_TRUE(Decide().empty());
  EXPECT_TRUE(keeper_.AnswerTo(Instance(3), Database()).is_gone);
  now_ += timing_.pulse;
  Hear(3, 2);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(3, 2), Database()).is_gone);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3, 2)));
}

TEST_F(ViewKeeperTest, K3WhoDoesNotReachAMemberThatIsHeardDoesNotJoin) {
  AddMember(2);
  Hear(2);
  Add(3);
  Hear(3, 1, {2});
  EXPECT_TRUE(Decide().empty());
  now_ += timing_.pulse;
  Hear(3);
  EXPECT_THAT(Joins(), ElementsAre(Instance(3)));
}

TEST_F(ViewKeeperTest, K3WhomNobodyHearsNeedNotBeReached) {
  AddMember(2);
  GiveLease(2);
  Add(3);
  Add(4);
  now_ += timing_.silent;
  Hear(4);
  Hear(3, 1, {2, 3, 4, 9});  // Silent, itself, not in the view, unknown.
  EXPECT_THAT(Joins(), ElementsAre(Instance(3), Instance(4)));
}

TEST_F(ViewKeeperTest, WhoWasInAViewAndIsNotAnyMoreIsTold) {
  Add(3);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(3), Database()).is_gone);  // It has not been in one.
  EXPECT_FALSE(keeper_.AnswerTo(Instance(9), Database()).is_gone);  // Unknown.
  AddMember(3, 5);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(3, 5), Database()).is_gone);
  EXPECT_TRUE(keeper_.AnswerTo(Instance(3, 4), Database()).is_gone);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(3, 6), Database()).is_gone);
  Leave(3);
  const PulseAnswer answer = keeper_.AnswerTo(Instance(3, 5), Database());
  EXPECT_TRUE(answer.is_gone);
  EXPECT_EQ(answer.epoch, view_.epoch);
  EXPECT_EQ(answer.lease_from, 0);
}

// --- The room in one change -------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, AChangeHasRoomForABoundedNumber) {
  for (uint64_t node = 1; node <= ViewChange::kMostNodes; ++node) AddMember(node);
  for (uint64_t node = 201; node <= 202; ++node) Add(node);
  Hear(201);
  Hear(202);
  ViewChange change = Decide();
  EXPECT_THAT(change.leaves, SizeIs(ViewChange::kMostNodes));
  EXPECT_THAT(change.joins, IsEmpty());
  Hear(1);
  change = Decide();
  EXPECT_THAT(change.leaves, SizeIs(ViewChange::kMostNodes - 1));
  EXPECT_THAT(change.joins, ElementsAre(Instance(201)));
}

TEST_F(ViewKeeperTest, WhoFindsNoRoomGetsNoLeaseEither) {
  for (uint64_t node = 1; node <= ViewChange::kMostNodes + 1; ++node) AddMember(node);
  GiveLease(ViewChange::kMostNodes + 1);
  now_ += timing_.lease;
  EXPECT_THAT(Leaves(), SizeIs(ViewChange::kMostNodes));
  EXPECT_EQ(LeaseOf(ViewChange::kMostNodes + 1), 0);
}

// Each decision fits the database, and the last one is reached.
TEST_F(ViewKeeperTest, ManyComeInOneChangeAfterTheOther) {
  for (uint64_t node = 1; node <= 300; ++node) node % 3 == 0 ? Add(node) : AddMember(node);
  NodeDatabase database = Database();
  int changes = 0;
  for (; changes < 20; ++changes) {
    view_ = database.view();
    now_ += timing_.pulse;
    for (uint64_t node = 1; node <= 300; ++node) {
      if (node % 3 != 1) Hear(node, 2);  // Some members have started anew, some are dead.
    }
    DatabaseCommand command;
    command.kind = DatabaseCommand::Kind::kChangeView;
    command.view = keeper_.Decide(database, VotesInLog(), now_);
    if (command.view.empty()) break;
    ASSERT_TRUE(database.Apply(command).ok()) << database.Check(command);
  }
  EXPECT_LE(changes, 5);
  EXPECT_THAT(database.view().members, SizeIs(200));
  for (const auto& [node, incarnation] : database.view().members) EXPECT_EQ(incarnation, Incarnation(2)) << node.value;
}

// --- K4 ---------------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperTest, K4WhoHasMostSuchNeighboursLeaves) {
  for (uint64_t node = 1; node <= 5; ++node) AddMember(node);
  EXPECT_THAT(Misfits({}), IsEmpty());
  EXPECT_THAT(Misfits({{2, {1, 3}}}), ElementsAre(NodeId(2)));
  EXPECT_THAT(Misfits({{1, {2}}, {3, {2}}}), ElementsAre(NodeId(2)));  // One of the two says it: that is enough.
  EXPECT_THAT(Misfits({{1, {4}}, {4, {1}}, {5, {4}}}), ElementsAre(NodeId(4)));
}

TEST_F(ViewKeeperTest, K4ThoseThatAreLeftReachEachOther) {
  for (uint64_t node = 1; node <= 5; ++node) AddMember(node);
  EXPECT_THAT(Misfits({{1, {4, 5}}, {2, {4, 5}}, {3, {4, 5}}}), ElementsAre(NodeId(4), NodeId(5)));
  EXPECT_THAT(Misfits({{1, {2}}, {3, {4}}}), ElementsAre(NodeId(2), NodeId(4)));
}

// The node that most do not reach may stay, if more stay so: 1 does not reach 2, 3 and 4, and each of these does not reach one more.
TEST_F(ViewKeeperTest, K4TheLargestSetThatReachesEachOtherStays) {
  for (uint64_t node = 1; node <= 8; ++node) AddMember(node);
  EXPECT_THAT(Misfits({{1, {2, 3, 4}}, {2, {5}}, {3, {6}}, {4, {7}}}), ElementsAre(NodeId(2), NodeId(3), NodeId(4)));
}

TEST_F(ViewKeeperTest, K4OfManyThatDoNotReachEachOtherOneStays) {
  std::map<uint64_t, std::vector<uint64_t>> unreachable;
  for (uint64_t node = 1; node <= 60; ++node) {
    AddMember(node);
    for (uint64_t other = 1; other < node; ++other) unreachable[node].push_back(other);
  }
  EXPECT_THAT(Misfits(unreachable), SizeIs(59));
}

// Two halves, each of which reaches itself.
TEST_F(ViewKeeperTest, K4OfTwoHalvesTheOneWithMoreVotesStays) {
  std::map<uint64_t, std::vector<uint64_t>> unreachable;
  for (uint64_t node = 1; node <= 24; ++node) {
    AddMember(node, 1, node == 20 ? 1 : 0);
    for (uint64_t other = 13; node <= 12 && other <= 24; ++other) unreachable[node].push_back(other);
  }
  const std::vector<NodeId> leave = Misfits(unreachable);
  EXPECT_THAT(leave, SizeIs(12));
  EXPECT_THAT(leave, Contains(NodeId(1)));
  EXPECT_THAT(leave, Not(Contains(NodeId(20))));
}

TEST_F(ViewKeeperTest, K4OfTwoTheOneWithFewerVotesLeaves) {
  AddMember(1, 1, 0);
  AddMember(2, 1, 1);
  AddMember(3, 1, 2);
  EXPECT_THAT(Misfits({{1, {2}}}), ElementsAre(NodeId(1)));
  EXPECT_THAT(Misfits({{3, {2}}}), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K4OfTwoWithTheSameVotesTheGreaterIdLeaves) {
  AddMember(1, 1, 1);
  AddMember(2, 1, 1);
  EXPECT_THAT(Misfits({{1, {2}}}), ElementsAre(NodeId(2)));
  EXPECT_THAT(Misfits({{2, {1}}}), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K4ManyNeighboursCountMoreThanVotes) {
  AddMember(1, 1, 0);
  AddMember(2, 1, 3);
  AddMember(3, 1, 0);
  EXPECT_THAT(Misfits({{1, {2}}, {3, {2}}}), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K4OnlyMembersThatAreHeardCount) {
  AddMember(1);
  AddMember(2);
  AddMember(3);
  Add(4);
  GiveLease(3);
  now_ += timing_.silent;
  Hear(1, 1, {1, 3, 4, 9});  // Itself, silent, not in the view, unknown.
  Hear(2, 1, {3});
  EXPECT_THAT(Leaves(), IsEmpty());
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(1), 0);
  EXPECT_NE(LeaseOf(2), 0);
}

TEST_F(ViewKeeperTest, K4AMisfitLeavesAfterItsLastLeaseAndGetsNoFurther) {
  AddMember(1);
  AddMember(2);
  GiveLease(1);
  GiveLease(2);
  const TimeNs given_at = now_;
  for (now_ += timing_.pulse; now_ < given_at + timing_.lease; now_ += timing_.pulse) {
    Hear(1, 1, {2});
    Hear(2, 1, {1});
    EXPECT_THAT(Leaves(), IsEmpty());
    keeper_.Confirm(now_);
    EXPECT_NE(LeaseOf(1), 0);
    EXPECT_EQ(LeaseOf(2), 0);
  }
  now_ = given_at + timing_.lease;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperTest, K4WhoIsReachedAgainStays) {
  AddMember(1);
  AddMember(2);
  GiveLease(1);
  GiveLease(2);
  EXPECT_THAT(Misfits({{1, {2}}}), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
  EXPECT_THAT(Misfits({}), IsEmpty());
  EXPECT_NE(LeaseOf(2), 0);
  now_ += timing_.lease - 2 * timing_.pulse - kMillisecond;
  EXPECT_THAT(Misfits({}), IsEmpty());
}

}  // namespace
}  // namespace mangrove
