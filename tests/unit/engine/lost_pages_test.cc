// What is said to be lost is what cannot be read, and no more.
//
// Covers: C06

#include "engine/lost_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

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
    watches_[node] = std::make_unique<LostPages>(NodeId(node), &cluster_.clock, host.engine.get(), &host.store,
                                                 [this](NodeId asked, PageId page) { return Answer(asked, page); });
  }
  // Goes on after who asked has been destroyed.
  Task<absl::StatusOr<bool>> Answer(NodeId asked, PageId page) {
    ++asked_[{asked, page}];
    ++waits_;
    most_waits_ = std::max(most_waits_, waits_);
    co_await SleepUntil(&cluster_.clock, cluster_.clock.Now() + kAnswerIn);
    --waits_;
    if (fails_ > 0) {
      --fails_;
      co_return absl::UnavailableError("no answer");
    }
    co_return is_learned_elsewhere_;
  }
  void Look() { cluster_.RunFor(2 * LostPages::kLookAgain); }
  void LookOnce() { cluster_.RunFor(LostPages::kLookAgain + LostPages::kLookAgain / 2); }
  void ReplaceTheDisk() {
    watches_.erase(kKeeper);
    cluster_.StartWithAnEmptyDisk({NodeId(kKeeper), Incarnation(2)});
    Watch(kKeeper);
  }
  void LoseTheDisk() {
    ReplaceTheDisk();
    Look();
  }
  void Allocate(PageRange range) {
    ASSERT_TRUE(
        cluster_.Wait(cluster_.engine(1).PutExtent(range, ConfigNumber(++config_), 1, false, cluster_.In(kSecond)))
            .ok());
  }
  // Segments one after the other that these keep, in whatever order.
  PageRange SegmentsOf(const std::set<uint64_t>& nodes) {
    PageId first = cluster_.SegmentOf(kKeeper) + 64 * kSegmentPages;
    const auto keepers = [&] {
      std::set<uint64_t> keep;
      for (size_t i = 0; i < nodes.size(); ++i) {
        keep.insert(cluster_.locator().Primary(first + i * kSegmentPages).value);
      }
      return keep;
    };
    while (keepers() != nodes) first = first + kSegmentPages;
    return {first, nodes.size() * kSegmentPages};
  }
  std::vector<PageRange> LostAt(uint64_t node) { return watches_.at(node)->found().value_or(RangeSummary()).first(); }

  static constexpr DurationNs kAnswerIn = 10 * kMillisecond;

  // Questions that are under way end with the cluster.
  std::map<std::pair<NodeId, PageId>, int> asked_;  // How often, about which extent.
  int fails_ = 0;                                   // Of the next questions.
  size_t waits_ = 0;
  size_t most_waits_ = 0;
  bool is_learned_elsewhere_ = true;
  uint64_t config_ = 10;
  EngineCluster cluster_{3};
  std::map<uint64_t, std::unique_ptr<LostPages>> watches_;
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

TEST_F(LostPagesTest, WhatWasFoundIsNotSaidAnyMoreWhenOtherDisksCount) {
  Watch(kOther);
  Look();
  ASSERT_TRUE(watches_.at(kOther)->found());
  cluster_.ChangeView({});  // Of the disks nothing has changed.
  EXPECT_TRUE(watches_.at(kOther)->found());
  cluster_.Leave(kKeeper);
  EXPECT_FALSE(watches_.at(kOther)->found());
  Look();
  EXPECT_TRUE(watches_.at(kOther)->found());
}

TEST_F(LostPagesTest, DisksAreAskedSideBySide) {
  Allocate(SegmentsOf({1, kOther, kKeeper}));
  LoseTheDisk();
  EXPECT_FALSE(LostAt(kKeeper).empty());
  EXPECT_EQ(most_waits_, 2u);
}

TEST_F(LostPagesTest, WhatADiskDoesNotAnswerIsAskedAgainAndNothingElse) {
  const PageRange with_first = SegmentsOf({1, kKeeper});
  const PageRange with_other = SegmentsOf({kOther, kKeeper});
  Allocate(with_first);
  Allocate(with_other);
  fails_ = 1;
  ReplaceTheDisk();
  LookOnce();
  ASSERT_TRUE(watches_.at(kKeeper)->found());
  EXPECT_EQ(watches_.at(kKeeper)->found()->pages(), 2 * kSegmentPages);
  const bool is_first_first = with_first.first < with_other.first;
  EXPECT_EQ((asked_[{NodeId(1), with_first.first}]), is_first_first ? 2 : 1);
  EXPECT_EQ((asked_[{NodeId(kOther), with_other.first}]), is_first_first ? 1 : 2);
}

// Of two extents one is partly kept by a node that goes meanwhile.
TEST_F(LostPagesTest, OnlyWhatIsConcernedByAChangeIsLookedAtAgain) {
  const PageRange with_first = SegmentsOf({1, kKeeper});
  const PageRange with_other = SegmentsOf({kOther, kKeeper});
  Allocate(with_first);
  Allocate(with_other);
  ReplaceTheDisk();
  // The second of them is asked about: the first is known.
  const TimeNs until = cluster_.In(2 * LostPages::kLookAgain);
  while (asked_.size() < 2 && cluster_.Step(until)) {
  }
  ASSERT_EQ(asked_.size(), 2u);
  cluster_.Leave(kOther);
  EXPECT_FALSE(watches_.at(kKeeper)->found());
  cluster_.RunFor(LostPages::kLookAgain / 2);
  ASSERT_TRUE(watches_.at(kKeeper)->found()) << "in the same look";
  EXPECT_EQ(watches_.at(kKeeper)->found()->pages(), 2 * kSegmentPages);
  EXPECT_EQ((asked_[{NodeId(1), with_first.first}]), 1);
}

}  // namespace
}  // namespace mangrove
