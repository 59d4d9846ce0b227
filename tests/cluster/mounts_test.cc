// Filesets that daemons mount: told by commands, and by their configurations.
// Covers: F01, F02, F09

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

class Mounting : public testing::Test {
 protected:
  Mounting() : cluster_({.nodes = 3}) {
    for (int node = 1; node <= cluster_.size(); ++node) mkdir(DirectoryOf(node).c_str(), 0755);
  }
  ~Mounting() override {
    cluster_.KillAll();
    for (int node = 1; node <= cluster_.size(); ++node) umount2(DirectoryOf(node).c_str(), MNT_DETACH);
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
  void Mount(int node, const std::string& fileset) { ExpectDone(node, {"mount", fileset, DirectoryOf(node)}); }
  // Its filesets as the daemon lists them.
  std::set<std::string> MountedBy(int node) {
    std::set<std::string> filesets;
    const nlohmann::json document = cluster_.Ask(node, {"mounts"});
    for (const nlohmann::json& mount : document["mounts"]) {
      EXPECT_EQ(mount["directory"], DirectoryOf(node));
      filesets.insert(mount["fileset"].get<std::string>());
    }
    return filesets;
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream out(path);
    out << text;
    out.close();
    EXPECT_TRUE(out.good()) << path;
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static int StatError(const std::string& path) {
    struct stat s {};
    return stat(path.c_str(), &s) == 0 ? 0 : errno;
  }

  const TemporaryDirectory directory_;
  Cluster cluster_;
};

TEST_F(Mounting, WhatOneNodeWritesTheOthersSee) {
  cluster_.StartAll();
  for (int node = 1; node <= 3; ++node) Mount(node, "default");
  Write(PathAt(1, "a"), "one");
  EXPECT_EQ(Read(PathAt(2, "a")), "one");
  Write(PathAt(2, "a"), "two, longer");
  EXPECT_EQ(Read(PathAt(3, "a")), "two, longer");
  ASSERT_EQ(mkdir(PathAt(3, "d").c_str(), 0755), 0);
  ASSERT_EQ(rename(PathAt(1, "a").c_str(), PathAt(1, "d/b").c_str()), 0);
  EXPECT_EQ(StatError(PathAt(2, "a")), ENOENT);
  EXPECT_EQ(Read(PathAt(2, "d/b")), "two, longer");
}

TEST_F(Mounting, FilesetsOfTheConfigurationAreMountedWhenTheClusterIsThere) {
  for (int node = 1; node <= 3; ++node) {
    cluster_.WriteConfig(node,
                         absl::StrCat(cluster_.ConfigText(node), "\n[[mounts]]\nfileset = \"default\"\ndirectory = \"",
                                      DirectoryOf(node), "\"\n", node == 3 ? "options = \"ro,noexec\"\n" : ""));
  }
  cluster_.Start(1);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(1, "is not mounted at") == 1; }));
  EXPECT_EQ(MountedBy(1), std::set<std::string>());
  // It can be stopped meanwhile.
  EXPECT_EQ(cluster_.Stop(1), 0);
  cluster_.Start(1);
  cluster_.Start(2);
  cluster_.Start(3);
  cluster_.AwaitConnected();
  for (int node = 1; node <= 3; ++node) {
    EXPECT_TRUE(Eventually([&] { return !MountedBy(node).empty(); })) << node;
  }
  Write(PathAt(1, "a"), "one");
  EXPECT_EQ(Read(PathAt(3, "a")), "one");
  EXPECT_EQ(open(PathAt(3, "b").c_str(), O_CREAT | O_WRONLY, 0644), -1);
  EXPECT_EQ(errno, EROFS);
  // A node that ends in order takes its mount along; the next start brings it back.
  EXPECT_EQ(cluster_.Stop(3), 0);
  EXPECT_EQ(StatError(PathAt(3, "a")), ENOENT);
  cluster_.Start(3);
  EXPECT_TRUE(Eventually([&] { return Read(PathAt(3, "a")) == "one"; }));
}

TEST_F(Mounting, AKilledDaemonsMountFailsAtOnceAndComesBackWithTheNextDaemon) {
  cluster_.StartAll();
  for (int node = 1; node <= 2; ++node) Mount(node, "default");
  Write(PathAt(1, "a"), "one");
  const int fd = open(PathAt(2, "a").c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  cluster_.Kill(2);
  const Stopwatch watch;
  char byte = 0;
  EXPECT_EQ(pread(fd, &byte, 1, 0), -1);
  EXPECT_EQ(StatError(PathAt(2, "a")), ENOTCONN);
  EXPECT_LT(watch.Seconds(), 1);
  close(fd);
  cluster_.Start(2);
  cluster_.AwaitConnected();
  Mount(2, "default");
  EXPECT_EQ(Read(PathAt(2, "a")), "one");
}

TEST_F(Mounting, AMountThatIsUsedIsUnmountedByForceAlone) {
  cluster_.StartAll();
  Mount(1, "default");
  EXPECT_EQ(MountedBy(1), std::set<std::string>{"default"});
  const Output again = Do(1, {"mount", "default", DirectoryOf(1)});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, HasSubstr(absl::StrCat(DirectoryOf(1), " has a mount already")));
  Write(PathAt(1, "a"), "one");
  const int fd = open(PathAt(1, "a").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  const Output refused = Do(1, {"unmount", DirectoryOf(1)});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("is in use"));
  EXPECT_EQ(MountedBy(1), std::set<std::string>{"default"});
  ExpectDone(1, {"unmount", "--force", DirectoryOf(1)});
  EXPECT_EQ(MountedBy(1), std::set<std::string>());
  EXPECT_EQ(pwrite(fd, "two", 3, 0), 3);
  // The directory is free for another one, also while the first is used.
  Mount(1, "default");
  EXPECT_EQ(Read(PathAt(1, "a")), "two");
  close(fd);
  ExpectDone(1, {"unmount", DirectoryOf(1)});
  const Output none = Do(1, {"unmount", DirectoryOf(1)});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr(absl::StrCat("this node has no mount at ", DirectoryOf(1))));
}

TEST_F(Mounting, FilesetsComeAndGo) {
  cluster_.StartAll();
  ExpectDone(1, {"fileset", "create", "projects", "--replicas", "3"});
  const Output twice = Do(2, {"fileset", "create", "projects"});
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_THAT(twice.err, HasSubstr("projects"));
  const nlohmann::json shown = cluster_.Ask(3, {"fileset", "show", "projects"})["filesets"];
  ASSERT_EQ(shown.size(), 1u);
  EXPECT_EQ(shown[0]["replicas"], 3);
  EXPECT_EQ(shown[0]["state"], "online");
  Mount(2, "projects");
  Mount(3, "projects");
  Write(PathAt(2, "a"), "one");
  EXPECT_EQ(Read(PathAt(3, "a")), "one");
  EXPECT_EQ(cluster_.Ask(1, {"fileset", "list"})["filesets"].size(), 2u);
  EXPECT_EQ(Do(1, {"fileset", "delete", "projects"}).exit_code, 1);
  for (int node : {2, 3}) ExpectDone(node, {"unmount", DirectoryOf(node)});
  ExpectDone(1, {"fileset", "offline", "projects"});
  EXPECT_EQ(Do(2, {"mount", "projects", DirectoryOf(2)}).exit_code, 1);
  ExpectDone(1, {"fileset", "delete", "projects"});
  EXPECT_EQ(cluster_.Ask(2, {"fileset", "list"})["filesets"].size(), 1u);
  const Output gone = Do(2, {"fileset", "show", "projects"});
  EXPECT_EQ(gone.exit_code, 1);
  EXPECT_THAT(gone.err, HasSubstr("projects"));
}

// Covers: F06, F17
TEST_F(Mounting, ProgramsOfUsersWorkOnAnyMount) {
  cluster_.StartAll();
  for (int node = 1; node <= 3; ++node) Mount(node, "default");
  const std::string script = R"sh(
    set -e
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_GLOBAL=/dev/null
    cd $1 && git init -q repository && cd repository
    for i in $(seq 60); do mkdir -p d$((i % 7)) && seq $i $((i * 10)) >d$((i % 7))/f$i; done
    git add . && git commit -q -m one && git mv d1 moved && git commit -q -m two
    cd $2/repository && git fsck --strict && test -z "$(git status --porcelain)" && git log --oneline | wc -l | grep -qx 2
    cd $3 && git clone -q $1/repository copy && diff -r --exclude=.git $2/repository copy
    tar -cf a.tar copy && mkdir $1/out && tar -xf $2/a.tar -C $1/out && diff -r copy $1/out/copy
    rm -rf $1/out $2/repository
    ls $3
  )sh";
  const Output output = RunProgram({"/bin/bash", "-c", script, "bash", DirectoryOf(1), DirectoryOf(2), DirectoryOf(3)});
  EXPECT_EQ(output.exit_code, 0) << output.out << output.err;
  EXPECT_EQ(output.out, "a.tar\ncopy\n");
  EXPECT_THAT(Do(3, {"fsck", "default"}).out, HasSubstr("it is sound"));
}

// Covers: F12
TEST_F(Mounting, WhatWasSyncedOutlivesItsNodeAndTheTreeIsWhole) {
  cluster_.StartAll();
  for (int node = 1; node <= 2; ++node) Mount(node, "default");
  std::atomic<int> synced = 0;
  std::thread writer([&] {
    for (int i = 0;; ++i) {
      const std::string path = PathAt(1, absl::StrCat("f", i));
      const int fd = open((path + ".new").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
      const std::string text(static_cast<size_t>(i % 50 + 1) * 100, static_cast<char>('a' + i % 26));
      const bool ok = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                      fsync(fd) == 0 && rename((path + ".new").c_str(), path.c_str()) == 0 && fsync(fd) == 0;
      if (fd >= 0) close(fd);
      if (!ok) return;
      synced = i + 1;
    }
  });
  EXPECT_TRUE(Eventually([&] { return synced >= 50; }, 60));
  cluster_.Kill(1);
  writer.join();
  for (int i = 0; i < synced; ++i) {
    const std::string text(static_cast<size_t>(i % 50 + 1) * 100, static_cast<char>('a' + i % 26));
    EXPECT_EQ(Read(PathAt(2, absl::StrCat("f", i))), text) << i << " of " << synced;
  }
  EXPECT_THAT(Do(2, {"fsck", "default"}).out, HasSubstr("it is sound"));
}

}  // namespace
}  // namespace mangrove::cluster_test
