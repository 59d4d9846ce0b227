// What is said to be lost is what cannot be read, and no more.
//
// Covers: C06

#include "engine/lost_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

using testing::ElementsAre;

constexpr uint64_t kKeeper = 3;
constexpr uint64_t kOther = 2;

// Pages with one copy each, that of the first extent at kKeeper, and those of the second somewhere else. kKeeper's disk is lost.
class LostPagesTest : public testing::Test {
 protected:
  LostPagesTest() { SetLogLevel(LogLevel::kOff); }

  void Watch(uint64_t node) {
    EngineHost& host = cluster_.host(node);
    watches_[node] = std::make_unique<LostPages>(
        NodeId(node), &cluster_.clock, host.engine.get(), &host.store,
        [this](NodeId, PageId) -> Task<absl::StatusOr<bool>> { co_return is_learned_elsewhere_; });
  }
  void Look() { cluster_.RunFor(2 * LostPages::kLookAgain); }
  void LoseTheDisk() {
    watches_.erase(kKeeper);
    cluster_.StartWithAnEmptyDisk({NodeId(kKeeper), Incarnation(2)});
    Watch(kKeeper);
    Look();
  }
  void Allocate(PageRange range) {
    ASSERT_TRUE(
        cluster_.Wait(cluster_.engine(1).PutExtent(range, ConfigNumber(++config_), 1, false, cluster_.In(kSecond)))
            .ok());
  }
  std::vector<PageRange> LostAt(uint64_t node) { return watches_.at(node)->found().value_or(RangeSummary()).first(); }

  EngineCluster cluster_{3};
  std::map<uint64_t, std::unique_ptr<LostPages>> watches_;
  uint64_t config_ = 10;
  bool is_learned_elsewhere_ = true;
};

TEST_F(LostPagesTest, WhatOnlyALostDiskHadIsNamedUntilItIsWrittenOrAllocatedAnew) {
  const PageId page = cluster_.SegmentOf(kKeeper);
  const PageId safe = cluster_.SegmentOf(kOther);
  Allocate({page, 8});
  Allocate({safe, 8});
  ASSERT_TRUE(cluster_.Write(1, page, 7).ok());
  Watch(kKeeper);
  Watch(kOther);
  Look();
  ASSERT_TRUE(watches_.at(kKeeper)->found());
  EXPECT_TRUE(watches_.at(kKeeper)->found()->empty());

  LoseTheDisk();
  EXPECT_THAT(LostAt(kKeeper), ElementsAre(PageRange{page, 8}));
  EXPECT_THAT(LostAt(kOther), ElementsAre());
  EXPECT_TRUE(absl::IsDataLoss(cluster_.Read(2, page + 1).status()));
  EXPECT_EQ(*cluster_.Read(2, page), 7) << "which a node has in memory";

  Allocate({page, 8});
  Look();
  EXPECT_THAT(LostAt(kKeeper), ElementsAre());
  EXPECT_TRUE(watches_.at(kKeeper)->found().has_value());
}

}  // namespace
}  // namespace mangrove
