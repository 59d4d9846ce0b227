// stat, statx, statfs, and what makes things durable.
// Covers: F06

#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

int64_t StatOf(const char* path) {
  struct stat s {};
  return stat(path, &s);
}

int64_t StatxOf(const char* path, int flags = 0, unsigned mask = STATX_BASIC_STATS) {
  struct statx s {};
  return statx(AT_FDCWD, path, flags, mask, &s);
}

const bool refusals = Refuses(
    "StatRefuses",
    {
        {"Nothing", {ENOENT}, [] { return StatOf("none"); }},
        {"TheEmptyPath", {ENOENT}, [] { return StatOf(""); }},
        {"ALinkToNothing", {ENOENT}, [] { return StatOf("dangling"); }},
        {"ALoop", {ELOOP}, [] { return StatOf("loop"); }},
        {"ThroughAFile", {ENOTDIR}, [] { return StatOf("file/x"); }},
        {"ASlashAfterAFile", {ENOTDIR}, [] { return StatOf("file/"); }},
        {"ADotAfterAFile", {ENOTDIR}, [] { return StatOf("file/."); }},
        {"ALongName", {ENAMETOOLONG}, [] { return StatOf(std::string(256, 'n').c_str()); }},
        {"ALongNameOnTheWay", {ENAMETOOLONG}, [] { return StatOf((std::string(256, 'n') + "/x").c_str()); }},
        {"ALongPath", {ENAMETOOLONG}, [] { return StatOf(std::string(5000, '/').c_str()); }},
        {"BehindAClosedDirectory", {EACCES}, [] { return StatOf("secret/in"); }, kUser},
        {"ABadAddress", {EFAULT}, [] { return StatOf(NoAddress()); }},
        {"ABadAddressOfTheAnswer",
         {EFAULT},
         [] { return statx(AT_FDCWD, "file", 0, 1, reinterpret_cast<struct statx*>(NoAddress())); }},
        {"WhatIsNotOpen",
         {EBADF},
         [] {
           struct stat s {};
           return fstat(987, &s);
         }},
        {"UnknownFlags",
         {EINVAL},
         [] {
           struct stat s {};
           return fstatat(AT_FDCWD, "file", &s, 1 << 20);
         }},
        {"StatxWithUnknownFlags", {EINVAL}, [] { return StatxOf("file", 1 << 20); }},
        {"StatxWithTheReservedMask", {EINVAL}, [] { return StatxOf("file", 0, 1u << 31); }},
        {"StatxOfNothing", {ENOENT}, [] { return StatxOf("none"); }},
        {"StatfsOfNothing",
         {ENOENT},
         [] {
           struct statfs s {};
           return statfs("none", &s);
         }},
        {"StatfsThroughAFile",
         {ENOTDIR},
         [] {
           struct statfs s {};
           return statfs("file/x", &s);
         }},
        {"StatfsOfWhatIsNotOpen",
         {EBADF},
         [] {
           struct statfs s {};
           return fstatfs(987, &s);
         }},
        {"FsyncOfWhatIsNotOpen", {EBADF}, [] { return fsync(987); }},
        {"FsyncOfAFifo", {EINVAL}, [] { return fsync(Open("fifo")); }},
        {"FdatasyncOfAFifo", {EINVAL}, [] { return fdatasync(Open("fifo")); }},
        {"SyncOfBeforeTheStart", {EINVAL}, [] { return sync_file_range(Open("file"), -1, 1, SYNC_FILE_RANGE_WRITE); }},
    });

class StatCalls : public Posix {};

TEST_F(StatCalls, SayTheTypeOfEach) {
  EXPECT_EQ(Stat("file").st_mode & S_IFMT, mode_t{S_IFREG});
  EXPECT_EQ(Stat("dir").st_mode & S_IFMT, mode_t{S_IFDIR});
  EXPECT_EQ(Stat("link").st_mode & S_IFMT, mode_t{S_IFLNK});
  EXPECT_EQ(Stat("fifo").st_mode & S_IFMT, mode_t{S_IFIFO});
}

TEST_F(StatCalls, SayTheSame) {
  const Fd fd = Open("file");
  struct stat by_path {};
  struct stat by_descriptor {};
  struct stat by_link {};
  struct statx extended {};
  DONE(stat("file", &by_path));
  DONE(fstat(fd, &by_descriptor));
  DONE(stat("link", &by_link));
  DONE(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &extended));
  for (const struct stat* s : {&by_descriptor, &by_link}) {
    EXPECT_EQ(s->st_ino, by_path.st_ino);
    EXPECT_EQ(s->st_dev, by_path.st_dev);
    EXPECT_EQ(s->st_mode, by_path.st_mode);
    EXPECT_EQ(s->st_size, by_path.st_size);
    EXPECT_EQ(Ns(s->st_mtim), Ns(by_path.st_mtim));
  }
  EXPECT_EQ(extended.stx_ino, by_path.st_ino);
  EXPECT_EQ(extended.stx_mode, by_path.st_mode);
  EXPECT_EQ(extended.stx_size, 10u);
  EXPECT_EQ(extended.stx_nlink, 1u);
  EXPECT_EQ(extended.stx_mtime.tv_sec, by_path.st_mtim.tv_sec);
  EXPECT_EQ(extended.stx_mtime.tv_nsec, by_path.st_mtim.tv_nsec);
  EXPECT_EQ(extended.stx_mask & STATX_BASIC_STATS, uint32_t{STATX_BASIC_STATS});
}

TEST_F(StatCalls, NumbersAreDifferentOnesOfOneDevice) {
  std::set<ino_t> numbers;
  for (const std::string& name : Names("")) {
    EXPECT_TRUE(numbers.insert(Stat(name).st_ino).second) << name;
    EXPECT_EQ(Stat(name).st_dev, Stat("file").st_dev);
  }
}

TEST_F(StatCalls, ANumberStaysWhateverHappensToTheFile) {
  const ino_t number = Stat("file").st_ino;
  EXPECT_EQ(WriteAt(Open("file"), "x", 100'000), 1);
  DONE(chmod("file", 0600));
  DONE(rename("file", "dir/a"));
  DONE(truncate("dir/a", 0));
  EXPECT_EQ(Stat("dir/a").st_ino, number);
}

TEST_F(StatCalls, BlocksAreThoseOfTheBytes) {
  Make("a", std::string(1 << 20, 'x'));
  DONE(fsync(Open("a")));
  EXPECT_GE(Stat("a").st_blocks, (1 << 20) / 512);
  EXPECT_LE(Stat("a").st_blocks, (2 << 20) / 512);
  EXPECT_GT(Stat("a").st_blksize, 0);
}

TEST_F(StatCalls, StatxDoesNotFollowOrTrigger) {
  struct statx s {};
  DONE(statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &s));
  EXPECT_TRUE(S_ISLNK(s.stx_mode));
  DONE(statx(AT_FDCWD, "file", AT_STATX_FORCE_SYNC, STATX_SIZE, &s));
  EXPECT_EQ(s.stx_size, 10u);
  DONE(statx(AT_FDCWD, "file", AT_STATX_DONT_SYNC, STATX_SIZE, &s));
  EXPECT_EQ(s.stx_size, 10u);
}

TEST_F(StatCalls, StatfsSaysWhatTheFilesystemIs) {
  struct statfs by_path {};
  struct statfs by_descriptor {};
  DONE(statfs("file", &by_path));
  DONE(fstatfs(Open("dir", O_RDONLY), &by_descriptor));
  EXPECT_EQ(by_path.f_type, by_descriptor.f_type);
  EXPECT_EQ(by_path.f_namelen, 255);
  EXPECT_GT(by_path.f_bsize, 0);
  EXPECT_GT(by_path.f_blocks, 0u);
  EXPECT_LE(by_path.f_bfree, by_path.f_blocks);
  EXPECT_LE(by_path.f_bavail, by_path.f_bfree);
  EXPECT_LE(by_path.f_ffree, by_path.f_files);
}

TEST_F(StatCalls, StatvfsSaysTheSame) {
  struct statvfs s {};
  DONE(statvfs(".", &s));
  EXPECT_EQ(s.f_namemax, 255u);
  EXPECT_GT(s.f_frsize, 0u);
  DONE(fstatvfs(Open("fifo", O_RDWR), &s));
  EXPECT_EQ(pathconf(".", _PC_NAME_MAX), 255);
  EXPECT_GE(pathconf(".", _PC_PATH_MAX), 1024);
}

TEST_F(StatCalls, EverythingThatIsOpenCanBeSynced) {
  DONE(fsync(Open("file", O_RDONLY)));
  DONE(fdatasync(Open("file", O_RDONLY)));
  DONE(fsync(Open("file", O_WRONLY)));
  DONE(fsync(Open("dir", O_RDONLY)));
  DONE(fdatasync(Open("dir", O_RDONLY)));
  DONE(syncfs(Open("dir", O_RDONLY)));
  sync();
}

TEST_F(StatCalls, SyncedBytesAreThere) {
  const Fd fd = Open("file");
  EXPECT_EQ(WriteAt(fd, "synced", 0), 6);
  DONE(fsync(fd));
  DONE(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
  EXPECT_EQ(Read("file"), "synced6789");
  DONE(unlink("file"));
  DONE(fsync(fd));
  EXPECT_EQ(ReadAt(fd, 0), "synced6789");
}

}  // namespace
}  // namespace mangrove::posix
