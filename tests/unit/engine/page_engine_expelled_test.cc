// What a node does that the view has gone on without, before it hears of it; and what others do about a node that is gone.

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineExpelled : public testing::Test {
 protected:
  PageEngineExpelled() { SetLogLevel(LogLevel::kOff); }

  // The first page of a segment from `from` on that none of these nodes keeps on its disk.
  static PageId NotOn(const EngineCluster& cluster, const std::vector<uint64_t>& nodes, PageId from = kBase) {
    const auto keeps = [&](PageId page) {
      for (const NodeId holder : cluster.locator().CoreHolders(page, 2)) {
        if (std::find(nodes.begin(), nodes.end(), holder.value) != nodes.end()) return true;
      }
      return false;
    };
    PageId page = SegmentStart(from);
    while (keeps(page)) page = page + kSegmentPages;
    return page;
  }
  // Node 1 is cut off, its lease ends, and it does not know that the others go on.
  static void CutOff(EngineCluster& cluster) {
    cluster.cut = {NodeId(1)};
    cluster.engine(1).OnLease(0);
    cluster.ChangeViewAt({2, 3, 4}, {.epoch = {}, .joins = {}, .leaves = {NodeId(1)}});
    cluster.RunFor(kSecond);
  }
};

// It is responsible for the page, and owns it clean, as far as it knows.
TEST_F(PageEngineExpelled, AFlushWithoutALeaseIsNotAcknowledged) {
  EngineCluster cluster(4);
  const PageId page = NotOn(cluster, {1});
  ASSERT_TRUE(cluster.IsResponsible(1, page));
  cluster.Allocate({page, 1});
  ASSERT_TRUE(cluster.Write(1, page, 7).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond))).ok());
  CutOff(cluster);
  ASSERT_TRUE(cluster.Write(2, page, 8).ok());
  const absl::Status flushed = cluster.Wait(cluster.engine(1).Flush({page, 1}, cluster.In(kSecond)));
  EXPECT_EQ(flushed.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(flushed.message()), testing::HasSubstr("no lease"));
}

// The responsible node, which it is itself, says of the whole range that there is nothing to flush.
TEST_F(PageEngineExpelled, NorIsOneOfARange) {
  EngineCluster cluster(4);
  const PageId page = NotOn(cluster, {1});
  ASSERT_TRUE(cluster.IsResponsible(1, page));
  cluster.Allocate({page, 16});
  for (uint64_t i = 0; i < 16; ++i) ASSERT_TRUE(cluster.Read(1, page + i).ok());
  CutOff(cluster);
  ASSERT_TRUE(cluster.Write(2, page, 8).ok());
  EXPECT_FALSE(cluster.Wait(cluster.engine(1).Flush({page, 16}, cluster.In(kSecond))).ok());
}

// What nobody waits for is told to who is responsible now, too.
TEST_F(PageEngineExpelled, PagesOfAGoneResponsibleNodeCanBeEvicted) {
  EngineCluster cluster(4, [](PageEngineOptions& options) {
    options.cache_pages = 32;
    options.evict_to_peers = false;
  });
  const PageId gone = NotOn(cluster, {1});
  ASSERT_TRUE(cluster.IsResponsible(1, gone));
  const PageId other = NotOn(cluster, {1}, gone + kSegmentPages);
  ASSERT_TRUE(cluster.IsResponsible(2, other));
  cluster.Allocate({gone, 64});
  cluster.Allocate({other, 64});
  for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(cluster.Write(2, gone + i, 7).ok()) << i;
  cluster.RunFor(kSecond);
  cluster.Leave(1);
  for (int round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(cluster.Write(2, other + i, 8).ok()) << i;
  }
  // Of most of the cache: the frames of the other segment are needed.
  const auto lock =
      cluster.Wait(cluster.engine(2).Lock(ClientId(1), {other, 24}, LockMode::kExclusive, cluster.In(20 * kSecond)));
  EXPECT_TRUE(lock.ok()) << lock.status();
}

// Late news of who is responsible: it is found out anew.
TEST_F(PageEngineExpelled, WhoIsNamedResponsibleAndIsGoneIsNotBelieved) {
  EngineCluster cluster(4);
  const PageId page = NotOn(cluster, {1});
  ASSERT_TRUE(cluster.IsResponsible(1, page));
  cluster.Allocate({page, 8});
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(cluster.Write(2, page + i, 7).ok());
  ASSERT_TRUE(cluster.Wait(cluster.engine(2).Flush({page, 8}, cluster.In(kSecond))).ok());
  cluster.Leave(1);
  cluster.RunFor(kSecond);
  Message offer;
  offer.kind = MessageKind::kOffer;
  offer.page = page;
  offer.peer = cluster.host(2).self;
  offer.kept = true;
  cluster.Inject(3, 2, offer);
  cluster.RunFor(kSecond);
  EXPECT_EQ(cluster.Read(3, page + 1).value_or(-1), 7);
}

}  // namespace
}  // namespace mangrove
