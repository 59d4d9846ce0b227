// A program's pages that do not fit into its node's memory, and another node that has room.
// Covers: G10, G12

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <random>
#include <utility>

#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

constexpr uint64_t kCachePages = (uint64_t{1} << 20) / kPageBytes;
constexpr uint64_t kPagesOfTwo = 2 * kCachePages;

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
    std::byte* const base = Take(region.Map(0, kPagesOfTwo * kPageBytes));
    std::vector<uint64_t> order(kPagesOfTwo);
    for (uint64_t i = 0; i < kPagesOfTwo; ++i) order[i] = i;
    for (int round = 0; round < rounds; ++round) {
      if (round > 1) std::shuffle(order.begin(), order.end(), random_);
      for (uint64_t page : order) {
        const std::atomic_ref word(*reinterpret_cast<uint64_t*>(base + page * kPageBytes));
        ASSERT_EQ(word.load(), counted_);
        word.store(counted_ + 1);
      }
      ++counted_;
    }
    EXPECT_TRUE(region.Unmap(0, kPagesOfTwo * kPageBytes).ok());
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
  const auto region = MakeRegion(*session_, "large", kPagesOfTwo * kPageBytes);
  const uint64_t flushed = Counter(1, "pages_flushed");
  CountUp(*region, 6);
  EXPECT_GT(Counter(1, "pages_moved_out"), kPagesOfTwo - kCachePages);
  EXPECT_GT(Counter(2, "pages_taken_in"), kPagesOfTwo - kCachePages);
  EXPECT_EQ(Counter(1, "pages_flushed"), flushed);
  // No program of the other node knew the region until now.
  const auto second = cluster_.Attach(2);
  const auto other = Take(second->Open("large", AccessMode::kWrite));
  CountUp(*other, 2);
  CountUp(*region, 2);
  ASSERT_TRUE(region->Flush(0, kPagesOfTwo * kPageBytes).ok());
  EXPECT_TRUE(Eventually([&] { return !cluster_.PeerOf(1, "node-2").at("resources").is_null(); }));
}

TEST_F(Room, SoDoVolatileOnes) {
  const auto region = MakeRegion(*session_, "volatile", kPagesOfTwo * kPageBytes, {.persistent = false});
  CountUp(*region, 4);
  EXPECT_GT(Counter(2, "pages_taken_in"), kPagesOfTwo - kCachePages);
}

// Nodes 1 and 2 are of one group, 3 and 4 of another, where there is more room.
// Covers: G13
TEST(RoomOfTwoGroups, PagesGoToTheNodeOfTheOwnGroupAsLongAsItHasRoom) {
  constexpr uint64_t kRegionPages = 3 * kCachePages;
  Cluster cluster({.nodes = 4, .cache_size_mib = 64, .ids = {1, 2, 65, 66}});
  for (const auto& [node, setting] : {std::pair(1, "cache_size_mib = 1"), {2, "cache_size_mib = 16"}}) {
    cluster.WriteConfig(node, absl::StrReplaceAll(cluster.ConfigText(node), {{"cache_size_mib = 64", setting}}));
  }
  cluster.StartAll();
  for (const char* const peer : {"node-2", "node-3", "node-4"}) {
    EXPECT_TRUE(Eventually([&] { return !cluster.PeerOf(1, peer).at("resources").is_null(); }));
  }
  const auto room = [&](const char* peer) {
    return cluster.PeerOf(1, peer).at("resources").at("cache_room_bytes").get<uint64_t>();
  };
  EXPECT_LT(room("node-2"), room("node-3"));
  EXPECT_LT(room("node-2"), room("node-4"));
  const auto taken_in = [&](int node) {
    return cluster.Ask(node, {"status"}).at("counters").at("pages_taken_in").get<uint64_t>();
  };
  const auto session = cluster.Attach(1);
  const auto region = MakeRegion(*session, "r", kRegionPages * kPageBytes);
  for (uint64_t page = 0; page < kRegionPages; ++page) ASSERT_TRUE(SetWord(*region, page * kPageBytes, page).ok());
  const uint64_t near = taken_in(2);
  const uint64_t far = taken_in(3) + taken_in(4);
  std::printf("%llu pages went to the own group, %llu to the other\n", static_cast<unsigned long long>(near),
              static_cast<unsigned long long>(far));
  EXPECT_GT(near, kRegionPages / 2);
  EXPECT_LT(far, near / 10);
  for (uint64_t page = 0; page < kRegionPages; ++page) ASSERT_EQ(Take(Word(*region, page * kPageBytes)), page);
}

}  // namespace
}  // namespace mangrove::cluster_test
