// Which disks keep a page, and which of them count (engine/disks.cc).
//
// Covers: B02, C06

#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Nodes 2 and 3 keep the pages, node 1 writes them, node 4 is responsible for them.
class PageEngineDisks : public DisksTest {
 protected:
  explicit PageEngineDisks(std::function<void(PageEngineOptions&)> change = {})
      : DisksTest(4, std::move(change)), page_(SegmentOf(cluster_, 4, {1, 4})) {
    cluster_.Allocate({page_, 16});
  }
  // What node 2 alone has is missed: node 3 is there, and its disk waits for that.
  void LeaveNoCurrentDisk() {
    ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
    cluster_.Leave(3);
    ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
    cluster_.Leave(2);
    Back(3);
    cluster_.RunFor(kSecond);
    ASSERT_FALSE(IsCurrent(3));
  }
  static void ExpectNamesTheMissing(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("node 2 (is not there)"));
  }
  // Node 1 writes the page, and only node 3 stores it; both are gone then, at once.
  void StoreOnOneHolderAndLoseIt(PageId page, uint8_t value) {
    ASSERT_TRUE(cluster_.Write(1, page, value).ok());
    cluster_.cut = {NodeId(2)};
    const Pending flush = BeginFlush(1, page);
    cluster_.RunFor(50 * kMillisecond);
    ASSERT_EQ(ByteOnDisk(3, page), value);
    ASSERT_FALSE(flush->has_value());
    LeaveTogether({1, 3});
    cluster_.cut.clear();
  }

  PageId page_;
};

// --- One of two holders is away ---------------------------------------------------------------------------------------

TEST_F(PageEngineDisks, AFlushIsAcknowledgedByTheHoldersThatAreThere) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  Back(3);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(3));
  EXPECT_EQ(VersionOnDisk(3, page_), VersionOnDisk(2, page_));
  ExpectFromDisk(3, page_, 8);
}

// The primary is asked first when all is well.
TEST_F(PageEngineDisks, ThePrimaryIsNotNeededForAFlush) {
  ASSERT_EQ(cluster_.locator().Primary(page_), NodeId(2));
  cluster_.Leave(2);
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(2));
  ExpectFromDisk(2, page_, 8);
}

TEST_F(PageEngineDisks, AnAllocationIsAcknowledgedByTheHoldersThatAreThere) {
  const PageRange added{page_ + 32, 8};
  cluster_.Leave(3);
  cluster_.Allocate(added, 2);
  ASSERT_TRUE(WriteAndFlush(1, added.first, 8).ok());
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(3));
  ASSERT_NE(ExtentAt(3, added.first), nullptr);
  EXPECT_EQ(ExtentAt(3, added.first)->range, added);
  EXPECT_EQ(ExtentAt(3, added.first)->config, ConfigNumber(2));
  ExpectFromDisk(3, added.first, 8);
  EXPECT_EQ(cluster_.Read(1, added.first + 1).value_or(-1), 0);  // Never stored.
}

TEST_F(PageEngineDisks, AnUnallocationIsAcknowledgedByTheHoldersThatAreThere) {
  for (uint64_t i = 0; i < 16; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
  cluster_.Leave(3);
  ASSERT_TRUE(Drop({page_ + 4, 4}).ok());
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(3));
  for (uint64_t i = 0; i < 16; ++i) {
    const bool is_dropped = i >= 4 && i < 8;
    EXPECT_EQ(ExtentAt(3, page_ + i) == nullptr, is_dropped) << i;
    EXPECT_EQ(ByteOnDisk(3, page_ + i), is_dropped ? -1 : 7) << i;
  }
  LeaveOnlyTheDiskOf(3, page_);
  EXPECT_FALSE(cluster_.Read(1, page_ + 4).ok());
  EXPECT_EQ(cluster_.Read(1, page_ + 8).value_or(-1), 7);
}

// What is at the same place again is something else.
TEST_F(PageEngineDisks, WhatIsAllocatedAnewInTheMeantimeHasNothingOfWhatWasThere) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  ASSERT_TRUE(WriteAndFlush(1, page_ + 1, 7).ok());
  cluster_.Leave(3);
  ASSERT_TRUE(Drop({page_, 16}).ok());
  cluster_.Allocate({page_, 16}, 2);
  ASSERT_TRUE(WriteAndFlush(1, page_ + 1, 8).ok());
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(3));
  ASSERT_NE(ExtentAt(3, page_), nullptr);
  EXPECT_EQ(ExtentAt(3, page_)->config, ConfigNumber(2));
  ExpectFromDisk(3, page_, 0);
  EXPECT_EQ(cluster_.Read(1, page_ + 1).value_or(-1), 8);
}

TEST_F(PageEngineDisks, ADiskThatIsBehindIsNotRead) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  Hold(MessageKind::kStoredList);
  Back(3);
  for (const uint64_t node : {1, 4}) Back(node);
  cluster_.RunFor(kSecond);
  ASSERT_FALSE(IsCurrent(3));
  ASSERT_EQ(ByteOnDisk(3, page_), 7);
  EXPECT_EQ(cluster_.Read(3, page_).value_or(-1), 8);
  EXPECT_EQ(cluster_.Read(4, page_).value_or(-1), 8);
}

// It says of nothing that it is zeros, nor that it is not allocated.
TEST_F(PageEngineDisks, ADiskThatIsBlankIsNotBelievedToHaveAnything) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  HoldLists(/*pages=*/true);
  BackWithAnEmptyDisk(3);
  for (const uint64_t node : {1, 4}) Back(node);
  cluster_.RunFor(kSecond);
  EXPECT_EQ(cluster_.Read(4, page_).value_or(-1), 7);
  LeaveOnlyTheDiskOf(3, page_);
  EXPECT_EQ(cluster_.Read(4, page_).status().code(), absl::StatusCode::kUnavailable);
}

// Until it knows what is allocated it cannot say that there is no version of a page that is newer.
TEST_F(PageEngineDisks, AReadWaitsUntilTheBlankDiskKnowsWhatIsAllocated) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  Hold(MessageKind::kStoredList);
  BackWithAnEmptyDisk(3);
  for (const uint64_t node : {1, 4}) Back(node);
  const Pending read = Begin(cluster_.engine(4).Acquire({page_, 1}, Rights::kRead, cluster_.In(30 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(read->has_value()) << Show(read);
  cluster_.lost = nullptr;
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsOk(read)) << Show(read);
  EXPECT_EQ(ByteHere(cluster_, 4, page_), 7);
}

TEST_F(PageEngineDisks, DisksMayBeLostOneAfterTheOther) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  for (const uint64_t node : {2, 3}) {
    BackWithAnEmptyDisk(node);
    EXPECT_FALSE(IsCurrent(node));
    cluster_.RunFor(kSecond);
    ASSERT_TRUE(IsCurrent(node));
  }
  ExpectFromDisk(3, page_, 7);
}

// --- While an operation is under way ----------------------------------------------------------------------------------

TEST_F(PageEngineDisks, AFlushDoesNotWaitForAHolderThatLeaves) {
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  cluster_.cut = {NodeId(3)};
  const Pending flush = BeginFlush(1, page_);
  cluster_.RunFor(kSecond);
  ASSERT_FALSE(flush->has_value());
  cluster_.Leave(3);
  cluster_.RunFor(kSoon);
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  EXPECT_EQ(ByteOnDisk(2, page_), 8);
}

TEST_F(PageEngineDisks, NorDoAnAllocationAndAnUnallocation) {
  cluster_.Allocate({page_ + 64, 8}, 2);
  cluster_.cut = {NodeId(3)};
  const Pending put = BeginPut({page_ + 32, 8}, 2);
  const Pending drop =
      Begin(cluster_.engine(1).DropExtent({page_ + 64, 8}, ConfigNumber(2), 2, cluster_.In(30 * kSecond)));
  cluster_.RunFor(kSecond);
  ASSERT_FALSE(put->has_value());
  ASSERT_FALSE(drop->has_value());
  cluster_.Leave(3);
  cluster_.RunFor(kSoon);
  EXPECT_TRUE(IsOk(put)) << Show(put);
  EXPECT_TRUE(IsOk(drop)) << Show(drop);
  EXPECT_NE(ExtentAt(2, page_ + 32), nullptr);
  EXPECT_EQ(ExtentAt(2, page_ + 64), nullptr);
}

TEST_F(PageEngineDisks, AFlushIsStoredOnAHolderThatJoinsBeforeItIsAcknowledged) {
  cluster_.Leave(3);
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  Hold(MessageKind::kStored);
  const Pending flush = BeginFlush(1, page_);
  cluster_.RunFor(50 * kMillisecond);
  ASSERT_EQ(ByteOnDisk(2, page_), 8);
  ASSERT_FALSE(flush->has_value());
  Back(3);
  held_.clear();
  Hold(MessageKind::kStoredList);  // It has caught up with nothing.
  StepUntil([&] { return flush->has_value(); });
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  EXPECT_TRUE(IsCurrent(3));
  ExpectFromDisk(3, page_, 8);
}

// All have stored it in the view before, and the acknowledgement is on its way.
TEST_F(PageEngineDisks, WhatWasStoredInTheViewBeforeIsStoredAgain) {
  cluster_.Leave(3);
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  Hold(MessageKind::kStored);
  const Pending flush = BeginFlush(1, page_);
  StepUntilHeld();
  Back(3);
  const Message stored = held_.front();
  Hold(MessageKind::kStore);  // To node 3.
  cluster_.Inject(1, 2, stored);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(flush->has_value());
  cluster_.lost = nullptr;
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
}

TEST_F(PageEngineDisks, AnAllocationIsMadeOnAHolderThatJoinsBeforeItIsAcknowledged) {
  cluster_.Leave(3);
  Hold(MessageKind::kDone);
  const Pending put = BeginPut({page_ + 32, 8}, 2);
  cluster_.RunFor(50 * kMillisecond);
  ASSERT_NE(ExtentAt(2, page_ + 32), nullptr);
  Back(3);
  Hold(MessageKind::kStoredList);
  StepUntil([&] { return put->has_value(); });
  EXPECT_TRUE(IsOk(put)) << Show(put);
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_NE(ExtentAt(3, page_ + 32), nullptr);
}

// --- No current holder ------------------------------------------------------------------------------------------------

TEST_F(PageEngineDisks, AFlushWaitsForADiskThatIsCurrent) {
  LeaveNoCurrentDisk();
  ASSERT_TRUE(cluster_.Write(1, page_, 9).ok());
  const Pending early = BeginFlush(1, page_, kSecond);
  const Pending late = BeginFlush(1, page_);
  cluster_.RunFor(900 * kMillisecond);
  EXPECT_FALSE(early->has_value()) << Show(early);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(early->has_value());
  ExpectNamesTheMissing(**early);
  EXPECT_FALSE(late->has_value()) << Show(late);
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsOk(late)) << Show(late);
  ExpectFromDisk(3, page_, 9);
}

TEST_F(PageEngineDisks, AnAllocationWaitsForADiskThatIsCurrent) {
  LeaveNoCurrentDisk();
  const Pending early = BeginPut({page_ + 32, 8}, 2, kSecond);
  const Pending late = BeginPut({page_ + 64, 8}, 2);
  cluster_.RunFor(900 * kMillisecond);
  EXPECT_FALSE(early->has_value()) << Show(early);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(early->has_value());
  ExpectNamesTheMissing(**early);
  EXPECT_FALSE(late->has_value()) << Show(late);
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsOk(late)) << Show(late);
  EXPECT_NE(ExtentAt(2, page_ + 64), nullptr);
  EXPECT_NE(ExtentAt(3, page_ + 64), nullptr);
}

TEST_F(PageEngineDisks, AReadFromDiskWaitsForADiskThatIsCurrent) {
  LeaveNoCurrentDisk();
  for (const uint64_t node : {1, 4}) Back(node);
  cluster_.RunFor(kSecond);
  const Pending read = Begin(cluster_.engine(4).Acquire({page_, 1}, Rights::kRead, cluster_.In(30 * kSecond)));
  cluster_.RunFor(3 * kSecond);
  EXPECT_FALSE(read->has_value()) << Show(read);
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsOk(read)) << Show(read);
  EXPECT_EQ(ByteHere(cluster_, 4, page_), 8);
}

TEST_F(PageEngineDisks, AReadFromDiskDoesNotWaitForEver) {
  LeaveNoCurrentDisk();
  for (const uint64_t node : {1, 4}) Back(node);
  cluster_.RunFor(kSecond);
  ExpectNamesTheMissing(
      cluster_.Wait(cluster_.engine(1).Acquire({page_, 1}, Rights::kRead, cluster_.In(30 * kSecond))));
}

TEST_F(PageEngineDisks, AReadThatHasLittleTimeNamesTheMissingDiskAsWell) {
  LeaveNoCurrentDisk();
  for (const uint64_t node : {1, 4}) Back(node);
  cluster_.RunFor(kSecond);
  const absl::Status status =
      cluster_.Wait(cluster_.engine(1).Acquire({page_, 1}, Rights::kRead, cluster_.In(kSecond)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("node 2"));
}

// Nothing would change that soon.
TEST_F(PageEngineDisks, AFlushWithoutAnyHolderNamesThem) {
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  LeaveTogether({2, 3});
  const absl::Status status = Flush(cluster_, 1, page_);
  ExpectNamesTheMissing(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("node 3 (is not there)"));
  Back(3);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(Flush(cluster_, 1, page_).ok());
  ExpectFromDisk(3, page_, 8);
}

// The others are as they were.
TEST_F(PageEngineDisks, PagesOfOtherDisksDoNotWait) {
  const PageId other = SegmentOf(cluster_, 4, {2, 3});
  cluster_.Allocate({other, 16});
  LeaveNoCurrentDisk();
  ASSERT_TRUE(cluster_.Write(1, other, 5).ok());
  const Pending flush = BeginFlush(1, other);
  const Pending put = BeginPut({other + 32, 4}, 2);
  const Pending read = Begin(cluster_.engine(4).Acquire({other + 1, 1}, Rights::kRead, cluster_.In(5 * kSecond)));
  cluster_.RunFor(10 * kMillisecond);
  EXPECT_TRUE(IsOk(flush)) << Show(flush);
  EXPECT_TRUE(IsOk(put)) << Show(put);
  EXPECT_TRUE(IsOk(read)) << Show(read);
}

// --- What nobody was told of ------------------------------------------------------------------------------------------

TEST_F(PageEngineDisks, WhatADiskAloneHasIsVoidWhenItWasAway) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  StoreOnOneHolderAndLoseIt(page_, 9);
  ASSERT_EQ(cluster_.Read(4, page_).value_or(-1), 7);
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(3));
  EXPECT_EQ(ByteOnDisk(3, page_), 7);
  ExpectFromDisk(3, page_, 7);
}

TEST_F(PageEngineDisks, AlsoWhereTheOthersHaveNoRecord) {
  StoreOnOneHolderAndLoseIt(page_, 9);
  ASSERT_EQ(cluster_.Read(4, page_).value_or(-1), 0);
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_TRUE(IsCurrent(3));
  EXPECT_EQ(ByteOnDisk(3, page_), -1);
  ExpectFromDisk(3, page_, 0);
}

TEST_F(PageEngineDisks, NorIsItTakenForSomethingBeforeItHasCaughtUp) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  StoreOnOneHolderAndLoseIt(page_, 9);
  Hold(MessageKind::kStoredList);
  Back(3);
  cluster_.RunFor(kSecond);
  ASSERT_EQ(ByteOnDisk(3, page_), 9);
  EXPECT_EQ(cluster_.Read(4, page_).value_or(-1), 7);  // Which is stored on both.
  EXPECT_EQ(ByteOnDisk(3, page_), 7);
}

// --- Which disk waits for which ---------------------------------------------------------------------------------------

TEST_F(PageEngineDisks, ADiskWaitsForThoseThatFellBehindLater) {
  LeaveNoCurrentDisk();
  EXPECT_THAT(WaitsFor(3), ElementsAre(NodeId(2)));
  Back(2);
  EXPECT_THAT(WaitsFor(2), ElementsAre());
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_TRUE(IsCurrent(3));
  ExpectFromDisk(3, page_, 8);
}

TEST_F(PageEngineDisks, TheLastThatLeftWaitsForNobody) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 7).ok());
  cluster_.Leave(3);
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  cluster_.Leave(2);
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(2));
  ExpectFromDisk(2, page_, 8);
}

TEST_F(PageEngineDisks, OfDisksThatFellBehindTogetherEachHasAll) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  LeaveTogether({2, 3});
  Back(3);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(3));
  ExpectFromDisk(3, page_, 8);
}

// A whole cluster comes back.
TEST_F(PageEngineDisks, OneOfThemAloneIsEnoughForItsOwn) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  LeaveTogether({1, 2, 3, 4});
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_EQ(cluster_.Read(2, page_).value_or(-1), 8);
}

TEST_F(PageEngineDisks, ABlankDiskWaitsForEveryOtherOne) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  LeaveTogether({2, 3});
  BackWithAnEmptyDisk(3);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_THAT(WaitsFor(3), ElementsAre(NodeId(2)));
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_TRUE(IsCurrent(3));
  ExpectFromDisk(3, page_, 8);
}

// A node that has not been in any view yet.
class PageEngineDisksOfAStranger : public PageEngineDisks {
 protected:
  PageEngineDisksOfAStranger()
      : PageEngineDisks([](PageEngineOptions& options) { options.members.push_back(NodeId(5)); }) {
    cluster_.AddAbsentDisk(5);
    page_ = PageOn({1, 3});
  }
};

TEST_F(PageEngineDisksOfAStranger, ABlankDiskWaitsForWhoWasNeverHeardOf) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  cluster_.Leave(3);
  BackWithAnEmptyDisk(3);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_THAT(WaitsFor(3), ElementsAre(NodeId(5)));
  Back(5);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(3));
  ExpectFromDisk(3, page_, 8);
}

TEST_F(PageEngineDisksOfAStranger, AnyOtherDiskDoesNot) {
  cluster_.Leave(3);
  Back(3);
  cluster_.RunFor(kSecond);
  EXPECT_TRUE(IsCurrent(3));
}

// --- Without having left ----------------------------------------------------------------------------------------------

TEST_F(PageEngineDisks, WhoStartsAnewWithinTheViewIsCurrentAndAsksNobody) {
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  Back(3);
  EXPECT_TRUE(IsCurrent(3));
  cluster_.RunFor(kSecond);
  EXPECT_EQ(cluster_.sent[MessageKind::kListStored], 0);
  EXPECT_FALSE(cluster_.engine(3).catch_up().is_behind);
  ExpectFromDisk(3, page_, 8);
}

TEST_F(PageEngineDisks, WhoWasBehindIsSoWhenItStartsAnewWithinTheView) {
  LeaveNoCurrentDisk();
  Back(3);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(IsCurrent(3));
  EXPECT_THAT(WaitsFor(3), ElementsAre(NodeId(2)));
}

// The holder is behind, so what it has from before does not count with it; and an older store than its last one has not been answered.
TEST_F(PageEngineDisks, AStoreIsNotRepeatedToAHolderThatStartsAnew) {
  cluster_.Leave(3);
  bool loses_stores = true;
  cluster_.lost = [&](const Message& m) {
    return m.kind == MessageKind::kStoredList || (m.kind == MessageKind::kStore && loses_stores);
  };
  Back(3);
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  const Pending older = BeginFlush(1, page_);
  cluster_.RunFor(kMillisecond);
  loses_stores = false;
  ASSERT_TRUE(WriteAndFlush(1, page_, 8).ok());
  ASSERT_EQ(ByteOnDisk(3, page_), 8);
  ASSERT_FALSE(older->has_value());
  Back(3);
  ASSERT_FALSE(IsCurrent(3));
  cluster_.RunFor(2 * kSecond);
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
  cluster_.lost = nullptr;
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsCurrent(3));
  EXPECT_EQ(ByteOnDisk(3, page_), 8);
  EXPECT_TRUE(IsOk(older)) << Show(older);
}

}  // namespace
}  // namespace mangrove
