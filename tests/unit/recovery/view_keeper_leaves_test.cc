// What a leader makes of the word that a node leaves: K2.
// Covers: C11

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/recovery/view_keeper_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ViewKeeperLeaves : public ViewKeeperTest {
 protected:
  void SayLeaves(uint64_t node, uint64_t incarnation = 1) {
    Hear(Instance(node, incarnation), {.sent_at = 0, .epoch = view_.epoch, .unreachable = {}, .leaves = true});
  }
};

TEST_F(ViewKeeperLeaves, WhoSaysThatItLeavesIsOutAtOnceWhateverWasGiven) {
  AddMember(2);
  AddMember(3);
  GiveLease(2);
  GiveLease(3);
  now_ += kMillisecond;
  EXPECT_THAT(Leaves(), IsEmpty());
  SayLeaves(2);
  EXPECT_THAT(keeper_.Confirm(now_), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperLeaves, ALeaderThatWasJustElectedBelievesItToo) {
  AddMember(2);
  AddMember(3);
  Hear(3);
  keeper_.Elected(now_);
  SayLeaves(2);
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperLeaves, WhatWasHeardBeforeItWasElectedHolds) {
  AddMember(2);
  SayLeaves(2);
  keeper_.Elected(now_);
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperLeaves, APulseFromBeforeItBringsNobodyBack) {
  AddMember(2);
  GiveLease(2);
  now_ += kSecond / 10;
  const TimeNs before = ClockOf(2, now_);
  now_ += kMillisecond;
  SayLeaves(2);
  Hear(Instance(2), {.sent_at = before, .epoch = view_.epoch});
  EXPECT_THAT(keeper_.Confirm(now_), IsEmpty());
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
  // Nor one that seems to be later.
  now_ += kMillisecond;
  Hear(2);
  EXPECT_THAT(keeper_.Confirm(now_), IsEmpty());
  EXPECT_EQ(LeaseOf(2), 0);
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperLeaves, ThatAnEarlierIncarnationLeavesMeansNothingForALaterOne) {
  AddMember(2, 5);
  Hear(2, 5);
  SayLeaves(2, 4);  // Late.
  EXPECT_THAT(Leaves(), IsEmpty());
  keeper_.Confirm(now_);
  EXPECT_NE(LeaseOf(2, 5), 0);
}

TEST_F(ViewKeeperLeaves, ALeaderThatHasHeardNothingElseOfTheNodeDoesNotTakeALaterOneForIt) {
  AddMember(2, 5);
  keeper_.Elected(now_);
  SayLeaves(2, 4);
  EXPECT_THAT(Leaves(), IsEmpty());
}

// A program may still have pages of it mapped.
TEST_F(ViewKeeperLeaves, ThatALaterIncarnationLeavesMeansNothingForAnEarlierOne) {
  AddMember(2, 5);
  Hear(2, 5);
  keeper_.Confirm(now_);
  ASSERT_NE(LeaseOf(2, 5), 0);
  now_ += kMillisecond;
  SayLeaves(2, 6);
  EXPECT_THAT(Leaves(), IsEmpty());
  now_ += timing_.lease;
  EXPECT_THAT(Leaves(), ElementsAre(NodeId(2)));
}

TEST_F(ViewKeeperLeaves, TheNextIncarnationJoinsInItsPlaceAtOnce) {
  AddMember(2, 5);
  Hear(2, 5);
  keeper_.Confirm(now_);
  ASSERT_NE(LeaseOf(2, 5), 0);
  now_ += kMillisecond;
  Hear(2, 6);
  EXPECT_THAT(Joins(), IsEmpty());
  SayLeaves(2, 5);  // Overtaken by what the next one says.
  EXPECT_THAT(Joins(), ElementsAre(Instance(2, 6)));
}

TEST_F(ViewKeeperLeaves, WhoHasLeftIsInNobodysWay) {
  AddMember(2);
  Add(3);
  Hear(2);
  Hear(3, 1, {2});
  EXPECT_THAT(Decide().joins, IsEmpty());
  SayLeaves(2);
  EXPECT_THAT(Decide().joins, ElementsAre(Instance(3)));
}

}  // namespace
}  // namespace mangrove
