#include "tests/cluster/mounted_cluster.h"

#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {

MountedCluster::MountedCluster() {
  mkdir(local().c_str(), 0755);
  for (int node = 1; node <= cluster_.size(); ++node) mkdir(DirectoryOf(node).c_str(), 0755);
}

MountedCluster::~MountedCluster() {
  cluster_.KillAll();
  for (int node = 1; node <= cluster_.size(); ++node) umount2(DirectoryOf(node).c_str(), MNT_DETACH);
}

std::string MountedCluster::DirectoryOf(int node) const { return directory_ / absl::StrCat("mnt-", node); }

std::vector<std::string> MountedCluster::Directories() const {
  std::vector<std::string> all;
  for (int node = 1; node <= cluster_.size(); ++node) all.push_back(DirectoryOf(node));
  return all;
}

void MountedCluster::Mount(int node) {
  const Output output =
      RunProgram({"mangrove", "--socket", cluster_.socket(node), "mount", "default", DirectoryOf(node)});
  if (output.exit_code != 0) throw std::runtime_error(output.err);
}

void MountedCluster::StartMounted() {
  cluster_.StartAll();
  for (int node = 1; node <= cluster_.size(); ++node) Mount(node);
}

Output MountedCluster::RunScript(const std::string& script, int timeout_s) const {
  constexpr int kToDieS = 5;
  std::vector<std::string> command{"/usr/bin/timeout",
                                   "--signal=KILL",
                                   absl::StrCat(timeout_s),
                                   "/bin/bash",
                                   "-e",
                                   "-o",
                                   "pipefail",
                                   "-c",
                                   absl::StrCat("cd $4\n", script),
                                   "bash"};
  for (const std::string& directory : Directories()) command.push_back(directory);
  command.push_back(local());
  return RunProgram(command, timeout_s + kToDieS);
}

void MountedCluster::ExpectRuns(const std::string& script, int timeout_s) const {
  const Output output = RunScript(script, timeout_s);
  EXPECT_EQ(output.exit_code, 0) << output.out << output.err;
}

void MountedCluster::ExpectSound(int node) {
  const Output output = RunProgram({"mangrove", "--socket", cluster_.socket(node), "fsck", "default"});
  EXPECT_THAT(output.out, testing::HasSubstr("it is sound")) << output.err;
}

}  // namespace mangrove::cluster_test
