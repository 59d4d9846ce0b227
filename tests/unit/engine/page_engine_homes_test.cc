// What a responsible node keeps in mind of its pages: no more than it must.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineHomes : public testing::Test {
 protected:
  PageEngineHomes() { SetLogLevel(LogLevel::kOff); }

  // Node 1's cache is small, and what leaves it is in nobody's RAM.
  static void SmallCache(PageEngineOptions& options) {
    options.evict_to_peers = false;
    if (options.self.node == NodeId(1)) options.cache_pages = 16;
  }
  // Node 1 reads pages one after the other; most leave its cache again.
  static void ReadAll(EngineCluster& cluster, PageRange range) {
    for (uint64_t i = 0; i < range.count; ++i) {
      ASSERT_TRUE(cluster.Read(1, range.first + i).ok());
      cluster.RunFor(kMillisecond);
    }
    cluster.RunFor(kSecond);
  }
  // What the responsible node (2) says of pages that node 1 has owned and let go of, and node 3 has a copy of.
  static void ShareAll(EngineCluster& cluster, PageRange range) {
    for (uint64_t i = 0; i < range.count; ++i) {
      ASSERT_TRUE(cluster.Read(1, range.first + i).ok());
      ASSERT_TRUE(cluster.Read(3, range.first + i).ok());
      cluster.RunFor(kMillisecond);
    }
  }
};

TEST_F(PageEngineHomes, PagesThatNobodyHasTakeNoEntry) {
  EngineCluster cluster(2, SmallCache);
  const PageRange range{cluster.SegmentOf(2), 300};
  cluster.Allocate(range);
  ReadAll(cluster, range);
  EXPECT_LE(cluster.engine(2).home_entries(), 16u);
  const uint64_t before = cluster.engine(2).home_entries();
  EXPECT_FALSE(cluster.Read(1, range.end()).ok());  // Not allocated.
  EXPECT_EQ(cluster.engine(2).home_entries(), before);
}

TEST_F(PageEngineHomes, WrittenPagesAreReadAgainAfterTheirEntriesHaveGone) {
  EngineCluster cluster(2, SmallCache);
  const PageRange range{cluster.SegmentOf(2), 100};
  cluster.Allocate(range);
  for (uint64_t i = 0; i < range.count; ++i) {
    ASSERT_TRUE(cluster.Write(1, range.first + i, static_cast<uint8_t>(i)).ok());
    cluster.RunFor(kMillisecond);
  }
  cluster.RunFor(kSecond);
  EXPECT_LE(cluster.engine(2).home_entries(), 16u);
  for (uint64_t i = 0; i < range.count; ++i) EXPECT_EQ(*cluster.Read(2, range.first + i), static_cast<int>(i));
}

// Finding it out anew would take asking the other core holder, which may be away.
TEST_F(PageEngineHomes, ThatDisksAgreeIsKeptWithoutAnEntry) {
  EngineCluster cluster(2, SmallCache);
  const PageRange range{cluster.SegmentOf(1), 100};
  cluster.Allocate(range);
  cluster.Start({NodeId(1), Incarnation(2)});  // From now on its extents are not fresh.
  cluster.RunFor(kSecond);
  ReadAll(cluster, range);
  EXPECT_LE(cluster.engine(1).home_entries(), 16u);
  cluster.sent.clear();
  EXPECT_EQ(*cluster.Read(1, range.first), 0);
  EXPECT_EQ(cluster.sent[MessageKind::kQueryStored], 0);
}

// The responsible node is no core holder: what it knows of the extent it has asked for.
TEST_F(PageEngineHomes, AnAllocationThatIsHeardTwiceMakesNothingFreshAgain) {
  EngineCluster cluster(3);
  PageId page = kBase;
  const auto holders = [&] { return cluster.locator().CoreHolders(page, 2); };
  while (holders()[0] == NodeId(3) || holders()[1] == NodeId(3)) page = page + kSegmentPages;
  ASSERT_TRUE(cluster.IsResponsible(3, page));
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(3, page, 7).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(3).Flush({page, 1}, cluster.In(kSecond))).ok());
  Message put;
  put.kind = MessageKind::kPutExtent;
  put.page = page;
  put.config = ConfigNumber(1);
  put.replicas = 2;
  for (const NodeId holder : holders()) cluster.Inject(holder.value, 3, put);
  cluster.RunFor(kSecond);
  cluster.Start({NodeId(3), Incarnation(2)});
  cluster.RunFor(kSecond);
  EXPECT_EQ(*cluster.Read(2, page), 7);
}

TEST_F(PageEngineHomes, ReadCopiesAreCalledInWhenThereAreTooMany) {
  EngineCluster cluster(3, [](PageEngineOptions& options) {
    SmallCache(options);
    options.home_entries = 50;
  });
  const PageRange range{cluster.SegmentOf(2), 200};
  cluster.Allocate(range);
  ShareAll(cluster, range);
  cluster.RunFor(10 * kSecond);
  EXPECT_LE(cluster.engine(2).home_entries(), 50u);
  for (uint64_t i = 0; i < range.count; ++i) ASSERT_TRUE(cluster.Write(1, range.first + i, 1).ok());
  for (uint64_t i = 0; i < range.count; ++i) EXPECT_EQ(*cluster.Read(3, range.first + i), 1);
}

TEST_F(PageEngineHomes, ACopyThatIsLockedIsLeftWhereItIs) {
  EngineCluster cluster(3, [](PageEngineOptions& options) {
    SmallCache(options);
    options.home_entries = 50;
  });
  const PageRange range{cluster.SegmentOf(2), 200};
  cluster.Allocate(range);
  const PageRange locked{range.first + 20, 100};
  ShareAll(cluster, {range.first, 120});
  const auto lock = cluster.Wait(cluster.engine(3).Lock(9, locked, LockMode::kShared, cluster.In(kSecond)));
  ASSERT_TRUE(lock.ok()) << lock.status();
  ShareAll(cluster, {range.first + 120, 80});
  cluster.RunFor(10 * kSecond);
  EXPECT_LE(cluster.engine(2).home_entries(), 120u);
  for (uint64_t i = 0; i < locked.count; ++i) {
    EXPECT_EQ(cluster.engine(3).RightsOf(locked.first + i), Rights::kRead);
    const TimeNs before = cluster.clock.Now();
    ASSERT_TRUE(cluster.Read(1, locked.first + i).ok());
    EXPECT_LT(cluster.clock.Now(), before + 100 * kMillisecond);
  }
}

TEST_F(PageEngineHomes, SealsGoWhenTheirTimeIsOver) {
  EngineCluster cluster(2);
  const PageRange range{cluster.SegmentOf(2), 8};
  cluster.Allocate(range);
  cluster.Start({NodeId(2), Incarnation(2)});
  cluster.RunFor(kSecond);
  for (uint64_t i = 0; i < range.count; ++i) ASSERT_TRUE(cluster.Read(1, range.first + i).ok());
  EXPECT_GE(cluster.engine(1).core_holder().seals(), 8u);
  cluster.RunFor(50 * kSecond);
  EXPECT_GE(cluster.engine(1).core_holder().seals(), 8u);
  cluster.RunFor(100 * kSecond);
  EXPECT_EQ(cluster.engine(1).core_holder().seals(), 0u);
}

// The disks have what a sharer has, which nobody may start again.
TEST_F(PageEngineHomes, AReaderThatIsAwayIsNotWaitedFor) {
  for (const bool meanwhile : {false, true}) {
    EngineCluster cluster(3, SmallCache);
    PageId first = kBase;
    while (cluster.locator().CoreHolders(first, 2).back() == NodeId(3) || !cluster.IsResponsible(2, first) ||
           cluster.locator().Primary(first) == NodeId(3)) {
      first = first + kSegmentPages;
    }
    const PageRange range{first, 60};
    cluster.Allocate(range);
    ShareAll(cluster, range);
    cluster.RunFor(kSecond);
    ASSERT_EQ(cluster.engine(1).RightsOf(first), Rights::kNone);
    ASSERT_EQ(cluster.engine(3).RightsOf(first), Rights::kRead);
    if (meanwhile) {
      cluster.dropped = {MessageKind::kResolve};
    } else {
      cluster.Stop(NodeId(3));
    }
    std::optional<absl::Status> status;
    Spawn<absl::Status>(cluster.engine(1).Acquire({first, 1}, Rights::kRead, cluster.In(5 * kSecond)),
                        [&](absl::Status s) { status = s; });
    cluster.RunFor(5 * kMillisecond);
    if (meanwhile) {
      ASSERT_GT(cluster.engine(2).home_entries(), 0u);
      ASSERT_FALSE(status.has_value());
      cluster.Stop(NodeId(3));
    }
    cluster.RunFor(kSecond);
    ASSERT_TRUE(status.has_value());
    EXPECT_TRUE(status->ok()) << *status;
  }
}

// It has not left the view: so nobody can have been given the page since, and it has what the disks had.
TEST_F(PageEngineHomes, AReaderThatWasAwayGivesBackWhatTheDisksHaveLost) {
  EngineCluster cluster(3, SmallCache);
  PageId first = kBase;
  while (cluster.locator().CoreHolders(first, 2).back() == NodeId(3) || !cluster.IsResponsible(2, first) ||
         cluster.locator().Primary(first) == NodeId(3)) {
    first = first + kSegmentPages;
  }
  cluster.Allocate({first, 60});
  ASSERT_TRUE(cluster.Write(1, first, 5).ok());
  ShareAll(cluster, {first, 60});
  cluster.RunFor(kSecond);
  ASSERT_EQ(cluster.engine(1).RightsOf(first), Rights::kNone);
  ASSERT_EQ(cluster.engine(3).RightsOf(first), Rights::kRead);
  for (const uint64_t node : {1, 2}) cluster.host(node).store.corrupt.insert(first.value);
  cluster.engine(2).OnPeerDown(cluster.host(3).self, absl::UnavailableError("cut"));
  EXPECT_TRUE(absl::IsDataLoss(cluster.Read(1, first).status()));
  EXPECT_EQ(cluster.engine(2).Describe(first).home_state, "Lost");
  cluster.engine(2).OnPeerUp(cluster.host(3).self);
  EXPECT_EQ(*cluster.Read(1, first), 5);
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush({first, 1}, cluster.In(kSecond))).ok());
  for (const uint64_t node : {1, 2}) EXPECT_FALSE(cluster.host(node).store.corrupt.contains(first.value)) << node;
}

// Its appointment was given up while it was away, but it has heard of it.
TEST_F(PageEngineHomes, AReaderThatTakesItselfForTheOwnerLetsGoWhenAsked) {
  HomeEntry entry;
  const NodeInstance self{NodeId(1), Incarnation(1)};
  const NodeInstance sharer{NodeId(3), Incarnation(1)};
  entry.clean = true;
  entry.sharers = {sharer};
  Message ask;
  ask.kind = MessageKind::kEvictRequest;
  ask.page = kBase;
  std::vector<HomeEffect> effects;
  StepHomeMessage(entry, ask, sharer, {.self = self, .page = kBase, .next_txn = Txn(8)}, effects);
  ASSERT_EQ(effects.size(), 2u);
  EXPECT_EQ(effects[1].to, NodeId(3));
  EXPECT_EQ(effects[1].message.kind, MessageKind::kInvalidate);
  EXPECT_EQ(effects[1].message.txn, Txn(8));
  EXPECT_FALSE(entry.IsBusy());
  effects.clear();
  EXPECT_FALSE(StepHomeMessage(entry, ask, {NodeId(2), Incarnation(1)}, {.self = self, .page = kBase}, effects));
  EXPECT_TRUE(effects.empty());
}

// The disks may be older than its copy, and nobody else has one.
TEST_F(PageEngineHomes, AReaderThatWantsToDropWhatMayBeTheNewestCopyIsAskedWhatItHas) {
  const NodeInstance sharer{NodeId(3), Incarnation(1)};
  for (const HomeState state : {HomeState::kUnowned, HomeState::kLost}) {
    HomeEntry entry;
    entry.state = state;
    entry.sharers = {sharer};
    Message ask;
    ask.kind = MessageKind::kEvictRequest;
    ask.page = kBase;
    std::vector<HomeEffect> effects;
    StepHomeMessage(entry, ask, sharer, {.self = {NodeId(1), Incarnation(1)}, .page = kBase, .next_txn = Txn(8)},
                    effects);
    ASSERT_EQ(effects.size(), 2u);
    EXPECT_EQ(effects[1].to, NodeId(3));
    EXPECT_EQ(effects[1].message.kind, MessageKind::kReport);
    EXPECT_EQ(entry.state, HomeState::kReporting);
  }
}

}  // namespace
}  // namespace mangrove
