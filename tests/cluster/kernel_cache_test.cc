// What the kernels of three nodes keep of the files that they have mounted.
// Covers: F09, F16

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <string>

#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

class KernelCaches : public MountedCluster {
 protected:
  std::string PathAt(int node, const std::string& name) const { return DirectoryOf(node) + "/" + name; }
  void Write(int node, const std::string& name, const std::string& bytes) const {
    const int fd = open(PathAt(node, name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ASSERT_GE(fd, 0) << strerror(errno);
    EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    close(fd);
  }
  // Its permissions; a negative errno.
  int ModeAt(int node, const std::string& name) const {
    struct stat s {};
    return stat(PathAt(node, name).c_str(), &s) == 0 ? static_cast<int>(s.st_mode & 07777) : -errno;
  }
  // Of 3 bytes. Empty: they cannot be read.
  static std::string BytesOf(int fd) {
    char bytes[3];
    return pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) ? std::string(bytes, sizeof(bytes)) : std::string();
  }
  uint64_t MessagesFrom(int node) {
    return cluster_.Ask(node, {"status"})["counters"]["messages_sent"].get<uint64_t>();
  }
};

TEST_F(KernelCaches, WhoIsAloneAsksNoOtherNode) {
  StartMounted();
  ASSERT_EQ(mkdir(PathAt(1, "d").c_str(), 0755), 0);
  for (int i = 0; i < 50; ++i) Write(1, "d/" + std::to_string(i), "abc");
  const int file = open(PathAt(1, "d/0").c_str(), O_RDONLY | O_CLOEXEC);
  const auto use = [&] {
    for (int i = 0; i < 50; ++i) EXPECT_EQ(ModeAt(1, "d/" + std::to_string(i)), 0644);
    EXPECT_EQ(ModeAt(1, "d/none"), -ENOENT);
    EXPECT_EQ(BytesOf(file), "abc");
  };
  use();
  const uint64_t before = MessagesFrom(1);
  for (int i = 0; i < 1000; ++i) use();
  // What nodes say to each other all the time is among them.
  EXPECT_LT(MessagesFrom(1) - before, 520u) << "one for each 100 calls";
  close(file);
}

// What its kernel keeps is over before the others go on without it.
TEST_F(KernelCaches, ANodeThatStandsStillShowsNothingOld) {
  StartMounted();
  Write(1, "file", "old");
  const int file = open(PathAt(1, "file").c_str(), O_RDONLY | O_CLOEXEC);
  const pid_t daemon = cluster_.pid(1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(BytesOf(file), "old");
    EXPECT_EQ(ModeAt(1, "file"), 0644);
    EXPECT_EQ(ModeAt(1, "new"), -ENOENT);
  }
  kill(daemon, SIGSTOP);
  Write(2, "new", "new");
  ASSERT_EQ(chmod(PathAt(2, "file").c_str(), 0600), 0);
  Write(3, "file", "new");
  auto name = std::async(std::launch::async, [&] { return ModeAt(1, "new"); });
  auto mode = std::async(std::launch::async, [&] { return ModeAt(1, "file"); });
  auto bytes = std::async(std::launch::async, [&] { return BytesOf(file); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // They may answer by what their kernel has, if they do.
  kill(daemon, SIGCONT);
  EXPECT_NE(name.get(), -ENOENT);
  EXPECT_NE(mode.get(), 0644);
  EXPECT_NE(bytes.get(), "old");
  close(file);
}

// Its kernel's caches are of the life of before.
TEST_F(KernelCaches, AKilledNodesMountFailsAtOnceAndTheNextOneSeesWhatIsThere) {
  StartMounted();
  Write(1, "file", "old");
  const int file = open(PathAt(1, "file").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(BytesOf(file), "old");
  cluster_.Kill(1);
  std::this_thread::sleep_for(std::chrono::seconds(1));  // What the kernel was told is over in it.
  EXPECT_EQ(BytesOf(file), "");
  EXPECT_EQ(ModeAt(1, "file"), -ENOTCONN);
  close(file);
  Write(2, "file", "new");
  cluster_.Start(1);
  cluster_.AwaitConnected();
  Mount(1);
  const int again = open(PathAt(1, "file").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(BytesOf(again), "new");
  close(again);
}

}  // namespace
}  // namespace mangrove::cluster_test
