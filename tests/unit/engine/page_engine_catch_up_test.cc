// A disk that is behind learns from the others (engine/catch_up.h).
//
// Covers: C06

#include "engine/stored_list.h"
#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

using testing::ElementsAre;

// Both nodes keep all pages. Node 1 writes them, and node 2 is away at times.
class PageEngineCatchUp : public DisksTest {
 protected:
  explicit PageEngineCatchUp(int nodes = 2) : DisksTest(nodes), page_(cluster_.SegmentOf(1)) {
    cluster_.Allocate({page_, 16});
  }
  // Node 2 has 7 in the first pages, and comes back when they hold 8.
  void Miss(uint64_t pages) {
    for (uint64_t i = 0; i < pages; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
    cluster_.Leave(2);
    for (uint64_t i = 0; i < pages; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 8).ok());
  }
  void ExpectCurrentSoon(uint64_t node) {
    cluster_.RunFor(2 * kSecond);
    EXPECT_TRUE(IsCurrent(node));
    EXPECT_FALSE(cluster_.engine(node).catch_up().is_behind);
  }

  const PageId page_;
};

TEST_F(PageEngineCatchUp, TakesOnlyThePagesThatDiffer) {
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
  cluster_.Leave(2);
  ASSERT_TRUE(WriteAndFlush(1, page_ + 3, 8).ok());
  Back(2);
  ExpectCurrentSoon(2);
  const CatchUpProgress progress = cluster_.engine(2).catch_up();
  EXPECT_EQ(progress.pages_copied, 1u);
  EXPECT_GE(progress.pages_compared, 8u);
  EXPECT_EQ(progress.pages_lost, 0u);
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(VersionOnDisk(2, page_ + i), VersionOnDisk(1, page_ + i)) << i;
  EXPECT_EQ(ByteOnDisk(2, page_ + 3), 8);
}

TEST_F(PageEngineCatchUp, ABlankDiskTakesEverything) {
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
  const PageRange volatile_range{page_ + 64, 4};
  cluster_.Allocate(volatile_range, 3, /*is_volatile=*/true);
  cluster_.Leave(2);
  BackWithAnEmptyDisk(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_copied, 8u);
  ASSERT_NE(ExtentAt(2, volatile_range.first), nullptr);
  EXPECT_TRUE(ExtentAt(2, volatile_range.first)->is_volatile);
  EXPECT_EQ(ExtentAt(2, volatile_range.first)->config, ConfigNumber(3));
  ExpectFromDisk(2, page_ + 7, 7);
  EXPECT_EQ(cluster_.Read(2, page_ + 8).value_or(-1), 0);  // Never stored.
}

// Its disk was put in the place of another while the view had its node.
TEST_F(PageEngineCatchUp, ADiskThatWasLostWithinTheViewTakesEverything) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  BackWithAnEmptyDisk(2);
  EXPECT_FALSE(IsCurrent(2));
  ExpectCurrentSoon(2);
  ExpectFromDisk(2, page_, 7);
}

// --- While pages are stored -------------------------------------------------------------------------------------------

TEST_F(PageEngineCatchUp, WhatIsStoredBetweenTheListAndTheCopyStays) {
  Miss(1);
  Hold(MessageKind::kStoredInfo);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(WriteAndFlush(1, page_, 9).ok());
  ASSERT_EQ(ByteOnDisk(2, page_), 9);
  Release(2, 1);  // Of the content before.
  ExpectCurrentSoon(2);
  EXPECT_EQ(ByteOnDisk(2, page_), 9);
  ExpectFromDisk(2, page_, 9);
}

TEST_F(PageEngineCatchUp, WhatIsStoredAfterTheListWasMadeStays) {
  Miss(2);
  HoldLists(/*pages=*/true);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(WriteAndFlush(1, page_, 9).ok());
  ASSERT_TRUE(WriteAndFlush(1, page_ + 5, 9).ok());  // Which the list does not have.
  Release(2, 1);
  ExpectCurrentSoon(2);
  EXPECT_EQ(ByteOnDisk(2, page_), 9);
  EXPECT_EQ(ByteOnDisk(2, page_ + 1), 8);
  EXPECT_EQ(ByteOnDisk(2, page_ + 5), 9);
  ExpectFromDisk(2, page_ + 5, 9);
}

// Whatever its number: it is not what others have.
TEST_F(PageEngineCatchUp, AStoreReplacesWhatIsInDoubt) {
  Plant(2, page_, 99);
  cluster_.Leave(2);
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  Hold(MessageKind::kStoredList);
  Back(2);
  ASSERT_TRUE(Flush(cluster_, 1, page_).ok());
  EXPECT_EQ(ByteOnDisk(2, page_), 8);
  cluster_.lost = nullptr;
  ExpectCurrentSoon(2);
  EXPECT_EQ(VersionOnDisk(2, page_), VersionOnDisk(1, page_));
}

TEST_F(PageEngineCatchUp, WhatNobodyElseHasIsDeleted) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  Plant(2, page_, 98);
  Plant(2, page_ + 5, 99);
  cluster_.Leave(2);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(VersionOnDisk(2, page_), VersionOnDisk(1, page_));
  EXPECT_EQ(ByteOnDisk(2, page_ + 5), -1);
  ExpectFromDisk(2, page_ + 5, 0);
}

TEST_F(PageEngineCatchUp, AFlushOfAPageThatIsNotKnownHereYetWaitsForTheList) {
  const PageRange added{page_ + 32, 4};
  cluster_.Leave(2);
  cluster_.Allocate(added, 2);
  ASSERT_TRUE(cluster_.Write(1, added.first, 8).ok());
  Hold(MessageKind::kStoredList);
  Back(2);
  const Pending flush = BeginFlush(1, added.first);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(flush->has_value()) << Show(flush);
  cluster_.lost = nullptr;
  ExpectCurrentSoon(2);
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  EXPECT_EQ(ByteOnDisk(2, added.first), 8);
}

// --- While extents change ---------------------------------------------------------------------------------------------

TEST_F(PageEngineCatchUp, WhatIsDroppedWhileTheListIsOnItsWayDoesNotComeBack) {
  Miss(1);
  HoldLists(/*pages=*/false);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(Drop({page_, 4}).ok());
  Release(2, 1);
  ExpectCurrentSoon(2);
  EXPECT_EQ(ExtentAt(2, page_), nullptr);
  EXPECT_EQ(ByteOnDisk(2, page_), -1);
  EXPECT_NE(ExtentAt(2, page_ + 4), nullptr);
}

TEST_F(PageEngineCatchUp, NorDoesWhatThisDiskNeverKnew) {
  const PageRange added{page_ + 32, 4};
  cluster_.Leave(2);
  cluster_.Allocate(added, 2);
  HoldLists(/*pages=*/false);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(Drop(added, 2).ok());
  Release(2, 1);
  ExpectCurrentSoon(2);
  EXPECT_EQ(ExtentAt(2, added.first), nullptr);
}

TEST_F(PageEngineCatchUp, WhatIsDroppedWhileThePagesListIsOnItsWayDoesNotComeBack) {
  Miss(2);
  HoldLists(/*pages=*/true);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(Drop({page_, 1}).ok());
  Release(2, 1);
  ExpectCurrentSoon(2);
  EXPECT_EQ(ExtentAt(2, page_), nullptr);
  EXPECT_EQ(ByteOnDisk(2, page_), -1);
  EXPECT_EQ(ByteOnDisk(2, page_ + 1), 8);
}

TEST_F(PageEngineCatchUp, WhatIsAllocatedWhileTheListIsOnItsWayStays) {
  const PageRange added{page_ + 32, 4};
  Miss(1);
  HoldLists(/*pages=*/false);
  Back(2);
  StepUntilHeld();
  cluster_.Allocate(added, 2);
  ASSERT_TRUE(WriteAndFlush(1, added.first, 9).ok());
  Release(2, 1);
  ExpectCurrentSoon(2);
  ASSERT_NE(ExtentAt(2, added.first), nullptr);
  EXPECT_EQ(ExtentAt(2, added.first)->config, ConfigNumber(2));
  EXPECT_EQ(ByteOnDisk(2, added.first), 9);
}

TEST_F(PageEngineCatchUp, AndWhatIsAllocatedAnewIsNotReplacedByWhatWasThere) {
  Miss(2);
  HoldLists(/*pages=*/false);
  Back(2);
  StepUntilHeld();
  ASSERT_TRUE(Drop({page_, 16}).ok());
  cluster_.Allocate({page_, 16}, 2);
  ASSERT_TRUE(WriteAndFlush(1, page_, 9).ok());
  Release(2, 1);
  ExpectCurrentSoon(2);
  ASSERT_NE(ExtentAt(2, page_), nullptr);
  EXPECT_EQ(ExtentAt(2, page_)->config, ConfigNumber(2));
  ExpectFromDisk(2, page_, 9);
  EXPECT_EQ(cluster_.Read(2, page_ + 1).value_or(-1), 0);
}

// An unallocation that got no further.
TEST_F(PageEngineCatchUp, WhatOnlyThisDiskHasDroppedComesBack) {
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
  Message drop;
  drop.kind = MessageKind::kDropExtent;
  drop.page = page_ + 1;
  drop.count = 1;
  drop.config = ConfigNumber(1);
  cluster_.Inject(2, 1, drop);
  cluster_.RunFor(10 * kMillisecond);
  ASSERT_EQ(ExtentAt(2, page_ + 1), nullptr);
  cluster_.Leave(2);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_NE(ExtentAt(2, page_ + 1), nullptr);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(ByteOnDisk(2, page_ + i), 7) << i;
}

// --- Sources ----------------------------------------------------------------------------------------------------------

// Three nodes, and all keep page_.
class PageEngineCatchUpOfThree : public PageEngineCatchUp {
 protected:
  PageEngineCatchUpOfThree() : PageEngineCatchUp(3) {
    EXPECT_TRUE(Put({page_, 16}, 2, 3).ok());
    for (uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
    cluster_.Leave(3);
    for (uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(WriteAndFlush(1, page_ + i, 8).ok());
  }
};

// And node 1 may have had more, in pages that it alone kept meanwhile.
TEST_F(PageEngineCatchUpOfThree, AnotherTakesThePlaceOfOneThatLeaves) {
  Hold(MessageKind::kStoredInfo);
  Back(3);
  StepUntilHeld();
  cluster_.Leave(1);
  cluster_.lost = nullptr;
  cluster_.RunFor(kSecond);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(ByteOnDisk(3, page_ + i), 8) << i;
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_THAT(WaitsFor(3), ElementsAre(NodeId(1)));
  Back(1);
  ExpectCurrentSoon(3);
  ExpectCurrentSoon(1);
  ExpectFromDisk(3, page_, 8, 3);
}

TEST_F(PageEngineCatchUpOfThree, AnyStepOfItMayBeTheLastOfTheSource) {
  bool is_over = false;
  for (int steps = 0; !is_over && !HasFailure(); ++steps) {
    Back(3);
    for (int i = 0; i < steps; ++i) cluster_.Step(cluster_.In(kSecond));
    is_over = IsCurrent(3);
    cluster_.Leave(1);
    cluster_.RunFor(100 * kMillisecond);
    Back(1);
    cluster_.RunFor(kSecond);
    ASSERT_TRUE(IsCurrent(1)) << steps;
    ASSERT_TRUE(IsCurrent(3)) << steps;
    const auto value = static_cast<uint8_t>(steps % 200 + 9);
    cluster_.Leave(3);
    ASSERT_TRUE(WriteAndFlush(1, page_, value).ok()) << steps;
    ASSERT_EQ(ByteOnDisk(2, page_), value) << steps;
  }
}

// Two are behind, and the one has nothing to tell the other.
TEST_F(PageEngineCatchUpOfThree, WhoIsBehindItselfTellsNothing) {
  Hold(MessageKind::kListStored);
  Back(3);
  cluster_.RunFor(10 * kMillisecond);
  Message ask;
  ask.kind = MessageKind::kListStored;
  ask.request = RequestId(uint64_t{1} << 50);
  cluster_.sent.clear();
  cluster_.Inject(3, 2, ask);
  cluster_.RunFor(10 * kMillisecond);
  EXPECT_EQ(cluster_.sent[MessageKind::kStoredList], 0);
  cluster_.Inject(2, 3, ask);
  cluster_.RunFor(10 * kMillisecond);
  EXPECT_EQ(cluster_.sent[MessageKind::kStoredList], 1);
}

// --- Pages that cannot be read ----------------------------------------------------------------------------------------

TEST_F(PageEngineCatchUp, AVersionThatIsHereIsNotFetched) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  PlantLost(1, page_, VersionOnDisk(1, page_));
  cluster_.Leave(2);
  Back(1);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 0u);
  EXPECT_EQ(cluster_.Read(1, page_).value_or(-1), 7);
  EXPECT_EQ(cluster_.host(1).store.durable.records.count(LostKey(page_)), 0u);  // Mended from there.
  ExpectFromDisk(2, page_, 7);
}

TEST_F(PageEngineCatchUpOfThree, APageThatOneCannotReadIsTakenFromAnother) {
  cluster_.host(1).store.corrupt.insert(page_.value);
  cluster_.host(2).store.corrupt.insert((page_ + 1).value);
  Back(3);
  ExpectCurrentSoon(3);
  EXPECT_EQ(cluster_.engine(3).catch_up().pages_lost, 0u);
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
  EXPECT_EQ(ByteOnDisk(3, page_ + 1), 8);
}

// Found out only when it is asked for.
TEST_F(PageEngineCatchUpOfThree, AlsoWhenTheListHasIt) {
  Hold(MessageKind::kQueryStored);
  Back(3);
  StepUntilHeld();
  cluster_.host(1).store.corrupt.insert(page_.value);
  cluster_.lost = nullptr;
  ExpectCurrentSoon(3);
  EXPECT_EQ(cluster_.engine(3).catch_up().pages_lost, 0u);
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
}

TEST_F(PageEngineCatchUp, WhileTheDisksAreAskedAgainALostPageIsLost) {
  Miss(2);
  Back(1);
  cluster_.host(1).store.corrupt.insert(page_.value);
  Back(2);
  ExpectCurrentSoon(2);
  ASSERT_EQ(cluster_.Read(2, page_).status().code(), absl::StatusCode::kDataLoss);
  const auto states = [this] {
    std::vector<std::string> known;
    for (const uint64_t node : {1, 2}) {
      const PageSummary summary = cluster_.engine(node).Describe(page_);
      if (summary.home_known) known.push_back(summary.home_state);
    }
    return known;
  };
  ASSERT_THAT(states(), testing::ElementsAre("Lost"));
  Hold(MessageKind::kStoredInfo);
  Spawn<absl::Status>(cluster_.engine(2).Acquire({page_, 1}, Rights::kRead, cluster_.In(kSecond)),
                      [](const absl::Status&) {});
  StepUntilHeld();
  EXPECT_THAT(states(), testing::ElementsAre("Lost"));
  cluster_.lost = nullptr;
  cluster_.RunFor(2 * kSecond);
}

TEST_F(PageEngineCatchUp, APageThatNobodyCanReadIsLostAndNotOlder) {
  Miss(2);
  Back(1);  // Nothing is in RAM.
  cluster_.host(1).store.corrupt.insert(page_.value);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 1u);
  EXPECT_EQ(cluster_.Read(2, page_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cluster_.Read(2, page_ + 1).value_or(-1), 8);
  for (const uint64_t node : {1, 2}) Back(node);  // It knows that for good.
  EXPECT_EQ(cluster_.Read(2, page_).status().code(), absl::StatusCode::kDataLoss);
  LeaveOnlyTheDiskOf(2, page_);  // The other one may be mended.
  EXPECT_EQ(cluster_.Read(2, page_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cluster_.Read(2, page_ + 1).value_or(-1), 8);
}

// A flush brought it there, and failed on the other disk, whose version may have been read since: it is void (D3).
TEST_F(PageEngineCatchUp, ALaterVersionThanThatWhichNobodyCanReadIsNotHandedOut) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  PlantLost(1, page_, VersionOnDisk(1, page_));
  Plant(2, page_, 99);
  cluster_.Leave(2);
  Back(1);  // Nothing is in RAM.
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 1u);
  EXPECT_EQ(cluster_.Read(1, page_).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(PageEngineCatchUp, AStoreEndsThatAPageIsLost) {
  Miss(1);
  cluster_.host(1).store.corrupt.insert(page_.value);
  Back(2);
  ExpectCurrentSoon(2);
  ASSERT_EQ(cluster_.engine(2).catch_up().pages_lost, 1u);
  ASSERT_TRUE(WriteAndFlush(1, page_, 9).ok());  // Node 1 has it in RAM.
  EXPECT_EQ(ByteOnDisk(1, page_), 9);
  ExpectFromDisk(2, page_, 9);
}

TEST_F(PageEngineCatchUp, SoDoesAnUnallocation) {
  Miss(1);
  cluster_.host(1).store.corrupt.insert(page_.value);
  Back(2);
  ExpectCurrentSoon(2);
  ASSERT_TRUE(Drop({page_, 16}).ok());
  cluster_.Allocate({page_, 16}, 2);
  ExpectFromDisk(2, page_, 0);
}

// One has a record that it cannot read, and the other one, which counts, none: nothing was acknowledged, and who asks gets zeros. So
// does who learns from the first alone later.
TEST_F(PageEngineCatchUp, WhatWasNeverAcknowledgedAndIsCorruptGivesWayToZeros) {
  const PageId page = page_ + 1;
  PlantLost(1, page, {Epoch(1), 1});
  for (const uint64_t node : {1, 2}) Back(node);  // Nothing is in RAM.
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(1) && IsCurrent(2));
  ASSERT_EQ(cluster_.Read(1, page).value_or(-1), 0);
  EXPECT_EQ(VersionOnDisk(1, page), VersionOnDisk(2, page));
  cluster_.Leave(2);
  Back(1);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 0u);
  EXPECT_EQ(cluster_.Read(2, page).value_or(-1), 0);
  // It is older than whatever is written.
  ASSERT_TRUE(WriteAndFlush(2, page, 9).ok());
  ExpectFromDisk(1, page, 9);
}

// The mark itself is learned by the next one.
TEST_F(PageEngineCatchUp, ThatAPageIsLostIsLearned) {
  Miss(1);
  Back(1);
  PlantLost(1, page_, VersionOnDisk(1, page_));
  Back(1);
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 1u);
  EXPECT_EQ(cluster_.host(2).store.durable.records.count(LostKey(page_)), 1u);
  EXPECT_EQ(cluster_.Read(2, page_).status().code(), absl::StatusCode::kDataLoss);
}

// --- Much, and far apart ----------------------------------------------------------------------------------------------

TEST_F(PageEngineCatchUp, ListsGoOnWhereTheyEnded) {
  constexpr uint64_t kExtents = 3 * kExtentsPerList;
  constexpr uint64_t kPages = 3 * kSegmentPages;
  static_assert(kPages > kVersionsPerList);
  const PageId large = page_ + kSegmentPages;
  const PageId small = page_ + 4 * kSegmentPages;
  cluster_.Allocate({large, kPages});
  cluster_.Allocate({small, kExtents});
  cluster_.Leave(2);
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(cluster_.Write(1, large + i, 8).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({large, kPages}, cluster_.In(5 * kSecond))).ok());
  ASSERT_TRUE(Drop({small, kExtents}).ok());
  for (uint64_t i = 0; i < kExtents; ++i) cluster_.Allocate({small + 2 * i, 1}, 2 + i);
  cluster_.sent.clear();
  Back(2);
  ExpectCurrentSoon(2);
  EXPECT_GT(cluster_.sent[MessageKind::kStoredList], 5);
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_copied, kPages);
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_EQ(ByteOnDisk(2, large + i), 8) << i;
  for (uint64_t i = 0; i < kExtents; ++i) {
    const Extent* const extent = ExtentAt(2, small + 2 * i);
    ASSERT_TRUE(extent != nullptr && extent->config == ConfigNumber(2 + i)) << i;
    ASSERT_EQ(ExtentAt(2, small + 2 * i + 1), nullptr) << i;
  }
}

// A page's number has more bits than a range may be long.
TEST_F(PageEngineCatchUp, RegionsMayBeFarApart) {
  std::vector<PageId> far;
  for (const int bits : {30, 63, 64, 65, 90, 113}) far.push_back(PageId(absl::uint128(1) << bits));
  for (const PageId page : far) {
    cluster_.Allocate({page, 2});
    ASSERT_TRUE(WriteAndFlush(1, page, 7).ok());
    Plant(2, page + 1, 99);
  }
  cluster_.Leave(2);
  for (const PageId page : far) ASSERT_TRUE(WriteAndFlush(1, page, 8).ok());
  Back(2);
  ExpectCurrentSoon(2);
  for (const PageId page : far) {
    EXPECT_EQ(ByteOnDisk(2, page), 8) << ToString(page);
    EXPECT_EQ(ByteOnDisk(2, page + 1), -1) << ToString(page);
  }
  cluster_.Leave(2);
  BackWithAnEmptyDisk(2);
  ExpectCurrentSoon(2);
  for (const PageId page : far) EXPECT_EQ(ByteOnDisk(2, page), 8) << ToString(page);
}

}  // namespace
}  // namespace mangrove
