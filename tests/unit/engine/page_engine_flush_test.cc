// Flushes of several callers at once: what they share.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineFlush : public testing::Test {
 protected:
  PageEngineFlush() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(PageEngineFlush, WhatOneCommitMakesDurableIsAnsweredInOneMessage) {
  constexpr uint64_t kCallers = 8;
  EngineCluster cluster(2);
  const PageId first = cluster.SegmentOf(1);
  cluster.Allocate({first, kCallers});
  for (uint64_t i = 0; i < kCallers; ++i) ASSERT_TRUE(cluster.Write(1, first + i, 1).ok());
  cluster.sent.clear();
  cluster.packets.clear();
  uint64_t done = 0;
  for (uint64_t i = 0; i < kCallers; ++i) {
    Spawn<absl::Status>(cluster.engine(1).Flush({first + i, 1}, cluster.In(kSecond)), [&](absl::Status s) {
      EXPECT_TRUE(s.ok()) << s;
      ++done;
    });
  }
  cluster.RunFor(kSecond);
  EXPECT_EQ(done, kCallers);
  EXPECT_EQ(cluster.sent[MessageKind::kStored], static_cast<int>(kCallers));
  EXPECT_EQ(cluster.packets[MessageKind::kStored], 1);
  EXPECT_EQ(cluster.host(1).store.durable.pages.size(), kCallers);
  EXPECT_EQ(cluster.host(2).store.durable.pages.size(), kCallers);
}

// What was on every disk is not any more.
TEST_F(PageEngineFlush, APageIsStoredAgainWhereADiskWasLost) {
  EngineCluster cluster(2);
  const PageId page = cluster.SegmentOf(1);
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 7).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond))).ok());
  cluster.StartWithAnEmptyDisk({NodeId(2), Incarnation(2)});
  cluster.RunFor(kSecond);
  ASSERT_TRUE(cluster.host(2).store.durable.pages.empty());
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond))).ok());
  EXPECT_EQ(cluster.host(2).store.durable.pages.size(), 1u);
}

// The owner keeps nothing of the page, nor of anything else that was on that disk.
TEST_F(PageEngineFlush, APageIsStoredAgainByAnOwnerThatIsNoCoreHolder) {
  EngineCluster cluster(3);
  const PageId page = cluster.SegmentOf(1);
  cluster.Allocate({page, 1});
  std::vector<NodeId> holders = cluster.locator().CoreHolders(page, 2);
  const uint64_t owner = 6 - holders[0].value - holders[1].value;
  ASSERT_TRUE(cluster.Write(owner, page, 7).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(owner).Flush({page, 1}, cluster.In(kSecond))).ok());
  for (const NodeId holder : holders) {
    cluster.StartWithAnEmptyDisk({holder, Incarnation(2)});
    cluster.RunFor(5 * kSecond);
    ASSERT_TRUE(cluster.host(holder.value).store.durable.pages.empty());
    ASSERT_TRUE(cluster.Wait(cluster.engine(owner).Flush({page, 1}, cluster.In(5 * kSecond))).ok());
    EXPECT_EQ(cluster.host(holder.value).store.durable.pages.size(), 1u) << ToString(holder);
  }
}

// Node 1 flushes a page, and its stores are lost; node 2, which has the page next, is lost with it, and so are the seals of
// the core holders. What everybody was told to be lost must not come back by node 1's sending its stores again.
TEST_F(PageEngineFlush, StoreOfAPageThatWasReopenedSinceIsNotPressed) {
  EngineCluster cluster(4);
  PageId page = kBase;
  const auto holders = [&] { return cluster.locator().CoreHolders(page, 2); };
  while (holders()[0].value < 3 || holders()[1].value < 3) page = page + kSegmentPages;
  ASSERT_TRUE(cluster.IsResponsible(1, page));
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 1).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond))).ok());
  ASSERT_TRUE(cluster.Write(1, page, 2).ok());
  cluster.cut = {NodeId(3), NodeId(4)};
  std::optional<absl::Status> flushed;
  Spawn<absl::Status>(cluster.engine(1).Flush({page, 1}, cluster.In(5 * kSecond)),
                      [&](absl::Status s) { flushed = std::move(s); });
  cluster.RunFor(kMillisecond);
  cluster.cut.clear();
  ASSERT_TRUE(cluster.Write(2, page, 3).ok());
  cluster.RunFor(10 * kMillisecond);  // Node 1 keeps nothing of it.
  cluster.Start({NodeId(2), Incarnation(2)});
  ASSERT_EQ(*cluster.Read(1, page), 1);
  ASSERT_TRUE(cluster.Write(1, page, 4).ok());
  for (const NodeId holder : holders()) cluster.Start({holder, Incarnation(2)});
  ASSERT_FALSE(flushed.has_value());
  cluster.RunFor(kSecond);
  cluster.Start({NodeId(1), Incarnation(2)});
  cluster.RunFor(kSecond);
  ASSERT_TRUE(flushed.has_value() && flushed->ok());  // Of what the page holds by now.
  EXPECT_EQ(*cluster.Read(2, page), 4);
}

}  // namespace
}  // namespace mangrove
