// A program's pages that do not fit into its node's memory, and another node that has room.
// Covers: G10, G12

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

constexpr uint64_t kCachePages = (uint64_t{1} << 20) / kPageBytes;
constexpr uint64_t kPages = 2 * kCachePages;

class Room : public testing::Test {
 protected:
  Room() : cluster_({.nodes = 2, .cache_size_mib = 16}) {
    cluster_.WriteConfig(1,
                         absl::StrReplaceAll(cluster_.ConfigText(1), {{"cache_size_mib = 16", "cache_size_mib = 1"}}));
    cluster_.StartAll();
    // Before it has heard of the other's room, it has none to send pages to.
    EXPECT_TRUE(Eventually([&] { return !cluster_.PeerOf(1, "node-2").at("resources").is_null(); }));
    session_ = cluster_.Attach(1);
  }

  // Each page is counted up by 1 in each round, in order and in random order, through the mapping.
  void CountUp(Region& region, int rounds) {
    std::byte* const base = Take(region.Map(0, kPages * kPageBytes));
    std::vector<uint64_t> order(kPages);
    for (uint64_t i = 0; i < kPages; ++i) order[i] = i;
    for (int round = 0; round < rounds; ++round) {
      if (round > 1) std::shuffle(order.begin(), order.end(), random_);
      for (uint64_t page : order) {
        const std::atomic_ref word(*reinterpret_cast<uint64_t*>(base + page * kPageBytes));
        ASSERT_EQ(word.load(), counted_);
        word.store(counted_ + 1);
      }
      ++counted_;
    }
    EXPECT_TRUE(region.Unmap(0, kPages * kPageBytes).ok());
  }
  uint64_t Counter(int node, const std::string& name) {
    return cluster_.Ask(node, {"status"}).at("counters").at(name).get<uint64_t>();
  }

  Cluster cluster_;
  std::shared_ptr<Session> session_;
  std::mt19937_64 random_{1};
  uint64_t counted_ = 0;
};

TEST_F(Room, PagesGoToTheOtherNodeAndNotToDisk) {
  const auto region = MakeRegion(*session_, "large", kPages * kPageBytes);
  const uint64_t flushed = Counter(1, "pages_flushed");
  CountUp(*region, 6);
  EXPECT_GT(Counter(1, "pages_moved_out"), kPages - kCachePages);
  EXPECT_GT(Counter(2, "pages_taken_in"), kPages - kCachePages);
  EXPECT_EQ(Counter(1, "pages_flushed"), flushed);
  // No program of the other node knew the region until now.
  const auto second = cluster_.Attach(2);
  const auto other = Take(second->Open("large", AccessMode::kWrite));
  CountUp(*other, 2);
  CountUp(*region, 2);
  ASSERT_TRUE(region->Flush(0, kPages * kPageBytes).ok());
  EXPECT_TRUE(Eventually([&] { return !cluster_.PeerOf(1, "node-2").at("resources").is_null(); }));
}

TEST_F(Room, SoDoVolatileOnes) {
  const auto region = MakeRegion(*session_, "volatile", kPages * kPageBytes, {.persistent = false});
  CountUp(*region, 4);
  EXPECT_GT(Counter(2, "pages_taken_in"), kPages - kCachePages);
}

}  // namespace
}  // namespace mangrove::cluster_test
