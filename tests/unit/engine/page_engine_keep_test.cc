// Pages that are kept in the cache.

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

}  // namespace
}  // namespace mangrove
