// A disk takes no more pages than leave room for what comes when another disk is lost.
// Covers: G13

#include <gmock/gmock.h>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kLeast = 80 * kMiB;

class PageEngineHeadroom : public testing::Test {
 protected:
  PageEngineHeadroom()
      : cluster_(3, [](PageEngineOptions& options) {
          options.least_free_bytes = kLeast;
          options.keep_headroom = true;
        }) {
    SetLogLevel(LogLevel::kOff);
    for (uint64_t node = 1; node <= 3; ++node) SetUsage(node, {.used_bytes = 200 * kMiB, .free_bytes = 500 * kMiB});
    first_ = cluster_.SegmentOf(1);
  }

  void SetUsage(uint64_t node, const StoreUsage& usage) { cluster_.host(node).store.usage = usage; }
  absl::Status Put(uint64_t node, PageRange range, uint64_t config, bool is_volatile = false) {
    return cluster_.Wait(
        cluster_.engine(node).PutExtent(range, ConfigNumber(config), 2, is_volatile, cluster_.In(kSecond)));
  }
  absl::Status Flush(uint64_t node, PageId page) {
    return cluster_.Wait(cluster_.engine(node).Flush({page, 1}, cluster_.In(kSecond)));
  }
  // A segment that this disk keeps, and one that it does not.
  PageId Segment(uint64_t node, bool kept) {
    PageId page = first_;
    while (cluster_.engine(1).disks().Keeps(NodeId(node), page, 2) != kept) page = page + kSegmentPages;
    return page;
  }

  EngineCluster cluster_;
  PageId first_;
};

TEST_F(PageEngineHeadroom, MoreIsTakenWhileWhatALostDiskBringsFits) {
  const PageRange range{Segment(2, true), kSegmentPages};
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 100 * kMiB + kLeast});
  EXPECT_TRUE(Put(1, range, 1).ok());
}

TEST_F(PageEngineHeadroom, NoMoreIsTakenThatWouldLeaveNoRoomForIt) {
  const PageRange range{Segment(2, true), kSegmentPages};
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 100 * kMiB + kLeast - 1});
  const absl::Status refused = Put(1, range, 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr("node 2"), HasSubstr("repair"), HasSubstr("unallocate")));
  // Those that said yes give it back, and it can be had later.
  EXPECT_TRUE(cluster_.Wait(cluster_.engine(1).DropExtent(range, ConfigNumber(1), 2, cluster_.In(kSecond))).ok());
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = 500 * kMiB});
  EXPECT_TRUE(Put(1, range, 2).ok());
}

TEST_F(PageEngineHeadroom, WhatIsThereIsWrittenPutAgainAndMadeNew) {
  const PageRange range{Segment(2, true), kSegmentPages};
  ASSERT_TRUE(Put(1, range, 1).ok());
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = kLeast});
  EXPECT_TRUE(Put(1, range, 1).ok()) << "nobody knows whether the one before was heard";
  EXPECT_TRUE(cluster_.Write(3, range.first, 7).ok());
  EXPECT_TRUE(Flush(3, range.first).ok());
  EXPECT_FALSE(Put(1, range, 2).ok());
}

TEST_F(PageEngineHeadroom, WhatOtherDisksKeepOrNoneIsNotRefused) {
  SetUsage(2, {.used_bytes = 200 * kMiB, .free_bytes = kLeast});
  EXPECT_TRUE(Put(1, {Segment(2, false), kSegmentPages}, 1).ok());
  EXPECT_TRUE(Put(1, {Segment(2, true), kSegmentPages}, 1, /*is_volatile=*/true).ok());
}

TEST_F(PageEngineHeadroom, WhatTheOthersHaveComesToADiskWithoutHeadroom) {
  for (uint64_t i = 0; i < 4; ++i) {
    const PageId page = first_ + i * kSegmentPages;
    ASSERT_TRUE(Put(1, {page, kSegmentPages}, 1).ok());
    ASSERT_TRUE(cluster_.Write(1, page, static_cast<uint8_t>(i + 1)).ok());
    ASSERT_TRUE(Flush(1, page).ok());
  }
  for (uint64_t node = 1; node <= 2; ++node) SetUsage(node, {.used_bytes = 200 * kMiB, .free_bytes = kLeast});
  cluster_.Leave(3);
  cluster_.Remove(3);
  for (uint64_t node = 1; node <= 2; ++node) {
    for (uint64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(cluster_.host(node).store.durable.pages.count((first_ + i * kSegmentPages).value), 1u)
          << node << " " << i;
    }
  }
}

}  // namespace
}  // namespace mangrove
