// What a node does without a lease, with messages of other views, and while nodes know different views.
//
// Covers: B02

#include "tests/unit/engine/page_engine_views.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

class PageEngineLease : public PageEngineViewsTest {
 protected:
  static constexpr uint64_t kNodes = 3;

  PageEngineLease() : cluster_(kNodes), page_(SegmentOf(cluster_, 2, {1})) {
    cluster_.Allocate({page_, 4});
    cluster_.RunFor(kSecond);
  }

  EngineCluster cluster_;
  const PageId page_;  // Node 2 is responsible, node 1 keeps nothing of it.
};

TEST_F(PageEngineLease, WithoutOneThereAreNoRightsAndLaterTheContentIsAsItWas) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(1, page_ + 1), 0);
  cluster_.engine(1).OnLease(0);
  EXPECT_TRUE(cluster_.host(1).memory.fenced);
  EXPECT_FALSE(cluster_.engine(1).Serves());
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kNone);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_ + 1), Rights::kNone);
  EXPECT_FALSE(cluster_.host(2).memory.fenced);
  cluster_.RunFor(10 * kSecond);
  cluster_.engine(1).OnLease(kForever);
  EXPECT_FALSE(cluster_.host(1).memory.fenced);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_ + 1), Rights::kRead);
  EXPECT_EQ(ByteHere(cluster_, 1, page_), 7);
  EXPECT_EQ(*cluster_.Read(3, page_), 7);
}

// Covers: C13
TEST_F(PageEngineLease, WhoLeavesTheViewIsExpelledByTheTransportOfEachThatKnowsIt) {
  const NodeInstance first = cluster_.host(3).self;
  cluster_.Leave(3);
  for (const uint64_t node : {1, 2}) {
    EXPECT_EQ(cluster_.host(node).transport->expelled, std::vector<NodeInstance>{first});
  }
  const NodeInstance second{first.node, Incarnation(first.incarnation.value + 1)};
  const NodeInstance third{first.node, Incarnation(first.incarnation.value + 2)};
  cluster_.Start(second);
  // In the place of an older one, which is still in the view.
  cluster_.Start(third);
  EXPECT_EQ(cluster_.host(1).transport->expelled, (std::vector<NodeInstance>{first, second}));
  EXPECT_TRUE(cluster_.host(3).transport->expelled.empty());
}

// Also by its own clock, when nobody says a word; and somewhat before, since fencing takes time.
TEST_F(PageEngineLease, ProgramsAreFencedBeforeItEnds) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  const TimeNs until = cluster_.In(kSecond);
  cluster_.engine(1).OnLease(until);
  EXPECT_LT(cluster_.engine(1).mapped_until(), until);
  EXPECT_GT(cluster_.engine(1).mapped_until(), until - 100 * kMillisecond);
  cluster_.RunFor(500 * kMillisecond);
  EXPECT_FALSE(cluster_.host(1).memory.fenced);
  cluster_.RunFor(485 * kMillisecond);
  EXPECT_TRUE(cluster_.engine(1).HasLease());
  EXPECT_TRUE(cluster_.host(1).memory.fenced);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kNone);
  cluster_.engine(1).OnLease(cluster_.In(kSecond));
  EXPECT_FALSE(cluster_.host(1).memory.fenced);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kWrite);
  cluster_.RunFor(2 * kSecond);
  EXPECT_FALSE(cluster_.engine(1).HasLease());
  EXPECT_TRUE(cluster_.host(1).memory.fenced);
}

TEST_F(PageEngineLease, ANewOneInTimeGoesOnWithoutAFence) {
  for (int i = 0; i < 20; ++i) {
    cluster_.engine(1).OnLease(cluster_.In(kSecond));
    cluster_.RunFor(500 * kMillisecond);
    ASSERT_FALSE(cluster_.host(1).memory.fenced) << i;
  }
}

TEST_F(PageEngineLease, OperationsWaitForItAndGoOn) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  ASSERT_TRUE(cluster_.Write(3, page_ + 1, 8).ok());
  PageEngine& engine = cluster_.engine(1);
  engine.OnLease(0);
  const TimeNs deadline = cluster_.In(10 * kSecond);
  const PageId untouched = page_ + 64 * kSegmentPages;
  const std::vector<Pending> all = {
      Begin(engine.Acquire({page_, 1}, Rights::kRead, deadline)),
      Begin(engine.Acquire({page_ + 1, 1}, Rights::kRead, deadline)),
      BeginLock(engine.Lock(9, {page_, 1}, LockMode::kExclusive, deadline)),
      Begin(engine.Locate(untouched, deadline)),
  };
  cluster_.RunFor(kSecond);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_FALSE(all[i]->has_value()) << i << ": " << Show(all[i]);
  engine.OnLease(kForever);
  cluster_.RunFor(kSecond);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(IsOk(all[i])) << i << ": " << Show(all[i]);
  EXPECT_EQ(ByteHere(cluster_, 1, page_), 7);
  EXPECT_EQ(ByteHere(cluster_, 1, page_ + 1), 8);
}

TEST_F(PageEngineLease, OperationsEndAtTheirDeadlineAndSayWhy) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  PageEngine& engine = cluster_.engine(1);
  engine.OnLease(0);
  const TimeNs deadline = cluster_.In(kSecond);
  const std::vector<Pending> all = {
      Begin(engine.Acquire({page_, 1}, Rights::kRead, deadline)),
      Begin(engine.Acquire({page_ + 1, 2}, Rights::kWrite, deadline)),
      Begin(engine.Acquire({page_, kSegmentPages}, Rights::kRead, deadline)),
      BeginLock(engine.Lock(9, {page_, 1}, LockMode::kShared, deadline)),
      Begin(engine.Locate(page_ + 64 * kSegmentPages, deadline)),
  };
  cluster_.RunFor(kSecond + 50 * kMillisecond);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_TRUE(all[i]->has_value()) << i;
    EXPECT_EQ((*all[i])->code(), absl::StatusCode::kUnavailable) << i << ": " << Show(all[i]);
    EXPECT_THAT(Show(all[i]), HasSubstr("no lease")) << i;
  }
}

// Covers: C07
TEST_F(PageEngineLease, ARegionThatSaysSoIsReadWithoutOneAndAllElseOfItIsRefusedAtOnce) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(1, page_ + 1), 0);
  ASSERT_TRUE(cluster_.Write(3, page_ + 2, 8).ok());
  PageEngine& engine = cluster_.engine(1);
  engine.stale_reads().Set({page_, 4}, true);
  EXPECT_FALSE(engine.stale_reads().since());
  EXPECT_TRUE(engine.CheckQuorum(page_).ok());
  engine.OnLease(0);
  EXPECT_EQ(engine.stale_reads().since(), cluster_.In(0));
  EXPECT_EQ(engine.RightsOf(page_), Rights::kRead);
  EXPECT_EQ(engine.RightsOf(page_ + 1), Rights::kRead);
  EXPECT_EQ(engine.RightsOf(page_ + 2), Rights::kNone);
  EXPECT_EQ(ByteHere(cluster_, 1, page_), 7);
  const TimeNs deadline = cluster_.In(10 * kSecond);
  const Pending read = Begin(engine.Acquire({page_, 2}, Rights::kRead, deadline));
  const std::vector<Pending> refused = {
      Begin(engine.Acquire({page_, 1}, Rights::kWrite, deadline)),
      Begin(engine.Acquire({page_, 3}, Rights::kRead, deadline)),
      BeginLock(engine.Lock(9, {page_, 1}, LockMode::kShared, deadline)),
      BeginLock(engine.Lock(9, {page_, 1}, LockMode::kExclusive, deadline)),
      Begin(engine.Flush({page_, 4}, deadline)),
  };
  const Pending waits = Begin(engine.Acquire({page_ + 64 * kSegmentPages, 1}, Rights::kRead, deadline));
  cluster_.RunFor(kMillisecond);
  EXPECT_TRUE(IsOk(read)) << Show(read);
  for (size_t i = 0; i < refused.size(); ++i) {
    ASSERT_TRUE(refused[i]->has_value()) << i;
    EXPECT_EQ((*refused[i])->code(), absl::StatusCode::kUnavailable) << i << ": " << Show(refused[i]);
    EXPECT_THAT(Show(refused[i]), HasSubstr("no quorum")) << i;
  }
  EXPECT_FALSE(waits->has_value());
  engine.OnLease(kForever);
  EXPECT_FALSE(engine.stale_reads().since());
  EXPECT_EQ(engine.RightsOf(page_), Rights::kWrite);
  EXPECT_EQ(*cluster_.Read(1, page_ + 2), 8);
  EXPECT_EQ(*cluster_.Read(3, page_), 7);
}

// Q1, and what is over with the node.
TEST_F(PageEngineLease, WhatIsReadWithoutOneIsWhatWasToBeReadWhenItEnded) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  PageEngine& engine = cluster_.engine(1);
  engine.OnLease(0);
  engine.stale_reads().Set({page_, 4}, true);
  EXPECT_EQ(engine.RightsOf(page_), Rights::kNone);
  engine.OnLease(kForever);
  engine.OnLease(0);
  engine.stale_reads().Set({page_, 4}, false);
  EXPECT_EQ(engine.RightsOf(page_), Rights::kRead);
  engine.Shutdown();
  EXPECT_EQ(engine.RightsOf(page_), Rights::kNone);
  const Pending read = Begin(engine.Acquire({page_, 1}, Rights::kRead, cluster_.In(kSecond)));
  cluster_.RunFor(kMillisecond);
  EXPECT_THAT(Show(read), HasSubstr("shutting down"));
}

// What was granted to it meanwhile it does not take; it asks again.
TEST_F(PageEngineLease, AnAcquireThatLosesItOnTheWayGoesOn) {
  ASSERT_TRUE(cluster_.Write(3, page_, 7).ok());
  PageEngine& engine = cluster_.engine(1);
  ASSERT_TRUE(cluster_.Wait(engine.Locate(page_, cluster_.In(kSecond))).ok());
  const Pending write = Begin(engine.Acquire({page_, 1}, Rights::kWrite, cluster_.In(10 * kSecond)));
  cluster_.Step(cluster_.In(kMillisecond));
  engine.OnLease(0);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(write->has_value());
  EXPECT_EQ(engine.RightsOf(page_), Rights::kNone);
  engine.OnLease(kForever);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsOk(write)) << Show(write);
  EXPECT_EQ(ByteHere(cluster_, 1, page_), 7);
}

TEST_F(PageEngineLease, AnAcquireThatLosesItOnTheWaySaysSoAtItsDeadline) {
  ASSERT_TRUE(cluster_.Write(3, page_, 7).ok());
  PageEngine& engine = cluster_.engine(1);
  ASSERT_TRUE(cluster_.Wait(engine.Locate(page_, cluster_.In(kSecond))).ok());
  const Pending write = Begin(engine.Acquire({page_, 1}, Rights::kWrite, cluster_.In(kSecond)));
  cluster_.Step(cluster_.In(kMillisecond));
  engine.OnLease(0);
  cluster_.RunFor(kSecond + 50 * kMillisecond);
  ASSERT_TRUE(write->has_value());
  EXPECT_EQ((*write)->code(), absl::StatusCode::kUnavailable) << Show(write);
  EXPECT_THAT(Show(write), HasSubstr("no lease"));
}

TEST_F(PageEngineLease, ANodeWithoutOneAnswersNothing) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Locate(page_, cluster_.In(kSecond))).ok());
  cluster_.engine(2).OnLease(0);
  cluster_.RunFor(kSecond);
  const uint64_t stale = cluster_.engine(2).counters().stale_messages;
  cluster_.sent_by.clear();
  const Pending read = Begin(cluster_.engine(1).Acquire({page_, 1}, Rights::kRead, cluster_.In(10 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(read->has_value());
  EXPECT_EQ(cluster_.sent_by[2], 0);
  EXPECT_GT(cluster_.engine(2).counters().stale_messages, stale);
  cluster_.engine(2).OnLease(kForever);
  cluster_.RunFor(300 * kMillisecond);
  ASSERT_TRUE(IsOk(read)) << Show(read);
  EXPECT_EQ(ByteHere(cluster_, 1, page_), 7);
}

class PageEngineOtherViews : public PageEngineLease {
 protected:
  PageEngineOtherViews() { CHECK(cluster_.Write(2, page_, 7).ok()); }

  // What each would change: a page's owner, a disk, and a number that only goes up.
  std::vector<Message> Messages() const {
    Message invalidate;
    invalidate.kind = MessageKind::kRequest;
    invalidate.page = page_;
    invalidate.request = RequestId(uint64_t{1} << 50);
    invalidate.access = Access::kWrite;
    Message put;
    put.kind = MessageKind::kPutExtent;
    put.page = Extra();
    put.config = ConfigNumber(9);
    put.replicas = 2;
    put.request = RequestId((uint64_t{1} << 50) + 1);
    return {invalidate, put};
  }
  PageId Extra() const { return page_ + 300; }
  void ExpectUnchanged(const std::string& why, NodeInstance from, Epoch epoch) {
    for (const Message& message : Messages()) {
      const uint64_t stale = cluster_.engine(2).counters().stale_messages;
      cluster_.InjectUnder(epoch, 2, from, message);
      EXPECT_EQ(cluster_.engine(2).counters().stale_messages, stale + 1) << why;
      cluster_.sent_by.clear();
      cluster_.RunFor(10 * kMillisecond);
      EXPECT_EQ(cluster_.sent_by[2], 0) << why;
      EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kWrite) << why;
      EXPECT_EQ(cluster_.engine(2).core_holder().Find(Extra()), nullptr) << why;
    }
  }
};

TEST_F(PageEngineOtherViews, AMessageOfAnotherEpochChangesNothing) {
  cluster_.ChangeView({});
  cluster_.RunFor(5 * kSecond);
  const Epoch epoch = cluster_.view().epoch;
  const NodeInstance from{NodeId(1), Incarnation(1)};
  ExpectUnchanged("the view before", from, Epoch(epoch.value - 1));
  ExpectUnchanged("the view to come", from, Epoch(epoch.value + 1));
  ExpectUnchanged("no view", from, Epoch(0));
  // The same under this view is taken.
  for (const Message& message : Messages()) cluster_.InjectUnder(epoch, 2, from, message);
  cluster_.RunFor(10 * kMillisecond);
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kNone);
  EXPECT_NE(cluster_.engine(2).core_holder().Find(Extra()), nullptr);
}

TEST_F(PageEngineOtherViews, AMessageOfWhoIsNotInTheViewChangesNothing) {
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(1)}});
  cluster_.RunFor(5 * kSecond);
  const Epoch epoch = cluster_.view().epoch;
  ExpectUnchanged("it has left", {NodeId(1), Incarnation(1)}, epoch);
  ExpectUnchanged("another life of it", {NodeId(1), Incarnation(2)}, epoch);
  ExpectUnchanged("another life of a member", {NodeId(3), Incarnation(2)}, epoch);
  ExpectUnchanged("a stranger", {NodeId(77), Incarnation(1)}, epoch);
}

// Who finds itself out of the view has no lease, whatever it is told of one.
TEST_F(PageEngineOtherViews, WhoHasLeftServesNothing) {
  ASSERT_EQ(*cluster_.Read(1, page_), 7);
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(1)}});
  PageEngine& engine = cluster_.engine(1);
  engine.OnLease(kForever);
  EXPECT_FALSE(engine.HasLease());
  EXPECT_EQ(engine.RightsOf(page_), Rights::kNone);
  const absl::Status status = cluster_.Wait(engine.Acquire({page_, 1}, Rights::kRead, cluster_.In(kSecond)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(status.message(), HasSubstr("no lease"));
  ASSERT_TRUE(cluster_.Write(3, page_, 8).ok());  // Nobody waits for its copy.
}

Task<absl::Status> AskAbout(PageEngine* engine, NodeId node, PageId page, TimeNs deadline) {
  const absl::StatusOr<std::string> told = co_await engine->InspectAt(node, page, deadline);
  co_return told.status();
}

TEST_F(PageEngineOtherViews, AQuestionToWhoIsGoneEndsWithTheView) {
  cluster_.Stop(NodeId(3));
  const Pending asked = Begin(AskAbout(&cluster_.engine(1), NodeId(3), page_, cluster_.In(3600 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(asked->has_value());
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(3)}});
  cluster_.RunFor(10 * kMillisecond);
  EXPECT_THAT(Show(asked), HasSubstr("node 3 is gone"));
}

TEST_F(PageEngineOtherViews, AnOlderViewIsNotGoneBackTo) {
  const View before = cluster_.view();
  cluster_.ChangeView({});
  cluster_.engine(1).OnView(before);
  EXPECT_EQ(cluster_.engine(1).view(), cluster_.view());
  ASSERT_EQ(*cluster_.Read(1, page_), 7);
}

class PageEngineSomeKnow : public PageEngineViewsTest {
 protected:
  // Node 1 is the view's root, node 2 responsible, node 3 has it dirty; node 4 only leaves.
  static void RunWith(const std::vector<uint64_t>& first, const std::vector<uint64_t>& then, bool leaves) {
    SCOPED_TRACE(testing::PrintToString(first) + (leaves ? " know that node 4 is gone" : " know the view"));
    EngineCluster cluster(4);
    const PageId page = SegmentOf(cluster, 2, {4});
    const PageId other = SegmentOf(cluster, 4, {4}, page + kSegmentPages);
    cluster.Allocate({page, 4});
    cluster.Allocate({other, 1});
    ASSERT_TRUE(cluster.Write(3, page, 7).ok());
    ASSERT_TRUE(cluster.Write(2, page + 1, 8).ok());
    if (leaves) cluster.Stop(NodeId(4));
    ViewChange change;
    if (leaves) change.leaves = {NodeId(4)};
    cluster.ChangeViewAt(first, change);
    const TimeNs deadline = cluster.In(5 * kSecond);
    std::vector<Pending> all;
    for (const uint64_t node : {1, 2, 3}) {
      PageEngine& engine = cluster.engine(node);
      all.push_back(Begin(engine.Acquire({page, 1}, Rights::kRead, deadline)));
      all.push_back(Begin(engine.Acquire({page + node, 1}, Rights::kWrite, deadline)));
      all.push_back(Begin(engine.Flush({page, 2}, deadline)));
      all.push_back(Begin(engine.Acquire({other, 1}, Rights::kRead, deadline)));
      all.push_back(Begin(engine.Locate(other + node * kSegmentPages, deadline)));
    }
    cluster.RunFor(200 * kMillisecond);
    for (const uint64_t node : then) cluster.TellView(node);
    if (!leaves) cluster.TellView(4);
    cluster.RunFor(kSecond);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(IsOk(all[i])) << i << ": " << Show(all[i]);
    EXPECT_EQ(*cluster.Read(1, page), 7);
    EXPECT_EQ(*cluster.Read(3, page + 1), 8);
    for (uint64_t i = 0; i < 4; ++i) ExpectOneResponsible(cluster, other + i * kSegmentPages);
  }
};

TEST_F(PageEngineSomeKnow, OperationsEndWellSoonAfterAllKnowTheView) {
  for (const bool leaves : {false, true}) {
    for (const uint64_t one : {1, 2, 3}) {
      std::vector<uint64_t> others = {1, 2, 3};
      std::erase(others, one);
      RunWith({one}, others, leaves);
      RunWith(others, {one}, leaves);
    }
  }
}

TEST_F(PageEngineSomeKnow, WhoIsNeverToldKeepsNobodyForLongerThanTheDeadline) {
  EngineCluster cluster(3);
  const PageId page = SegmentOf(cluster, 2, {});
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(2, page, 7).ok());
  cluster.ChangeViewAt({1, 3}, {});
  const TimeNs deadline = cluster.In(kSecond);
  const std::vector<Pending> all = {
      Begin(cluster.engine(1).Acquire({page, 1}, Rights::kRead, deadline)),
      Begin(cluster.engine(2).Locate(page + 64 * kSegmentPages, deadline)),
      Begin(cluster.engine(3).Flush({page, 1}, deadline)),
      BeginLock(cluster.engine(3).Lock(9, {page, 1}, LockMode::kExclusive, deadline)),
  };
  cluster.RunFor(kSecond + 100 * kMillisecond);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(all[i]->has_value()) << i;
  for (const size_t i : {0, 2, 3}) EXPECT_FALSE(IsOk(all[i])) << i;
}

// Wherever the page is on its way when the view changes.
TEST_F(PageEngineSomeKnow, AViewInTheMiddleOfATransferLosesNothing) {
  for (int steps = 0; steps < 40; ++steps) {
    SCOPED_TRACE(steps);
    EngineCluster cluster(4);
    const PageId page = SegmentOf(cluster, 2, {4});
    cluster.Allocate({page, 1});
    ASSERT_TRUE(cluster.Write(3, page, 7).ok());
    const Pending write = Begin(cluster.engine(1).Acquire({page, 1}, Rights::kWrite, cluster.In(5 * kSecond)));
    for (int i = 0; i < steps; ++i) cluster.Step(cluster.In(kMillisecond));
    cluster.Leave(4);
    cluster.RunFor(300 * kMillisecond);
    ASSERT_TRUE(IsOk(write)) << Show(write);
    ASSERT_EQ(ByteHere(cluster, 1, page), 7);
    ASSERT_TRUE(cluster.Write(2, page, 9).ok());
    ASSERT_EQ(*cluster.Read(3, page), 9);
  }
}

}  // namespace
}  // namespace mangrove
