// What a call on one mount changes, the next call on another sees.
// Covers: F09, F16

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/mounted_cluster.h"
#include "tests/cluster/pairs.h"

namespace mangrove::cluster_test {
namespace {

// Most of a pair's time is a wait for disks.
constexpr int kWorkers = 8;
constexpr int kPairsOfEach = 1'250;
constexpr int kPairsLimitS = 220;

using PairsOfCalls = MountedCluster;

// MANGROVE_PAIRS_SEED, or another one each time.
uint64_t Seed() {
  const char* const given = std::getenv("MANGROVE_PAIRS_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
}

// Each worker has a directory of its own, and a seed.
TEST_F(PairsOfCalls, SeeOnAnyMountWhatTheCallBeforeHasChangedOnAnother) {
  StartMounted();
  const uint64_t seed = Seed();
  std::printf("MANGROVE_PAIRS_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::vector<std::unique_ptr<Child>> workers;
  for (uint64_t worker = 0; worker < kWorkers; ++worker) {
    std::vector<std::string> roots = Directories();
    for (std::string& root : roots) absl::StrAppend(&root, "/pairs-", worker);
    ASSERT_EQ(mkdir(roots[0].c_str(), 0755), 0);
    workers.push_back(std::make_unique<Child>([&](const Child::Tell&) {
      Pairs pairs(roots, seed + worker);
      for (int i = 0; i < kPairsOfEach; ++i) pairs.Step();
      pairs.CheckAll();
      return 0;
    }));
  }
  const Stopwatch watch;
  for (const std::unique_ptr<Child>& worker : workers) {
    EXPECT_EQ(worker->AwaitEnd(kPairsLimitS - static_cast<int>(watch.Seconds())), 0);
  }
  ExpectSound(2);
}

}  // namespace
}  // namespace mangrove::cluster_test
