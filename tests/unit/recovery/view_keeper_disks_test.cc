// Whose disks are behind as the leader of the anchors decides: K5.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/recovery/view_keeper_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class ViewKeeperDisks : public ViewKeeperTest {
 protected:
  // What it says of its disk, later than all before, knowing this view.
  void HearDisk(NodeInstance node, bool blank, bool caught_up) {
    now_ += kMillisecond;
    Hear(node, {.sent_at = 0, .epoch = view_.epoch, .unreachable = {}, .blank = blank, .caught_up = caught_up});
  }
  // Node 2 has left in view 8, and is back as incarnation 2.
  void Return() {
    AddMember(2);
    AddMember(3);
    Leave(2);
    AddMember(2, 2);
    ++view_.epoch.value;
    Hear(3);
  }
};

TEST_F(ViewKeeperDisks, K5ADiskIsCurrentWhenItsNodeSaysSo) {
  Return();
  HearDisk(Instance(2, 2), false, false);
  HearDisk(Instance(3), false, true);  // It is not behind.
  EXPECT_TRUE(Decide().empty());
  HearDisk(Instance(2, 2), false, true);
  const ViewChange change = Decide();
  EXPECT_EQ(change, (ViewChange{.epoch = Epoch(10), .joins = {}, .leaves = {}, .blank = {}, .caught_up = {NodeId(2)}}));
  view_.Apply(change);
  EXPECT_TRUE(Decide().empty());
}

TEST_F(ViewKeeperDisks, K5TheNewestPulseCounts) {
  Return();
  HearDisk(Instance(2, 2), false, true);
  HearDisk(Instance(2, 2), false, false);
  EXPECT_TRUE(Decide().empty());
}

TEST_F(ViewKeeperDisks, K5WhatAnEarlierIncarnationHasSaidIsForgotten) {
  Return();
  HearDisk(Instance(2, 2), true, true);
  Leave(2);
  HearDisk(Instance(2, 3), false, false);
  HearDisk(Instance(2, 2), true, true);  // Late.
  ViewChange change = Decide();
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 3)));
  EXPECT_THAT(change.blank, IsEmpty());
  view_.Apply(change);
  HearDisk(Instance(2, 3), false, false);
  EXPECT_TRUE(Decide().empty());
}

// Its older incarnation is in the view: that one has not caught up.
TEST_F(ViewKeeperDisks, K5WhoIsNotInTheViewHasNotCaughtUp) {
  Return();
  HearDisk(Instance(2, 3), false, true);
  EXPECT_THAT(Decide().caught_up, IsEmpty());
  Leave(2);
  HearDisk(Instance(2, 3), false, true);
  const ViewChange change = Decide();
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 3)));
  EXPECT_THAT(change.caught_up, IsEmpty());
}

// What it said before it was in the view, or under one that it has left since.
TEST_F(ViewKeeperDisks, K5WhoDidNotKnowTheViewWhenItSaidSoHasNotCaughtUp) {
  Return();
  --view_.epoch.value;
  HearDisk(Instance(2, 2), false, true);
  ++view_.epoch.value;
  EXPECT_TRUE(Decide().empty());
  HearDisk(Instance(2, 2), false, true);
  EXPECT_THAT(Decide().caught_up, ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperDisks, K5WhoIsToLeaveIsNotMadeCurrentBefore) {
  Return();
  HearDisk(Instance(2, 2), false, true);
  keeper_.Confirm(now_);
  ASSERT_NE(LeaseOf(2, 2), 0);
  now_ += timing_.silent;
  Hear(3);
  EXPECT_TRUE(Decide().empty());
  HearDisk(Instance(2, 2), false, true);
  EXPECT_THAT(Decide().caught_up, ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperDisks, K5WhoJoinsWithABlankDiskJoinsAsSuch) {
  AddMember(2);
  AddMember(3);
  Leave(2);
  Add(4);
  Add(5);
  HearDisk(Instance(3), true, true);  // It is there already.
  HearDisk(Instance(2, 2), true, false);
  HearDisk(Instance(4), false, false);
  HearDisk(Instance(5), true, false);
  const ViewChange change = Decide();
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 2), Instance(4), Instance(5)));
  EXPECT_THAT(change.blank, ElementsAre(NodeId(2), NodeId(5)));
}

// The number of an incarnation is lost with the disk that it is kept on.
TEST_F(ViewKeeperDisks, K6WhoHasLostItsDiskUnderTheSameIncarnationGetsNoLeaseAndLeaves) {
  AddMember(2);
  AddMember(3);
  GiveLease(2);
  GiveLease(3);
  for (TimeNs end = now_ + timing_.lease + timing_.silent; now_ < end; now_ += timing_.pulse) {
    Hear(3);
    HearDisk(Instance(2), true, false);
    keeper_.Confirm(now_);
    EXPECT_EQ(LeaseOf(2), 0);
    EXPECT_NE(LeaseOf(3), 0);
    if (now_ + timing_.pulse < end) continue;
    EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
  }
  Leave(2);
  EXPECT_TRUE(keeper_.AnswerTo(Instance(2), Database()).is_gone);
}

TEST_F(ViewKeeperDisks, K6AlsoOneThatIsBehindAndNotBlank) {
  AddMember(2);
  view_.behind[NodeId(2)] = Epoch(5);
  HearDisk(Instance(2), true, false);
  keeper_.Confirm(now_);
  EXPECT_EQ(LeaseOf(2), 0);
  HearDisk(Instance(2), false, false);
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(2), 0);
}

// It was heard before the view came in which its disk is current.
TEST_F(ViewKeeperDisks, K6TheViewMayComeLater) {
  AddMember(2);
  view_.behind[NodeId(2)] = kBlankDisk;
  HearDisk(Instance(2), true, false);
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(2), 0);
  view_.behind.clear();
  EXPECT_EQ(LeaseOf(2), 0);
}

TEST_F(ViewKeeperDisks, K6WhoseDiskWasBlankAndHasCaughtUpStays) {
  AddMember(2);
  HearDisk(Instance(2), true, true);
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(2), 0);
  view_.behind[NodeId(2)] = kBlankDisk;
  HearDisk(Instance(2), true, false);
  EXPECT_TRUE(Decide().empty());
}

TEST_F(ViewKeeperDisks, K5InThePlaceOfAnOlderIncarnationToo) {
  AddMember(2);
  HearDisk(Instance(2, 2), true, false);
  const ViewChange change = Decide();
  EXPECT_THAT(change.joins, ElementsAre(Instance(2, 2)));
  EXPECT_THAT(change.blank, ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperDisks, K5WhoHasCaughtUpTakesRoomInAChange) {
  for (uint64_t node = 1; node <= ViewChange::kMostNodes + 1; ++node) {
    AddMember(node);
    view_.behind[NodeId(node)] = Epoch(3);
    HearDisk(Instance(node), false, true);
  }
  Add(500);
  Hear(500);
  const ViewChange change = Decide();
  EXPECT_THAT(change.joins, ElementsAre(Instance(500)));
  EXPECT_THAT(change.caught_up, SizeIs(ViewChange::kMostNodes - 1));
}

}  // namespace
}  // namespace mangrove
