// What filesets may use, and disks that are full, on the mounts of a cluster.
// Covers: B07, F01, F10, F11, G14

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class FilesetSpace : public testing::Test {
 protected:
  static constexpr int kNodes = 3;

  FilesetSpace() : cluster_({.nodes = kNodes}) {
    for (int node = 1; node <= kNodes; ++node) mkdir(DirectoryOf(node).c_str(), 0755);
  }
  ~FilesetSpace() override {
    cluster_.KillAll();
    for (int node = 1; node <= kNodes; ++node) umount2(DirectoryOf(node).c_str(), MNT_DETACH);
  }

  std::string DirectoryOf(int node) const { return absl::StrCat(directory_.path(), "/mnt-", node); }
  std::string PathAt(int node, const std::string& name) const { return absl::StrCat(DirectoryOf(node), "/", name); }
  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  void ExpectDone(int node, const std::vector<std::string>& words) {
    const Output output = Do(node, words);
    EXPECT_EQ(output.exit_code, 0) << words[0] << ": " << output.err;
  }
  void MountAll() {
    for (int node = 1; node <= kNodes; ++node) ExpectDone(node, {"mount", "default", DirectoryOf(node)});
  }
  void StopAll() {
    for (int node = 1; node <= kNodes; ++node) ExpectDone(node, {"unmount", DirectoryOf(node)});
    for (int node = 1; node <= kNodes; ++node) cluster_.Stop(node);  // The last ones have no quorum.
  }
  nlohmann::json Shown(int node) { return cluster_.Ask(node, {"fileset", "show", "default"})["filesets"][0]; }

  // The errno that ends the writing, 0 if all went in; `*written` has the bytes.
  static int Append(const std::string& path, size_t bytes, size_t at_once, uint64_t* written) {
    const int fd = open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return errno;
    const std::string chunk(at_once, 'x');
    int error = 0;
    for (size_t done = 0; done < bytes && error == 0; done += at_once) {
      const ssize_t wrote = write(fd, chunk.data(), chunk.size());
      if (wrote < 0) error = errno;
      if (wrote > 0) *written += static_cast<uint64_t>(wrote);
    }
    close(fd);
    return error;
  }
  static int Append(const std::string& path, size_t bytes) {
    uint64_t written = 0;
    return Append(path, bytes, std::min<size_t>(bytes, 4096), &written);
  }
  static uint64_t BytesOf(const std::string& path) {
    struct stat s {};
    return stat(path.c_str(), &s) == 0 ? static_cast<uint64_t>(s.st_blocks) * 512 : 0;
  }
  static int UnlinkError(const std::string& path) { return unlink(path.c_str()) == 0 ? 0 : errno; }

  const TemporaryDirectory directory_;
  Cluster cluster_;
};

TEST_F(FilesetSpace, AQuotaHoldsForAllNodesTogetherToThePage) {
  constexpr uint64_t kQuota = uint64_t{2} << 20;
  cluster_.StartAll();
  MountAll();
  ExpectDone(2, {"fileset", "set", "default", "--quota-bytes", "2M", "--quota-inodes", "none"});
  std::array<uint64_t, kNodes> written{};
  std::array<int, kNodes> errors{};
  std::vector<std::thread> writers;
  for (int node = 1; node <= kNodes; ++node) {
    writers.emplace_back([&, node] {
      const auto i = static_cast<size_t>(node - 1);
      // Also who is so early that all of it is there for one alone wants more.
      errors[i] = Append(PathAt(node, absl::StrCat("f", node)), kQuota + 4096, 4096, &written[i]);
    });
  }
  for (std::thread& writer : writers) writer.join();
  uint64_t all = 0;
  for (size_t i = 0; i < kNodes; ++i) {
    EXPECT_EQ(errors[i], EDQUOT);
    EXPECT_EQ(BytesOf(PathAt(1, absl::StrCat("f", i + 1))), written[i]);
    all += written[i];
  }
  EXPECT_EQ(all, kQuota);
  EXPECT_EQ(Shown(3)["used_bytes"], kQuota);
  EXPECT_EQ(Shown(3)["quota_bytes"], kQuota);
  struct statvfs space {};
  ASSERT_EQ(statvfs(DirectoryOf(3).c_str(), &space), 0);
  EXPECT_EQ(space.f_blocks * space.f_frsize, kQuota);
  EXPECT_EQ(space.f_bfree, 0u);
  // What one node frees the others may use at once.
  EXPECT_EQ(UnlinkError(PathAt(1, "f2")), 0);
  EXPECT_EQ(Append(PathAt(3, "g"), written[1]), 0);
  EXPECT_EQ(Append(PathAt(3, "g"), 1), EDQUOT);
  EXPECT_THAT(Do(1, {"fsck", "default"}).out, HasSubstr("it is sound"));
  ExpectDone(1, {"fileset", "set", "default", "--quota-bytes", "none"});
  EXPECT_EQ(Append(PathAt(2, "g"), 1), 0);
}

TEST_F(FilesetSpace, AQuotaComesWhileNodesWrite) {
  cluster_.StartAll();
  MountAll();
  std::array<uint64_t, kNodes> written{};
  std::vector<std::thread> writers;
  for (int node = 1; node <= kNodes; ++node) {
    writers.emplace_back([&, node] {
      EXPECT_EQ(Append(PathAt(node, absl::StrCat("f", node)), 1 << 20, 4096, &written[static_cast<size_t>(node - 1)]),
                0);
    });
  }
  for (const char* quota : {"1000000", "2000000", "none", "3000000"}) {
    ExpectDone(3, {"fileset", "set", "default", "--quota-inodes", quota, "--quota-bytes", "1T"});
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(Shown(1)["used_inodes"], kNodes + 1);
  EXPECT_EQ(Shown(1)["quota_inodes"], 3'000'000);
  EXPECT_THAT(Do(2, {"fsck", "default"}).out, HasSubstr("it is sound"));
  ExpectDone(3, {"fileset", "set", "default", "--quota-inodes", "5"});
  EXPECT_EQ(Append(PathAt(1, "g"), 1), 0);
  EXPECT_EQ(Append(PathAt(2, "h"), 1), EDQUOT);
  EXPECT_EQ(mkdir(PathAt(2, "h").c_str(), 0755), -1);
  EXPECT_EQ(errno, EDQUOT);
}

TEST_F(FilesetSpace, WhatIsSetOfAFilesetIsCheckedAndShown) {
  cluster_.StartAll();
  EXPECT_EQ(Do(1, {"fileset", "set", "default"}).exit_code, 2);
  EXPECT_EQ(Do(1, {"fileset", "set", "default", "--quota-bytes", "1X"}).exit_code, 2);
  EXPECT_EQ(Do(1, {"fileset", "set", "default", "--quota-bytes", "100"}).exit_code, 2);
  const Output none = Do(1, {"fileset", "set", "nobodys", "--quota-bytes", "10G"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("nobodys"));
  ExpectDone(1, {"fileset", "set", "default", "--quota-bytes", "10G", "--quota-inodes", "1000", "--copies", "1"});
  EXPECT_EQ(Shown(2)["replicas"], 1);
  const std::string text = Do(3, {"fileset", "show", "default"}).out;
  EXPECT_THAT(text, HasSubstr("0 B of 10.0 GiB"));
  EXPECT_THAT(text, HasSubstr("1 of 1000"));
}

TEST_F(FilesetSpace, AFileOfOneCopyIsOnOneDisk) {
  cluster_.StartAll();
  MountAll();
  ASSERT_EQ(mkdir(PathAt(1, "tmp").c_str(), 0755), 0);
  ASSERT_EQ(setxattr(PathAt(2, "tmp").c_str(), "user.mangrove.copies", "1", 1, 0), 0);
  EXPECT_EQ(setxattr(PathAt(2, "tmp").c_str(), "user.mangrove.copies", "7", 1, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Append(PathAt(3, "tmp/a"), 100 * 4096), 0);
  EXPECT_GE(BytesOf(PathAt(1, "tmp/a")), uint64_t{100} * 4096);
  std::array<char, 8> value{};
  EXPECT_EQ(getxattr(PathAt(1, "tmp/a").c_str(), "user.mangrove.copies", value.data(), value.size()), 1);
  EXPECT_THAT(Do(1, {"fsck", "default"}).out, HasSubstr("it is sound"));
}

// Nodes whose disks have less free than their reserve and a quarter: room for what frees space, and not for data.
TEST_F(FilesetSpace, FullDisksRefuseAtOnceAndRemovalsGoOn) {
  cluster_.StartAll();
  MountAll();
  EXPECT_EQ(Append(PathAt(1, "a"), 1 << 20), 0);
  EXPECT_EQ(Append(PathAt(1, "b"), 1 << 20), 0);
  struct statvfs disk {};
  ASSERT_EQ(statvfs("/tmp", &disk), 0);
  const uint64_t free_mib = (disk.f_bavail * disk.f_frsize) >> 20;
  std::array<std::string, kNodes> texts;
  for (int node = 1; node <= kNodes; ++node) {
    texts[static_cast<size_t>(node - 1)] = cluster_.ConfigText(node);
  }
  StopAll();
  const auto start_with = [&](const std::string& settings) {
    for (int node = 1; node <= kNodes; ++node) {
      cluster_.WriteConfig(node, absl::StrReplaceAll(texts[static_cast<size_t>(node - 1)],
                                                     {{"[node]\n", absl::StrCat("[node]\n", settings)}}));
      cluster_.Start(node);
    }
    cluster_.AwaitConnected();
    MountAll();
  };
  start_with(absl::StrCat("disk_reserve_mib = ", free_mib / 10 * 9, "\n"));
  const Stopwatch watch;
  for (int node = 1; node <= kNodes; ++node) {
    EXPECT_EQ(Append(PathAt(node, "a"), 4 << 20), ENOSPC);
    EXPECT_EQ(Append(PathAt(node, "c"), 1), ENOSPC);
    EXPECT_EQ(mkdir(PathAt(node, "d").c_str(), 0755), -1);
    EXPECT_EQ(errno, ENOSPC);
  }
  EXPECT_LT(watch.Seconds(), 5);
  struct statvfs space {};
  ASSERT_EQ(statvfs(DirectoryOf(1).c_str(), &space), 0);
  EXPECT_LT(space.f_bavail * space.f_frsize >> 20, free_mib / 4);
  EXPECT_EQ(UnlinkError(PathAt(2, "b")), 0);
  EXPECT_EQ(truncate(PathAt(3, "a").c_str(), 4096), 0);
  StopAll();
  start_with("");
  EXPECT_EQ(BytesOf(PathAt(1, "b")), 0u);
  EXPECT_EQ(BytesOf(PathAt(1, "a")), 4096u);
  EXPECT_EQ(Append(PathAt(2, "a"), 1 << 20), 0);
  EXPECT_THAT(Do(1, {"fsck", "default"}).out, HasSubstr("it is sound"));
}

}  // namespace
}  // namespace mangrove::cluster_test
