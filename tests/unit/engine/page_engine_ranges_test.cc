// Operations on ranges: in blocks, within bounded memory and time.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class PageEngineRanges : public testing::Test {
 protected:
  PageEngineRanges() { SetLogLevel(LogLevel::kOff); }

  static absl::Status LockStatus(EngineCluster& cluster, PageRange range, DurationNs timeout) {
    return cluster.Wait(cluster.engine(1).Lock(9, range, LockMode::kExclusive, cluster.In(timeout))).status();
  }
};

TEST_F(PageEngineRanges, AFlushOfAVastRangeLeavesTheLoopToOthersAndEndsInTime) {
  EngineCluster cluster(2);
  const PageRange vast{kBase, uint64_t{1} << 34};
  cluster.Allocate(vast);
  int ticks = 0;
  for (int i = 1; i <= 10; ++i) cluster.clock.CallAt(cluster.In(i * kMillisecond), [&] { ++ticks; });
  const TimeNs deadline = cluster.In(20 * kMillisecond);
  const absl::Status status = cluster.Wait(cluster.engine(1).Flush(vast, deadline));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(status.message(), HasSubstr("of the 17179869184 pages"));
  EXPECT_EQ(ticks, 10);
  EXPECT_LT(cluster.clock.Now(), deadline + 10 * kMillisecond);
}

TEST_F(PageEngineRanges, AFlushHoldsTheCopiesOfSixBlocksAtATime) {
  EngineCluster cluster(1);
  const PageRange range{cluster.SegmentOf(1), 2000};
  cluster.Allocate(range);
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Acquire(range, Rights::kWrite, cluster.In(kSecond))).ok());
  std::optional<absl::Status> done;
  Spawn<absl::Status>(cluster.engine(1).Flush(range, cluster.In(kSecond)), [&](absl::Status s) { done = s; });
  while (cluster.clock.RunSoon()) {  // Until it waits for the disk.
  }
  EXPECT_EQ(cluster.host(1).memory.copies, 6 * 256);
  cluster.RunFor(kSecond);
  ASSERT_TRUE(done.has_value());
  EXPECT_TRUE(done->ok()) << *done;
  EXPECT_EQ(cluster.host(1).store.durable.pages.size(), 2000u);
}

TEST_F(PageEngineRanges, AFlushAsksOncePerBlockWhereThereIsNothingToFlush) {
  EngineCluster cluster(2);
  const PageRange range{cluster.SegmentOf(2), kSegmentPages};
  cluster.Allocate(range);
  cluster.sent.clear();
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush(range, cluster.In(kSecond))).ok());
  EXPECT_EQ(cluster.sent[MessageKind::kFlush], 2);
}

TEST_F(PageEngineRanges, AFlushOfARangeFindsWhatOthersHaveWritten) {
  for (const uint64_t writer : {2, 3}) {
    EngineCluster cluster(3);
    const PageRange range{cluster.SegmentOf(2), kSegmentPages};
    cluster.Allocate(range);
    const PageId page = range.first + 300;
    ASSERT_TRUE(cluster.Write(writer, page, 77).ok());
    ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush(range, cluster.In(kSecond))).ok());
    for (const NodeId holder : cluster.locator().CoreHolders(page, 2)) {
      const auto stored = cluster.host(holder.value).store.Look(page, true);
      ASSERT_TRUE(stored.ok()) << ToString(holder);
      EXPECT_EQ(stored->data->bytes[0], std::byte{77});
    }
  }
}

// The holders' disks may differ: they have to be compared.
TEST_F(PageEngineRanges, AfterARestartAFlushOfARangeTrustsNoPage) {
  EngineCluster cluster(2);
  const PageRange range{cluster.SegmentOf(2), 16};
  cluster.Allocate(range);
  cluster.Start({NodeId(2), Incarnation(2)});
  cluster.RunFor(kSecond);
  cluster.sent.clear();
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush(range, cluster.In(kSecond))).ok());
  EXPECT_GE(cluster.sent[MessageKind::kQueryStored], 16);
}

TEST_F(PageEngineRanges, ARangeLargerThanTheCacheIsRefusedAtOnce) {
  EngineCluster cluster(2, [](PageEngineOptions& options) { options.cache_pages = 300; });
  const PageRange range{cluster.SegmentOf(2), 301};
  cluster.Allocate(range);
  const TimeNs before = cluster.clock.Now();
  const absl::Status acquired = cluster.Wait(cluster.engine(1).Acquire(range, Rights::kRead, cluster.In(kSecond)));
  for (const absl::Status& status : {acquired, LockStatus(cluster, range, kSecond)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("301 pages"), HasSubstr("300 pages")));
  }
  EXPECT_EQ(cluster.clock.Now(), before);
  EXPECT_TRUE(LockStatus(cluster, {range.first, 300}, kSecond).ok());
}

TEST_F(PageEngineRanges, ALockOfSeveralBlocksIsAllOrNothing) {
  EngineCluster cluster(2);
  const PageRange range{cluster.SegmentOf(2) + 200, 700};
  cluster.Allocate({range.first, 600});
  EXPECT_EQ(LockStatus(cluster, range, kSecond).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(cluster.Write(2, range.first, 1).ok());  // Nothing is locked any more.
  EXPECT_TRUE(LockStatus(cluster, {range.first, 600}, kSecond).ok());
  EXPECT_TRUE(LockStatus(cluster, {range.first + 600, 0}, 0).ok());
}

// Without waiting for anything, whatever the time is.
TEST_F(PageEngineRanges, WhatIsHereIsLockedWithoutAnyTime) {
  EngineCluster cluster(2);
  const PageRange range{cluster.SegmentOf(2), 1000};
  cluster.Allocate(range);
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Acquire(range, Rights::kWrite, cluster.In(kSecond))).ok());
  EXPECT_TRUE(LockStatus(cluster, range, 0).ok());
}

}  // namespace
}  // namespace mangrove
