// A node's lease, its view, to whom it pulses, and its end: M1 to M4.

#include "recovery/member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "recovery/groups.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

ViewPart::Node UpInView(uint64_t node) { return {NodeId(node), Incarnation(1), {}}; }

// Node 5; the anchors are 1, 2 and 3.
class MemberTest : public testing::Test {
 protected:
  // Ticks now; what it sends, all of it pulses.
  std::vector<std::pair<NodeId, Pulse>> Pulses() {
    member_.Tick(now_);
    std::vector<std::pair<NodeId, Pulse>> pulses;
    for (const auto& [to, message] : member_.TakeMessages()) pulses.emplace_back(to, std::get<Pulse>(message));
    return pulses;
  }
  std::vector<NodeId> PulsedTo() {
    std::vector<NodeId> nodes;
    for (const auto& [to, pulse] : Pulses()) nodes.push_back(to);
    return nodes;
  }
  std::vector<NodeId> Unreachable() { return At(member_.next_tick()).front().second.unreachable; }
  std::vector<std::pair<NodeId, Pulse>> At(TimeNs time) {
    now_ = time;
    return Pulses();
  }
  void Answer(TimeNs lease_from, uint64_t epoch = 1, uint64_t leader = 1, uint64_t from = 1) {
    member_.Receive(
        NodeId(from),
        PulseAnswer{.lease_from = lease_from, .epoch = Epoch(epoch), .leader = NodeId(leader), .to = Incarnation(1)},
        now_);
  }
  void Gone(uint64_t epoch) {
    member_.Receive(NodeId(1),
                    PulseAnswer{.epoch = Epoch(epoch), .leader = NodeId(1), .is_gone = true, .to = Incarnation(1)},
                    now_);
  }
  void Part(uint64_t epoch, uint32_t first, const std::vector<NodeInstance>& members, bool is_last, uint64_t from = 1) {
    if (first == 0) root_ = members.empty() ? NodeId() : members.front().node;
    std::vector<ViewPart::Node> nodes;
    for (NodeInstance member : members) nodes.push_back({member.node, member.incarnation, {}});
    member_.Receive(NodeId(from),
                    ViewPart{.epoch = Epoch(epoch), .first = first, .is_last = is_last, .nodes = nodes, .root = root_},
                    now_);
  }
  void Know(uint64_t epoch, const std::vector<NodeInstance>& members) { Part(epoch, 0, members, true); }
  // In view 1 with a lease from a pulse that was sent now.
  void Join() {
    Pulses();
    Know(1, {Instance(1), Instance(2), Instance(3), Instance(5)});
    Answer(now_);
    ASSERT_TRUE(member_.HasLease(now_));
  }

  const RecoveryTiming timing_;
  NodeId root_;  // Of the view that is told last.
  TimeNs now_ = 1000 * kSecond;
  Member member_{{.self = Instance(5), .roster = RosterOf({1, 2, 3}), .timing = {}}, now_};
};

// --- M1 ---------------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, HasNoLeaseBeforeAnAnswer) {
  Pulses();
  Know(1, {Instance(5)});
  EXPECT_FALSE(member_.HasLease(now_));
  EXPECT_LE(member_.lease_ends(), now_);
}

TEST_F(MemberTest, M1TheLeaseRunsFromWhenThePulseWasSentASixteenthLess) {
  const TimeNs sent_at = Pulses().front().second.sent_at;
  EXPECT_EQ(sent_at, now_);
  Know(1, {Instance(5)});
  now_ += 400 * kMillisecond;
  Answer(sent_at);
  EXPECT_EQ(member_.lease_ends(), sent_at + timing_.lease / 16 * 15);
  EXPECT_TRUE(member_.HasLease(member_.lease_ends() - 1));
  EXPECT_FALSE(member_.HasLease(member_.lease_ends()));
}

TEST_F(MemberTest, M1WhatComesAfterTheLeasesEndExtendsNothing) {
  const TimeNs sent_at = Pulses().front().second.sent_at;
  Know(1, {Instance(5)});
  now_ += timing_.lease;
  Answer(sent_at);
  EXPECT_FALSE(member_.HasLease(now_));
}

TEST_F(MemberTest, M1LateAndDoubledAnswersExtendNothing) {
  const TimeNs first = now_;
  Join();
  const TimeNs second = At(member_.next_tick()).front().second.sent_at;
  ASSERT_EQ(second, first + timing_.pulse);
  Answer(second);
  const TimeNs ends = member_.lease_ends();
  EXPECT_EQ(ends, second + timing_.lease / 16 * 15);
  now_ += 100 * kMillisecond;
  Answer(second);
  EXPECT_EQ(member_.lease_ends(), ends);
  Answer(first);  // Nor do they take anything away.
  EXPECT_EQ(member_.lease_ends(), ends);
}

TEST_F(MemberTest, M1AnAnswerWithoutALeaseLeavesTheOneThatRuns) {
  Join();
  const TimeNs ends = member_.lease_ends();
  now_ += 100 * kMillisecond;
  Answer(0);
  EXPECT_EQ(member_.lease_ends(), ends);
}

// But for its group, in which its monitor is.
TEST_F(MemberTest, M1WhoIsNeitherAnchorNorOfTheGroupGivesNothing) {
  const uint64_t stranger = kGroupNodes + 7;
  Pulses();
  Know(1, {Instance(5)});
  Answer(now_, 1, stranger, stranger);
  EXPECT_FALSE(member_.HasLease(now_));
  EXPECT_EQ(member_.leader(), NodeId());
  member_.Receive(NodeId(stranger), PulseAnswer{.epoch = Epoch(9), .is_gone = true, .to = Incarnation(1)}, now_);
  EXPECT_FALSE(member_.is_gone());
  Part(2, 0, {Instance(7)}, true, stranger);
  EXPECT_EQ(member_.view().epoch, Epoch(1));
}

TEST_F(MemberTest, M1WhatWasSaidToAnotherIncarnationIsNotTaken) {
  Pulses();
  Know(1, {Instance(5)});
  member_.Receive(NodeId(1), PulseAnswer{.lease_from = now_, .leader = NodeId(1), .to = Incarnation(2)}, now_);
  member_.Receive(NodeId(1), PulseAnswer{.epoch = Epoch(9), .is_gone = true, .to = Incarnation(2)}, now_);
  EXPECT_FALSE(member_.HasLease(now_));
  EXPECT_FALSE(member_.is_gone());
}

TEST_F(MemberTest, M1APulseThatWasNeverSentGivesNothing) {
  Join();
  const TimeNs ends = member_.lease_ends();
  Answer(now_ + 1);
  now_ += 100 * kMillisecond;
  Answer(now_);
  EXPECT_EQ(member_.lease_ends(), ends);
}

// --- M2 ---------------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, M2ALeaseCountsWhenTheViewIsKnownUnderWhichItWasGiven) {
  Join();
  const TimeNs ends = member_.lease_ends();
  At(member_.next_tick());
  Answer(now_, 2);
  EXPECT_EQ(member_.lease_ends(), ends);  // That of before goes on.
  Know(2, {Instance(1), Instance(5)});
  EXPECT_GT(member_.lease_ends(), ends);
}

TEST_F(MemberTest, M2ANewerViewThanTheLeasesWillDo) {
  Pulses();
  Know(4, {Instance(5)});
  Answer(now_, 3);
  EXPECT_TRUE(member_.HasLease(now_));
}

TEST_F(MemberTest, M2WhoIsNotInTheViewHasNoLease) {
  Join();
  Know(2, {Instance(1)});
  EXPECT_FALSE(member_.HasLease(now_));
}

TEST_F(MemberTest, M2AnotherIncarnationInTheViewIsSomebodyElse) {
  Pulses();
  Know(1, {Instance(1), Instance(5, 2)});
  Answer(now_);
  EXPECT_FALSE(member_.HasLease(now_));
}

// --- M3 ---------------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, M3WhoIsGoneHasNoLease) {
  Join();
  Gone(2);
  EXPECT_TRUE(member_.is_gone());
  EXPECT_FALSE(member_.HasLease(now_));
  EXPECT_LE(member_.lease_ends(), now_);
}

TEST_F(MemberTest, M3WhoIsGoneStaysSoWhateverComes) {
  Join();
  const TimeNs sent_at = now_;
  Gone(2);
  Know(3, {Instance(1), Instance(5)});
  Answer(sent_at, 3);
  At(member_.next_tick());
  Answer(now_, 3);
  EXPECT_TRUE(member_.is_gone());
  EXPECT_FALSE(member_.HasLease(now_));
}

// --- Pulses -----------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, PulsesToEveryAnchorAsLongAsNobodyLeads) {
  EXPECT_EQ(member_.next_tick(), now_);
  EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(1), NodeId(2), NodeId(3)));
  EXPECT_THAT(PulsedTo(), IsEmpty());
  EXPECT_EQ(member_.next_tick(), now_ + timing_.pulse);
  now_ += timing_.pulse - 1;
  EXPECT_THAT(PulsedTo(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(PulsedTo(), SizeIs(3));
}

TEST_F(MemberTest, PulsesToTheLeaderAloneWhileItAnswers) {
  Pulses();
  for (int i = 0; i < 20; ++i) {
    Answer(now_, 1, 2, 2);
    EXPECT_EQ(member_.leader(), NodeId(2));
    now_ += timing_.pulse;
    EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(2)));
  }
}

TEST_F(MemberTest, PulsesToAllWhenTheLeaderIsSilent) {
  Pulses();
  Answer(now_);
  now_ += timing_.pulse;
  EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(1)));
  for (const TimeNs silent_at = now_ - timing_.pulse + timing_.silent; now_ < silent_at;) {
    now_ = member_.next_tick();
    if (now_ < silent_at) Pulses();
  }
  EXPECT_THAT(PulsedTo(), SizeIs(3));
  Answer(now_);  // It is back.
  now_ += timing_.pulse;
  EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(1)));
}

TEST_F(MemberTest, PulsesToAllAtOnceWhenTheLeaderIsGone) {
  Pulses();
  Answer(now_);
  now_ += 10 * kMillisecond;
  member_.PeerDown(NodeId(2), now_);  // No leader.
  EXPECT_THAT(PulsedTo(), IsEmpty());
  member_.PeerDown(NodeId(1), now_);
  EXPECT_EQ(member_.next_tick(), now_);
  EXPECT_THAT(PulsedTo(), SizeIs(3));
  EXPECT_EQ(member_.leader(), NodeId());
}

TEST_F(MemberTest, ANewLeaderThatAnswersIsFollowedAtOnce) {
  Pulses();
  Answer(now_, 1, 1, 1);
  Answer(now_, 1, 3, 3);
  EXPECT_EQ(member_.leader(), NodeId(3));
  now_ += timing_.pulse;
  EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(3)));
}

TEST_F(MemberTest, WhoOnlyHeardOfALeaderDoesNotTurnItAwayFromTheOneThatAnswers) {
  Pulses();
  Answer(now_, 1, 1, 1);
  Answer(0, 0, 3, 2);
  EXPECT_EQ(member_.leader(), NodeId(1));
  now_ += timing_.pulse;
  EXPECT_THAT(PulsedTo(), ElementsAre(NodeId(1)));
}

TEST_F(MemberTest, ALeaderThatItOnlyHeardOfIsNamedAndAllArePulsedTo) {
  Pulses();
  Answer(0, 0, 3, 2);
  EXPECT_EQ(member_.leader(), NodeId(3));
  now_ += timing_.pulse;
  EXPECT_THAT(PulsedTo(), SizeIs(3));
}

TEST_F(MemberTest, APulseNamesTheNewestWholeView) {
  EXPECT_EQ(Pulses().front().second.epoch, Epoch());
  Know(3, {Instance(5)});
  Part(4, 0, {Instance(5)}, false);
  EXPECT_EQ(At(member_.next_tick()).front().second.epoch, Epoch(3));
}

TEST_F(MemberTest, WhoLearnsAViewThatItIsNotInPulsesAtOnce) {
  Pulses();
  now_ += 10 * kMillisecond;
  Know(1, {Instance(1)});
  EXPECT_EQ(member_.next_tick(), now_);
  EXPECT_EQ(Pulses().front().second.epoch, Epoch(1));
}

// --- Views ------------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, AViewComesInParts) {
  Part(1, 0, {Instance(1), Instance(2, 7)}, false);
  Part(1, 2, {Instance(3)}, false);
  EXPECT_EQ(member_.view(), View());
  Part(1, 3, {Instance(5)}, true);
  const View whole = {.epoch = Epoch(1),
                      .members = {{NodeId(1), Incarnation(1)},
                                  {NodeId(2), Incarnation(7)},
                                  {NodeId(3), Incarnation(1)},
                                  {NodeId(5), Incarnation(1)}},
                      .root = NodeId(1)};
  EXPECT_EQ(member_.view(), whole);
}

TEST_F(MemberTest, AnEmptyViewIsOne) {
  Know(2, {});
  EXPECT_EQ(member_.view(), (View{.epoch = Epoch(2), .members = {}, .root = {}}));
}

TEST_F(MemberTest, AViewOfWhichAPartIsLostIsNotKnown) {
  Part(1, 0, {Instance(1)}, false);
  Part(1, 2, {Instance(5)}, true);
  EXPECT_EQ(member_.view(), View());
  Part(1, 0, {Instance(1)}, false);  // It comes again.
  Part(1, 1, {Instance(2)}, false);
  Part(1, 2, {Instance(5)}, true);
  EXPECT_THAT(member_.view().members, SizeIs(3));
}

TEST_F(MemberTest, APartWithoutItsFirstIsNotTaken) {
  Part(1, 1, {Instance(5)}, true);
  EXPECT_EQ(member_.view(), View());
}

TEST_F(MemberTest, DoubledPartsDoNotMakeAnotherView) {
  Part(1, 0, {Instance(1)}, false);
  Part(1, 1, {Instance(2)}, false);
  Part(1, 1, {Instance(2)}, false);
  Part(1, 2, {Instance(5)}, true);
  Part(1, 2, {Instance(5)}, true);
  EXPECT_THAT(member_.view().members, SizeIs(3));
  EXPECT_EQ(member_.view().epoch, Epoch(1));
}

// In any order, with doubles: what is known is the whole view, or none.
TEST_F(MemberTest, ReorderedPartsGiveTheWholeViewOrNone) {
  std::vector<std::pair<uint32_t, uint64_t>> parts = {{0, 1}, {0, 1}, {1, 2}, {2, 5}, {2, 5}};
  int wholes = 0;
  do {
    Member member({.self = Instance(5), .roster = RosterOf({1}), .timing = {}}, now_);
    for (const auto& [first, node] : parts) {
      const ViewPart part = {
          .epoch = Epoch(1), .first = first, .is_last = first == 2, .nodes = {UpInView(node)}, .root = NodeId(1)};
      member.Receive(NodeId(1), part, now_);
      if (member.view().epoch == Epoch()) continue;
      ASSERT_THAT(member.view().members, SizeIs(3));
    }
    wholes += member.view().epoch == Epoch(1) ? 1 : 0;
  } while (std::next_permutation(parts.begin(), parts.end()));
  EXPECT_GT(wholes, 0);
}

TEST_F(MemberTest, AnOlderViewIsNotTakenForANewerOne) {
  Know(3, {Instance(1), Instance(5)});
  Know(2, {Instance(1), Instance(2), Instance(5)});
  Know(3, {Instance(5)});
  EXPECT_EQ(member_.view().epoch, Epoch(3));
  EXPECT_THAT(member_.view().members, SizeIs(2));
}

TEST_F(MemberTest, PartsOfTwoViewsAreNotMixed) {
  Part(2, 0, {Instance(1)}, false);
  Part(3, 1, {Instance(5)}, true);
  EXPECT_EQ(member_.view(), View());
  Part(3, 0, {Instance(1)}, false);
  Part(2, 1, {Instance(2)}, true);
  EXPECT_EQ(member_.view(), View());
}

TEST_F(MemberTest, ANewerViewTakesThePlaceOfOneThatIsNotWhole) {
  Part(2, 0, {Instance(1), Instance(2)}, false);
  Part(3, 0, {Instance(5)}, true);
  EXPECT_EQ(member_.view(), (View{.epoch = Epoch(3), .members = {{NodeId(5), Incarnation(1)}}, .root = NodeId(5)}));
}

TEST_F(MemberTest, AViewWhoseRootIsNotInItIsNone) {
  for (const NodeId root : {NodeId(), NodeId(2)}) {
    member_.Receive(NodeId(1), ViewPart{.epoch = Epoch(1), .is_last = true, .nodes = {UpInView(5)}, .root = root},
                    now_);
    EXPECT_EQ(member_.view(), View());
  }
}

// --- Who is not reached -----------------------------------------------------------------------------------------------

TEST_F(MemberTest, WhoIsToJoinNamesAtOnceWhomItDoesNotReach) {
  member_.PeerUp(NodeId(2));
  Know(1, {Instance(1), Instance(2), Instance(3)});
  EXPECT_THAT(Unreachable(), ElementsAre(NodeId(1), NodeId(3)));
  member_.PeerUp(NodeId(1));
  EXPECT_THAT(Unreachable(), ElementsAre(NodeId(3)));
  member_.PeerDown(NodeId(2), now_);
  EXPECT_THAT(Unreachable(), ElementsAre(NodeId(2), NodeId(3)));
}

TEST_F(MemberTest, AMemberNamesWhomItHasNotReachedForAWhile) {
  for (uint64_t node : {1, 2, 3}) member_.PeerUp(NodeId(node));
  Join();
  member_.PeerDown(NodeId(2), now_);
  const TimeNs down_at = now_;
  while (member_.next_tick() < down_at + timing_.unreachable) EXPECT_THAT(Unreachable(), IsEmpty());
  EXPECT_THAT(Unreachable(), ElementsAre(NodeId(2)));
  member_.PeerUp(NodeId(2));
  EXPECT_THAT(Unreachable(), IsEmpty());
}

TEST_F(MemberTest, TheWhileIsCountedFromTheFirstThatItWasTold) {
  for (uint64_t node : {1, 2, 3}) member_.PeerUp(NodeId(node));
  Join();
  const TimeNs down_at = now_;
  member_.PeerDown(NodeId(2), now_);
  now_ += timing_.unreachable / 2;
  member_.PeerDown(NodeId(2), now_);
  Know(2, {Instance(1), Instance(2), Instance(5)});  // Nor does another view begin it anew.
  now_ = down_at + timing_.unreachable;
  EXPECT_THAT(Pulses().front().second.unreachable, ElementsAre(NodeId(2)));
}

TEST_F(MemberTest, AConnectionInBetweenBeginsItAnew) {
  for (uint64_t node : {1, 2, 3}) member_.PeerUp(NodeId(node));
  Join();
  const TimeNs down_at = now_;
  member_.PeerDown(NodeId(2), now_);
  now_ += timing_.unreachable / 2;
  member_.PeerUp(NodeId(2));
  member_.PeerDown(NodeId(2), now_);
  now_ = down_at + timing_.unreachable;
  EXPECT_THAT(Pulses().front().second.unreachable, IsEmpty());
}

TEST_F(MemberTest, AMemberThatWasNeverReachedIsNamedAfterAWhile) {
  member_.PeerUp(NodeId(1));
  member_.PeerUp(NodeId(2));
  Join();
  const TimeNs joined_at = now_;
  EXPECT_THAT(Unreachable(), IsEmpty());
  now_ = joined_at + timing_.unreachable;
  EXPECT_THAT(Pulses().front().second.unreachable, ElementsAre(NodeId(3)));
}

TEST_F(MemberTest, OnlyMembersOfTheViewAreNamed) {
  for (uint64_t node : {1, 2, 3}) member_.PeerUp(NodeId(node));
  Join();
  member_.PeerDown(NodeId(2), now_);
  member_.PeerDown(NodeId(9), now_);
  Know(2, {Instance(1), Instance(5)});
  now_ += 2 * timing_.unreachable;
  EXPECT_THAT(Pulses().front().second.unreachable, IsEmpty());
}

TEST_F(MemberTest, APulseNamesABoundedNumber) {
  std::vector<NodeInstance> members;
  for (uint64_t node = 10; node < 100; ++node) members.push_back(Instance(node));
  Know(1, members);
  EXPECT_THAT(Unreachable(), SizeIs(Pulse::kMostUnreachable));
}

// --- Anchors that have become others ------------------------------------------------------------------------------------

TEST_F(MemberTest, WhoHearsOfNoLeaderAsksOthersTooAndLearnsFromThemWhoTheAnchorsAre) {
  Roster roster = RosterOf({1, 2, 3});
  for (uint64_t node = 4; node < 30; ++node) roster.nodes[NodeId(node)] = {.name = "n", .votes = 0};
  Member member({.self = Instance(5), .roster = roster, .timing = {}}, now_);
  std::set<NodeId> asked;
  for (int i = 0; i < 60; ++i) {
    now_ += timing_.pulse;
    member.Tick(now_);
    size_t at_once = 0;
    for (const auto& [to, message] : member.TakeMessages()) {
      asked.insert(to);
      ++at_once;
    }
    EXPECT_LE(at_once, 3u + 8u);
  }
  EXPECT_EQ(asked.size(), 28u);  // All but itself.
  const NodeRecord anchor{.name = "n9", .votes = 1, .changed = 7};
  const RosterPart part{.after = 0, .version = 7, .is_last = true, .oldest = 7, .nodes = {{NodeId(9), anchor}}};
  member.Receive(NodeId(77), part, now_);
  EXPECT_EQ(member.roster().version, 0u) << "from a stranger";
  member.Receive(NodeId(20), part, now_);
  EXPECT_EQ(member.roster().anchors(), std::set<NodeId>{NodeId(9)});
}

// --- The end ----------------------------------------------------------------------------------------------------------

TEST_F(MemberTest, M4WhoLeavesHasNoLeaseWhateverComes) {
  Join();
  member_.Leave(now_);
  EXPECT_FALSE(member_.HasLease(now_));
  EXPECT_EQ(member_.lease_ends(), 0);
  now_ += kMillisecond;
  Answer(now_ - kMillisecond);
  Know(2, {Instance(1), Instance(2), Instance(3), Instance(5)});
  Answer(now_ - kMillisecond, 2);
  EXPECT_FALSE(member_.HasLease(now_));
}

TEST_F(MemberTest, M4WhoLeavesTellsEveryAnchorUntilTheViewGoesOnWithoutIt) {
  Join();
  for (const auto& [to, pulse] : At(member_.next_tick())) EXPECT_FALSE(pulse.leaves);
  member_.Leave(now_);
  for (int i = 0; i < 3; ++i) {
    const auto pulses = At(member_.next_tick());
    ASSERT_THAT(pulses, SizeIs(3));
    for (const auto& [to, pulse] : pulses) EXPECT_TRUE(pulse.leaves);
    EXPECT_LT(member_.next_tick() - now_, timing_.pulse);
    EXPECT_FALSE(member_.is_out());
  }
  Gone(2);
  EXPECT_TRUE(member_.is_out());
  EXPECT_THAT(At(member_.next_tick()), IsEmpty());
}

TEST_F(MemberTest, WhoStopsSaysSoToTheMembersOfItsView) {
  Join();
  member_.PeerUp(NodeId(1));
  member_.PeerUp(NodeId(3));
  member_.PeerUp(NodeId(4));  // Is not in the view.
  member_.SetStopping({.flushes = true}, now_);
  for (int i = 0; i < 2; ++i) {
    now_ = member_.next_tick();
    member_.Tick(now_);
    std::vector<NodeId> told;
    for (const auto& [to, message] : member_.TakeMessages()) {
      const auto* stopping = std::get_if<Stopping>(&message);
      if (stopping == nullptr) continue;
      EXPECT_TRUE(stopping->flushes);
      told.push_back(to);
    }
    EXPECT_THAT(told, ElementsAre(NodeId(1), NodeId(3)));
  }
}

TEST_F(MemberTest, OthersThatFlushAreBelievedForAWhile) {
  Join();
  EXPECT_FALSE(member_.OthersFlush(now_));
  member_.Receive(Instance(2), Stopping{.flushes = true}, now_);
  EXPECT_TRUE(member_.OthersFlush(now_ + 3 * timing_.pulse));
  EXPECT_FALSE(member_.OthersFlush(now_ + 3 * timing_.pulse + 1));
  member_.Receive(Instance(2), Stopping{.flushes = false}, now_);
  EXPECT_FALSE(member_.OthersFlush(now_));
  // Another incarnation than that of the view.
  member_.Receive(Instance(3, 2), Stopping{.flushes = true}, now_);
  EXPECT_FALSE(member_.OthersFlush(now_));
}

TEST_F(MemberTest, OthersGoOnWhileThoseThatDoNotStopHaveMostVotes) {
  Join();
  EXPECT_TRUE(member_.OthersGoOn());
  member_.Receive(Instance(1), Stopping{.flushes = true}, now_);
  EXPECT_TRUE(member_.OthersGoOn());
  member_.Receive(Instance(3, 2), Stopping{.flushes = false}, now_);  // Of no incarnation in the view.
  EXPECT_TRUE(member_.OthersGoOn());
  member_.Receive(Instance(3), Stopping{.flushes = false}, now_);
  EXPECT_FALSE(member_.OthersGoOn());
  // One of them has started anew, and stays.
  Know(2, {Instance(1, 2), Instance(2), Instance(3), Instance(5)});
  EXPECT_TRUE(member_.OthersGoOn());
  // Who is away has its votes still.
  Know(3, {Instance(1, 2), Instance(5)});
  EXPECT_FALSE(member_.OthersGoOn());
}

TEST_F(MemberTest, NobodyGoesOnWithoutTheOnlyAnchor) {
  Member member({.self = Instance(1), .roster = RosterOf({1}), .timing = {}}, now_);
  EXPECT_FALSE(member.OthersGoOn());
}

}  // namespace
}  // namespace mangrove
