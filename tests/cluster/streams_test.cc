// Named streams by the command line, on mounts of several nodes.
// Covers: F04

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class StreamCommands : public testing::Test {
 protected:
  StreamCommands() : cluster_({.nodes = 2}) {
    cluster_.StartAll();
    for (int node = 1; node <= 2; ++node) {
      mkdir(Mount(node).c_str(), 0755);
      const Output done = RunProgram({"mangrove", "--socket", cluster_.socket(node), "mount", "default", Mount(node)});
      EXPECT_EQ(done.exit_code, 0) << done.err;
    }
  }
  ~StreamCommands() override {
    cluster_.KillAll();
    for (int node = 1; node <= 2; ++node) umount2(Mount(node).c_str(), MNT_DETACH);
  }

  std::string Mount(int node) const { return absl::StrCat(directory_.path(), "/mnt-", node); }
  std::string PathAt(int node, const std::string& name) const { return absl::StrCat(Mount(node), "/", name); }
  static Output Stream(const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "stream"};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  static Output Put(const std::string& path, const std::string& name, const std::string& from) {
    return RunProgram({"/bin/sh", "-c", absl::StrCat("exec \"$0\" stream put \"$1\" \"$2\" < \"$3\""),
                       ProgramPath("mangrove"), path, name, from});
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary);
    out << text;
    out.close();
    EXPECT_TRUE(out.good()) << path;
  }

  const TemporaryDirectory directory_;
  Cluster cluster_;
};

TEST_F(StreamCommands, PutOnOneNodeAStreamIsListedAndReadOnAnother) {
  Write(PathAt(1, "a"), "of the file itself");
  std::string bytes;
  for (int i = 0; i < 600'000; ++i) absl::StrAppend(&bytes, i, " ");
  Write(directory_ / "bytes", bytes);
  EXPECT_EQ(Put(PathAt(1, "a"), "large", directory_ / "bytes").exit_code, 0);
  EXPECT_EQ(Put(PathAt(1, "a"), "null", "/dev/null").exit_code, 0);
  const Output list = Stream({"list", PathAt(2, "a")});
  EXPECT_EQ(list.out, absl::StrCat(std::string(5, ' '), bytes.size(), "  large\n", std::string(11, ' '), "0  null\n"));
  EXPECT_EQ(Stream({"cat", PathAt(2, "a"), "large"}).out, bytes);
  // In the place of what there was.
  Write(directory_ / "bytes", "other bytes");
  EXPECT_EQ(Put(PathAt(2, "a"), "large", directory_ / "bytes").exit_code, 0);
  EXPECT_EQ(Stream({"cat", PathAt(1, "a"), "large"}).out, "other bytes");
  char value[20];
  EXPECT_EQ(getxattr(PathAt(1, "a").c_str(), "user.stream.large", value, sizeof(value)), 11);
  EXPECT_EQ(Stream({"remove", PathAt(1, "a"), "large"}).exit_code, 0);
  EXPECT_EQ(Stream({"list", PathAt(2, "a")}).out, absl::StrCat(std::string(11, ' '), "0  null\n"));
  EXPECT_THAT(Stream({"cat", PathAt(2, "a"), "large"}).err, HasSubstr("has no stream \"large\""));
}

TEST_F(StreamCommands, ASparseFileBecomesASparseStream) {
  Write(PathAt(1, "a"), "");
  Write(directory_ / "sparse", "begin");
  ASSERT_EQ(truncate((directory_ / "sparse").c_str(), off_t{1} << 33), 0);
  EXPECT_EQ(Put(PathAt(1, "a"), "s", directory_ / "sparse").exit_code, 0);
  EXPECT_THAT(Stream({"list", PathAt(2, "a")}).out, HasSubstr("8589934592  s\n"));
  struct stat s {};
  ASSERT_EQ(stat(PathAt(2, "a").c_str(), &s), 0);
  EXPECT_GT(s.st_blocks, 0);
  EXPECT_LT(s.st_blocks, 8'192);
}

TEST_F(StreamCommands, WhatIsWrongIsSaid) {
  ASSERT_EQ(mkdir(PathAt(1, "d").c_str(), 0755), 0);
  EXPECT_EQ(Put(PathAt(1, "d"), "of a directory", "/dev/null").exit_code, 0);
  EXPECT_EQ(Stream({"list", PathAt(2, "d")}).out, absl::StrCat(std::string(11, ' '), "0  of a directory\n"));
  EXPECT_EQ(Stream({"list", PathAt(1, "none")}).exit_code, 1);
  const Output elsewhere = Stream({"list", directory_.path()});
  EXPECT_EQ(elsewhere.exit_code, 1);
  EXPECT_THAT(elsewhere.err, HasSubstr("expected fuse.mangrove"));
  EXPECT_EQ(Stream({"cat", PathAt(1, "d")}).exit_code, 2);
  EXPECT_EQ(Stream({"list", PathAt(1, "d"), "more"}).exit_code, 2);
  EXPECT_EQ(Stream({"look"}).exit_code, 2);
  EXPECT_EQ(Stream({"cat", PathAt(1, "d"), "a/b"}).exit_code, 1);
  EXPECT_THAT(Stream({"--help"}).out, HasSubstr("mangrove stream put PATH NAME"));
  EXPECT_EQ(RunProgram({"mangrove", "--socket", cluster_.socket(1), "fsck", "default"}).exit_code, 0);
}

}  // namespace
}  // namespace mangrove::cluster_test
