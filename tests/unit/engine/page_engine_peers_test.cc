// What peers that do not keep to the protocol can do to a page engine.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEnginePeers : public testing::Test {
 protected:
  PageEnginePeers() { SetLogLevel(LogLevel::kOff); }

  static Message Make(MessageKind kind, PageId page, uint64_t count = 1) {
    Message m;
    m.kind = kind;
    m.page = page;
    m.count = count;
    return m;
  }
};

TEST_F(PageEnginePeers, NewsOfRangesAreRefusedUnlessTheyAreOfAFewPages) {
  EngineCluster cluster(2);
  uint64_t pages = 0;
  cluster.engine(1).SetEventSink([&](const NodeOperations::Event& event) { pages += event.range.count; });
  const PageId page = cluster.SegmentOf(2);
  for (const MessageKind kind : {MessageKind::kLost, MessageKind::kReverted}) {
    cluster.Inject(1, 2, Make(kind, page, kSegmentPages));
    cluster.Inject(1, 2, Make(kind, page, uint64_t{1} << 40));
    cluster.Inject(1, 2, Make(kind, page, 0));  // Would stand for everything that is open here.
  }
  EXPECT_EQ(pages, 2 * kSegmentPages);
  EXPECT_EQ(cluster.engine(1).counters().bad_messages, 4u);
}

TEST_F(PageEnginePeers, NewsOfAPageAreItsResponsibleNodesToTell) {
  EngineCluster cluster(2);
  int events = 0;
  cluster.engine(1).SetEventSink([&](const NodeOperations::Event&) { ++events; });
  const PageId system(1);
  cluster.Inject(1, 2, Make(MessageKind::kLost, system));
  EXPECT_EQ(events, 0);
  EXPECT_EQ(cluster.engine(1).counters().bad_messages, 1u);
  // For this one node 2 may have been responsible before.
  cluster.Inject(1, 2, Make(MessageKind::kLost, cluster.SegmentOf(1)));
  EXPECT_EQ(events, 1);
  EXPECT_EQ(cluster.engine(1).counters().bad_messages, 1u);
}

TEST_F(PageEnginePeers, ARegistrationIsOfPagesOfItsSegment) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(1);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(2, page, 7).ok());
  cluster.Start({NodeId(1), Incarnation(2)});
  RequestId round;
  cluster.lost = [&](const Message& m) {
    if (m.kind == MessageKind::kRegisterRequest && m.page == page) round = m.request;
    return SegmentStart(m.page) == page && (m.kind == MessageKind::kRegister || m.kind == MessageKind::kRegisterEnd);
  };
  EXPECT_FALSE(cluster.Read(2, page + 1).ok());  // Node 1 or 2 takes the segment over, and asks.
  const uint64_t asker = cluster.engine(2).ResponsibleFor(page).value;
  ASSERT_NE(round, RequestId());
  const uint64_t before = cluster.engine(asker).counters().bad_messages;
  Message part = Make(MessageKind::kRegister, SegmentStart(page));
  part.request = round;
  for (uint64_t i = 0; i < 2 * kSegmentPages; ++i) {
    part.page = SegmentStart(page) + i;
    cluster.Inject(asker, 3 - asker, part);
  }
  EXPECT_EQ(cluster.engine(asker).counters().bad_messages - before, kSegmentPages);
}

// The case of kCacheTable that only a confused node reaches.
TEST_F(PageEnginePeers, WhatMakesNoSenseIsCountedAndIgnored) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(2);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 7).ok());
  cluster.RunFor(kSecond);
  Message resolve = Make(MessageKind::kResolve, page);
  resolve.txn = Txn(UINT64_MAX);
  resolve.holding = Holding::kShared;
  cluster.Inject(1, 2, resolve);
  EXPECT_EQ(cluster.engine(1).counters().bad_messages, 1u);
  EXPECT_EQ(cluster.engine(1).RightsOf(page), Rights::kWrite);
}

}  // namespace
}  // namespace mangrove
