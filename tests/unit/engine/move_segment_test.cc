// Responsibility for a segment goes to the node that asks for its pages most.
// Covers: G06, G13

#include <random>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class MoveSegment : public testing::Test {
 protected:
  static constexpr uint32_t kMoveAfter = 8;

  MoveSegment() : cluster_(3, [](PageEngineOptions& options) { options.move_after = kMoveAfter; }) {
    SetLogLevel(LogLevel::kOff);
    first_ = cluster_.SegmentOf(2);
    cluster_.Allocate({first_, kSegmentPages});
  }

  NodeId Responsible(uint64_t node) { return cluster_.engine(node).ResponsibleFor(first_); }
  // Until it is offered to node 1.
  void Ask() {
    for (uint64_t i = 0; cluster_.sent[MessageKind::kMoveOffer] == 0; ++i) {
      ASSERT_LT(i, 3 * kMoveAfter);
      ASSERT_TRUE(cluster_.Read(1, first_ + 100 + 3 * i).ok());
    }
  }
  void StepUntil(const std::function<bool()>& condition) {
    const TimeNs limit = cluster_.In(10 * kSecond);
    while (!condition()) ASSERT_TRUE(cluster_.Step(limit)) << "it does not come";
  }

  EngineCluster cluster_;
  PageId first_;
};

TEST_F(MoveSegment, GoesToTheNodeThatAsksMost) {
  ASSERT_TRUE(cluster_.Write(2, first_, 1).ok());
  ASSERT_TRUE(cluster_.Write(3, first_ + 1, 2).ok());
  ASSERT_EQ(*cluster_.Read(3, first_), 1);
  Ask();
  cluster_.RunFor(kSecond);
  EXPECT_EQ(Responsible(1), NodeId(1));
  EXPECT_EQ(Responsible(2), NodeId(1));
  EXPECT_EQ(cluster_.engine(1).counters().segments_taken, 1u);
  EXPECT_EQ(cluster_.engine(2).home_entries(), 0u);
  // Who has what went with it: an owner, and a reader whose copy is called back.
  EXPECT_EQ(*cluster_.Read(1, first_ + 1), 2);
  ASSERT_TRUE(cluster_.Write(1, first_, 3).ok());
  EXPECT_EQ(*cluster_.Read(3, first_), 3);
  EXPECT_EQ(*cluster_.Read(2, first_), 3);
  EXPECT_EQ(Responsible(3), NodeId(1));
}

TEST_F(MoveSegment, StaysWhereNobodyAsksMost) {
  for (uint64_t i = 0; i < 200; ++i) ASSERT_TRUE(cluster_.Write(1 + i % 3, first_ + i / 3, 1).ok());
  cluster_.RunFor(kSecond);
  EXPECT_EQ(Responsible(1), NodeId(2));
}

// No node of it asks for most.
TEST(MoveSegmentByGroups, GoesToTheGroupWhoseNodesAskMostTogether) {
  SetLogLevel(LogLevel::kOff);
  EngineCluster cluster(std::vector<uint64_t>{1, 2, 65, 66, 67},
                        [](PageEngineOptions& options) { options.move_after = 8; });
  const PageId first = cluster.SegmentOf(2);
  cluster.Allocate({first, kSegmentPages});
  // As often as those of its own group, in any order: it stays.
  std::mt19937_64 random(7);
  for (uint64_t i = 0; i < 200; ++i) {
    const uint64_t own = 1 + random() % 2;
    const uint64_t other = 65 + random() % 3;
    ASSERT_TRUE(cluster.Read(random() % 2 == 0 ? own : other, first + i).ok());
  }
  cluster.RunFor(kSecond);
  EXPECT_EQ(cluster.engine(2).ResponsibleFor(first), NodeId(2));
  for (uint64_t i = 200; i < 300; ++i) ASSERT_TRUE(cluster.Read(65 + i % 3, first + i).ok());
  cluster.RunFor(kSecond);
  EXPECT_EQ(GroupOf(cluster.engine(2).ResponsibleFor(first)), 1u);
  EXPECT_EQ(*cluster.Read(66, first), *cluster.Read(1, first));
}

TEST_F(MoveSegment, WhoJustGotItKeepsItForAWhile) {
  Ask();
  StepUntil([&] { return Responsible(2) == NodeId(1); });
  for (uint64_t i = 0; i < 3 * kMoveAfter; ++i) ASSERT_TRUE(cluster_.Write(3, first_ + 200 + i, 1).ok());
  EXPECT_EQ(Responsible(2), NodeId(1));
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(cluster_.Write(3, first_ + 300, 1).ok());
  cluster_.RunFor(kSecond);
  EXPECT_EQ(Responsible(2), NodeId(1));  // As it has heard; node 1 says more.
  EXPECT_EQ(Responsible(1), NodeId(3));
  EXPECT_EQ(*cluster_.Read(2, first_ + 300), 1);
}

// Finding it out anew would take asking every core holder.
TEST_F(MoveSegment, ThatDisksAgreeGoesWithIt) {
  ASSERT_TRUE(cluster_.Write(2, first_, 7).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(2).Flush({first_, 1}, cluster_.In(kSecond))).ok());
  Ask();
  cluster_.RunFor(kSecond);
  ASSERT_EQ(Responsible(2), NodeId(1));
  cluster_.sent.clear();
  EXPECT_EQ(*cluster_.Read(1, first_ + 400), 0);  // Never stored.
  EXPECT_EQ(cluster_.sent[MessageKind::kQueryStored], 0);
  EXPECT_EQ(cluster_.sent[MessageKind::kQueryExtent], 0);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({first_ + 1, 90}, cluster_.In(kSecond))).ok());
  EXPECT_EQ(cluster_.sent[MessageKind::kStore], 0);
}

// Node 3 keeps the segment on its disk as well, and has lost that.
TEST_F(MoveSegment, WhatItSaysOfDisksIsNotSaidOfThoseThatAreBehind) {
  ASSERT_TRUE(cluster_.Write(2, first_ + 1, 7).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(2).Flush({first_ + 1, 1}, cluster_.In(kSecond))).ok());
  RequestId asked;
  cluster_.lost = [&](const Message& m) {  // It has heard of the extents, and of no page.
    if (m.kind == MessageKind::kListStored && m.with_data) asked = m.request;
    return m.kind == MessageKind::kStoredList && m.request == asked;
  };
  cluster_.StartWithAnEmptyDisk({NodeId(3), Incarnation(2)});
  Ask();
  StepUntil([&] { return Responsible(2) == NodeId(1); });
  EXPECT_EQ(*cluster_.Read(1, first_ + 400), 0);
  cluster_.Start({NodeId(2), Incarnation(2)});  // Which had it in RAM.
  EXPECT_EQ(*cluster_.Read(1, first_ + 1), 7);
}

TEST_F(MoveSegment, StaysWhenTheTakerDiesBeforeItIsWritten) {
  ASSERT_TRUE(cluster_.Write(3, first_, 5).ok());
  Ask();
  StepUntil([&] { return cluster_.sent[MessageKind::kHandedOver] > 0; });
  cluster_.Start({NodeId(1), Incarnation(2)});
  cluster_.RunFor(3 * kSecond);
  EXPECT_EQ(Responsible(2), NodeId(2));
  EXPECT_EQ(*cluster_.Read(1, first_), 5);
  ASSERT_TRUE(cluster_.Write(2, first_, 6).ok());
  EXPECT_EQ(*cluster_.Read(3, first_), 6);
}

TEST_F(MoveSegment, GoesWhenTheTakerDiesAfterItIsWritten) {
  ASSERT_TRUE(cluster_.Write(3, first_, 5).ok());
  Ask();
  StepUntil([&] { return cluster_.engine(1).counters().segments_taken > 0; });
  cluster_.Start({NodeId(1), Incarnation(2)});  // Before it could say so.
  cluster_.RunFor(3 * kSecond);
  EXPECT_EQ(*cluster_.Read(2, first_), 5);
  ASSERT_TRUE(cluster_.Write(2, first_, 6).ok());
  EXPECT_EQ(*cluster_.Read(3, first_), 6);
}

// What node 2 knew is old by then, and only node 1 had the directory's leaf.
TEST_F(MoveSegment, WhatComesBackIsLearnedAnew) {
  cluster_.dropped = {MessageKind::kMoved};
  Ask();
  StepUntil([&] { return cluster_.engine(1).counters().segments_taken > 0; });
  const PageId fresh = first_ + 500;
  ASSERT_TRUE(cluster_.Write(1, fresh, 9).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({fresh, 1}, cluster_.In(5 * kSecond))).ok());
  cluster_.dropped.clear();
  cluster_.Start({NodeId(1), Incarnation(2)});
  cluster_.RunFor(3 * kSecond);
  EXPECT_EQ(*cluster_.Read(3, fresh), 9);
  EXPECT_EQ(*cluster_.Read(2, fresh), 9);
  ASSERT_TRUE(cluster_.Write(2, fresh, 10).ok());
  EXPECT_EQ(*cluster_.Read(1, fresh), 10);
}

TEST_F(MoveSegment, TheOtherMayDieAsSoonAsItIsWritten) {
  ASSERT_TRUE(cluster_.Write(3, first_, 5).ok());
  ASSERT_TRUE(cluster_.Write(2, first_ + 1, 6).ok());
  ASSERT_EQ(*cluster_.Read(3, first_ + 1), 6);
  Ask();
  StepUntil([&] { return cluster_.engine(1).counters().segments_taken > 0; });
  cluster_.Start({NodeId(2), Incarnation(2)});
  EXPECT_EQ(*cluster_.Read(2, first_), 5);
  EXPECT_EQ(*cluster_.Read(2, first_ + 1), 6);  // Its owner is gone, a reader is left.
  EXPECT_EQ(Responsible(2), NodeId(1));
}

// A transaction waits for a program that holds a lock: the directory's leaf must not wait with it.
TEST_F(MoveSegment, IsServedAgainWhenItCannotBeHandedOverSoon) {
  const auto lock = cluster_.Wait(cluster_.engine(3).Lock(9, {first_, 1}, LockMode::kExclusive, cluster_.In(kSecond)));
  ASSERT_TRUE(lock.ok()) << lock.status();
  std::optional<absl::Status> acquired;
  Spawn<absl::Status>(cluster_.engine(1).Acquire({first_, 1}, Rights::kRead, cluster_.In(5 * kSecond)),
                      [&](absl::Status status) { acquired = std::move(status); });
  cluster_.RunFor(kMillisecond);
  Ask();
  StepUntil([&] { return cluster_.sent[MessageKind::kHandOver] > 0; });
  ASSERT_TRUE(cluster_.Write(3, first_ + 300, 4).ok());  // Meanwhile it waits, then it is served.
  EXPECT_EQ(cluster_.sent[MessageKind::kHandedOver], 0);
  EXPECT_EQ(Responsible(1), NodeId(2));
  ASSERT_TRUE(cluster_.engine(3).Unlock(9, *lock).ok());
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(acquired.has_value());
  EXPECT_TRUE(acquired->ok()) << *acquired;
}

TEST_F(MoveSegment, DoesNotLeaveWhilePagesOfItAreUnallocated) {
  ASSERT_TRUE(
      cluster_.Wait(cluster_.engine(3).DropExtent({first_ + 10, 2}, ConfigNumber(1), 2, cluster_.In(5 * kSecond)))
          .ok());
  Ask();
  cluster_.RunFor(kSecond);
  EXPECT_GT(cluster_.sent[MessageKind::kHandOver], 0);
  EXPECT_EQ(Responsible(1), NodeId(2));
  EXPECT_FALSE(cluster_.Read(1, first_ + 10).ok());
  cluster_.RunFor(120 * kSecond);  // Nothing of it is on its way any more.
  cluster_.sent.clear();
  Ask();
  cluster_.RunFor(kSecond);
  EXPECT_EQ(Responsible(2), NodeId(1));
}

// Nobody who keeps to the protocol sends these.
TEST_F(MoveSegment, SenselessMessagesChangeNothing) {
  Message message;
  message.kind = MessageKind::kHandOver;
  message.page = first_;  // It was not offered.
  cluster_.Inject(2, 3, message);
  message.page = first_ + 3;
  cluster_.Inject(2, 3, message);
  message.page = PageId(kSegmentPages);
  cluster_.Inject(2, 3, message);
  message.page = first_;
  message.count = 7;
  message.config = ConfigNumber(9);
  cluster_.Inject(2, 3, message);
  message.kind = MessageKind::kMoved;
  cluster_.Inject(2, 3, message);
  message.kind = MessageKind::kMoveOffer;
  cluster_.Inject(3, 1, message);
  cluster_.Inject(2, 1, message);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(cluster_.Write(3, first_, 4).ok());
  EXPECT_EQ(*cluster_.Read(1, first_), 4);
  EXPECT_EQ(Responsible(2), NodeId(2));
}

}  // namespace
}  // namespace mangrove
