// A disk that catches up, where it is ended in the middle of that, and where others send nonsense.
//
// Covers: C06

#include "engine/stored_list.h"
#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

constexpr uint64_t kLost = 6;  // The page, from the first on, that nobody can read.

// Both nodes keep all pages. Node 2 was away, and there is something of everything for it to do: extents to drop and to take,
// pages to copy and to delete, one that nobody can read.
class PageEngineCatchUpFaults : public DisksTest {
 protected:
  PageEngineCatchUpFaults() : DisksTest(2), page_(cluster_.SegmentOf(1)) { Miss(); }

  void Miss() {
    cluster_.Allocate({page_, 16});
    cluster_.Allocate({page_ + 32, 8}, 2);
    for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 7).ok());
    Plant(2, page_ + 9, 99);
    cluster_.Leave(2);
    ASSERT_TRUE(Drop({page_ + 32, 8}, 2).ok());
    cluster_.Allocate({page_ + 64, 8}, 3);
    for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(WriteAndFlush(1, page_ + i, 8).ok());
    ASSERT_TRUE(WriteAndFlush(1, page_ + 64, 8).ok());
    ASSERT_TRUE(WriteAndFlush(1, page_ + kLost, 8).ok());
    cluster_.host(1).store.corrupt.insert((page_ + kLost).value);
  }
  void ExpectAllIsThere() {
    EXPECT_TRUE(IsCurrent(2));
    EXPECT_EQ(ExtentAt(2, page_ + 32), nullptr);
    for (uint64_t i = 0; i < 8; ++i) {
      if (i == kLost) continue;
      EXPECT_EQ(VersionOnDisk(2, page_ + i), VersionOnDisk(1, page_ + i)) << i;
    }
    EXPECT_EQ(ByteOnDisk(2, page_), 8);
    EXPECT_EQ(ByteOnDisk(2, page_ + 5), 7);
    EXPECT_EQ(ByteOnDisk(2, page_ + 64), 8);
    EXPECT_EQ(ByteOnDisk(2, page_ + 9), -1);
    EXPECT_EQ(cluster_.host(2).store.durable.records.count(LostKey(page_ + kLost)), 1u);
    EXPECT_EQ(cluster_.host(2).store.durable.records.size(), 4u);  // Two extents, a mark, and that it has all.
  }
  // False: it had caught up before.
  bool ComeSoFar(int steps) {
    Back(2);
    for (int i = 0; i < steps; ++i) {
      cluster_.Step(cluster_.In(kSecond));
      if (IsCurrent(2)) return false;
    }
    return true;
  }
  // How many lists have gone since the last call.
  int ListsAfter(DurationNs duration) {
    cluster_.RunFor(duration);
    return std::exchange(cluster_.sent[MessageKind::kStoredList], 0);
  }
  // As if node 1 had said it, of the newest question.
  void Answer(PageBuffer data, PageId next = PageId{}) {
    Message answer;
    answer.kind = MessageKind::kStoredList;
    answer.request = cluster_.last_request[MessageKind::kListStored];
    answer.page = next;
    answer.data = std::move(data);
    cluster_.Inject(2, 1, answer);
    cluster_.RunFor(kSecond);  // It asks again.
    EXPECT_FALSE(IsCurrent(2));
  }
  static PageBuffer Filled(int value) {
    auto data = std::make_shared<PageBytes>();
    data->bytes.fill(static_cast<std::byte>(value));
    return data;
  }
  static PageBuffer WithByte(const PageBuffer& list, size_t at, int value) {
    auto data = std::make_shared<PageBytes>(*list);
    data->bytes[at] = static_cast<std::byte>(value);
    return data;
  }
  static StoredExtent ExtentOf(PageId first, uint64_t count, uint64_t config = 9) {
    return {.range = {first, count}, .config = ConfigNumber(config), .replicas = 2, .is_volatile = false};
  }

  const PageId page_;
};

// --- The end in the middle --------------------------------------------------------------------------------------------

TEST_F(PageEngineCatchUpFaults, WhoStartsAnewAtAnyStepBeginsAnewAndEndsWell) {
  int steps = 0;
  while (ComeSoFar(steps)) {
    ASSERT_FALSE(IsCurrent(2));
    ++steps;
  }
  EXPECT_GT(steps, 10);
  ExpectAllIsThere();
}

TEST_F(PageEngineCatchUpFaults, WhoLeavesAtAnyStepBeginsAnewAndEndsWell) {
  int steps = 0;
  for (; ComeSoFar(steps); ++steps) cluster_.Leave(2);
  EXPECT_GT(steps, 10);
  ExpectAllIsThere();
}

// All that waits ends when the cluster does.
TEST_F(PageEngineCatchUpFaults, WhoIsShutDownAtAnyStepStops) {
  int steps = 0;
  for (; ComeSoFar(steps); ++steps) {
    cluster_.engine(2).Shutdown();
    cluster_.RunFor(100 * kMillisecond);
    cluster_.sent_by.clear();
    cluster_.RunFor(100 * kMillisecond);
    ASSERT_EQ(cluster_.sent_by[2], 0) << steps;
  }
  EXPECT_GT(steps, 10);
  ExpectAllIsThere();
}

TEST_F(PageEngineCatchUpFaults, TheClusterMayEndAtAnyStep) {
  for (int steps = 0; steps < 400; steps += 3) {
    EngineCluster cluster(2);
    const PageId page = cluster.SegmentOf(1);
    cluster.Allocate({page, 4});
    ASSERT_TRUE(cluster.Write(1, page, 7).ok());
    ASSERT_TRUE(Flush(cluster, 1, page).ok());
    cluster.host(1).store.corrupt.insert(page.value);
    cluster.Leave(2);
    cluster.StartWithAnEmptyDisk({NodeId(2), Incarnation(2)});
    for (int i = 0; i < steps; ++i) cluster.Step(cluster.In(kMillisecond));
  }
}

// The disk is full for a while.
TEST_F(PageEngineCatchUpFaults, ACommitThatFailsIsTriedAgain) {
  Back(2);
  int failed = 0;
  for (int i = 0; !IsCurrent(2) && i < 10000; ++i) {
    FakeCoreHolderStore& store = cluster_.host(2).store;
    if (!store.commits.empty() && failed < 12 && store.commit_count % 2 == 1) {
      store.FailCommit();
      ++failed;
    }
    cluster_.Step(cluster_.In(kSecond));
  }
  EXPECT_GT(failed, 3);
  ExpectAllIsThere();
}

// --- Others that do not keep to the protocol --------------------------------------------------------------------------

TEST_F(PageEngineCatchUpFaults, AListOfExtentsThatIsNoneIsRefused) {
  Hold(MessageKind::kStoredList);
  Back(2);
  cluster_.RunFor(10 * kMillisecond);
  const PageBuffer good = EncodeStoredList(std::vector<StoredExtent>{ExtentOf(page_ + 128, 4)});
  Answer(Filled(0xff));
  Answer(Filled(1));
  Answer(WithByte(good, 0, 111));             // More than there is room for.
  Answer(WithByte(good, kPageBytes - 1, 1));  // Something behind the last.
  Answer(WithByte(good, 40, 4));              // A flag that there is not.
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(page_ + 128, 0)}));
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(page_ + 128, 4, 0)}));
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(PageId(0), 4)}));
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(PageId(kSpacePages - 1), 4)}));
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(page_ + 128, 4), ExtentOf(page_ + 130, 4)}));
  EXPECT_NE(ExtentAt(2, page_ + 32), nullptr);  // It has not acted on any.
  EXPECT_EQ(ExtentAt(2, page_ + 128), nullptr);
  Answer(EncodeStoredList(std::vector<StoredExtent>{ExtentOf(PageId(1), 4)}));  // Which are the system's.
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  ExpectAllIsThere();
}

TEST_F(PageEngineCatchUpFaults, AListOfPagesThatIsNoneIsRefused) {
  HoldLists(/*pages=*/true);
  Back(2);
  StepUntilHeld();
  const auto of = [](std::vector<PageId> pages) {
    std::vector<StoredVersion> versions;
    for (const PageId page : pages) versions.push_back({.page = page, .version = {Epoch(1), 1}});
    return EncodeVersionList(versions).page;
  };
  Answer(Filled(0xff));
  Answer(WithByte(of({page_}), 0, 2));
  Answer(WithByte(of({page_}), kPageBytes - 1, 1));
  Answer(of({PageId(0)}));
  Answer(of({PageId(kSpacePages)}));
  Answer(of({page_, page_}));
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(ByteOnDisk(2, page_ + i), 7) << i;
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  ExpectAllIsThere();
}

TEST_F(PageEngineCatchUpFaults, AListThatDoesNotGoOnIsRefused) {
  PageId from;
  cluster_.lost = [&](const Message& m) {
    if (m.kind == MessageKind::kListStored) from = m.page;
    return m.kind == MessageKind::kStoredList;
  };
  Back(2);
  cluster_.RunFor(10 * kMillisecond);
  Message part;
  part.kind = MessageKind::kStoredList;
  part.data = EncodeStoredList(std::vector<StoredExtent>{});
  const auto say = [&](PageId next) {
    part.page = next;
    part.request = cluster_.last_request[MessageKind::kListStored];
    cluster_.Inject(2, 1, part);
    cluster_.RunFor(50 * kMillisecond);
  };
  for (const PageId next : {PageId(100), PageId(99)}) {
    say(PageId(100));  // Where no extent has begun yet.
    ASSERT_EQ(from, PageId(100));
    say(next);
    EXPECT_EQ(from, PageId(0));  // It begins anew.
  }
  EXPECT_NE(ExtentAt(2, page_ + 32), nullptr);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  ExpectAllIsThere();
}

// As when the range was unallocated and allocated again, and the list still has what was there before.
TEST_F(PageEngineCatchUpFaults, APageThatTheOtherHasNoRecordOfIsNotLostWhateverItsListSaid) {
  HoldLists(/*pages=*/true);
  Back(2);
  StepUntilHeld();
  Message list;
  list.kind = MessageKind::kStoredList;
  list.request = held_.front().request;
  list.page = page_ + 300;
  list.data = EncodeVersionList({{.page = page_ + 12, .version = kUnknownVersion, .is_unreadable = true}}).page;
  cluster_.Inject(2, 1, list);
  cluster_.RunFor(kSecond);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 0u);
  EXPECT_EQ(cluster_.host(2).store.durable.records.count(LostKey(page_ + 12)), 0u);
  EXPECT_TRUE(cluster_.Read(2, page_ + 12).ok());
}

// Pages that the other does not give, or that are in no extent here.
TEST_F(PageEngineCatchUpFaults, AListOfWhatThereIsNotDoesNoHarm) {
  HoldLists(/*pages=*/true);
  Back(2);
  StepUntilHeld();
  std::vector<StoredVersion> versions;
  for (uint64_t i = 0; i < 8; ++i) {
    versions.push_back({.page = page_ + 200 + i, .version = {Epoch(1), 1}, .is_unreadable = i % 2 == 1});
  }
  Message list;
  list.kind = MessageKind::kStoredList;
  list.request = held_.front().request;
  list.page = page_ + 300;
  list.data = EncodeVersionList(versions).page;
  cluster_.Inject(2, 1, list);
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(IsCurrent(2));
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  EXPECT_TRUE(IsCurrent(2));
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(ByteOnDisk(2, page_ + 200 + i), -1) << i;
  EXPECT_EQ(cluster_.engine(2).catch_up().pages_lost, 0u);  // The list said that nothing else is there.
}

TEST_F(PageEngineCatchUpFaults, WhoIsNotInTheViewIsNotTold) {
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kListStored; };
  Back(2);
  cluster_.RunFor(kSecond);
  Message ask;
  ask.kind = MessageKind::kListStored;
  ask.request = RequestId(77);
  cluster_.sent.clear();
  const Epoch epoch = cluster_.view().epoch;
  cluster_.InjectUnder(epoch, 1, {NodeId(2), Incarnation(lives_ - 1)}, ask);
  cluster_.InjectUnder(epoch, 1, {NodeId(2), Incarnation(lives_ + 1)}, ask);
  cluster_.InjectUnder(epoch, 1, {NodeId(7), Incarnation(1)}, ask);
  cluster_.InjectUnder(Epoch(epoch.value - 1), 1, cluster_.host(2).self, ask);
  EXPECT_EQ(ListsAfter(kSecond), 0);
  cluster_.Inject(1, 2, ask);
  EXPECT_EQ(ListsAfter(kSecond), 1);
}

}  // namespace
}  // namespace mangrove
