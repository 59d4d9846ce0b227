// The node brings pages ahead of who reads in order.
// Covers: B04

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineReadAhead : public testing::Test {
 protected:
  // A region of some pages that node 2 has written.
  explicit PageEngineReadAhead(uint64_t cache_pages = 4096, uint64_t pages = 64)
      : cluster_(2, [=](PageEngineOptions& options) {
          options.cache_pages = cache_pages;
          options.evict_to_peers = false;  // What comes here was asked for, or is read ahead.
        }) {
    SetLogLevel(LogLevel::kOff);
    first_ = cluster_.SegmentOf(1);
    cluster_.Allocate({first_, (pages + 8 + kSegmentPages - 1) / kSegmentPages * kSegmentPages});
    for (uint64_t i = 0; i < pages + 8; ++i) EXPECT_TRUE(cluster_.Write(2, first_ + i, static_cast<uint8_t>(i)).ok());
    cluster_.engine(1).CountFetched({first_, pages});
  }

  void ReadInOrder(uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; ++i) ASSERT_EQ(*cluster_.Read(1, first_ + i), static_cast<int>(i));
    cluster_.RunFor(100 * kMillisecond);
  }
  void LockAndRelease(PageRange range) {
    const auto lock = cluster_.Wait(cluster_.engine(1).Lock(9, range, LockMode::kExclusive, cluster_.In(kSecond)));
    ASSERT_TRUE(lock.ok()) << lock.status();
    ASSERT_TRUE(cluster_.engine(1).Unlock(9, *lock).ok());
    cluster_.RunFor(10 * kMillisecond);
  }
  bool IsHere(uint64_t i) { return cluster_.engine(1).RightsOf(first_ + i) != Rights::kNone; }

  EngineCluster cluster_;
  PageId first_;
};

TEST_F(PageEngineReadAhead, PagesComeBeforeTheyAreAskedFor) {
  ReadInOrder(0, 2);
  EXPECT_FALSE(IsHere(2));
  ReadInOrder(2, 3);
  for (uint64_t i = 3; i < 3 + 8; ++i) EXPECT_TRUE(IsHere(i)) << i;
  ReadInOrder(3, 64);
}

TEST_F(PageEngineReadAhead, NothingBeyondTheRegion) {
  ReadInOrder(0, 64);
  for (uint64_t i = 64; i < 72; ++i) EXPECT_FALSE(IsHere(i)) << i;
}

TEST_F(PageEngineReadAhead, PagesThatAreNotAllocatedHarmNobody) {
  ASSERT_TRUE(
      cluster_.Wait(cluster_.engine(1).DropExtent({first_ + 10, 40}, ConfigNumber(1), 2, cluster_.In(kSecond))).ok());
  ReadInOrder(0, 10);
  EXPECT_FALSE(cluster_.Read(1, first_ + 10).ok());
  ReadInOrder(50, 64);
}

TEST_F(PageEngineReadAhead, MigratoryPagesStayWhereTheyAreUntilTheyAreRead) {
  cluster_.engine(1).SetMigratory({first_, 64}, true);
  ReadInOrder(0, 3);
  EXPECT_EQ(cluster_.engine(1).RightsOf(first_ + 2), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(1).RightsOf(first_ + 5), Rights::kRead);
  EXPECT_EQ(cluster_.engine(2).RightsOf(first_ + 5), Rights::kRead);
}

TEST_F(PageEngineReadAhead, WhoLocksInOrderGetsCopiesOfTheNext) {
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cluster_.engine(1).RightsOf(first_ + 4 * i + 3), Rights::kNone);
    LockAndRelease({first_ + 4 * i, 4});
  }
  EXPECT_EQ(cluster_.engine(1).RightsOf(first_ + 12), Rights::kRead);
  EXPECT_EQ(cluster_.engine(2).RightsOf(first_ + 12), Rights::kRead);
}

constexpr uint64_t kBlockPages = PageEngine::kBlockPages;

class PageEngineBlocksAhead : public PageEngineReadAhead {
 protected:
  PageEngineBlocksAhead() : PageEngineReadAhead(4096, 6 * kBlockPages) {}
};

TEST_F(PageEngineBlocksAhead, WhoLocksThemInOrderGetsTheNextWithTheSameRight) {
  for (uint64_t i = 0; i < 3; ++i) LockAndRelease({first_ + i * kBlockPages, kBlockPages});
  const PageId next = first_ + 3 * kBlockPages;
  EXPECT_EQ(cluster_.engine(1).RightsOf(next), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(2).RightsOf(next), Rights::kNone);
  EXPECT_EQ(*cluster_.Read(1, next), static_cast<uint8_t>(3 * kBlockPages));
}

TEST_F(PageEngineReadAhead, EndsWithItsNode) {
  ReadInOrder(0, 2);
  cluster_.cut.insert(NodeId(2));
  std::optional<absl::Status> status;
  Spawn<absl::Status>(cluster_.engine(1).Acquire({first_ + 2, 1}, Rights::kRead, cluster_.In(5 * kSecond)),
                      [&](absl::Status s) { status = s; });
  cluster_.RunFor(kMillisecond);
  EXPECT_FALSE(status.has_value());
  cluster_.Stop(NodeId(1));
  cluster_.RunFor(5 * kSecond);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(absl::IsUnavailable(*status)) << *status;
}

class PageEngineReadAheadSmall : public PageEngineReadAhead {
 protected:
  PageEngineReadAheadSmall() : PageEngineReadAhead(48) {}
};

TEST_F(PageEngineReadAheadSmall, ASmallCacheIsNotFilledWithWhatNobodyHasAskedFor) {
  ReadInOrder(0, 3);
  uint64_t ahead = 0;
  for (uint64_t i = 3; i < 64; ++i) ahead += IsHere(i) ? 1 : 0;
  EXPECT_GE(ahead, 1u);
  EXPECT_LE(ahead, 48u / 8);
  ReadInOrder(3, 64);
}

// As memmove may: each block from its end to its begin, and then the next one.
TEST(PageEngineReadAheadBlocks, WhoGoesThroughBlocksInAnyOrderGetsThemWhole) {
  SetLogLevel(LogLevel::kOff);
  constexpr uint64_t kBlock = PageEngine::kBlockPages;
  EngineCluster cluster(2, [](PageEngineOptions& options) { options.cache_pages = 8192; });
  const PageId first = cluster.SegmentOf(1);
  for (uint64_t i = 0; i < 4 * kBlock; i += kSegmentPages) cluster.Allocate({first + i, kSegmentPages});
  for (uint64_t i = 0; i < 4 * kBlock; ++i) ASSERT_TRUE(cluster.Write(2, first + i, static_cast<uint8_t>(i)).ok());
  cluster.engine(1).CountFetched({first, 4 * kBlock});
  const auto here = [&](uint64_t block) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < kBlock; ++i) {
      count += cluster.engine(1).RightsOf(first + block * kBlock + i) != Rights::kNone ? 1 : 0;
    }
    return count;
  };
  for (uint64_t block = 0; block < 2; ++block) {
    for (uint64_t i = kBlock; i-- > 0;) {
      ASSERT_EQ(*cluster.Read(1, first + block * kBlock + i), static_cast<int>(i % 256));
    }
  }
  cluster.RunFor(100 * kMillisecond);
  EXPECT_EQ(here(2), 0u);
  ASSERT_EQ(*cluster.Read(1, first + 2 * kBlock + 200), 200);
  cluster.RunFor(100 * kMillisecond);
  EXPECT_EQ(here(2), kBlock);
  EXPECT_EQ(here(3), kBlock);
}

TEST(PageEngineReadAheadBlocks, APageOfEachBlockBringsNoBlocks) {
  SetLogLevel(LogLevel::kOff);
  constexpr uint64_t kBlock = PageEngine::kBlockPages;
  EngineCluster cluster(2, [](PageEngineOptions& options) { options.cache_pages = 8192; });
  const PageId first = cluster.SegmentOf(1);
  for (uint64_t i = 0; i < 6 * kBlock; i += kSegmentPages) cluster.Allocate({first + i, kSegmentPages});
  cluster.engine(1).CountFetched({first, 6 * kBlock});
  for (uint64_t block = 0; block < 6; ++block) ASSERT_TRUE(cluster.IsResponsible(1, first + block * kBlock));
  const uint64_t before = cluster.engine(1).counters().read_requests;
  const uint64_t places[] = {3, 77, 201, 20, 150, 99};
  for (uint64_t block = 0; block < 6; ++block) {
    ASSERT_TRUE(cluster.Read(1, first + block * kBlock + places[block]).ok());
  }
  cluster.RunFor(100 * kMillisecond);
  EXPECT_EQ(cluster.engine(1).counters().read_requests - before, 6u);
}

}  // namespace
}  // namespace mangrove
