// chmod and chown with their rules for the set-id bits; who may do what: owner, groups, others; access; sticky and set-gid
// directories; umask.
// Covers: F06

#include <sys/syscall.h>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

constexpr uid_t kSame = static_cast<uid_t>(-1);

int64_t ChmodAt2(const char* path, mode_t mode, unsigned flags) {
  constexpr int kFchmodat2 = 452;
  return syscall(kFchmodat2, AT_FDCWD, path, mode, flags);
}

const bool chmod_refusals = Refuses(
    "ChmodRefuses", {
                        {"Nothing", {ENOENT}, [] { return chmod("none", 0600); }},
                        {"TheEmptyPath", {ENOENT}, [] { return chmod("", 0600); }},
                        {"ALinkToNothing", {ENOENT}, [] { return chmod("dangling", 0600); }},
                        {"ALoop", {ELOOP}, [] { return chmod("loop", 0600); }},
                        {"ThroughAFile", {ENOTDIR}, [] { return chmod("file/x", 0600); }},
                        {"WhatIsNotOpen", {EBADF}, [] { return fchmod(987, 0600); }},
                        {"AnothersFile", {EPERM}, [] { return chmod("file", 0666); }, kUser},
                        {"AnothersDirectory", {EPERM}, [] { return chmod("open", 0755); }, kUser},
                        {"BehindAClosedDirectory", {EACCES}, [] { return chmod("secret/in", 0666); }, kUser},
                        {"ALinkItself", {EOPNOTSUPP}, [] { return ChmodAt2("link", 0600, AT_SYMLINK_NOFOLLOW); }},
                        {"UnknownFlags", {EINVAL}, [] { return ChmodAt2("file", 0600, 1u << 20); }},
                        {"ABadAddress", {EFAULT}, [] { return chmod(NoAddress(), 0600); }},
                    });

const bool chown_refusals = Refuses(
    "ChownRefuses", {
                        {"Nothing", {ENOENT}, [] { return chown("none", 1, 1); }},
                        {"ALinkToNothing", {ENOENT}, [] { return chown("dangling", 1, 1); }},
                        {"ALoop", {ELOOP}, [] { return chown("loop", 1, 1); }},
                        {"ThroughAFile", {ENOTDIR}, [] { return chown("file/x", 1, 1); }},
                        {"WhatIsNotOpen", {EBADF}, [] { return fchown(987, 1, 1); }},
                        {"UnknownFlags", {EINVAL}, [] { return fchownat(AT_FDCWD, "file", 1, 1, 1 << 20); }},
                        {"TakingAnothersFile", {EPERM}, [] { return chown("file", kUser, kSame); }, kUser},
                        {"GivingAwayOnesOwn", {EPERM}, [] { return chown("mine", kStranger, kSame); }, kUser},
                        {"AGroupThatOneIsNotIn", {EPERM}, [] { return chown("mine", kSame, kStranger); }, kUser},
                        {"TheGroupOfAnothersFile", {EPERM}, [] { return chown("file", kSame, kUser); }, kUser},
                        {"BehindAClosedDirectory", {EACCES}, [] { return chown("secret/in", kUser, kSame); }, kUser},
                        {"ALinkOfAnother", {EPERM}, [] { return lchown("link", kUser, kSame); }, kUser},
                    });

const bool access_refusals =
    Refuses("AccessRefuses",
            {
                {"Nothing", {ENOENT}, [] { return access("none", F_OK); }},
                {"ALinkToNothing", {ENOENT}, [] { return access("dangling", F_OK); }},
                {"ThroughAFile", {ENOTDIR}, [] { return access("file/x", F_OK); }},
                {"ALoop", {ELOOP}, [] { return access("loop", F_OK); }},
                {"UnknownModes", {EINVAL}, [] { return access("file", 99); }},
                {"UnknownFlags", {EINVAL}, [] { return syscall(SYS_faccessat2, AT_FDCWD, "file", F_OK, 1 << 20); }},
                {"ExecutingWhatNobodyMay", {EACCES}, [] { return access("file", X_OK); }},
                {"WritingToAnothersFile", {EACCES}, [] { return access("file", W_OK); }, kUser},
                {"ReadingAndWritingAnothersFile", {EACCES}, [] { return access("file", R_OK | W_OK); }, kUser},
                {"WritingToAnothersDirectory", {EACCES}, [] { return access("dir", W_OK | X_OK); }, kUser},
                {"SearchingAClosedDirectory", {EACCES}, [] { return access("secret", X_OK); }, kUser},
                {"BehindAClosedDirectory", {EACCES}, [] { return access("secret/in", F_OK); }, kUser},
            });

class Permissions : public Posix {
 protected:
  // A file of kUser's and of kGroup's with this mode.
  static void MakeOf(const std::string& name, mode_t mode) {
    Make(name, "text");
    DONE(chown(name.c_str(), kUser, kGroup));
    DONE(chmod(name.c_str(), mode));
  }
  // What of "rwx" the caller may do with a file, by the answers of the calls themselves.
  static std::string May(const std::string& name) {
    std::string may;
    if (Fd(open(name.c_str(), O_RDONLY)) >= 0) may += 'r';
    if (Fd(open(name.c_str(), O_WRONLY)) >= 0) may += 'w';
    if (access(name.c_str(), X_OK) == 0) may += 'x';
    return may;
  }
};

TEST_F(Permissions, ChmodSetsAllTwelveBits) {
  for (const mode_t mode : {0u, 0777u, 07777u, 04711u, 02755u, 01700u, 0421u}) {
    DONE(chmod("file", mode));
    EXPECT_EQ(Mode("file"), mode);
    DONE(chmod("dir", mode));
    EXPECT_EQ(Mode("dir"), mode);
  }
  DONE(chmod("dir", 0755));
}

TEST_F(Permissions, ChmodKeepsTheType) {
  DONE(chmod("fifo", 0600));
  EXPECT_EQ(Stat("fifo").st_mode, mode_t{S_IFIFO | 0600});
  DONE(chmod("file", S_IFDIR | 0600));
  EXPECT_EQ(Stat("file").st_mode, mode_t{S_IFREG | 0600});
}

TEST_F(Permissions, ChmodFollowsLinks) {
  DONE(chmod("link", 0600));
  EXPECT_EQ(Mode("file"), mode_t{0600});
  EXPECT_EQ(Mode("link"), mode_t{0777});
  DONE(fchmod(Open("file", O_RDONLY), 0640));
  EXPECT_EQ(Mode("file"), mode_t{0640});
  DONE(ChmodAt2("file", 0604, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(Mode("file"), mode_t{0604});
}

TEST_F(Permissions, ChmodBySomebodyOutsideOfTheGroupDropsSetGid) {
  MakeOf("a", 0755);
  {
    const As user(kUser);
    DONE(chmod("a", 02755));
  }
  EXPECT_EQ(Mode("a"), mode_t{0755});
  {
    const As user(kUser, kUser, {kGroup});
    DONE(chmod("a", 02755));
  }
  EXPECT_EQ(Mode("a"), mode_t{02755});
}

TEST_F(Permissions, ChownSetsOwnerAndGroup) {
  DONE(chown("file", kUser, kGroup));
  EXPECT_EQ(Stat("file").st_uid, kUser);
  EXPECT_EQ(Stat("file").st_gid, kGroup);
  DONE(chown("file", kSame, kStranger));
  EXPECT_EQ(Stat("file").st_uid, kUser);
  EXPECT_EQ(Stat("file").st_gid, kStranger);
  DONE(chown("file", 0, kSame));
  EXPECT_EQ(Stat("file").st_uid, 0u);
  EXPECT_EQ(Stat("file").st_gid, kStranger);
  DONE(chown("file", 4'000'000'000, 4'000'000'001));
  EXPECT_EQ(Stat("file").st_uid, 4'000'000'000);
  EXPECT_EQ(Stat("file").st_gid, 4'000'000'001);
}

TEST_F(Permissions, ChownFollowsLinksAndLchownDoesNot) {
  DONE(chown("link", 1, 1));
  EXPECT_EQ(Stat("file").st_uid, 1u);
  EXPECT_EQ(Stat("link").st_uid, 0u);
  DONE(lchown("link", 2, 2));
  EXPECT_EQ(Stat("file").st_uid, 1u);
  EXPECT_EQ(Stat("link").st_uid, 2u);
  DONE(fchownat(AT_FDCWD, "dangling", 3, 3, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(Stat("dangling").st_uid, 3u);
  DONE(fchownat(Open("file"), "", 4, 4, AT_EMPTY_PATH));
  EXPECT_EQ(Stat("file").st_uid, 4u);
  DONE(fchown(Open("dir", O_RDONLY), 5, 5));
  EXPECT_EQ(Stat("dir").st_uid, 5u);
}

TEST_F(Permissions, AnOwnerMayGiveAFileToHisGroups) {
  {
    const As user(kUser, kUser, {kGroup});
    DONE(chown("mine", kSame, kGroup));
    DONE(chown("mine", kUser, kGroup));
  }
  EXPECT_EQ(Stat("mine").st_gid, kGroup);
}

TEST_F(Permissions, ChownDropsTheSetIdBitsOfAProgram) {
  Make("a", "", 06755);
  DONE(chown("a", kUser, kGroup));
  EXPECT_EQ(Mode("a"), mode_t{0755});
  DONE(chmod("a", 06755));
  DONE(lchown("a", 0, 0));
  EXPECT_EQ(Mode("a"), mode_t{0755});
}

TEST_F(Permissions, ChownByAUserDropsTheSetIdBits) {
  MakeOf("a", 06755);
  {
    const As user(kUser, kUser, {kGroup});
    DONE(chown("a", kSame, kUser));
  }
  EXPECT_EQ(Mode("a"), mode_t{0755});
}

TEST_F(Permissions, ChownKeepsTheBitsOfADirectory) {
  DONE(chmod("dir", 07755));
  DONE(chown("dir", kUser, kGroup));
  EXPECT_EQ(Mode("dir"), mode_t{07755});
}

TEST_F(Permissions, WritingByAUserDropsTheSetIdBits) {
  MakeOf("a", 06777);
  {
    const As user(kStranger);
    EXPECT_EQ(Write(Open("a", O_WRONLY), "x"), 1);
  }
  EXPECT_EQ(Mode("a"), mode_t{0777});
}

TEST_F(Permissions, TruncatingByAUserDropsTheSetIdBits) {
  MakeOf("a", 06777);
  {
    const As user(kStranger);
    DONE(truncate("a", 1));
  }
  EXPECT_EQ(Mode("a"), mode_t{0777});
  DONE(chmod("a", 06777));
  {
    const As user(kStranger);
    DONE(Open("a", O_WRONLY | O_TRUNC));
  }
  EXPECT_EQ(Mode("a"), mode_t{0777});
}

TEST_F(Permissions, AllocatingByAUserDropsTheSetIdBits) {
  MakeOf("a", 06777);
  {
    const As user(kStranger);
    DONE(fallocate(Open("a"), 0, 0, 100));
  }
  EXPECT_EQ(Mode("a"), mode_t{0777});
}

TEST_F(Permissions, WritingByRootKeepsTheSetIdBits) {
  Make("a", "", 06755);
  EXPECT_EQ(Write(Open("a", O_WRONLY), "x"), 1);
  DONE(truncate("a", 0));
  EXPECT_EQ(Mode("a"), mode_t{06755});
}

TEST_F(Permissions, ReadingKeepsTheSetIdBits) {
  MakeOf("a", 06755);
  {
    const As user(kStranger);
    EXPECT_EQ(ReadAt(Open("a", O_RDONLY), 0), "text");
  }
  EXPECT_EQ(Mode("a"), mode_t{06755});
}

// The first class that fits decides, also where another one would give more.
TEST_F(Permissions, OwnerGroupAndOthersHaveTheirOwn) {
  const struct {
    mode_t mode;
    std::string owner, group, others;
  } rows[] = {
      {0000, "", "", ""},    {0700, "rwx", "", ""},   {0070, "", "rwx", ""}, {0007, "", "", "rwx"},
      {0400, "r", "", ""},   {0020, "", "w", ""},     {0001, "", "", "x"},   {0754, "rwx", "rx", "r"},
      {0640, "rw", "r", ""}, {0127, "x", "w", "rwx"},
  };
  for (const auto& row : rows) {
    MakeOf("a", row.mode);
    {
      const As owner(kUser, kStranger, {kGroup});
      EXPECT_EQ(May("a"), row.owner) << std::oct << row.mode;
    }
    {
      const As member(kStranger, kGroup);
      EXPECT_EQ(May("a"), row.group) << std::oct << row.mode;
    }
    {
      const As supplementary(kStranger, kStranger, {5, kGroup, 7});
      EXPECT_EQ(May("a"), row.group) << std::oct << row.mode;
    }
    const As other(kStranger);
    EXPECT_EQ(May("a"), row.others) << std::oct << row.mode;
  }
}

TEST_F(Permissions, RootReadsAndWritesAllAndExecutesWhatSomebodyMay) {
  MakeOf("a", 0);
  EXPECT_EQ(May("a"), "rw");
  DONE(chmod("a", 0001));
  EXPECT_EQ(May("a"), "rwx");
  DONE(chmod("dir", 0));
  DONE(access("dir", R_OK | W_OK | X_OK));
  Make("dir/a");
  EXPECT_EQ(Names("dir"), std::set<std::string>{"a"});
}

TEST_F(Permissions, ADirectoryIsListedWithReadAndEnteredWithSearch) {
  DONE(chmod("mydir", 0400));
  {
    const As user(kUser);
    DONE(Open("mydir", O_RDONLY));
    FAILS(EACCES, open("mydir/in", O_RDONLY));
    FAILS(EACCES, unlink("mydir/in"));
    DONE(chmod("mydir", 0100));
    FAILS(EACCES, open("mydir", O_RDONLY));
    EXPECT_EQ(ReadAt(Open("mydir/in", O_RDONLY), 0), "in");
    FAILS(EACCES, unlink("mydir/in"));
    DONE(chmod("mydir", 0300));
    DONE(unlink("mydir/in"));
    DONE(mkdir("mydir/d", 0755));
  }
  EXPECT_EQ(Names("mydir"), std::set<std::string>{"d"});
}

TEST_F(Permissions, WritingToADirectoryNeedsSearchToo) {
  DONE(chmod("mydir", 0600));
  const As user(kUser);
  FAILS(EACCES, open("mydir/a", O_RDWR | O_CREAT, 0644));
  FAILS(EACCES, mkdir("mydir/a", 0755));
  FAILS(EACCES, rename("mydir/in", "mydir/a"));
}

TEST_F(Permissions, EveryDirectoryOfAPathMustBeSearchable) {
  DONE(mkdir("open/a", 0755));
  DONE(mkdir("open/a/b", 0755));
  Make("open/a/b/c", "deep");
  DONE(chmod("open/a", 0700));
  const As user(kUser);
  FAILS(EACCES, open("open/a/b/c", O_RDONLY));
  FAILS(EACCES, access("open/a/b", F_OK));
  FAILS(EACCES, rename("mydir/in", "open/a/b/x"));
}

TEST_F(Permissions, WhatIsTakenAwayIsTakenAwayAtOnce) {
  DONE(chmod("other", 0644));
  {
    const As user(kUser);
    DONE(Open("other", O_RDONLY));
  }
  DONE(chmod(There("other").c_str(), 0600));
  {
    const As user(kUser);
    FAILS(EACCES, open("other", O_RDONLY));
  }
  DONE(chmod(There("open").c_str(), 0755));
  const As user(kUser);
  FAILS(EACCES, mkdir("open/d", 0755));
}

TEST_F(Permissions, AccessAsksForTheRealUserAndCanAskForTheEffectiveOne) {
  MakeOf("a", 0600);
  EXPECT_EQ(syscall(SYS_setresuid, kStranger, 0, 0), 0);
  FAILS(EACCES, access("a", R_OK));
  DONE(syscall(SYS_faccessat2, AT_FDCWD, "a", R_OK, AT_EACCESS));
  EXPECT_EQ(syscall(SYS_setresuid, 0, 0, 0), 0);
  DONE(access("a", R_OK));
}

TEST_F(Permissions, AccessOfALinkItself) {
  DONE(syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
  DONE(syscall(SYS_faccessat2, int{Open("file")}, "", R_OK, AT_EMPTY_PATH));
}

TEST_F(Permissions, InAStickyDirectoryEachRemovesHisOwn) {
  {
    const As stranger(kStranger);
    DONE(Open("sticky/mine", O_RDWR | O_CREAT, 0666));
  }
  {
    const As user(kUser);
    FAILS(EPERM, unlink("sticky/mine"));
    FAILS(EPERM, rename("sticky/mine", "sticky/b"));
    DONE(mkdir("sticky/d", 0777));
  }
  {
    const As stranger(kStranger);
    FAILS(EPERM, rmdir("sticky/d"));
    DONE(unlink("sticky/mine"));
  }
  DONE(chown("sticky", kUser, kUser));
  const As user(kUser);
  DONE(unlink("sticky/theirs"));
}

TEST_F(Permissions, ASetGidDirectoryGivesItsGroupOn) {
  DONE(chown("open", 0, kGroup));
  DONE(chmod("open", 02777));
  {
    const As user(kUser);
    DONE(Open("open/a", O_RDWR | O_CREAT, 0644));
    DONE(mkdir("open/d", 0755));
    DONE(symlink("x", "open/s"));
    DONE(mkfifo("open/f", 0644));
    DONE(mkdir("open/d/e", 0755));
  }
  for (const char* name : {"open/a", "open/d", "open/s", "open/f", "open/d/e"}) {
    EXPECT_EQ(Stat(name).st_gid, kGroup) << name;
    EXPECT_EQ(Stat(name).st_uid, kUser) << name;
  }
  EXPECT_EQ(Mode("open/d"), mode_t{02755});
  EXPECT_EQ(Mode("open/d/e"), mode_t{02755});
  EXPECT_EQ(Mode("open/a"), mode_t{0644});
}

TEST_F(Permissions, ASetGidProgramInASetGidDirectoryIsForMembers) {
  DONE(chown("open", 0, kGroup));
  DONE(chmod("open", 02777));
  {
    const As user(kUser);
    DONE(Open("open/a", O_RDWR | O_CREAT, 02755));
  }
  EXPECT_EQ(Mode("open/a"), mode_t{0755});
  {
    const As member(kUser, kUser, {kGroup});
    DONE(Open("open/b", O_RDWR | O_CREAT, 02755));
  }
  EXPECT_EQ(Mode("open/b"), mode_t{02755});
}

TEST_F(Permissions, WithoutSetGidTheGroupIsTheCallers) {
  DONE(chown("open", 0, kGroup));
  {
    const As user(kUser, kStranger);
    DONE(Open("open/a", O_RDWR | O_CREAT, 0644));
  }
  EXPECT_EQ(Stat("open/a").st_gid, kStranger);
}

TEST_F(Permissions, TheMaskIsForEverythingThatIsMade) {
  const Umask mask(0137);
  DONE(Open("a", O_RDWR | O_CREAT, 0777));
  DONE(mkdir("d", 0777));
  DONE(mkfifo("f", 0777));
  DONE(mknod("n", S_IFREG | 0777, 0));
  for (const char* name : {"a", "d", "f", "n"}) EXPECT_EQ(Mode(name), mode_t{0640}) << name;
  DONE(chmod("a", 0777));
  EXPECT_EQ(Mode("a"), mode_t{0777});
}

}  // namespace
}  // namespace mangrove::posix
