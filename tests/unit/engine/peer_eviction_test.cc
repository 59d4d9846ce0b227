// What does not fit into one node's cache goes to another's, and comes back from there.
// Covers: G10, G12, G13

#include "engine/peer_eviction.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr uint64_t kCache = 256;
constexpr uint64_t kWorkingSet = kCache * 3 / 2;

class PeerEvictionTest : public testing::Test {
 protected:
  explicit PeerEvictionTest(int nodes = 2, bool on = true)
      : cluster_(nodes,
                 [on](PageEngineOptions& options) {
                   options.cache_pages = kCache;
                   options.evict_to_peers = on;
                 }),
        nodes_(static_cast<uint64_t>(nodes)) {
    SetLogLevel(LogLevel::kOff);
  }

  int DiskReads() {
    int reads = 0;
    for (uint64_t node = 1; node <= nodes_; ++node) reads += cluster_.host(node).store.read_count;
    return reads;
  }
  const PageEngineCounters& counters(uint64_t node) { return cluster_.engine(node).counters(); }

  // Node 1 writes each of the pages, and remembers what.
  void WriteAll(PageId first, uint64_t pages = kWorkingSet) {
    for (uint64_t i = 0; i < pages; ++i) Write(first + i);
  }
  void Write(PageId page) {
    const auto value = static_cast<uint8_t>(++stamp_);
    ASSERT_TRUE(cluster_.Write(1, page, value).ok()) << ToString(page);
    written_[page] = value;
  }
  void Read(PageId page) {
    const auto value = cluster_.Read(1, page);
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_EQ(*value, written_[page]) << ToString(page);
  }

  // Node 1 reads, and writes some of the pages, in order and in random order, for several rounds.
  void UseAll(PageId first, uint64_t pages = kWorkingSet, int per_mille_written = 200) {
    std::vector<PageId> order;
    for (uint64_t i = 0; i < pages; ++i) order.push_back(first + i);
    for (int round = 0; round < 6; ++round) {
      if (round % 2 == 1) std::shuffle(order.begin(), order.end(), random_);
      for (PageId page : order) {
        Read(page);
        if (static_cast<int>(random_() % 1000) < per_mille_written) Write(page);
        if (HasFatalFailure()) return;
      }
    }
  }

  EngineCluster cluster_;
  const uint64_t nodes_;
  std::mt19937 random_{1};
  int stamp_ = 0;
  std::map<PageId, int> written_;
};

TEST_F(PeerEvictionTest, NodesTellEachOtherWhatRoomTheyHave) {
  const auto of_2 = [this] { return cluster_.engine(1).peer_eviction().Of(NodeId(2)); };
  ASSERT_TRUE(of_2().has_value());
  const uint64_t room = of_2()->free_pages;
  EXPECT_GT(room, kCache * 3 / 4);
  EXPECT_LT(room, kCache);
  const PageId first = cluster_.SegmentOf(2);
  cluster_.Allocate({first, 100});
  for (uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(cluster_.Read(2, first + i).ok());
  cluster_.RunFor(100 * kMillisecond);
  EXPECT_LE(of_2()->free_pages, room - 90);
  cluster_.RunFor(60 * kSecond);
  EXPECT_TRUE(of_2().has_value());
  cluster_.Stop(NodeId(2));
  EXPECT_FALSE(of_2().has_value());
}

// Whichever node is responsible.
TEST_F(PeerEvictionTest, DirtyPagesThatDoNotFitAreNeverReadFromADisk) {
  for (const uint64_t responsible : {1, 2}) {
    const PageId first = cluster_.SegmentOf(responsible, kBase + responsible * 100 * kSegmentPages);
    cluster_.Allocate({first, kWorkingSet}, responsible);
    WriteAll(first);
    const int before = DiskReads();
    UseAll(first);
    EXPECT_EQ(DiskReads(), before) << "responsible: " << responsible;
    EXPECT_GT(counters(1).pages_moved_out, kWorkingSet - kCache);
    const absl::Status dropped = cluster_.Wait(
        cluster_.engine(1).DropExtent({first, kWorkingSet}, ConfigNumber(responsible), 2, cluster_.In(kSecond)));
    ASSERT_TRUE(dropped.ok()) << dropped;
  }
  EXPECT_EQ(counters(1).pages_flushed, 0u);
  EXPECT_EQ(counters(1).bad_messages + counters(2).bad_messages, 0u);
}

TEST_F(PeerEvictionTest, CleanPagesThatDoNotFitAreReadFromADiskOnce) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, kWorkingSet});
  WriteAll(first);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({first, kWorkingSet}, cluster_.In(kSecond))).ok());
  // Everything starts anew: nothing is in RAM.
  for (const uint64_t node : {1, 2}) cluster_.Stop(NodeId(node));
  for (const uint64_t node : {1, 2}) cluster_.Start({NodeId(node), Incarnation(2)});
  cluster_.RunFor(kSecond);
  for (uint64_t i = 0; i < kWorkingSet; ++i) Read(first + i);
  const int before = DiskReads();
  UseAll(first, kWorkingSet, 0);
  EXPECT_EQ(DiskReads(), before);
  EXPECT_EQ(counters(1).pages_flushed + counters(2).pages_flushed, 0u);
  EXPECT_GT(counters(2).pages_taken_in, kWorkingSet - kCache);
  // That they are clean is still known.
  const int commits = cluster_.host(1).store.commit_count + cluster_.host(2).store.commit_count;
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({first, kWorkingSet}, cluster_.In(kSecond))).ok());
  EXPECT_EQ(cluster_.host(1).store.commit_count + cluster_.host(2).store.commit_count, commits);
}

TEST_F(PeerEvictionTest, VolatilePagesThatDoNotFitGoToAPeer) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, kWorkingSet}, 1, /*is_volatile=*/true);
  WriteAll(first);
  UseAll(first);
  EXPECT_GT(counters(1).pages_moved_out, kWorkingSet - kCache);
}

TEST_F(PeerEvictionTest, WhatWasEvictedToAPeerIsFlushedByIt) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, kWorkingSet});
  WriteAll(first);
  ASSERT_GT(counters(2).pages_taken_in, 0u);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({first, kWorkingSet}, cluster_.In(kSecond))).ok());
  for (const uint64_t node : {1, 2}) cluster_.Stop(NodeId(node));
  for (const uint64_t node : {1, 2}) cluster_.Start({NodeId(node), Incarnation(2)});
  cluster_.RunFor(kSecond);
  for (uint64_t i = 0; i < kWorkingSet; ++i) Read(first + i);
}

TEST_F(PeerEvictionTest, GuestsMakeRoomForTheirHost) {
  const PageId first = cluster_.SegmentOf(1);
  const PageId own = cluster_.SegmentOf(2, first + kSegmentPages);
  cluster_.Allocate({first, 2 * kCache - 64});
  cluster_.Allocate({own, kCache - 32}, 2);
  WriteAll(first, 2 * kCache - 64);
  ASSERT_GT(counters(2).pages_taken_in, kCache / 2);
  for (int round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < kCache - 32; ++i) {
      ASSERT_TRUE(cluster_.Write(2, own + i, static_cast<uint8_t>(i)).ok());
      cluster_.RunFor(100 * kMicrosecond);
    }
  }
  for (uint64_t i = 0; i < kCache - 32; ++i) {
    EXPECT_NE(cluster_.engine(2).RightsOf(own + i), Rights::kNone) << i;
  }
  for (uint64_t i = 0; i < 2 * kCache - 64; ++i) Read(first + i);
}

TEST_F(PeerEvictionTest, FullNodesDoNotSendPagesToAndFro) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, 3 * kCache});
  WriteAll(first, 3 * kCache);
  UseAll(first, 3 * kCache, 0);
  const uint64_t offered = counters(2).pages_offered;
  const uint64_t moved = counters(2).pages_moved_out;
  cluster_.RunFor(10 * kSecond);
  EXPECT_EQ(counters(2).pages_offered, offered);
  EXPECT_EQ(counters(2).pages_moved_out, moved);
  EXPECT_LE(counters(2).pages_moved_out, 3 * kCache);
}

TEST_F(PeerEvictionTest, PinnedPagesStay) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, kWorkingSet});
  ASSERT_TRUE(cluster_.Write(1, first, 1).ok());
  written_[first] = 1;
  const auto lock =
      cluster_.Wait(cluster_.engine(1).Lock(ClientId(1), {first, 1}, LockMode::kShared, cluster_.In(kSecond)));
  ASSERT_TRUE(lock.ok()) << lock.status();
  for (uint64_t i = 1; i < kWorkingSet; ++i) Write(first + i);
  UseAll(first + 1, kWorkingSet - 1);
  EXPECT_NE(cluster_.engine(1).RightsOf(first), Rights::kNone);
}

// The offer's taker comes too late.
TEST_F(PeerEvictionTest, PageThatIsUsedAgainStays) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, 4});
  ASSERT_TRUE(cluster_.Write(1, first, 7).ok());
  cluster_.RunFor(kMillisecond);
  Message offer;
  offer.kind = MessageKind::kOffer;
  offer.page = first;
  offer.kept = true;
  offer.peer = cluster_.host(1).self;
  const uint64_t cached = cluster_.engine(2).cached_pages();
  cluster_.Inject(2, 1, offer);
  cluster_.RunFor(100 * kMillisecond);
  EXPECT_EQ(cluster_.engine(1).RightsOf(first), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(2).RightsOf(first), Rights::kNone);
  EXPECT_LE(cluster_.engine(2).cached_pages(), cached + 1);  // And a page of the directory.
  EXPECT_EQ(counters(2).pages_taken_in, 0u);
}

TEST_F(PeerEvictionTest, PeerThatDoesNotAnswerIsOfferedNothingMore) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, 2 * kWorkingSet});
  cluster_.cut = {NodeId(2)};
  for (uint64_t i = 0; i < kWorkingSet; ++i) {  // Evicted to disk, as far as that can be; here it cannot.
    if (!cluster_.Write(1, first + i, 1).ok()) break;
  }
  const uint64_t offered = counters(1).pages_offered;
  EXPECT_LE(offered, 64u);
  EXPECT_EQ(counters(1).pages_moved_out, 0u);
  cluster_.cut.clear();
  cluster_.RunFor(10 * kSecond);
  for (uint64_t i = 0; i < kWorkingSet; ++i) ASSERT_TRUE(cluster_.Write(1, first + i, 1).ok());
  EXPECT_GT(counters(1).pages_moved_out, 0u);
}

// No program of the peer has opened the region; one does later.
TEST_F(PeerEvictionTest, PeerNeedNotKnowTheRegion) {
  const PageId first = cluster_.SegmentOf(1);
  const PageRange region{first, kWorkingSet};
  cluster_.Allocate(region);
  cluster_.host(2).memory.unknown = region;
  WriteAll(first);
  UseAll(first);
  ASSERT_GT(counters(1).pages_moved_out, kWorkingSet - kCache);
  cluster_.host(2).memory.unknown = {};
  cluster_.engine(2).CountFetched(region);
  for (uint64_t i = 0; i < kWorkingSet; ++i) {
    const auto value = cluster_.Read(2, first + i);
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_EQ(*value, written_[first + i]) << i;
  }
  UseAll(first);
}

// Its own and its guests are on disk then.
TEST_F(PeerEvictionTest, NodeThatIsAboutToEndTakesNoMoreGuests) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, 2 * kWorkingSet});
  WriteAll(first);
  ASSERT_GT(counters(2).pages_taken_in, 0u);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(2).FlushAll(cluster_.In(kSecond))).ok());
  const uint64_t taken = counters(2).pages_taken_in;
  for (uint64_t i = kWorkingSet; i < 2 * kWorkingSet; ++i) Write(first + i);
  EXPECT_EQ(counters(2).pages_taken_in, taken);
  cluster_.Stop(NodeId(2));
  cluster_.Start({NodeId(2), Incarnation(2)});
  cluster_.RunFor(kSecond);
  for (uint64_t i = 0; i < 2 * kWorkingSet; ++i) Read(first + i);
}

class PeerEvictionOff : public PeerEvictionTest {
 protected:
  PeerEvictionOff() : PeerEvictionTest(2, false) {}
};

TEST_F(PeerEvictionOff, PagesGoToDisk) {
  const PageId first = cluster_.SegmentOf(1);
  cluster_.Allocate({first, kWorkingSet});
  WriteAll(first);
  UseAll(first);
  EXPECT_EQ(counters(1).pages_offered, 0u);
  EXPECT_GT(DiskReads(), 100);
  const auto of_2 = cluster_.engine(1).peer_eviction().Of(NodeId(2));
  ASSERT_TRUE(of_2.has_value());
  EXPECT_EQ(of_2->free_pages, 0u);
}

class PeerEvictionOfThree : public PeerEvictionTest {
 protected:
  PeerEvictionOfThree() : PeerEvictionTest(3) {}
};

// W2 of engine/given_away.h: a flush that begins after the host was lost says so too.
TEST_F(PeerEvictionOfThree, WhatWasMovedAndIsLostWithItsHostAFlushSays) {
  const PageId first = cluster_.SegmentOf(3);
  cluster_.Allocate({first, kWorkingSet});
  WriteAll(first);
  cluster_.RunFor(kSecond);
  cluster_.Leave(2);
  int lost = 0;
  for (uint64_t i = 0; i < kWorkingSet; ++i) {
    const absl::Status status = cluster_.Wait(cluster_.engine(1).Flush({first + i, 1}, cluster_.In(5 * kSecond)));
    ASSERT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    if (absl::IsDataLoss(status)) {
      ++lost;
      written_[first + i] = 0;
    }
    Read(first + i);
  }
  EXPECT_GT(lost, 0);
}

TEST_F(PeerEvictionOfThree, WorkingSetMayBeLargerThanTwoNodes) {
  const PageId first = cluster_.SegmentOf(3);
  const uint64_t pages = 2 * kCache + kCache / 4;
  cluster_.Allocate({first, pages});
  WriteAll(first, pages);
  const int before = DiskReads();
  UseAll(first, pages);
  EXPECT_EQ(DiskReads(), before);
  EXPECT_GT(counters(2).pages_taken_in, kCache / 2);
  EXPECT_GT(counters(3).pages_taken_in, kCache / 2);
}

// It needs no frame for it.
TEST_F(PeerEvictionOfThree, OfferGoesToASharerFirst) {
  const PageId first = cluster_.SegmentOf(3);
  cluster_.Allocate({first, kWorkingSet});
  Write(first);
  ASSERT_TRUE(cluster_.Read(2, first).ok());
  const uint64_t cached = cluster_.engine(2).cached_pages();
  for (uint64_t i = 1; i < kWorkingSet; ++i) Write(first + i);
  EXPECT_EQ(cluster_.engine(1).RightsOf(first), Rights::kNone);
  EXPECT_EQ(cluster_.engine(3).Describe(first).owner.node, NodeId(2));
  EXPECT_GE(cluster_.engine(2).cached_pages(), cached);
  Read(first);
}

class PeerEvictionOffOfThree : public PeerEvictionTest {
 protected:
  PeerEvictionOffOfThree() : PeerEvictionTest(3, false) {}
};

TEST_F(PeerEvictionOffOfThree, WhatOnlyASharerHasIsNotReadFromADisk) {
  const PageId first = cluster_.SegmentOf(3);
  cluster_.Allocate({first, kWorkingSet});
  Write(first);
  ASSERT_TRUE(cluster_.Wait(cluster_.engine(1).Flush({first, 1}, cluster_.In(kSecond))).ok());
  ASSERT_TRUE(cluster_.Read(2, first).ok());
  for (uint64_t i = 1; i < kWorkingSet; ++i) Write(first + i);
  ASSERT_EQ(cluster_.engine(1).RightsOf(first), Rights::kNone);
  ASSERT_EQ(cluster_.engine(3).Describe(first).owner, NodeInstance{});
  const int before = DiskReads();
  const auto value = cluster_.Read(3, first);
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(*value, written_[first]);
  EXPECT_EQ(DiskReads(), before);
  EXPECT_EQ(cluster_.engine(3).Describe(first).owner.node, NodeId(2));
}

}  // namespace
}  // namespace mangrove
