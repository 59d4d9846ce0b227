// A cluster whose nodes have the fileset "default" mounted, and the programs that work there.

#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {

class MountedCluster : public testing::Test {
 protected:
  MountedCluster();
  ~MountedCluster() override;

  // Starts all nodes, with a mount on each.
  void StartMounted();
  void Mount(int node);
  std::string DirectoryOf(int node) const;
  std::vector<std::string> Directories() const;
  // Empty, and in no mount.
  std::string local() const { return directory_ / "local"; }

  // Runs a bash script with -e and pipefail; it has the mounts' directories as $1, $2 and $3 and local() as $4, where it begins. After the time limit it and what it has started
  // are killed.
  Output RunScript(const std::string& script, int timeout_s) const;
  // What it has written is part of the failure.
  void ExpectRuns(const std::string& script, int timeout_s) const;
  void ExpectSound(int node);

  const TemporaryDirectory directory_;
  Cluster cluster_{{.nodes = 3}};
};

}  // namespace mangrove::cluster_test
