// What giving a node up costs, by what the view says of the other disks of a page.
//
// Covers: C06, C10

#include "recovery/copies_left.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

constexpr NodeId kGone(1);
constexpr NodeId kOther(2);
constexpr Epoch kLeft(10);

class CopiesLeftTest : public testing::Test {
 protected:
  CopiesLeftTest() { view_.behind[kGone] = kLeft; }

  CopiesLeft Of(const std::vector<NodeId>& holders) const { return CopiesWithout(kGone, holders, view_); }
  void Here(NodeId node) { view_.members[node] = Incarnation(1); }

  View view_{.epoch = Epoch(20)};
};

TEST_F(CopiesLeftTest, ACurrentDiskHasEverything) {
  Here(kOther);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kCurrent);
  EXPECT_EQ(Of({kGone, NodeId(3), kOther}), CopiesLeft::kCurrent);
}

TEST_F(CopiesLeftTest, WhoLeftAtTheSameTimeOrLaterHasEverythingAndHasToComeBack) {
  view_.behind[kOther] = kLeft;
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kAway);
  view_.behind[kOther] = Epoch(kLeft.value + 1);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kAway);
  Here(kOther);  // It catches up.
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kAway);
}

TEST_F(CopiesLeftTest, WhoLeftBeforeHasAnOlderState) {
  view_.behind[kOther] = Epoch(kLeft.value - 1);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kOlder);
  Here(kOther);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kOlder);
  view_.behind[NodeId(3)] = Epoch(kLeft.value + 1);
  EXPECT_EQ(Of({kGone, kOther, NodeId(3)}), CopiesLeft::kAway);
}

TEST_F(CopiesLeftTest, NobodyElseHasItWhereTheOthersAreLostOrEmptyOrNone) {
  EXPECT_EQ(Of({kGone}), CopiesLeft::kNone);
  view_.behind[kOther] = Epoch(kLeft.value + 1);
  view_.lost.insert(kOther);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kNone);
  view_.behind[NodeId(3)] = kBlankDisk;
  Here(NodeId(3));
  EXPECT_EQ(Of({kGone, NodeId(3)}), CopiesLeft::kNone);
}

// The anchors' log may have been founded anew since the node was here.
TEST_F(CopiesLeftTest, OfWhoWasNeverHereNothingIsKnown) {
  view_.behind.clear();
  EXPECT_EQ(Of({kGone}), CopiesLeft::kUnknown);
  EXPECT_EQ(Of({kGone, kOther, NodeId(3)}), CopiesLeft::kUnknown);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kUnknown);
  view_.behind[kOther] = kLeft;
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kUnknown);
  view_.behind.clear();
  Here(kOther);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kCurrent);
}

TEST_F(CopiesLeftTest, OfAnotherOneThatWasNeverHereNothingIsKnownEither) {
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kUnknown);
  view_.behind[NodeId(3)] = Epoch(kLeft.value - 1);
  EXPECT_EQ(Of({kGone, kOther, NodeId(3)}), CopiesLeft::kOlder);
  view_.lost.insert(kOther);
  EXPECT_EQ(Of({kGone, kOther}), CopiesLeft::kNone);
}

}  // namespace
}  // namespace mangrove
