// Pages that are kept in the cache.

#include <random>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineKeep : public testing::Test {
 protected:
  PageEngineKeep() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(PageEngineKeep, ChangesOfOverlappingRangesAreThoseOfTheirPages) {
  EngineCluster cluster(1);
  PageEngine& engine = cluster.engine(1);
  constexpr size_t kPages = 40;
  std::array<bool, kPages> kept{};
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    const uint64_t first = random() % kPages;
    const uint64_t count = 1 + random() % std::min<uint64_t>(kPages - first, 12);
    const bool keep = random() % 2 == 0;
    engine.SetKeepInRam({kBase + first, count}, keep);
    std::fill_n(kept.begin() + static_cast<ptrdiff_t>(first), count, keep);
    for (size_t page = 0; page < kPages; ++page) ASSERT_EQ(engine.IsKeptInRam(kBase + page), kept[page]) << i;
  }
}

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
