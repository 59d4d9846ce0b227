// What the bookkeeping of a page costs, in bytes that the allocator counts.

#include <malloc.h>

#include <cstdio>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr uint64_t kSegments = 16;

size_t BytesInUse() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

struct EngineBytes {
  size_t responsible = 0;
  size_t owner = 0;
  size_t reader = 0;
};

// Of the engines of three nodes: of the first, which is responsible for so many segments and has no page of them; of the
// second, which owns all pages; of the third, which has copies.
EngineBytes Fill(uint64_t segments, bool shared) {
  EngineCluster cluster(3, [](PageEngineOptions& options) {
    options.cache_pages = uint64_t{1} << 20;
    options.home_entries = uint64_t{1} << 20;
  });
  const PageRange range{kFirstReservablePage, segments * kSegmentPages};
  cluster.Allocate(range, 1, /*is_volatile=*/true);  // No disk keeps account of it.
  for (PageId page = range.first; page < range.end(); page = page + kSegmentPages) {
    CHECK(cluster.IsResponsible(1, page));
  }
  CHECK(cluster.Wait(cluster.engine(2).Acquire(range, Rights::kWrite, cluster.In(60 * kSecond))).ok());
  if (shared) CHECK(cluster.Wait(cluster.engine(3).Acquire(range, Rights::kRead, cluster.In(60 * kSecond))).ok());
  cluster.RunFor(10 * kSecond);
  CHECK(cluster.engine(1).home_entries() >= range.count);
  CHECK(cluster.engine(2).cached_pages() >= range.count);
  return {cluster.EndEngine(NodeId(1), BytesInUse), cluster.EndEngine(NodeId(2), BytesInUse),
          cluster.EndEngine(NodeId(3), BytesInUse)};
}

double PerPage(size_t more, size_t fewer) {
  return (static_cast<double>(more) - static_cast<double>(fewer)) / static_cast<double>(kSegments * kSegmentPages);
}

// Of which there is only what each page adds.
void Measure(bool shared) {
  const EngineBytes fewer = Fill(kSegments, shared);
  const EngineBytes more = Fill(2 * kSegments, shared);
  const double responsible = PerPage(more.responsible, fewer.responsible);
  const double owner = PerPage(more.owner, fewer.owner);
  const double reader = PerPage(more.reader, fewer.reader);
  std::printf("bytes a page: %.1f responsible, %.1f owner, %.1f reader\n", responsible, owner, reader);
  EXPECT_GT(responsible, 40);
  EXPECT_LT(responsible, 64);
  EXPECT_LT(owner, 192);
  EXPECT_LT(reader, 192);
}

TEST(PageEngineMemory, APageThatOneNodeHasCostsLessThan64BytesAtTheResponsibleNode) { Measure(false); }
TEST(PageEngineMemory, APageThatTwoNodesHaveCostsNoMore) { Measure(true); }

}  // namespace
}  // namespace mangrove
