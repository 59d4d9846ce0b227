// A record that is read, changed and passed on, by programs of two nodes.
// Covers: G05, G09

#include <gtest/gtest.h>

#include <atomic>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

constexpr uint64_t kPasses = 50;

// Each program in turn adds 1 to the record; the stores that had to wait for the right to it.
uint64_t PassAround(Region& one, Region& other) {
  const uint64_t before = one.Counters().write_faults + other.Counters().write_faults;
  std::byte* const bases[] = {Take(one.Map(0, kPageBytes)), Take(other.Map(0, kPageBytes))};
  uint64_t expected = std::atomic_ref(*reinterpret_cast<uint64_t*>(bases[0])).load();
  for (uint64_t pass = 0; pass < kPasses; ++pass) {
    for (std::byte* base : bases) {
      const std::atomic_ref word(*reinterpret_cast<uint64_t*>(base));
      const uint64_t found = word.load();
      EXPECT_EQ(found, expected++);
      word.store(found + 1);
    }
  }
  for (Region* region : {&one, &other}) EXPECT_TRUE(region->Unmap(0, kPageBytes).ok());
  return one.Counters().write_faults + other.Counters().write_faults - before;
}

TEST(Migratory, ARecordComesWithTheRightToChangeIt) {
  Cluster cluster;
  cluster.StartAll();
  const auto session = cluster.Attach(1);
  const auto region = MakeRegion(*session, "records", 16 * kPageBytes);
  const auto second = cluster.Attach(2);
  {
    const auto other = Take(second->Open("records", AccessMode::kWrite));
    EXPECT_GE(PassAround(*region, *other), kPasses) << "by invalidation, each store takes the other's copy away";
  }
  const absl::Status set = region->SetAttributes(0, kPageBytes, {.protocol = CoherenceProtocol::kMigratory});
  ASSERT_TRUE(set.ok()) << set;
  // Who opens the region from now on knows.
  const auto other = Take(second->Open("records", AccessMode::kWrite));
  EXPECT_EQ(Take(other->GetAttributes(0)).protocol, CoherenceProtocol::kMigratory);
  EXPECT_LE(PassAround(*region, *other), 2u) << "but for the first, of a copy that was there";
  EXPECT_EQ(Take(other->GetAttributes(kPageBytes)).protocol, CoherenceProtocol::kInvalidate);
}

}  // namespace
}  // namespace mangrove::cluster_test
