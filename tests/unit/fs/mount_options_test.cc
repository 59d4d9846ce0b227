#include <fuse3/fuse_log.h>
#include <gmock/gmock.h>
#include <sys/statvfs.h>

#include "net/log.h"
#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

using testing::HasSubstr;

class MountOptionsTest : public MountTest {
 protected:
  static unsigned long FlagsOf(const std::string& path) {  // NOLINT: statvfs(3) has it so.
    struct statvfs s {};
    EXPECT_EQ(ErrorOf(statvfs(path.c_str(), &s)), 0);
    return s.f_flag;
  }
};

// Covers: F02
TEST_F(MountOptionsTest, AReadOnlyMountChangesNothingNotEvenTimesOfAccess) {
  WriteFile("a", "words");
  MountHere(&second_, {"ro", "noexec"});
  EXPECT_EQ(ErrorOf(open(SecondPath("b").c_str(), O_WRONLY | O_CREAT, 0644)), EROFS);
  EXPECT_EQ(ErrorOf(open(SecondPath("a").c_str(), O_WRONLY)), EROFS);
  EXPECT_EQ(FlagsOf(second_.point.path()) & (ST_RDONLY | ST_NOEXEC), unsigned{ST_RDONLY | ST_NOEXEC});
  const struct stat before = Stat("a");
  EXPECT_EQ(ReadAll(SecondPath("a")), "words");
  EXPECT_EQ(Stat("a").st_atim.tv_nsec, before.st_atim.tv_nsec);
  EXPECT_EQ(ReadFile("a"), "words");
  EXPECT_NE(Stat("a").st_atim.tv_nsec, before.st_atim.tv_nsec);
}

// Covers: F02
TEST_F(MountOptionsTest, SetIdBitsAndDevicesCountOnlyIfThatIsAskedFor) {
  constexpr unsigned kBoth = ST_NOSUID | ST_NODEV;
  EXPECT_EQ(FlagsOf(first_.point.path()) & kBoth, kBoth);
  MountHere(&second_, {"suid", "dev"});
  EXPECT_EQ(FlagsOf(second_.point.path()) & kBoth, 0U);
}

// Covers: F02
TEST_F(MountOptionsTest, WhatIsNoOptionIsRefusedByItsName) {
  for (const std::string flag : {"", "loop", "fsname=other", "ro,suid"}) {
    const auto mount = Mount::Create({.directory = second_.point.path(), .source = "x", .flags = {flag}});
    EXPECT_EQ(ErrnoOf(mount.status()), EINVAL);
    EXPECT_THAT(std::string(mount.status().message()), HasSubstr("\"" + flag + "\""));
  }
}

TEST_F(MountOptionsTest, WhatLibfuseSaysIsInTheLog) {
  const MountPoint directory;
  const std::string log = directory.path() + "/log";
  ASSERT_TRUE(SetLogFile(log).ok());
  fuse_log(FUSE_LOG_ERR, "fuse: %s: %d\n", "something is wrong", 7);
  EXPECT_THAT(ReadAll(log), HasSubstr("libfuse: fuse: something is wrong: 7\n"));
  unlink(log.c_str());
}

}  // namespace
}  // namespace mangrove::fs
