// In which order a disk gets what it lacks, and how fast (U10 and U11 of engine/catch_up.h).
//
// Covers: C06

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Four nodes; pages on three of them, some in each segment. Node 4 comes back with an empty disk.
class PageEngineRepairOrder : public DisksTest {
 protected:
  static constexpr int kSegments = 12;
  static constexpr uint64_t kPagesOfEach = 300;

  PageEngineRepairOrder() : DisksTest(4), first_(SegmentStart(kBase + 512 * kSegmentPages)) {
    for (int i = 0; i < kSegments; ++i) {
      CHECK(Put({Segment(i), kPagesOfEach}, 1, 3).ok());
      for (uint64_t k = 0; k < kPagesOfEach; ++k) CHECK(cluster_.Write(1, Segment(i) + k, 7).ok());
      CHECK(cluster_.Wait(cluster_.engine(1).Flush({Segment(i), kPagesOfEach}, cluster_.In(5 * kSecond))).ok());
    }
    cluster_.Leave(4);
    cluster_.lost = [this](const Message& m) {
      if (m.kind == MessageKind::kQueryStored && m.with_data) {
        for (uint64_t k = 0; k < std::max<uint64_t>(m.count, 1); ++k) asked_for_.push_back(m.page + k);
      }
      if (m.kind == MessageKind::kListStored && m.with_data) asked_.insert(m.request.value);
      return lose_lists_ && m.kind == MessageKind::kStoredList && asked_.contains(m.request.value);
    };
  }
  PageId Segment(int i) const { return first_ + static_cast<uint64_t>(i) * kSegmentPages; }
  // Is the page to come to node 4, and how many current disks have it?
  bool Comes(PageId page) const {
    const auto holders = cluster_.locator().CoreHolders(page, 3);
    return std::find(holders.begin(), holders.end(), NodeId(4)) != holders.end();
  }
  int Copies(PageId page) const {
    int copies = 0;
    for (const NodeId node : cluster_.locator().CoreHolders(page, 3)) copies += IsCurrent(node.value) ? 1 : 0;
    return copies;
  }
  std::vector<PageId> PagesOf(bool one_copy) const {
    std::vector<PageId> pages;
    for (int i = 0; i < kSegments; ++i) {
      if (!Comes(Segment(i)) || (Copies(Segment(i)) == 1) != one_copy) continue;
      for (uint64_t k = 0; k < kPagesOfEach; ++k) pages.push_back(Segment(i) + k);
    }
    return pages;
  }
  // How many others were asked for before the last of these.
  size_t OthersBefore(const std::vector<PageId>& pages) const {
    const std::set<PageId> wanted(pages.begin(), pages.end());
    size_t others = 0;
    size_t before = 0;
    for (const PageId page : asked_for_) {
      if (wanted.contains(page)) {
        before = others;
      } else {
        ++others;
      }
    }
    return before;
  }

  const PageId first_;
  std::vector<PageId> asked_for_;
  bool lose_lists_ = false;  // Of pages.
};

TEST_F(PageEngineRepairOrder, PagesWithOneCopyLeftComeFirst) {
  cluster_.Leave(3);
  const std::vector<PageId> one_copy = PagesOf(true);
  const std::vector<PageId> others = PagesOf(false);
  ASSERT_GT(one_copy.size(), 1200U);
  ASSERT_GT(others.size(), 300U);
  // They are between each other, and of more than one source.
  ASSERT_LT(others.front(), one_copy.back());
  asked_for_.clear();
  BackWithAnEmptyDisk(4);
  cluster_.RunFor(2 * kSecond);
  EXPECT_EQ(OthersBefore(one_copy), 0U);
  const CatchUpProgress progress = cluster_.engine(4).catch_up();
  EXPECT_EQ(progress.pages_copied, one_copy.size() + others.size());
  EXPECT_EQ(asked_for_.size(), one_copy.size() + others.size());
  // Each once with each disk that has it.
  EXPECT_EQ(progress.pages_compared, one_copy.size() + 2 * others.size());
  Back(3);
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsCurrent(4));
  for (const auto& pages : {one_copy, others}) {
    for (const PageId page : pages) ASSERT_EQ(ByteOnDisk(4, page), 7) << ToString(page);
  }
}

// Where each page has one copy, or each has more, there is nothing to put in order, nor to look at twice.
TEST_F(PageEngineRepairOrder, WithoutADifferenceEachPageIsComparedOnceWithEachDisk) {
  const std::vector<PageId> others = PagesOf(false);
  ASSERT_TRUE(PagesOf(true).empty());
  BackWithAnEmptyDisk(4);
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(IsCurrent(4));
  EXPECT_EQ(cluster_.engine(4).catch_up().pages_compared, 2 * others.size());
  EXPECT_EQ(cluster_.engine(4).catch_up().pages_copied, others.size());

  for (const uint64_t node : {2, 3, 4}) cluster_.Leave(node);
  BackWithAnEmptyDisk(4);
  cluster_.RunFor(kSecond);
  uint64_t on_1 = 0;
  for (const PageId page : PagesOf(true)) on_1 += cluster_.host(1).store.durable.pages.contains(page.value) ? 1 : 0;
  ASSERT_GT(on_1, 600U);
  EXPECT_EQ(cluster_.engine(4).catch_up().pages_compared, on_1);
  EXPECT_EQ(cluster_.engine(4).catch_up().pages_copied, on_1);
}

// What is on its way already stays so: here a list of a thousand pages.
TEST_F(PageEngineRepairOrder, WhatHasOneCopySinceAViewComesBeforeWhatWasNotComparedYet) {
  lose_lists_ = true;
  BackWithAnEmptyDisk(4);
  cluster_.RunFor(50 * kMillisecond);
  ASSERT_TRUE(asked_for_.empty());
  cluster_.Leave(3);
  const std::vector<PageId> one_copy = PagesOf(true);
  const std::vector<PageId> others = PagesOf(false);
  ASSERT_GT(one_copy.size(), 1200U);
  ASSERT_GT(others.size(), 300U);
  lose_lists_ = false;
  cluster_.RunFor(3 * kSecond);
  EXPECT_EQ(asked_for_.size(), one_copy.size() + others.size());
  EXPECT_LE(OthersBefore(one_copy), 1024U);
  EXPECT_LT(OthersBefore(one_copy), others.size());
  Back(3);
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsCurrent(4));
  for (const PageId page : one_copy) ASSERT_EQ(ByteOnDisk(4, page), 7) << ToString(page);
}

// --- A source that is lost in between ---------------------------------------------------------------------------------

// Node 1 is drained, and lost for ever when node 4 has the pages that it alone kept, but not yet the others.
TEST_F(PageEngineRepairOrder, WhatWasComparedCountsAsLearnedWhenItsDiskIsLost) {
  Back(4);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(4));
  const Locator next({NodeId(2), NodeId(3), NodeId(4)});
  PageId alone = Segment(kSegments);
  while (cluster_.locator().Primary(alone) != NodeId(1) || next.Primary(alone) != NodeId(4)) {
    alone = alone + kSegmentPages;
  }
  ASSERT_TRUE(Put({alone, 4}, 2, 1).ok());
  ASSERT_TRUE(WriteAndFlush(1, alone, 8).ok());
  ASSERT_EQ(ByteOnDisk(1, alone), 8);
  asked_for_.clear();
  cluster_.Place({2, 3, 4});
  StepUntil([&] { return ByteOnDisk(4, alone) == 8; });
  lose_lists_ = true;
  cluster_.RunFor(50 * kMillisecond);
  ASSERT_FALSE(cluster_.view().next_disks.empty());
  cluster_.Stop(NodeId(1));
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(1)}, .lost = {NodeId(1)}});
  lose_lists_ = false;
  cluster_.RunFor(3 * kSecond);
  ASSERT_TRUE(cluster_.view().next_disks.empty());
  const absl::StatusOr<int> written = cluster_.Read(2, alone);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(*written, 8);
  const absl::StatusOr<int> never_written = cluster_.Read(2, alone + 1);
  ASSERT_TRUE(never_written.ok()) << never_written.status();
  EXPECT_EQ(*never_written, 0);
}

// --- The rate ---------------------------------------------------------------------------------------------------------

class PageEngineRepairRate : public DisksTest {
 protected:
  static constexpr uint64_t kRate = 2 * kMiB;
  static constexpr uint64_t kPages = 3 * kSegmentPages;  // 6 MiB.

  PageEngineRepairRate()
      : DisksTest(2, [](PageEngineOptions& options) { options.repair_bytes_per_second = kRate; }),
        page_(cluster_.SegmentOf(1)) {
    cluster_.Allocate({page_, kPages + 1});
    for (uint64_t i = 0; i < kPages; ++i) CHECK(cluster_.Write(1, page_ + i, 8).ok());
    CHECK(cluster_.Wait(cluster_.engine(1).Flush({page_, kPages}, cluster_.In(5 * kSecond))).ok());
    cluster_.Leave(2);
    BackWithAnEmptyDisk(2);
  }
  CatchUpProgress Progress() { return cluster_.engine(2).catch_up(); }

  const PageId page_;
};

TEST_F(PageEngineRepairRate, IsHeldEvenlyAndRepairEnds) {
  const TimeNs begin = cluster_.clock.Now();
  std::vector<uint64_t> copied{0};
  while (!IsCurrent(2)) {
    cluster_.RunFor(100 * kMillisecond);
    copied.push_back(Progress().pages_copied * kPageBytes);
    ASSERT_LT(copied.size(), 100U) << "it does not end";
    if (IsCurrent(2)) break;
    EXPECT_EQ(Progress().limit_bytes_per_second, kRate);
    EXPECT_TRUE(Progress().is_held_by_limit);
  }
  const double seconds = static_cast<double>(cluster_.clock.Now() - begin) / 1e9;
  EXPECT_NEAR(seconds, 3.0, 0.2);
  EXPECT_EQ(copied.back(), kPages * kPageBytes);
  EXPECT_FALSE(Progress().is_held_by_limit);
  // In each second what the rate allows, beside what a tenth of a second may hold over; and no second with nothing.
  constexpr size_t kWindow = 10;
  for (size_t i = 0; i + kWindow < copied.size(); ++i) {
    const auto in_a_second = static_cast<double>(copied[i + kWindow] - copied[i]);
    EXPECT_LE(in_a_second, 1.2 * kRate) << i;
    EXPECT_GE(in_a_second, 0.9 * kRate) << i;
  }
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_EQ(ByteOnDisk(2, page_ + i), 8) << i;
}

TEST_F(PageEngineRepairRate, WhatIsStoredDoesNotWaitForIt) {
  cluster_.RunFor(500 * kMillisecond);
  ASSERT_TRUE(Progress().is_held_by_limit);
  const TimeNs begin = cluster_.clock.Now();
  ASSERT_TRUE(WriteAndFlush(1, page_ + kPages, 9).ok());
  EXPECT_LT(cluster_.clock.Now() - begin, 20 * kMillisecond);
  EXPECT_EQ(ByteOnDisk(2, page_ + kPages), 9);
}

TEST_F(PageEngineRepairRate, WhoIsShutDownWhileItWaitsStops) {
  cluster_.RunFor(500 * kMillisecond);
  ASSERT_TRUE(Progress().is_held_by_limit);
  cluster_.engine(2).Shutdown();
  cluster_.RunFor(10 * kMillisecond);
  cluster_.sent_by.clear();
  cluster_.RunFor(2 * kSecond);
  EXPECT_EQ(cluster_.sent_by[2], 0);
  Back(2);
  cluster_.RunFor(6 * kSecond);
  EXPECT_TRUE(IsCurrent(2));
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_EQ(ByteOnDisk(2, page_ + i), 8) << i;
}

TEST_F(PageEngineRepairRate, WithAnotherViewItGoesOnAtTheSameRate) {
  for (int i = 0; i < 10; ++i) {
    cluster_.RunFor(200 * kMillisecond);
    cluster_.ChangeView({});
  }
  cluster_.RunFor(kSecond + 300 * kMillisecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_EQ(Progress().pages_copied, kPages);
}

}  // namespace
}  // namespace mangrove
