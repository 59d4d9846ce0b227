// mount(8), fstab and umount(8) as they are on this machine, in a mount namespace of the test's own, in which the helper is where mount(8)
// looks for it.
// Covers: F02

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kMount[] = "/usr/bin/mount";
constexpr char kUmount[] = "/usr/bin/umount";

class MountHelper : public testing::Test {
 protected:
  MountHelper() : cluster_({.nodes = 1, .replicas = 1}) {}
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0U) << "mounting takes root";
    // What this thread starts from now on is in it too.
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(mkdir((directory_ / "sbin").c_str(), 0755), 0);
    ASSERT_EQ(symlink(ProgramPath("mangrove").c_str(), (directory_ / "sbin/mount.fuse.mangrove").c_str()), 0);
    ASSERT_EQ(mount((directory_ / "sbin").c_str(), "/sbin", nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(mkdir(At("").c_str(), 0755), 0);
    cluster_.StartAll();
  }
  void TearDown() override {
    cluster_.KillAll();
    umount2(At("").c_str(), MNT_DETACH);
    umount2("/sbin", MNT_DETACH);
  }

  std::string At(const std::string& name) const {
    return absl::StrCat(directory_ / "mnt", name.empty() ? "" : "/", name);
  }
  std::string Socket() const { return absl::StrCat("socket=", cluster_.socket(1)); }
  void WriteFstab(const std::string& options) const {
    std::ofstream out(directory_ / "fstab");
    out << "default " << At("") << " fuse.mangrove " << options << " 0 0\n";
  }
  Output ByFstab(const std::string& what) const { return RunProgram({kMount, "-T", directory_ / "fstab", what}); }
  std::string TypeAt() const {
    std::ifstream mounts("/proc/thread-self/mounts");
    std::string source;
    std::string place;
    std::string type;
    std::string rest;
    while (mounts >> source >> place >> type && std::getline(mounts, rest)) {
      if (place == At("")) return absl::StrCat(source, " ", type, rest);
    }
    return "";
  }
  bool IsListed() { return !cluster_.Ask(1, {"mounts"})["mounts"].empty(); }

  const TemporaryDirectory directory_;
  Cluster cluster_;
};

TEST_F(MountHelper, MountMountsAFilesetAndUmountEndsIt) {
  const Output mounted = RunProgram({kMount, "-t", "fuse.mangrove", "-o", Socket(), "default", At("")});
  ASSERT_EQ(mounted.exit_code, 0) << mounted.err;
  EXPECT_THAT(mounted.out, IsEmpty());
  EXPECT_THAT(TypeAt(), HasSubstr("default fuse.mangrove rw,relatime"));
  EXPECT_TRUE(IsListed());
  std::ofstream(At("a")) << "words";
  const Output again = RunProgram({kMount, "-t", "fuse.mangrove", "-o", Socket(), "default", At("")});
  EXPECT_EQ(again.exit_code, 32);
  EXPECT_THAT(again.err, HasSubstr("has a mount already"));
  const Output ended = RunProgram({kUmount, At("")});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_EQ(TypeAt(), "");
  EXPECT_TRUE(Eventually([&] { return !IsListed(); }));
  EXPECT_EQ(RunProgram({kMount, "-t", "fuse.mangrove", "-o", Socket(), "default", At("")}).exit_code, 0);
  EXPECT_EQ(access(At("a").c_str(), F_OK), 0);
  EXPECT_EQ(RunProgram({kUmount, At("")}).exit_code, 0);
}

TEST_F(MountHelper, ALineOfFstabIsMountedWithItsOptions) {
  WriteFstab(
      absl::StrCat("defaults,_netdev,nofail,x-systemd.requires=mangroved.service,ro,noexec,nosuid,noatime,config=",
                   cluster_.config(1)));
  const Output mounted = ByFstab(At(""));
  ASSERT_EQ(mounted.exit_code, 0) << mounted.err;
  EXPECT_THAT(TypeAt(), HasSubstr("default fuse.mangrove ro,nosuid,noexec,noatime"));
  EXPECT_EQ(open(At("a").c_str(), O_WRONLY | O_CREAT, 0644), -1);
  EXPECT_EQ(errno, EROFS);
  const Output remounted = RunProgram({kMount, "-T", directory_ / "fstab", "-o", "remount,rw", At("")});
  EXPECT_EQ(remounted.exit_code, 0) << remounted.err;
  std::ofstream(At("a")) << "words";
  EXPECT_EQ(access(At("a").c_str(), F_OK), 0);
  // What is mounted is passed over.
  const Output all = RunProgram({kMount, "-T", directory_ / "fstab", "-a"});
  EXPECT_EQ(all.exit_code, 0) << all.err;
  EXPECT_EQ(RunProgram({kUmount, At("")}).exit_code, 0);
  EXPECT_TRUE(Eventually([&] { return !IsListed(); }));
  EXPECT_EQ(RunProgram({kMount, "-T", directory_ / "fstab", "-a"}).exit_code, 0);
  EXPECT_TRUE(IsListed());
}

TEST_F(MountHelper, WhatIsWrongIsSaid) {
  const auto mounting = [&](const std::string& options, const std::string& fileset) {
    return RunProgram({kMount, "-t", "fuse.mangrove", "-o", options, fileset, At("")});
  };
  const Output unknown = mounting(absl::StrCat(Socket(), ",loop-the-loop"), "default");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("unknown mount option \"loop-the-loop\""));
  const Output none = mounting(Socket(), "nowhere");
  EXPECT_EQ(none.exit_code, 32);
  EXPECT_THAT(none.err, HasSubstr("there is no fileset \"nowhere\""));
  const Output no_daemon = mounting(absl::StrCat("socket=", directory_ / "no.sock", ",timeout=1"), "default");
  EXPECT_EQ(no_daemon.exit_code, 32);
  EXPECT_THAT(no_daemon.err, HasSubstr("no.sock"));
  EXPECT_EQ(mounting(absl::StrCat("config=", directory_ / "no.toml"), "default").exit_code, 1);
  EXPECT_EQ(TypeAt(), "");
}

}  // namespace
}  // namespace mangrove::cluster_test
