// A node leaves the view, or comes back as another incarnation: who takes over what it was responsible for, and with what content.
//
// Covers: C05, C09, B02

#include "tests/unit/engine/page_engine_views.h"

namespace mangrove {
namespace {

// "Soon": what has to be said again is, and nobody waits for a timeout of a node that is gone.
constexpr DurationNs kSoon = 300 * kMillisecond;

class PageEngineTakeover : public PageEngineViewsTest {
 protected:
  static constexpr uint64_t kNodes = 4;
  static constexpr uint64_t kGone = 4;  // Who leaves, if it is not the root (node 1).

  explicit PageEngineTakeover(std::function<void(PageEngineOptions&)> change = {})
      : cluster_(kNodes, std::move(change)), page_(SegmentOf(cluster_, kGone, {kGone, 3})) {
    cluster_.Allocate({page_, 16});
    for (uint64_t node = 1; node <= kNodes; ++node) Hear(node);
    cluster_.RunFor(kSecond);
  }
  // A page that node 2 has written, and nobody else has; the node that was responsible for it is gone.
  static PageId LeaveADirtyPage(EngineCluster& cluster) {
    const PageId page = SegmentOf(cluster, kGone, {kGone});
    cluster.Allocate({page, 1});
    EXPECT_TRUE(cluster.Write(2, page, 7).ok());
    cluster.Leave(kGone);
    return page;
  }
  // Node 3 reads it, and has come so far.
  static Pending BeginTakeover(EngineCluster& cluster, PageId page, int steps) {
    Pending read = Begin(cluster.engine(3).Acquire({page, 1}, Rights::kRead, cluster.In(5 * kSecond)));
    for (int i = 0; i < steps; ++i) cluster.Step(cluster.In(kMillisecond));
    return read;
  }
  // Node 3 writes its root, so that nobody else has it, and starts anew.
  void LoseTheDirectory() {
    untouched_ = untouched_ + kSegmentPages;
    ASSERT_TRUE(cluster_.Wait(cluster_.engine(3).Locate(untouched_, cluster_.In(kSecond))).ok());
    ASSERT_EQ(cluster_.engine(3).ResponsibleFor(untouched_), NodeId(3));
    cluster_.Start({NodeId(3), Incarnation(cluster_.host(3).self.incarnation.value + 1)});
    ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Locate(untouched_, cluster_.In(kSecond))).ok());
    ASSERT_EQ(cluster_.engine(1).ResponsibleFor(untouched_), NodeId(1));  // It has been made anew.
  }
  // As the directory says it; 0: nobody is responsible.
  uint32_t TermOf(PageId page) {
    const auto found = cluster_.Wait(cluster_.engine(1).directory().Find(SegmentStart(page), cluster_.In(kSecond)));
    return found.ok() && found->entry ? found->entry->term : 0;
  }
  void Hear(uint64_t node) {
    cluster_.engine(node).SetEventSink([this, node](const NodeOperations::Event& e) { events_[node].push_back(e); });
  }
  bool Heard(uint64_t node, RegionEvent::Kind kind, PageId page) const {
    const auto it = events_.find(node);
    if (it == events_.end()) return false;
    return std::any_of(it->second.begin(), it->second.end(), [&](const NodeOperations::Event& e) {
      return e.kind == kind && (e.range.count == 0 || e.range.Contains(page));
    });
  }
  void ExpectSoon(const Pending& pending) {
    cluster_.RunFor(kSoon);
    EXPECT_TRUE(IsOk(pending)) << Show(pending);
  }
  // Every node asks for every page of some: it gets it, and what there is is one content.
  void ExpectServed(PageId page, int value) {
    for (const uint64_t node : cluster_.running()) {
      const absl::StatusOr<int> read = cluster_.Read(node, page);
      ASSERT_TRUE(read.ok()) << read.status() << " at node " << node;
      EXPECT_EQ(*read, value) << "at node " << node;
    }
  }

  std::map<uint64_t, std::vector<NodeOperations::Event>> events_;
  EngineCluster cluster_;
  PageId untouched_ = kBase + 4096 * kSegmentPages;
  const PageId page_;  // The one that leaves is responsible for its segment. Nodes 1 and 2 keep it.
};

// --- What the others hold ---------------------------------------------------------------------------------------------

// Fails with PlantedBugs::take_over_unasked.
TEST_F(PageEngineTakeover, ADirtyPageOutlivesItsResponsibleNode) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  EXPECT_FALSE(Heard(3, RegionEvent::Kind::kReverted, page_));
  ASSERT_TRUE(cluster_.Write(1, page_, 8).ok());
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kNone);
  ExpectServed(page_, 8);
  ExpectOneResponsible(cluster_, page_);
}

// Who holds it may also be the first to touch the segment again.
TEST_F(PageEngineTakeover, TheHolderOfADirtyPageMayTakeOverItself) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(2, page_ + 1), 0);
  ASSERT_EQ(cluster_.engine(2).ResponsibleFor(page_), NodeId(2));
  ExpectServed(page_, 7);
  ExpectOneResponsible(cluster_, page_);
}

TEST_F(PageEngineTakeover, ReadCopiesThatItGaveAreInvalidatedByTheNextWriter) {
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(2, page_), 7);
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  cluster_.Leave(kGone);
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kRead);  // Its copy goes on serving.
  ASSERT_TRUE(cluster_.Write(3, page_, 8).ok());
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kNone);
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kNone);
  ExpectServed(page_, 8);
}

// A read copy is dropped without a word while its owner lives; not when it is all that is left.
class PageEngineTakeoverFullCache : public PageEngineTakeover {
 protected:
  static constexpr uint64_t kCache = 32;
  PageEngineTakeoverFullCache()
      : PageEngineTakeover([](PageEngineOptions& options) {
          if (options.self.node == NodeId(3)) options.cache_pages = kCache;
        }) {}
  // Node 3 reads so much else that nothing else stays.
  void FillTheCacheOfNode3() {
    const PageId other = SegmentOf(cluster_, 1, {kGone}, page_ + kSegmentPages);
    cluster_.Allocate({other, 2 * kCache});
    // Who is asked for leave may not serve the page yet, and is asked again when there is no room once more.
    for (int round = 0; round < 5; ++round) {
      for (uint64_t i = 0; i < 2 * kCache; ++i) ASSERT_EQ(*cluster_.Read(3, other + i), 0) << i;
      cluster_.RunFor(kSecond);
    }
    EXPECT_EQ(cluster_.engine(3).RightsOf(page_), Rights::kNone);
  }
};

TEST_F(PageEngineTakeoverFullCache, TheLastCopyOfWhatItOwnedIsNotDroppedUnasked) {
  ASSERT_TRUE(cluster_.Write(kGone, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  cluster_.Leave(kGone);
  ASSERT_EQ(ByteHere(cluster_, 3, page_), 7);
  FillTheCacheOfNode3();
  ExpectServed(page_, 7);
  ExpectOneResponsible(cluster_, page_);
}

TEST_F(PageEngineTakeoverFullCache, ACopyWhoseOwnerLivesGoesAllTheSame) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  cluster_.Leave(kGone);
  FillTheCacheOfNode3();
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kRead);
  ExpectServed(page_, 7);
}

TEST_F(PageEngineTakeover, WhatItHadNoPartInIsNotDisturbed) {
  const PageId other = SegmentOf(cluster_, 2, {kGone});
  cluster_.Allocate({other, 4});
  ASSERT_TRUE(cluster_.Write(1, other, 7).ok());
  ASSERT_EQ(*cluster_.Read(3, other + 1), 0);
  cluster_.RunFor(kSecond);
  cluster_.sent.clear();
  cluster_.Leave(kGone);
  EXPECT_EQ(cluster_.engine(1).RightsOf(other), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(3).RightsOf(other + 1), Rights::kRead);
  ASSERT_EQ(*cluster_.Read(2, other), 7);
  cluster_.RunFor(kSecond);
  EXPECT_EQ(cluster_.sent[MessageKind::kRegisterRequest], 0);
  EXPECT_EQ(cluster_.sent[MessageKind::kReport], 0);
  EXPECT_EQ(cluster_.sent[MessageKind::kClaimRequest], 0);
}

// --- What was given to it ---------------------------------------------------------------------------------------------

// Fails with PlantedBugs::tell_nobody.
TEST_F(PageEngineTakeover, AFlushSaysOnceThatWhatWasGivenToItIsLost) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  cluster_.RunFor(kSoon);  // What was kept of the transfer is dropped.
  cluster_.Leave(kGone);
  const absl::Status lost = Flush(cluster_, 2, page_);
  EXPECT_TRUE(absl::IsDataLoss(lost)) << lost;
  EXPECT_TRUE(Flush(cluster_, 2, page_).ok());
  ExpectServed(page_, 0);
}

// Another node has written and flushed it since: what there is is newer than what was lost.
TEST_F(PageEngineTakeover, AFlushSaysSoAfterOthersHaveWrittenToIt) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  cluster_.RunFor(kSoon);  // What was kept of the transfer is dropped.
  cluster_.Leave(kGone);
  ASSERT_TRUE(cluster_.Write(3, page_, 9).ok());
  EXPECT_TRUE(Flush(cluster_, 3, page_).ok());
  const absl::Status lost = Flush(cluster_, 2, page_);
  EXPECT_TRUE(absl::IsDataLoss(lost)) << lost;
  ExpectServed(page_, 9);
}

TEST_F(PageEngineTakeover, WhatItFlushedIsNotLost) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  ASSERT_TRUE(Flush(cluster_, kGone, page_).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page_, 9).ok());
  cluster_.Leave(kGone);
  EXPECT_TRUE(Flush(cluster_, 2, page_).ok());
  ExpectServed(page_, 8);
}

// The one that is responsible lives: it knows that the owner was lost.
TEST_F(PageEngineTakeover, AFlushSaysWhatIsLostWithAnOwner) {
  const PageId page = SegmentOf(cluster_, 1, {kGone});
  cluster_.Allocate({page, 1});
  ASSERT_TRUE(cluster_.Write(2, page, 7).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page, 8).ok());
  cluster_.RunFor(kSoon);
  cluster_.Leave(kGone);
  ASSERT_TRUE(cluster_.Write(3, page, 9).ok());
  const absl::Status lost = Flush(cluster_, 2, page);
  EXPECT_TRUE(absl::IsDataLoss(lost)) << lost;
}

// --- What the gone node alone had -------------------------------------------------------------------------------------

TEST_F(PageEngineTakeover, WhatOnlyItHadGoesBackToWhatWasFlushed) {
  const PageId page = SegmentOf(cluster_, 2, {kGone});
  cluster_.Allocate({page, 1});
  ASSERT_TRUE(cluster_.Write(kGone, page, 7).ok());
  ASSERT_TRUE(Flush(cluster_, kGone, page).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page, 8).ok());
  cluster_.Leave(kGone);
  ExpectServed(page, 7);
  for (const uint64_t node : cluster_.running()) EXPECT_TRUE(Heard(node, RegionEvent::Kind::kReverted, page)) << node;
}

// Nobody knows any more that it had something: all are told that it may have.
TEST_F(PageEngineTakeover, WhatAResponsibleNodeItselfHadGoesBackToo) {
  ASSERT_TRUE(cluster_.Write(kGone, page_, 7).ok());
  ASSERT_TRUE(Flush(cluster_, kGone, page_).ok());
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  cluster_.Leave(kGone);
  ExpectServed(page_, 7);
  for (const uint64_t node : cluster_.running()) {
    EXPECT_TRUE(Heard(node, RegionEvent::Kind::kReverted, page_) ||
                Heard(node, RegionEvent::Kind::kMaybeReverted, page_))
        << node;
  }
}

TEST_F(PageEngineTakeover, WhatItNeverFlushedIsZero) {
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  cluster_.Leave(kGone);
  ExpectServed(page_, 0);
}

TEST_F(PageEngineTakeover, ItsLocksKeepNobodyWaiting) {
  const PageId page = SegmentOf(cluster_, 2, {kGone});
  cluster_.Allocate({page, 2});
  for (const PageId locked : {page, page_}) {
    const auto lock =
        cluster_.Wait(cluster_.engine(kGone).Lock(9, {locked, 2}, LockMode::kExclusive, cluster_.In(kSecond)));
    ASSERT_TRUE(lock.ok()) << lock.status();
  }
  const TimeNs deadline = cluster_.In(20 * kSecond);
  const std::vector<Pending> all = {
      Begin(cluster_.engine(1).Acquire({page, 1}, Rights::kWrite, deadline)),
      Begin(cluster_.engine(3).Acquire({page + 1, 1}, Rights::kRead, deadline)),
      BeginLock(cluster_.engine(1).Lock(9, {page_, 1}, LockMode::kExclusive, deadline)),
      Begin(cluster_.engine(2).Acquire({page_ + 1, 1}, Rights::kRead, deadline)),
  };
  cluster_.RunFor(kSecond);
  for (const Pending& pending : all) EXPECT_FALSE(pending->has_value()) << Show(pending);
  cluster_.Leave(kGone);
  cluster_.RunFor(kSoon);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(IsOk(all[i])) << i << ": " << Show(all[i]);
}

TEST_F(PageEngineTakeover, ItsRequestsKeepNobodyWaiting) {
  const PageId page = SegmentOf(cluster_, 2, {kGone});
  cluster_.Allocate({page, 1});
  const auto lock = cluster_.Wait(cluster_.engine(3).Lock(9, {page, 1}, LockMode::kExclusive, cluster_.In(kSecond)));
  ASSERT_TRUE(lock.ok()) << lock.status();
  const Pending first = Begin(cluster_.engine(kGone).Acquire({page, 1}, Rights::kWrite, cluster_.In(20 * kSecond)));
  cluster_.RunFor(100 * kMillisecond);
  const Pending second = Begin(cluster_.engine(1).Acquire({page, 1}, Rights::kWrite, cluster_.In(20 * kSecond)));
  cluster_.RunFor(100 * kMillisecond);
  ASSERT_FALSE(first->has_value());
  cluster_.Leave(kGone);
  cluster_.RunFor(100 * kMillisecond);
  EXPECT_FALSE(second->has_value());
  ASSERT_TRUE(cluster_.engine(3).Unlock(9, *lock).ok());
  ExpectSoon(second);
}

// Wherever it is on its way to the node that goes, or from it.
TEST_F(PageEngineTakeover, ATransferWithItEndsWellAndWithOneContent) {
  for (int steps = 0; steps < 40; ++steps) {
    for (const bool to_gone : {true, false}) {
      SCOPED_TRACE(testing::Message() << steps << (to_gone ? " steps towards it" : " steps from it"));
      EngineCluster cluster(kNodes);
      const PageId page = SegmentOf(cluster, 2, {kGone});
      cluster.Allocate({page, 1});
      const uint64_t from = to_gone ? 3 : kGone;
      ASSERT_TRUE(cluster.Write(from, page, 7).ok());
      ASSERT_TRUE(Flush(cluster, from, page).ok());
      const uint64_t to = to_gone ? kGone : 3;
      const Pending write = Begin(cluster.engine(to).Acquire({page, 1}, Rights::kWrite, cluster.In(5 * kSecond)));
      for (int i = 0; i < steps; ++i) cluster.Step(cluster.In(kMillisecond));
      cluster.Leave(kGone);
      const Pending read = Begin(cluster.engine(1).Acquire({page, 1}, Rights::kRead, cluster.In(5 * kSecond)));
      cluster.RunFor(kSoon);
      ASSERT_TRUE(IsOk(read)) << Show(read);
      ASSERT_TRUE(to_gone || IsOk(write)) << Show(write);
      for (const uint64_t node : {1, 2, 3}) ASSERT_EQ(*cluster.Read(node, page), 7) << node;
    }
  }
}

// --- What waits for the gone node -------------------------------------------------------------------------------------

TEST_F(PageEngineTakeover, AnAcquireThatWaitedForItGoesOnByItself) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  for (const uint64_t node : {1, 2, 3}) {
    ASSERT_TRUE(cluster_.Wait(cluster_.engine(node).Locate(page_, cluster_.In(kSecond))).ok());
  }
  cluster_.Stop(NodeId(kGone));
  const TimeNs deadline = cluster_.In(60 * kSecond);
  const std::vector<Pending> all = {
      Begin(cluster_.engine(3).Acquire({page_, 1}, Rights::kRead, deadline)),
      Begin(cluster_.engine(1).Acquire({page_ + 1, 3}, Rights::kWrite, deadline)),
      BeginLock(cluster_.engine(2).Lock(9, {page_ + 4, 2}, LockMode::kExclusive, deadline)),
  };
  cluster_.RunFor(5 * kSecond);
  for (const Pending& pending : all) EXPECT_FALSE(pending->has_value()) << Show(pending);
  cluster_.Leave(kGone);
  cluster_.RunFor(kSoon);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(IsOk(all[i])) << i << ": " << Show(all[i]);
  EXPECT_EQ(ByteHere(cluster_, 3, page_), 7);
  ExpectOneResponsible(cluster_, page_);
}

TEST_F(PageEngineTakeover, AFlushThatAskedItGoesOn) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(3).Locate(page_, cluster_.In(kSecond))).ok());
  cluster_.Stop(NodeId(kGone));
  const Pending one = Begin(cluster_.engine(3).Flush({page_, 1}, cluster_.In(60 * kSecond)));
  const Pending many = Begin(cluster_.engine(1).Flush({page_, 16}, cluster_.In(60 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(one->has_value());
  EXPECT_FALSE(many->has_value());
  cluster_.Leave(kGone);
  ExpectSoon(one);
  ExpectSoon(many);
  // It is durable: its owner goes, too.
  cluster_.Leave(2);
  EXPECT_EQ(*cluster_.Read(3, page_), 7);
}

TEST_F(PageEngineTakeover, AFlushOfWhatItOwnedEnds) {
  const PageId page = SegmentOf(cluster_, 2, {kGone});
  cluster_.Allocate({page, 1});
  ASSERT_TRUE(cluster_.Write(kGone, page, 7).ok());
  cluster_.Stop(NodeId(kGone));
  const Pending flush = Begin(cluster_.engine(3).Flush({page, 1}, cluster_.In(60 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_FALSE(flush->has_value());
  cluster_.Leave(kGone);
  cluster_.RunFor(kSoon);
  EXPECT_TRUE(flush->has_value());
}

// Its own disk has to hear of it, but no copy is left in RAM.
TEST_F(PageEngineTakeover, CopiesOfItsSegmentsCanBeDropped) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.Stop(NodeId(kGone));
  const Pending drop = Begin(cluster_.engine(3).DropExtent({page_, 16}, ConfigNumber(1), 2, cluster_.In(10 * kSecond)));
  cluster_.RunFor(kSecond);
  EXPECT_EQ(cluster_.sent[MessageKind::kDropExtent], 0);
  cluster_.Leave(kGone);
  cluster_.RunFor(kSecond);
  EXPECT_GT(cluster_.sent[MessageKind::kDropExtent], 0);
  EXPECT_FALSE(cluster_.Read(1, page_).ok());
  cluster_.RunFor(10 * kSecond);
  EXPECT_TRUE(drop->has_value());
}

// --- Two at once --------------------------------------------------------------------------------------------------

TEST_F(PageEngineTakeover, WhoTookOverMayGoToo) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  ASSERT_EQ(Claimers(cluster_, page_), std::vector{NodeId(3)});
  cluster_.Leave(3);
  ASSERT_EQ(*cluster_.Read(1, page_), 7);
  ExpectOneResponsible(cluster_, page_);
}

// In the middle of asking who holds what.
TEST_F(PageEngineTakeover, WhoTakesOverMayGoMeanwhile) {
  for (int steps = 0; steps < 60; steps += 2) {
    SCOPED_TRACE(steps);
    EngineCluster cluster(kNodes);
    const PageId page = LeaveADirtyPage(cluster);
    const Pending take = BeginTakeover(cluster, page, steps);
    cluster.Leave(3);
    const Pending read = Begin(cluster.engine(1).Acquire({page, 1}, Rights::kRead, cluster.In(5 * kSecond)));
    cluster.RunFor(kSecond);
    ASSERT_TRUE(IsOk(read)) << Show(read);
    ASSERT_EQ(ByteHere(cluster, 1, page), 7);
    ExpectOneResponsible(cluster, page);
  }
}

// All want the same segment at once.
TEST_F(PageEngineTakeover, OneOfManyTakesOver) {
  cluster_.Stop(NodeId(kGone));
  std::vector<Pending> all;
  for (const uint64_t node : {1, 2, 3}) {
    all.push_back(Begin(cluster_.engine(node).Acquire({page_ + node, 1}, Rights::kWrite, cluster_.In(10 * kSecond))));
  }
  cluster_.Leave(kGone);
  cluster_.RunFor(kSoon);
  for (const Pending& pending : all) EXPECT_TRUE(IsOk(pending)) << Show(pending);
  ExpectOneResponsible(cluster_, page_);
  EXPECT_EQ(Claimers(cluster_, page_).size(), 1u);
}

// What a node heard of a segment before all knowledge of it was lost is in a later term than what is right since.
TEST_F(PageEngineTakeover, WhatWasHeardBeforeADirectoryWasLostDoesNotUnseatWhoIsResponsibleSince) {
  ExpectAgreement(cluster_, page_);  // So that all have the directory.
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(3, page_), 0);
  ASSERT_EQ(TermOf(page_), 2u);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(2).Locate(page_, cluster_.In(kSecond))).ok());
  ASSERT_EQ(cluster_.engine(2).ResponsibleFor(page_), NodeId(3));
  LoseTheDirectory();
  ASSERT_EQ(Claimers(cluster_, page_), std::vector<NodeId>{});
  ASSERT_TRUE(cluster_.Write(1, page_, 7).ok());
  ASSERT_EQ(TermOf(page_), 1u);
  ASSERT_EQ(Claimers(cluster_, page_), std::vector{NodeId(1)});

  // Node 2 waits for a page, and has not heard who is responsible.
  cluster_.lost = [this](const Message& m) { return m.kind == MessageKind::kRequest && m.page == page_; };
  const Pending read = Begin(cluster_.engine(2).Acquire({page_, 1}, Rights::kRead, cluster_.In(5 * kSecond)));
  cluster_.RunFor(10 * kMillisecond);
  ASSERT_EQ(cluster_.engine(2).ResponsibleFor(page_), NodeId(3));
  LoseTheDirectory();
  cluster_.lost = nullptr;
  cluster_.RunFor(kSoon);
  EXPECT_EQ(Claimers(cluster_, page_), std::vector{NodeId(1)});
  ASSERT_TRUE(IsOk(read)) << Show(read);
  EXPECT_EQ(ByteHere(cluster_, 2, page_), 7);
  ExpectOneResponsible(cluster_, page_);
}

// --- Numbers ------------------------------------------------------------------------------------------------------

// On the disks there is a version that its responsible node gave last, and that no other has ever heard of.
TEST_F(PageEngineTakeover, WhatIsWrittenInALaterViewBeatsWhatWasFlushedInAnEarlierOne) {
  ASSERT_TRUE(cluster_.Write(kGone, page_, 7).ok());
  ASSERT_TRUE(Flush(cluster_, kGone, page_).ok());
  const Version flushed = cluster_.engine(kGone).Describe(page_).version;
  Message store;
  store.kind = MessageKind::kStore;
  store.page = page_;
  store.config = ConfigNumber(1);
  store.replicas = 2;
  store.version = {Epoch(flushed.epoch.value + 1'000'000), 77};
  auto data = std::make_shared<PageBytes>();
  data->bytes.fill(std::byte{8});
  store.data = data;
  for (const NodeId holder : cluster_.locator().CoreHolders(page_, 2)) cluster_.Inject(holder.value, kGone, store);
  cluster_.RunFor(kSecond);
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(3, page_), 8);
  ASSERT_TRUE(cluster_.Write(3, page_, 9).ok());
  EXPECT_LT(store.version, cluster_.engine(3).Describe(page_).version);
  const absl::Status flush = Flush(cluster_, 3, page_);
  EXPECT_TRUE(flush.ok()) << flush;
  cluster_.Leave(3);
  EXPECT_EQ(*cluster_.Read(1, page_), 9);
}

// Of every grant, whoever gave it.
TEST_F(PageEngineTakeover, NumbersOfALaterViewAreAboveThoseOfEarlierOnes) {
  std::vector<uint64_t> txns[2];
  std::vector<uint64_t> epochs[2];
  int view = 0;
  cluster_.lost = [&](const Message& m) {
    if (m.kind != MessageKind::kGrant && m.kind != MessageKind::kForward) return false;
    txns[view].push_back(m.txn.value);
    if (m.grant_epoch.value > 0) epochs[view].push_back(m.grant_epoch.value);
    return false;
  };
  // Its numbers are far above those of the others, who are responsible for nothing.
  std::vector<PageId> pages = {page_};
  for (uint64_t i = 1; i < 8; ++i) {
    pages.push_back(SegmentOf(cluster_, kGone, {kGone, 3}, pages.back() + 1));
    cluster_.Allocate({pages.back(), 16}, i + 1);
  }
  const auto use = [&] {
    for (const PageId page : pages) {
      for (uint64_t i = 0; i < 16; ++i) {
        for (const uint64_t node : {1, 3, 2}) ASSERT_TRUE(cluster_.Write(node, page + i, 1).ok());
      }
    }
  };
  use();
  cluster_.RunFor(kSecond);
  cluster_.Leave(kGone);
  view = 1;
  use();
  ASSERT_FALSE(txns[0].empty() || txns[1].empty() || epochs[0].empty() || epochs[1].empty());
  EXPECT_LT(*std::max_element(txns[0].begin(), txns[0].end()), *std::min_element(txns[1].begin(), txns[1].end()));
  EXPECT_LT(*std::max_element(epochs[0].begin(), epochs[0].end()),
            *std::min_element(epochs[1].begin(), epochs[1].end()));
}

// --- It comes back ------------------------------------------------------------------------------------------------

TEST_F(PageEngineTakeover, ItComesBackBeforeAnybodyTookOver) {
  for (const bool left : {false, true}) {
    SCOPED_TRACE(left ? "it had left the view" : "it joins in place of its former life");
    EngineCluster cluster(kNodes);
    const PageId page = SegmentOf(cluster, kGone, {kGone});
    cluster.Allocate({page, 16});
    ASSERT_TRUE(cluster.Write(2, page, 7).ok());
    if (left) cluster.Leave(kGone);
    cluster.Start({NodeId(kGone), Incarnation(2)});
    std::vector<Pending> all;
    for (const uint64_t node : cluster.running()) {
      all.push_back(Begin(cluster.engine(node).Acquire({page, 1}, Rights::kRead, cluster.In(5 * kSecond))));
    }
    for (int i = 0; i < 100; ++i) {
      cluster.RunFor(10 * kMillisecond);
      ASSERT_LE(Claimers(cluster, page).size(), 1u) << i;
    }
    for (const Pending& pending : all) EXPECT_TRUE(IsOk(pending)) << Show(pending);
    for (const uint64_t node : cluster.running()) EXPECT_EQ(*cluster.Read(node, page), 7) << node;
    ExpectOneResponsible(cluster, page);
    EXPECT_EQ(Claimers(cluster, page).size(), 1u);
  }
}

TEST_F(PageEngineTakeover, ItComesBackAfterSomebodyTookOver) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.Leave(kGone);
  ASSERT_EQ(*cluster_.Read(3, page_), 7);
  ASSERT_EQ(Claimers(cluster_, page_), std::vector{NodeId(3)});
  cluster_.Start({NodeId(kGone), Incarnation(2)});
  ASSERT_TRUE(cluster_.Write(kGone, page_, 8).ok());
  EXPECT_EQ(Claimers(cluster_, page_), std::vector{NodeId(3)});
  ExpectServed(page_, 8);
  ExpectOneResponsible(cluster_, page_);
  // It serves again: what nobody has touched becomes its own.
  const PageId fresh = page_ + 64 * kSegmentPages;
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(kGone).Locate(fresh, cluster_.In(kSecond))).ok());
  EXPECT_EQ(cluster_.engine(kGone).ResponsibleFor(fresh), NodeId(kGone));
}

// While another is taking over: at any moment at most one takes itself for responsible.
TEST_F(PageEngineTakeover, ItComesBackWhileSomebodyTakesOver) {
  for (int steps = 0; steps < 60; steps += 3) {
    SCOPED_TRACE(steps);
    EngineCluster cluster(kNodes);
    const PageId page = LeaveADirtyPage(cluster);
    const Pending read = BeginTakeover(cluster, page, steps);
    cluster.Start({NodeId(kGone), Incarnation(2)});
    const Pending own = Begin(cluster.engine(kGone).Acquire({page, 1}, Rights::kRead, cluster.In(5 * kSecond)));
    for (int i = 0; i < 50; ++i) {
      cluster.RunFor(10 * kMillisecond);
      ASSERT_LE(Claimers(cluster, page).size(), 1u) << i;
    }
    ASSERT_TRUE(IsOk(read)) << Show(read);
    ASSERT_TRUE(IsOk(own)) << Show(own);
    for (const uint64_t node : cluster.running()) ASSERT_EQ(*cluster.Read(node, page), 7) << node;
    ExpectOneResponsible(cluster, page);
  }
}

}  // namespace
}  // namespace mangrove
