// Whose disks keep pages as the leader of the anchors decides: K7.
// Covers: C06

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/recovery/view_keeper_places_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class ViewKeeperPlaces : public ViewKeeperPlacesTest {};

// --- Who keeps pages ----------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperPlaces, TheFirstViewPlacesAllThatTheClusterWasMadeWith) {
  view_ = View();
  for (uint64_t node : {1, 2, 3}) Add(node);
  Add(4);
  nodes_[NodeId(4)].is_removed = true;
  now_ += kSecond;
  ViewChange change = keeper_.Decide(Database(), VotesInLog(), now_);
  EXPECT_TRUE(change.empty());  // There is no view without anybody in it.
  Hear(Instance(2), {.sent_at = 0, .epoch = {}, .unreachable = {}});
  change = keeper_.Decide(Database(), VotesInLog(), now_);
  EXPECT_THAT(change.joins, ElementsAre(Instance(2)));
  EXPECT_THAT(change.place, ElementsAre(NodeId(1), NodeId(2), NodeId(3)));
  change.epoch = Epoch(9);
  Follow(change);
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.move, Epoch());
  EXPECT_TRUE(DecideAfter(0).empty());
}

// No view but that of epoch 0 has no disks, however many join in the first one.
TEST_F(ViewKeeperPlaces, TheFirstViewLeavesRoomForPlaces) {
  view_ = View();
  for (uint64_t node = 1; node <= 3 * ViewChange::kMostNodes; ++node) {
    Add(node);
    Hear(Instance(node), {.sent_at = 0, .epoch = {}, .unreachable = {}});
  }
  ViewChange change = keeper_.Decide(Database(), VotesInLog(), now_);
  EXPECT_LE(change.size(), ViewChange::kMostNodes);
  EXPECT_THAT(change.joins, testing::Not(IsEmpty()));
  change.epoch = Epoch(9);
  Follow(change);
  ASSERT_THAT(view_.disks, testing::Not(IsEmpty()));
  for (const auto& [node, incarnation] : view_.members) EXPECT_TRUE(view_.disks.contains(node)) << node.value;
}

TEST_F(ViewKeeperPlaces, NothingIsAskedForBeforeTheFirstView) {
  view_ = View();
  Add(1, 1);
  Add(2);
  Ask(NodeRequest::Kind::kDrain, 2);
  Ask(NodeRequest::Kind::kGiveUp, 2);
  EXPECT_TRUE(keeper_.Decide(Database(), VotesInLog(), now_).empty());
}

TEST_F(ViewKeeperPlaces, WhoJoinsIsToKeepPages) {
  Begin({1, 2});
  Add(3);
  HearAll();
  Hear(3);
  ViewChange change = Follow(Decide());
  EXPECT_THAT(change.joins, ElementsAre(Instance(3)));
  EXPECT_THAT(change.place, IsEmpty());  // Once it is a member.
  HearAll();
  change = Follow(Decide());
  EXPECT_THAT(change.place, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.disks, Ids({1, 2}));
  EXPECT_EQ(view_.next_disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.move, view_.epoch);
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperPlaces, WhoIsAwayForLongIsGivenUpAndNotBefore) {
  Begin({1, 2, 3});
  Leave(3);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  EXPECT_TRUE(DecideAfter(timing_.replace_after - 1).empty());
  const ViewChange change = Follow(DecideAfter(1));
  EXPECT_THAT(change.unplace, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.next_disks, Ids({1, 2}));
}

TEST_F(ViewKeeperPlaces, EachHasItsOwnTime) {
  Begin({1, 2, 3});
  Leave(3);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  now_ += timing_.replace_after / 2;
  Leave(2);
  EXPECT_TRUE(DecideAfter(0).empty());
  EXPECT_THAT(Follow(DecideAfter(timing_.replace_after / 2)).unplace, ElementsAre(NodeId(3)));
  EXPECT_TRUE(DecideAfter(timing_.replace_after / 2 - 1).empty());
  EXPECT_THAT(DecideAfter(1).unplace, ElementsAre(NodeId(2)));
}

// Who leads now does not know since when it is away.
TEST_F(ViewKeeperPlaces, AfterAnElectionTheTimeRunsAnew) {
  Begin({1, 2});
  Leave(2);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  now_ += timing_.replace_after - 1;
  keeper_.Elected(now_);
  EXPECT_TRUE(DecideAfter(1).empty());
  EXPECT_TRUE(DecideAfter(timing_.replace_after - 1).empty());
  EXPECT_THAT(DecideAfter(1).unplace, ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperPlaces, WhoIsBackInTimeHasNeverBeenAway) {
  Begin({1, 2});
  Leave(2);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  now_ += timing_.replace_after - kSecond;
  HearAll();
  Hear(2, 2);
  EXPECT_THAT(Follow(Decide()).joins, ElementsAre(Instance(2, 2)));
  EXPECT_TRUE(DecideAfter(2 * kSecond).empty());
  Leave(2);
  EXPECT_TRUE(DecideAfter(0).empty());
  EXPECT_TRUE(DecideAfter(timing_.replace_after - 1).empty());
  EXPECT_THAT(DecideAfter(1).unplace, ElementsAre(NodeId(2)));
}

// Its pages would move away and back.
TEST_F(ViewKeeperPlaces, WhoIsBackInTheVeryChangeIsNotGivenUp) {
  Begin({1, 2});
  Leave(2);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  now_ += timing_.replace_after;
  HearAll();
  Hear(2, 2);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 2)));
  EXPECT_THAT(change.unplace, IsEmpty());
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperPlaces, WhoIsBackInTheMiddleOfTheMoveEndsIt) {
  Begin({1, 2, 3});
  Leave(3);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  Follow(DecideAfter(timing_.replace_after));
  HearMoved(1);
  HearAll();
  Follow(Decide());
  ASSERT_EQ(view_.moved, Ids({1}));
  HearAll();
  Hear(3, 2);
  Follow(Decide());
  ASSERT_TRUE(view_.Has(Instance(3, 2)));
  EXPECT_THAT(Follow(DecideAfter(0)).place, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.next_disks, Nodes());
  EXPECT_EQ(view_.moved, Nodes());
  EXPECT_EQ(view_.move, Epoch());
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperPlaces, WhoIsBackAfterTheMoveIsPlacedAgain) {
  Begin({1, 2, 3});
  view_.disks = Ids({1, 2});  // Without node 3, which had been away.
  EXPECT_THAT(Follow(DecideAfter(0)).place, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.next_disks, Ids({1, 2, 3}));
}

// Pages move to it, and it leaves: it is waited for as long as any.
TEST_F(ViewKeeperPlaces, WhoIsToKeepPagesMayBeAwayForAsLong) {
  Begin({1, 2});
  AddMember(3);
  Move({1, 2, 3});
  Leave(3);
  EXPECT_TRUE(DecideAfter(0).empty());
  EXPECT_TRUE(DecideAfter(timing_.replace_after - 1).empty());
  EXPECT_THAT(Follow(DecideAfter(1)).unplace, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.next_disks, Nodes());
  EXPECT_EQ(view_.move, Epoch());
}

TEST_F(ViewKeeperPlaces, TheLastMemberKeepsItsPages) {
  Begin({1, 2, 3});
  nodes_[NodeId(3)].votes = 1;
  Ask(NodeRequest::Kind::kDrain, 2);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, ElementsAre(NodeId(2)));
  Leave(1);
  Leave(3);
  EXPECT_TRUE(DecideAfter(0).empty());
  EXPECT_TRUE(DecideAfter(timing_.replace_after + kSecond).empty());
  HearAll();
  Hear(3, 2);
  Follow(Decide());  // Somebody stays: the others go.
  EXPECT_THAT(Follow(DecideAfter(0)).unplace, ElementsAre(NodeId(1), NodeId(2)));
  EXPECT_EQ(view_.next_disks, Ids({3}));
}

// --- When pages have moved ----------------------------------------------------------------------------------------------

TEST_F(ViewKeeperPlaces, PagesHaveMovedWhenAllHaveSaidSo) {
  Begin({1, 2});
  AddMember(3);
  Move({1, 2, 3});
  HearAll();
  HearMoved(1);
  HearMoved(3);
  ViewChange change = Follow(Decide());
  EXPECT_THAT(change.moved, ElementsAre(NodeId(1), NodeId(3)));
  EXPECT_FALSE(change.placed);
  EXPECT_EQ(view_.disks, Ids({1, 2}));
  EXPECT_TRUE(DecideAfter(kMillisecond).empty());  // What they have said once is so.
  HearMoved(2);
  change = Follow(Decide());
  EXPECT_THAT(change.moved, ElementsAre(NodeId(2)));
  EXPECT_TRUE(change.placed);
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.move, Epoch());
  EXPECT_EQ(view_.moved, Nodes());
  EXPECT_TRUE(DecideAfter(kMillisecond).empty());
}

// Also who keeps fewer pages than before.
TEST_F(ViewKeeperPlaces, WhoIsToKeepNoneHasNothingToSay) {
  Begin({1, 2, 3});
  Move({1, 2});
  for (uint64_t node : {3, 1}) HearMoved(node);
  HearAll();
  EXPECT_TRUE(Decide().placed == false);
  for (uint64_t node : {1, 2, 3}) HearMoved(node);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.moved, ElementsAre(NodeId(1), NodeId(2)));
  EXPECT_TRUE(change.placed);
  EXPECT_EQ(view_.disks, Ids({1, 2}));
}

TEST_F(ViewKeeperPlaces, WhatWasSaidOfAnotherMoveDoesNotCount) {
  Begin({1});
  AddMember(2);
  Move({1, 2});
  const Epoch first = view_.move;
  HearMoved(1);
  HearMoved(2);
  AddMember(3);
  Move({1, 2, 3});
  HearAll();
  EXPECT_TRUE(Decide().empty());
  for (uint64_t node : {1, 2, 3}) HearMoved(node, first);
  EXPECT_TRUE(Decide().empty());
  for (uint64_t node : {1, 2, 3}) HearMoved(node, Epoch(view_.move.value + 1));
  EXPECT_TRUE(Decide().empty());
  for (uint64_t node : {1, 2, 3}) HearMoved(node, Epoch());
  EXPECT_TRUE(Decide().empty());
  for (uint64_t node : {1, 2, 3}) HearMoved(node);
  EXPECT_TRUE(Decide().placed);
}

TEST_F(ViewKeeperPlaces, WhoDidNotKnowTheViewWhenItSaidSoHasNotMoved) {
  Begin({1, 2});
  Move({2});
  HearMoved(2);
  ++view_.epoch.value;
  HearMoved(1);
  EXPECT_TRUE(Decide().empty());
  HearMoved(2);
  EXPECT_TRUE(Decide().placed);
}

TEST_F(ViewKeeperPlaces, TheNewestPulseCounts) {
  Begin({1, 2});
  Move({2});
  HearMoved(2);
  HearAll();
  HearMoved(2, Epoch());
  EXPECT_TRUE(Decide().empty());
}

TEST_F(ViewKeeperPlaces, WhatAnEarlierIncarnationHasSaidOfTheMoveIsForgotten) {
  Begin({1, 2});
  Move({2});
  HearAll();
  HearMoved(2);
  Hear(2, 2);
  view_.members[NodeId(2)] = Incarnation(2);
  nodes_[NodeId(2)].last = Incarnation(2);
  EXPECT_TRUE(Decide().empty());
  HearMoved(2);
  EXPECT_TRUE(Decide().placed);
}

TEST_F(ViewKeeperPlaces, AMoveDoesNotEndInTheChangeInWhichOneOfItsNodesStartsAnew) {
  Begin({1, 2});
  Move({1, 2});
  view_.disks = Ids({1});
  view_.moved = Ids({1, 2});
  HearAll();
  Hear(2, 2);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 2)));
  EXPECT_FALSE(change.placed);
  EXPECT_TRUE(DecideAfter(0).placed);  // It has missed nothing.
}

TEST_F(ViewKeeperPlaces, WhoseDiskIsBehindHasNotMoved) {
  Begin({1, 2});
  Move({2});
  view_.behind[NodeId(2)] = Epoch(3);
  HearMoved(1);
  HearMoved(2);
  EXPECT_TRUE(Decide().empty());
  HearMoved(2, view_.move, true);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.caught_up, ElementsAre(NodeId(2)));
  EXPECT_THAT(change.moved, ElementsAre(NodeId(2)));
  EXPECT_TRUE(change.placed);
  EXPECT_EQ(view_.behind, (std::map<NodeId, Epoch>()));
  EXPECT_EQ(view_.disks, Ids({2}));
}

// It has said so, and was away since.
TEST_F(ViewKeeperPlaces, AMoveDoesNotEndWhileOneThatHasMovedIsBehindOrAway) {
  Begin({1, 2, 3});
  Move({1, 2});
  HearAll();
  HearMoved(2);
  Follow(Decide());
  ASSERT_EQ(view_.moved, Ids({2}));
  Leave(2);
  HearAll();
  HearMoved(1);
  EXPECT_FALSE(Follow(Decide()).placed);
  HearAll();
  Hear(2, 2);
  EXPECT_FALSE(Follow(Decide()).placed);
  EXPECT_TRUE(DecideAfter(kMillisecond).empty());
  HearMoved(2, Epoch(), true);
  EXPECT_TRUE(Decide().placed);
}

TEST_F(ViewKeeperPlaces, WhoIsSilentOrToLeaveHasNotMoved) {
  Begin({1, 2});
  Move({2});
  GiveLease(2);
  now_ += kMillisecond;
  HearMoved(2);
  now_ += timing_.silent;
  Hear(1);
  ViewChange change = Decide();
  EXPECT_THAT(change.moved, IsEmpty());
  EXPECT_FALSE(change.placed);
  view_.moved = Ids({2});  // Nor is the move over.
  EXPECT_FALSE(Decide().placed);
  HearMoved(2);
  EXPECT_TRUE(Decide().placed);
}

TEST_F(ViewKeeperPlaces, AMoveThatIsToBeAnotherDoesNotEnd) {
  Begin({1, 2, 3});
  Move({1, 2});
  nodes_[NodeId(3)].votes = 1;
  view_.draining = Ids({1, 3});
  for (uint64_t node : {1, 2, 3}) HearMoved(node);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.unplace, ElementsAre(NodeId(1)));
  EXPECT_THAT(change.moved, IsEmpty());
  EXPECT_FALSE(change.placed);
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.next_disks, Ids({2}));
}

// --- Many ---------------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperPlaces, MoreThanAChangeHoldsArePlacedOneAfterTheOther) {
  Begin({1});
  const uint64_t count = ViewChange::kMostNodes + 5;
  for (uint64_t node = 2; node <= count + 1; ++node) AddMember(node);
  EXPECT_THAT(Follow(DecideAfter(0)).place, SizeIs(ViewChange::kMostNodes));
  EXPECT_THAT(Follow(DecideAfter(0)).place, SizeIs(5));
  EXPECT_EQ(view_.next_disks.size(), count + 1);
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperPlaces, MoreThanAChangeHoldsHaveMovedBeforePagesHave) {
  Begin({1});
  const uint64_t count = ViewChange::kMostNodes;
  std::vector<uint64_t> all;
  for (uint64_t node = 1; node <= count; ++node) {
    all.push_back(node);
    AddMember(node);
  }
  Move(all);
  for (uint64_t node : all) HearMoved(node);
  ViewChange change = Follow(Decide());
  EXPECT_THAT(change.moved, SizeIs(count));
  EXPECT_FALSE(change.placed);  // There is no room for it.
  change = Follow(DecideAfter(0));
  EXPECT_TRUE(change.placed);
  EXPECT_THAT(change.moved, IsEmpty());
  EXPECT_EQ(view_.disks.size(), count);
}

TEST_F(ViewKeeperPlaces, MoreThanAChangeHoldsAreGivenUpOneAfterTheOther) {
  const uint64_t count = ViewChange::kMostNodes + 5;
  std::vector<uint64_t> all;
  for (uint64_t node = 1; node <= count + 1; ++node) all.push_back(node);
  Begin(all);
  for (uint64_t node = 2; node <= count + 1; ++node) Leave(node);
  HearAll();
  EXPECT_TRUE(Decide().empty());
  EXPECT_THAT(Follow(DecideAfter(timing_.replace_after)).unplace, SizeIs(ViewChange::kMostNodes));
  EXPECT_THAT(Follow(DecideAfter(0)).unplace, SizeIs(5));
  EXPECT_EQ(view_.next_disks, Ids({1}));
}

}  // namespace
}  // namespace mangrove
