// A fileset that is repaired by one node, while others want to do so too.
// Covers: C14, F17

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class RepairOnACluster : public MountedCluster {
 protected:
  // So many files that the repair takes a while.
  void SetUp() override {
    StartMounted();
    ExpectRuns("mkdir $1/many; cd $1/many; for i in {1..2000}; do : > f$i; done", 60);
    for (int node = 1; node <= 3; ++node) {
      ASSERT_EQ(Do(node, {"unmount", DirectoryOf(node)}).exit_code, 0);
    }
    ASSERT_EQ(Do(1, {"fileset", "offline", "default"}).exit_code, 0);
  }
  ~RepairOnACluster() override {
    if (repair_.joinable()) repair_.join();
  }

  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  Output Repair(int node) { return Do(node, {"fsck", "default", "--repair"}); }
  uint64_t Repairer(int node) {
    return cluster_.Ask(node, {"fileset", "show", "default"})["filesets"][0].value("repaired_by_node", uint64_t{0});
  }
  // True: node 2 knows that node 1 repairs it. False: it had ended before that.
  bool BeginRepairOfNode1() {
    if (repair_.joinable()) repair_.join();
    has_ended_ = false;
    repair_ = std::thread([this] {
      repaired_ = Repair(1);
      has_ended_ = true;
    });
    while (!has_ended_) {
      if (Repairer(2) == 1) return true;
    }
    return false;
  }

  std::thread repair_;
  std::atomic<bool> has_ended_ = false;
  Output repaired_;  // Once it has ended.
};

TEST_F(RepairOnACluster, IsDoneByOneNodeAtATime) {
  size_t done = 0;
  size_t refused = 0;
  for (int round = 0; round < 20 && refused == 0; ++round) {
    std::array<Output, 3> outputs;
    std::vector<std::thread> nodes;
    for (int node = 1; node <= 3; ++node) {
      nodes.emplace_back([&, node] { outputs[static_cast<size_t>(node) - 1] = Repair(node); });
    }
    for (std::thread& node : nodes) node.join();
    for (const Output& output : outputs) {
      if (output.exit_code == 0) {
        ++done;
      } else {
        EXPECT_THAT(output.err, HasSubstr("is being repaired by node"));
        ++refused;
      }
    }
  }
  EXPECT_GE(done, 1u);
  EXPECT_GE(refused, 1u);
  EXPECT_EQ(Repairer(2), 0u);
  EXPECT_EQ(Repair(2).exit_code, 0);
  EXPECT_EQ(Do(3, {"fileset", "online", "default"}).exit_code, 0);
}

// Nor is it set online meanwhile.
TEST_F(RepairOnACluster, GoesToAnotherNodeWhenTheFirstIsKilled) {
  bool is_seen = false;
  for (int i = 0; i < 20 && !is_seen; ++i) is_seen = BeginRepairOfNode1();
  ASSERT_TRUE(is_seen);
  const Output online = Do(3, {"fileset", "online", "default"});
  if (online.exit_code != 0) {
    EXPECT_THAT(online.err, HasSubstr("is being repaired by node 1"));
  }
  cluster_.Kill(1);
  Do(3, {"fileset", "offline", "default"});  // If it had been repaired.
  EXPECT_TRUE(Eventually([this] { return Repair(2).exit_code == 0; }));
  EXPECT_EQ(Repairer(3), 0u);
  EXPECT_EQ(Do(3, {"fileset", "online", "default"}).exit_code, 0);
  ExpectSound(3);
}

}  // namespace
}  // namespace mangrove::cluster_test
