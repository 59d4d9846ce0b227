// Pages that are kept in the cache, and others that cannot leave it.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineKeep : public testing::Test {
 protected:
  PageEngineKeep() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(PageEngineKeep, WhatIsKeptStaysAndAPartOfItMayGo) {
  EngineCluster cluster(1, [](PageEngineOptions& options) { options.cache_pages = 32; });
  const PageId first = cluster.SegmentOf(1);
  cluster.Allocate({first, 300});
  PageEngine& engine = cluster.engine(1);
  engine.SetKeepInRam({first, 8}, true);
  engine.SetKeepInRam({first + 2, 3}, false);
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_TRUE(cluster.Read(1, first + i).ok());
    cluster.RunFor(kMillisecond);
  }
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(engine.RightsOf(first + i) != Rights::kNone, i < 2 || i >= 5) << i;
  }
}

// As after an unallocation that failed half way: a holder refuses some pages for good. No other page suffers from it.
TEST(PageEngineEvict, PagesThatAHolderRefusesKeepNoOtherInTheCache) {
  EngineCluster cluster(2, [](PageEngineOptions& options) {
    options.cache_pages = 32;
    options.evict_to_peers = false;
  });
  const PageRange refused{PageId(absl::MakeUint128(1, 0)), 20};
  const PageRange others{refused.first + 1024, 96};
  cluster.Allocate(refused);
  cluster.Allocate(others);
  Message drop;
  drop.kind = MessageKind::kDropExtent;
  drop.page = refused.first;
  drop.count = refused.count;
  drop.config = ConfigNumber(1);
  for (uint64_t i = 0; i < refused.count; ++i) ASSERT_TRUE(cluster.Write(1, refused.first + i, 7).ok());
  cluster.Inject(2, 1, drop);
  cluster.RunFor(kSecond);
  const absl::Status flushed = cluster.Wait(cluster.engine(1).Flush({refused.first, 1}, cluster.In(5 * kSecond)));
  ASSERT_TRUE(absl::IsFailedPrecondition(flushed)) << flushed;
  for (int round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < others.count; ++i) {
      const absl::Status written = cluster.Write(1, others.first + i, static_cast<uint8_t>(i));
      ASSERT_TRUE(written.ok()) << round << ' ' << i << ' ' << written;
    }
  }
  for (uint64_t i = 0; i < refused.count; ++i) EXPECT_EQ(cluster.Read(1, refused.first + i).value_or(-1), 7);
  EXPECT_EQ(cluster.Read(2, others.first + 5).value_or(-1), 5);
}

}  // namespace
}  // namespace mangrove
