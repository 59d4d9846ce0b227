// Disks go by views: what happens at the edges.
// Covers: C06

#include "absl/strings/str_cat.h"
#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

class PageEngineDisksEdges : public PageEngineViewsTest {
 protected:
  // `count` segments side by side whose primaries are these.
  static PageId SegmentsOf(EngineCluster& cluster, const std::vector<uint64_t>& primaries, PageId from = kBase) {
    PageId page = SegmentStart(from + (kSegmentPages - 1));
    const auto fits = [&] {
      for (size_t i = 0; i < primaries.size(); ++i) {
        if (cluster.locator().Primary(page + i * kSegmentPages) != NodeId(primaries[i])) return false;
      }
      return true;
    };
    while (!fits()) page = page + kSegmentPages;
    return page;
  }
  static bool Has(EngineCluster& cluster, uint64_t node, PageId page) {
    return cluster.engine(node).core_holder().Find(page) != nullptr;
  }
};

// A volatile range that is allocated while its primary is away: no page of it was ever touched.
TEST_F(PageEngineDisksEdges, VolatilePagesAreMadeWhileThePrimaryIsAway) {
  EngineCluster cluster(3);
  const PageId page = SegmentsOf(cluster, {3});
  cluster.Leave(3);
  cluster.Allocate({page, 16}, 1, /*is_volatile=*/true);
  const absl::Status s = cluster.Write(1, page, 7);
  EXPECT_TRUE(s.ok()) << s;
}

// The same, the primary being there, and behind.
TEST_F(PageEngineDisksEdges, VolatilePagesAreMadeWhileThePrimaryCatchesUp) {
  EngineCluster cluster(3);
  const PageId page = SegmentsOf(cluster, {3});
  cluster.Leave(3);
  cluster.dropped.insert(MessageKind::kStoredList);
  cluster.Start({NodeId(3), Incarnation(2)});
  cluster.RunFor(kSecond);
  cluster.Allocate({page, 16}, 1, /*is_volatile=*/true);
  const absl::Status s = cluster.Write(1, page, 7);
  EXPECT_TRUE(s.ok()) << s;
}

// A node leaves that had no part in it.
TEST_F(PageEngineDisksEdges, VolatilePagesThatNobodyTouchedOutliveAnotherNode) {
  EngineCluster cluster(4);
  const PageId page = SegmentsOf(cluster, {1});
  cluster.Allocate({page, 16}, 1, /*is_volatile=*/true);
  cluster.Leave(4);
  const absl::Status s = cluster.Write(1, page, 7);
  EXPECT_TRUE(s.ok()) << s;
}

// One source confirms an extent as a whole, of which another would have said that the half is gone.
TEST_F(PageEngineDisksEdges, EachHolderSaysWhatOfAnExtentIsLeft) {
  EngineCluster cluster(4);
  const PageId first = SegmentsOf(cluster, {1, 4});  // On 1 and 2; on 4 and 1.
  const PageId second = first + kSegmentPages;
  cluster.Allocate({first, 2 * kSegmentPages}, 3);
  cluster.Leave(1);
  const absl::Status dropped =
      cluster.Wait(cluster.engine(2).DropExtent({second, kSegmentPages}, ConfigNumber(3), 2, cluster.In(5 * kSecond)));
  ASSERT_TRUE(dropped.ok()) << dropped;
  ASSERT_FALSE(Has(cluster, 4, second));
  cluster.Start({NodeId(1), Incarnation(2)});
  cluster.RunFor(5 * kSecond);
  ASSERT_TRUE(cluster.view().behind.empty());
  EXPECT_TRUE(Has(cluster, 1, first));
  EXPECT_FALSE(Has(cluster, 1, second));
  // It is its second holder; with the primary away it says that the page is allocated.
  cluster.Leave(4);
  const absl::StatusOr<int> read = cluster.Read(2, second);
  EXPECT_FALSE(read.ok()) << "unallocated page reads as " << *read;
}

// What a node keeps of an extent for another one's sake is never dropped, and is told to holders.
TEST_F(PageEngineDisksEdges, WhatIsUnallocatedDoesNotComeBackByAnotherDisk) {
  EngineCluster cluster(4);
  const PageId first = SegmentsOf(cluster, {1, 2});  // On 1 and 2; on 2 and 3.
  const PageId second = first + kSegmentPages;
  cluster.Allocate({first, 2 * kSegmentPages}, 3);
  ASSERT_TRUE(Has(cluster, 1, second));
  cluster.Leave(1);
  const absl::Status dropped = cluster.Wait(
      cluster.engine(2).DropExtent({first, 2 * kSegmentPages}, ConfigNumber(3), 2, cluster.In(5 * kSecond)));
  ASSERT_TRUE(dropped.ok()) << dropped;
  cluster.Start({NodeId(1), Incarnation(2)});
  cluster.RunFor(5 * kSecond);
  ASSERT_TRUE(cluster.view().behind.empty());
  EXPECT_FALSE(Has(cluster, 1, first));
  EXPECT_FALSE(Has(cluster, 1, second)) << "a stale extent stays";
  // The second segment's primary restarts, a little late.
  cluster.Leave(2);
  cluster.Start({NodeId(2), Incarnation(2)});
  cluster.RunFor(5 * kSecond);
  ASSERT_TRUE(cluster.view().behind.empty());
  EXPECT_FALSE(Has(cluster, 2, second)) << "it has spread to its primary";
  const absl::StatusOr<int> read = cluster.Read(4, second);
  EXPECT_FALSE(read.ok()) << "unallocated page reads as " << *read;
}

// An allocation that goes on over a restart of a holder, while that one's list of another is on its way.
TEST_F(PageEngineDisksEdges, AnExtentThatIsPutAgainIsNotDropped) {
  EngineCluster cluster(3);
  const PageId page = SegmentsOf(cluster, {2});  // On 2 and 3.
  Message put;
  put.kind = MessageKind::kPutExtent;
  put.page = page;
  put.count = 16;
  put.config = ConfigNumber(7);
  put.replicas = 2;
  cluster.Inject(2, 1, put);  // That to node 3 is lost.
  cluster.RunFor(kMillisecond);
  ASSERT_TRUE(Has(cluster, 2, page));
  cluster.Leave(2);
  cluster.sent[MessageKind::kStoredList] = 0;
  cluster.Start({NodeId(2), Incarnation(2)});
  while (cluster.sent[MessageKind::kStoredList] < 2) ASSERT_TRUE(cluster.Step(cluster.In(kSecond)));
  // Node 3's list is on its way. The allocation is tried again, in this view: both say that it is done.
  const int done = cluster.sent[MessageKind::kDone];
  cluster.Inject(3, 1, put);
  cluster.Inject(2, 1, put);
  cluster.RunFor(3 * kSecond);
  ASSERT_GE(cluster.sent[MessageKind::kDone], done + 2);
  ASSERT_TRUE(cluster.view().behind.empty());
  EXPECT_TRUE(Has(cluster, 3, page));
  EXPECT_TRUE(Has(cluster, 2, page)) << "an allocation that was acknowledged is gone";
  const absl::Status written = cluster.Write(1, page, 7);
  const absl::Status flushed = written.ok() ? Flush(cluster, 1, page) : written;
  EXPECT_TRUE(flushed.ok()) << flushed;
}

// Two disks of equal rank catch up, and do not look at each other.
TEST_F(PageEngineDisksEdges, DisksThatWereAwayEquallyLongAgreeInTheEnd) {
  EngineCluster cluster(4);
  const PageId page = SegmentsOf(cluster, {3});  // On 3 and 4.
  cluster.Allocate({page, 16}, 3);
  cluster.RunFor(kSecond);
  ASSERT_TRUE(cluster.Write(1, page, 9).ok());
  cluster.cut.insert(NodeId(3));
  const Pending flush = Begin(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond / 2)));  // Reaches 4 alone.
  cluster.RunFor(2 * kSecond);
  ASSERT_FALSE(IsOk(flush));
  cluster.cut.clear();
  // 3, 4 and the owner are lost at once.
  for (uint64_t node : {1, 3, 4}) cluster.Stop(NodeId(node));
  cluster.ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(1), NodeId(3), NodeId(4)}});
  cluster.slow = {NodeId(3), NodeId(4)};
  cluster.StartTogether({{NodeId(1), Incarnation(2)}, {NodeId(3), Incarnation(2)}, {NodeId(4), Incarnation(2)}});
  while (!cluster.IsFinishing(3) || !cluster.IsFinishing(4)) ASSERT_TRUE(cluster.Step(cluster.In(kSecond)));
  // Node 3's disk is a little faster.
  cluster.slow = {NodeId(4)};
  while (cluster.view().behind.contains(NodeId(3))) ASSERT_TRUE(cluster.Step(cluster.In(kSecond)));
  ASSERT_TRUE(cluster.view().behind.contains(NodeId(4)));
  const absl::StatusOr<int> before = cluster.Read(2, page);
  ASSERT_TRUE(before.ok()) << before.status();
  cluster.slow.clear();
  cluster.RunFor(3 * kSecond);
  ASSERT_TRUE(cluster.view().behind.empty());
  cluster.Leave(2);
  const absl::StatusOr<int> read = cluster.Read(1, page);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, *before) << "what was lost is back";
}

// One has learned the extent, and not yet the pages, when the other loses its disk too. Then it learns the extent from the first.
TEST_F(PageEngineDisksEdges, PagesThatEveryDiskHasLostAreNotZeros) {
  EngineCluster cluster(3);
  const PageId page = SegmentsOf(cluster, {2});  // On 2 and 3.
  cluster.Allocate({page, 16}, 1);
  ASSERT_TRUE(cluster.Write(1, page, 7).ok());
  ASSERT_TRUE(Flush(cluster, 1, page).ok());
  cluster.Leave(1);
  cluster.Start({NodeId(1), Incarnation(2)});
  cluster.RunFor(5 * kSecond);
  cluster.lost = [](const Message& m) { return m.kind == MessageKind::kListStored && m.with_data; };
  cluster.StartWithAnEmptyDisk({NodeId(3), Incarnation(2)});
  cluster.RunFor(kSecond);
  ASSERT_TRUE(Has(cluster, 3, page));
  cluster.slow = {NodeId(2)};
  cluster.StartWithAnEmptyDisk({NodeId(2), Incarnation(2)});
  cluster.lost = nullptr;
  while (cluster.view().behind.contains(NodeId(3))) ASSERT_TRUE(cluster.Step(cluster.In(kSecond)));
  ASSERT_TRUE(cluster.view().behind.contains(NodeId(2)));
  cluster.slow.clear();
  cluster.RunFor(5 * kSecond);
  ASSERT_TRUE(cluster.view().behind.empty());
  for (int start = 3; start < 5; ++start) {
    const absl::StatusOr<int> read = cluster.Read(1, page);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kDataLoss) << (read.ok() ? "zeros" : read.status().ToString());
    for (uint64_t node : {1, 2, 3}) cluster.Start({NodeId(node), Incarnation(static_cast<uint64_t>(start))});
    cluster.RunFor(kSecond);
  }
}

// The same of one that is there, for a disk that is new.
TEST_F(PageEngineDisksEdges, ALargeRangeIsLearnedAsOne) {
  for (const int shift : {26, 34}) {
    EngineCluster cluster(3);
    const PageId page = SegmentsOf(cluster, {3});
    cluster.Allocate({page, uint64_t{1} << shift}, 3);
    cluster.Leave(3);
    cluster.StartWithAnEmptyDisk({NodeId(3), Incarnation(2)});
    cluster.RunFor(kSecond);
    EXPECT_TRUE(cluster.view().behind.empty());
  }
}

// That an extent is not learned any more is made durable by a later attempt, if the first one fails.
TEST_F(CoreHolderTest, LearningEndsWhenAnEarlierAttemptHasFailed) {
  Message put = Put(kBase, 10, 5);
  put.complete = true;
  ASSERT_EQ(Call(put).code, absl::StatusCode::kOk);
  const auto all = [](const Extent&) { return true; };
  store_.Commit(holder_->EndLearning(all), [](absl::Status) {});
  store_.FailCommit();
  holder_->UndoEndLearning();
  store_.Commit(holder_->EndLearning(all), [](absl::Status) {});
  store_.FinishAll();
  Restart();
  EXPECT_FALSE(holder_->Find(kBase)->learned);
}

class PageEngineDisksOfFive : public DisksTest {
 protected:
  PageEngineDisksOfFive() : DisksTest(5) {}
};

// V6 of engine/follow_view.cc: the owner's copy is all that there is, so that what a flush says is true only if it stores it.
TEST_F(PageEngineDisksOfFive, WhatWasFlushedToDisksThatAreGivenUpIsFlushedAnew) {
  const PageId page = PageOn({2, 3});
  ASSERT_TRUE(WriteAndFlush(1, page, 7).ok());
  LeaveTogether({2, 3});
  const Pending early = BeginFlush(1, page, kSecond);
  cluster_.RunFor(100 * kMillisecond);
  EXPECT_TRUE(IsOk(early)) << "they may come back with it: " << Show(early);
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {}, .lost = {NodeId(2), NodeId(3)}});
  cluster_.Place({1, 4, 5});
  cluster_.RunFor(2 * kSecond);
  ASSERT_FALSE(cluster_.view().disks.contains(NodeId(2)));
  ASSERT_TRUE(Flush(cluster_, 1, page).ok());
  cluster_.Leave(1);
  const absl::StatusOr<int> read = cluster_.Read(4, page);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, 7);
}

TEST_F(PageEngineDisksOfFive, AlsoWhereTheyComeBackEmpty) {
  const PageId page = PageOn({2, 3});
  ASSERT_TRUE(WriteAndFlush(1, page, 7).ok());
  LeaveTogether({2, 3});
  BackWithAnEmptyDisk(2);
  BackWithAnEmptyDisk(3);
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(Flush(cluster_, 1, page).ok());
  cluster_.Leave(1);
  const absl::StatusOr<int> read = cluster_.Read(4, page);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, 7);
}

class PageEngineDisksOfFiveWithLittleRam : public DisksTest {
 protected:
  static constexpr uint64_t kCache = 32;
  PageEngineDisksOfFiveWithLittleRam()
      : DisksTest(5, [](PageEngineOptions& options) {
          options.cache_pages = kCache;
          options.evict_to_peers = false;
        }) {}
};

// What its owner has asked to drop, since it was flushed, it does not drop.
TEST_F(PageEngineDisksOfFiveWithLittleRam, SoIsWhatWasAboutToBeEvicted) {
  const PageId page = PageOn({2, 3});
  const PageId other = PageOn({4, 5});
  for (const PageId first : {page, other}) ASSERT_TRUE(cluster_.Read(4, first + kCache).ok());  // It is responsible.
  constexpr uint64_t kPages = 24;
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(WriteAndFlush(1, page + i, 7).ok());
  cluster_.dropped.insert(MessageKind::kEvictGrant);
  const auto fill = [&] {
    for (uint64_t i = 0; i < kCache / 2; ++i) {
      Spawn<absl::Status>(cluster_.engine(1).Acquire({other + i, 1}, Rights::kWrite, cluster_.In(kSecond)),
                          [](const absl::Status&) {});
    }
  };
  fill();
  cluster_.RunFor(100 * kMillisecond);
  int evicting = 0;
  for (uint64_t i = 0; i < kPages; ++i) evicting += cluster_.engine(1).Describe(page + i).cache_state == "Evicting";
  ASSERT_GT(evicting, 0);
  LeaveTogether({2, 3});
  cluster_.ChangeView({.epoch = {}, .joins = {}, .leaves = {}, .lost = {NodeId(2), NodeId(3)}});
  cluster_.dropped.clear();
  cluster_.Place({1, 4, 5});
  cluster_.RunFor(2 * kSecond);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({page, kPages}, cluster_.In(5 * kSecond))).ok());
  cluster_.Leave(1);
  for (uint64_t i = 0; i < kPages; ++i) {
    const absl::StatusOr<int> read = cluster_.Read(4, page + i);
    ASSERT_TRUE(read.ok()) << i << " " << read.status();
    EXPECT_EQ(*read, 7) << i;
  }
}

}  // namespace
}  // namespace mangrove
