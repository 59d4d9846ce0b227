// What the leader of the anchors makes of what an operator wants: K7.
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

using Kind = NodeRequest::Kind;

class ViewKeeperRequests : public ViewKeeperPlacesTest {};

// --- What an operator wants ---------------------------------------------------------------------------------------------

TEST_F(ViewKeeperRequests, WhoDrainsIsToKeepNoPagesAndStaysAMember) {
  Begin({1, 2, 3});
  Ask(Kind::kDrain, 3);
  ViewChange change = Follow(DecideAfter(0));
  EXPECT_THAT(change.drain, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.draining, Ids({3}));
  change = Follow(DecideAfter(0));
  EXPECT_THAT(change.unplace, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.next_disks, Ids({1, 2}));
  for (uint64_t node : {1, 2, 3}) HearMoved(node);
  EXPECT_TRUE(Follow(Decide()).placed);
  EXPECT_EQ(view_.disks, Ids({1, 2}));
  EXPECT_TRUE(DecideAfter(0).empty());  // It is not placed again.
  EXPECT_TRUE(view_.members.contains(NodeId(3)));
}

TEST_F(ViewKeeperRequests, WhoDrainsIsNotPlacedWhenItComesBack) {
  Begin({1, 2});
  Add(3);
  Ask(Kind::kDrain, 3);
  Follow(DecideAfter(0));
  HearAll();
  Hear(3);
  EXPECT_THAT(Follow(Decide()).joins, ElementsAre(Instance(3)));
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperRequests, WhoDrainsNoMoreKeepsItsPages) {
  Begin({1, 2, 3});
  Ask(Kind::kDrain, 3);
  Follow(DecideAfter(0));
  Follow(DecideAfter(0));
  ASSERT_EQ(view_.next_disks, Ids({1, 2}));
  Ask(Kind::kUndrain, 3);
  EXPECT_THAT(Follow(DecideAfter(0)).undrain, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.draining, Nodes());
  EXPECT_THAT(Follow(DecideAfter(0)).place, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.next_disks, Nodes());
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
}

TEST_F(ViewKeeperRequests, WhatIsSoAlreadyChangesNothing) {
  Begin({1, 2, 3});
  Ask(Kind::kUndrain, 2);
  Ask(Kind::kDrain, 9);  // There is none.
  EXPECT_TRUE(DecideAfter(0).empty());
  Ask(Kind::kDrain, 3);
  Ask(Kind::kDrain, 3);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, ElementsAre(NodeId(3)));
  Ask(Kind::kDrain, 3);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, IsEmpty());
}

TEST_F(ViewKeeperRequests, ARequestIsTakenUpOnce) {
  Begin({1, 2});
  Ask(Kind::kDrain, 2);
  EXPECT_THAT(DecideAfter(0).drain, ElementsAre(NodeId(2)));
  EXPECT_TRUE(DecideAfter(0).empty());
  Ask(Kind::kDrain, 2);
  keeper_.Elected(now_);  // Who asks does so again.
  EXPECT_TRUE(DecideAfter(0).empty());
}

TEST_F(ViewKeeperRequests, WhoIsInTheViewIsNotLost) {
  Begin({1, 2});
  Ask(Kind::kGiveUp, 2);
  EXPECT_TRUE(DecideAfter(0).empty());
  Leave(2);
  Ask(Kind::kGiveUp, 2);
  EXPECT_THAT(Follow(DecideAfter(0)).lost, ElementsAre(NodeId(2)));
  EXPECT_EQ(view_.lost, Ids({2}));
  Ask(Kind::kGiveUp, 2);
  const ViewChange change = Follow(DecideAfter(0));
  EXPECT_THAT(change.lost, IsEmpty());
  EXPECT_THAT(change.unplace, ElementsAre(NodeId(2)));  // However short it was away.
  EXPECT_EQ(view_.next_disks, Ids({1}));
}

// It is back: nobody has lost it.
TEST_F(ViewKeeperRequests, WhoJoinsIsNotLostInTheSameChange) {
  Begin({1, 2});
  Leave(2);
  HearAll();
  Hear(2, 2);
  Ask(Kind::kGiveUp, 2);
  const ViewChange change = Follow(Decide());
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 2)));
  EXPECT_THAT(change.lost, IsEmpty());
}

TEST_F(ViewKeeperRequests, WhoIsLostNeverJoinsAgainAndIsToldSo) {
  Begin({1, 2});
  Leave(2);
  HearAll();
  EXPECT_FALSE(keeper_.AnswerTo(Instance(2, 2), Database()).is_removed);
  Ask(Kind::kGiveUp, 2);
  Follow(Decide());
  Hear(2, 2);
  EXPECT_THAT(DecideAfter(0).joins, IsEmpty());
  EXPECT_TRUE(keeper_.AnswerTo(Instance(2, 2), Database()).is_removed);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(1), Database()).is_removed);
}

TEST_F(ViewKeeperRequests, WhoWasRemovedDoesNotJoinAndIsToldSo) {
  Begin({1});
  Add(2);
  nodes_[NodeId(2)].is_removed = true;
  HearAll();
  Hear(2);
  EXPECT_TRUE(Decide().empty());
  EXPECT_TRUE(keeper_.AnswerTo(Instance(2), Database()).is_removed);
  EXPECT_FALSE(keeper_.AnswerTo(Instance(3), Database()).is_removed);
}

TEST_F(ViewKeeperRequests, WhoDrainsMayBeLostAndDrainsNoMoreThen) {
  Begin({1, 2});
  view_.draining = Ids({2});
  Leave(2);
  Ask(Kind::kGiveUp, 2);
  EXPECT_THAT(Follow(DecideAfter(0)).lost, ElementsAre(NodeId(2)));
  Ask(Kind::kDrain, 2);
  EXPECT_THAT(DecideAfter(0).drain, IsEmpty());
}

TEST_F(ViewKeeperRequests, TheLastAnchorNeitherDrainsNorIsLost) {
  Begin({1, 2, 3});
  nodes_[NodeId(2)].votes = 1;
  Ask(Kind::kDrain, 1);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, ElementsAre(NodeId(1)));
  Ask(Kind::kDrain, 2);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, IsEmpty());
  Leave(2);
  Ask(Kind::kGiveUp, 2);
  EXPECT_THAT(Follow(DecideAfter(0)).lost, IsEmpty());
  Ask(Kind::kDrain, 3);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, ElementsAre(NodeId(3)));
}

TEST_F(ViewKeeperRequests, NorDoTheLastTwoAtOnce) {
  Begin({1, 2, 3});
  nodes_[NodeId(2)].votes = 1;
  Ask(Kind::kDrain, 1);
  Ask(Kind::kDrain, 2);
  EXPECT_THAT(DecideAfter(0).drain, ElementsAre(NodeId(1)));
  Leave(2);
  Ask(Kind::kGiveUp, 2);
  Ask(Kind::kDrain, 1);
  const ViewChange change = DecideAfter(0);
  EXPECT_THAT(change.lost, ElementsAre(NodeId(2)));
  EXPECT_THAT(change.drain, IsEmpty());
}

// It is to have votes, and has none: it was admitted, and never came, or its disk was replaced.
TEST_F(ViewKeeperRequests, AnAnchorWhoseVotesDoNotCountInTheLogIsNoneThatStays) {
  Begin({1, 2, 3});
  nodes_[NodeId(2)].votes = 1;
  never_here_ = Ids({2});
  Ask(Kind::kDrain, 1);
  EXPECT_THAT(DecideAfter(0).drain, IsEmpty());
  Leave(1);
  Ask(Kind::kGiveUp, 1);
  EXPECT_THAT(DecideAfter(0).lost, IsEmpty());
  never_here_.clear();
  Ask(Kind::kGiveUp, 1);
  EXPECT_THAT(DecideAfter(0).lost, ElementsAre(NodeId(1)));
}

TEST_F(ViewKeeperRequests, MoreRequestsThanAChangeHoldsAreForOneThatComesLater) {
  const uint64_t count = ViewChange::kMostNodes + 5;
  std::vector<uint64_t> all;
  for (uint64_t node = 1; node <= count + 1; ++node) all.push_back(node);
  Begin(all);
  for (uint64_t node = 2; node <= count + 1; ++node) Ask(Kind::kDrain, node);
  EXPECT_THAT(Follow(DecideAfter(0)).drain, SizeIs(ViewChange::kMostNodes));
}

}  // namespace
}  // namespace mangrove
