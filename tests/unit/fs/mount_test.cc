// Ordinary programs' calls, through the kernel, on a mounted fileset.
// Covers: F06

#include "fs/mount/mount.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

std::set<std::string> NamesIn(const std::string& path) {
  std::set<std::string> names;
  DIR* const directory = opendir(path.c_str());
  EXPECT_NE(directory, nullptr) << path;
  while (const dirent* entry = readdir(directory)) EXPECT_TRUE(names.insert(entry->d_name).second) << entry->d_name;
  closedir(directory);
  return names;
}

// Runs `what` as a user who may do nothing in particular; the errno that it gives.
int AsNobody(const std::function<int()>& what) {
  constexpr uid_t kNobody = 65534;
  const pid_t child = fork();
  if (child == 0) {
    const bool is_nobody = setgid(kNobody) == 0 && setuid(kNobody) == 0;
    _exit(is_nobody ? what() : 255);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WEXITSTATUS(status);
}

TEST_F(MountTest, WhatIsWrittenIsRead) {
  WriteFile("a", "hello");
  EXPECT_EQ(ReadFile("a"), "hello");
  EXPECT_EQ(Stat("a").st_size, 5);
  EXPECT_EQ(Stat("a").st_mode, mode_t{S_IFREG | 0644});
  EXPECT_EQ(Stat("a").st_nlink, 1u);
  const Descriptor fd = Open("a", O_RDWR);
  EXPECT_EQ(pwrite(fd, "J", 1, 0), 1);
  EXPECT_EQ(pwrite(fd, "!", 1, 9), 1);
  char bytes[32];
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 0), 10);
  EXPECT_EQ(std::string(bytes, 10), std::string("Jello\0\0\0\0!", 10));
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 10), 0);
  EXPECT_EQ(fsync(fd), 0);
}

TEST_F(MountTest, LargeWritesAndReadsAreWhole) {
  std::string bytes(5'000'001, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const Descriptor fd = Open("large", O_RDWR | O_CREAT);
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  std::string read_back(bytes.size() + 1, '\0');
  ASSERT_EQ(pread(fd, read_back.data(), read_back.size(), 0), static_cast<ssize_t>(bytes.size()));
  read_back.resize(bytes.size());
  EXPECT_TRUE(read_back == bytes);
  EXPECT_EQ(ReadFile("large").size(), bytes.size());
}

TEST_F(MountTest, AnAppendingDescriptorWritesAtTheEnd) {
  WriteFile("log", "one\n");
  const Descriptor append = Open("log", O_WRONLY | O_APPEND);
  const Descriptor other = Open("log", O_WRONLY | O_APPEND);
  EXPECT_EQ(write(append, "two\n", 4), 4);
  EXPECT_EQ(write(other, "three\n", 6), 6);
  EXPECT_EQ(write(append, "four\n", 5), 5);
  EXPECT_EQ(ReadFile("log"), "one\ntwo\nthree\nfour\n");
}

TEST_F(MountTest, AFileIsMadeOnceWhereThatIsAsked) {
  EXPECT_EQ(OpenError("a", O_RDONLY), ENOENT);
  EXPECT_EQ(OpenError("a", O_RDWR | O_CREAT | O_EXCL), 0);
  EXPECT_EQ(OpenError("a", O_RDWR | O_CREAT | O_EXCL), EEXIST);
  WriteFile("a", "kept");
  EXPECT_EQ(OpenError("a", O_RDWR | O_CREAT), 0);
  EXPECT_EQ(ReadFile("a"), "kept");
  EXPECT_EQ(OpenError("a", O_RDWR | O_CREAT | O_TRUNC), 0);
  EXPECT_EQ(ReadFile("a"), "");
}

TEST_F(MountTest, FilesAreTruncatedAndGrowWithZeros) {
  WriteFile("a", "hello");
  EXPECT_EQ(truncate(Path("a").c_str(), 2), 0);
  EXPECT_EQ(ReadFile("a"), "he");
  const Descriptor fd = Open("a", O_RDWR);
  EXPECT_EQ(ftruncate(fd, 4), 0);
  EXPECT_EQ(ReadFile("a"), std::string("he\0\0", 4));
  EXPECT_EQ(OpenError("a", O_WRONLY | O_TRUNC), 0);
  EXPECT_EQ(Stat("a").st_size, 0);
}

TEST_F(MountTest, HolesTakeNoRoomAndAreFound) {
  constexpr off_t kFar = off_t{1} << 30;
  const Descriptor fd = Open("sparse", O_RDWR | O_CREAT);
  ASSERT_EQ(pwrite(fd, "x", 1, kFar), 1);
  EXPECT_EQ(Stat("sparse").st_size, kFar + 1);
  EXPECT_LT(Stat("sparse").st_blocks * 512, 1 << 20);
  EXPECT_EQ(lseek(fd, 0, SEEK_DATA), kFar);
  EXPECT_EQ(lseek(fd, 0, SEEK_HOLE), 0);
  EXPECT_EQ(lseek(fd, 1, SEEK_END), kFar + 2);
  EXPECT_EQ(ErrorOf(lseek(fd, kFar + 1, SEEK_DATA)), ENXIO);
  char byte = 'y';
  EXPECT_EQ(pread(fd, &byte, 1, 4096), 1);
  EXPECT_EQ(byte, '\0');
  ASSERT_EQ(pwrite(fd, std::string(8192, 'z').data(), 8192, 0), 8192);
  EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  EXPECT_EQ(pread(fd, &byte, 1, 0), 1);
  EXPECT_EQ(byte, '\0');
  EXPECT_EQ(pread(fd, &byte, 1, 4096), 1);
  EXPECT_EQ(byte, 'z');
  EXPECT_EQ(fallocate(fd, 0, kFar, 100), 0);
  EXPECT_EQ(Stat("sparse").st_size, kFar + 100);
}

TEST_F(MountTest, AnUnlinkedFileLivesWhileItIsOpen) {
  WriteFile("a", "still here");
  const Descriptor fd = Open("a", O_RDWR);
  EXPECT_EQ(unlink(Path("a").c_str()), 0);
  EXPECT_EQ(StatError("a"), ENOENT);
  char bytes[32];
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 0), 10);
  EXPECT_EQ(pwrite(fd, "STILL", 5, 0), 5);
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 0), 10);
  EXPECT_EQ(std::string(bytes, 10), "STILL here");
  struct stat s {};
  EXPECT_EQ(fstat(fd, &s), 0);
  EXPECT_EQ(s.st_nlink, 0u);
}

TEST_F(MountTest, RenameReplacesAndExchanges) {
  WriteFile("a", "A");
  WriteFile("b", "B");
  EXPECT_EQ(ErrorOf(renameat2(AT_FDCWD, Path("a").c_str(), AT_FDCWD, Path("b").c_str(), RENAME_NOREPLACE)), EEXIST);
  EXPECT_EQ(renameat2(AT_FDCWD, Path("a").c_str(), AT_FDCWD, Path("b").c_str(), RENAME_EXCHANGE), 0);
  EXPECT_EQ(ReadFile("a"), "B");
  EXPECT_EQ(ReadFile("b"), "A");
  EXPECT_EQ(rename(Path("a").c_str(), Path("b").c_str()), 0);
  EXPECT_EQ(StatError("a"), ENOENT);
  EXPECT_EQ(ReadFile("b"), "B");
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  EXPECT_EQ(rename(Path("b").c_str(), Path("d/c").c_str()), 0);
  EXPECT_EQ(ReadFile("d/c"), "B");
}

TEST_F(MountTest, TheUsualMistakesHaveTheirErrors) {
  WriteFile("file", "x");
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(mkdir(Path("d/e").c_str(), 0755), 0);
  EXPECT_EQ(ErrorOf(mkdir(Path("d").c_str(), 0755)), EEXIST);
  EXPECT_EQ(ErrorOf(rmdir(Path("d").c_str())), ENOTEMPTY);
  EXPECT_EQ(ErrorOf(rmdir(Path("file").c_str())), ENOTDIR);
  EXPECT_EQ(ErrorOf(unlink(Path("d").c_str())), EISDIR);
  EXPECT_EQ(ErrorOf(unlink(Path("none").c_str())), ENOENT);
  EXPECT_EQ(ErrorOf(rename(Path("d").c_str(), Path("d/e/f").c_str())), EINVAL);
  EXPECT_EQ(ErrorOf(rename(Path("file").c_str(), Path("d").c_str())), EISDIR);
  EXPECT_EQ(ErrorOf(rename(Path("d").c_str(), Path("file").c_str())), ENOTDIR);
  EXPECT_EQ(OpenError("d", O_RDWR), EISDIR);
  EXPECT_EQ(StatError("file/x"), ENOTDIR);
  EXPECT_EQ(OpenError(std::string(256, 'n'), O_RDWR | O_CREAT), ENAMETOOLONG);
  EXPECT_EQ(OpenError(std::string(255, 'n'), O_RDWR | O_CREAT), 0);
  EXPECT_EQ(ErrorOf(link(Path("d").c_str(), Path("g").c_str())), EPERM);
  char target[8];
  EXPECT_EQ(ErrorOf(readlink(Path("file").c_str(), target, sizeof(target))), EINVAL);
}

TEST_F(MountTest, LinksAreCountedAndSymlinksFollowed) {
  WriteFile("a", "A");
  EXPECT_EQ(link(Path("a").c_str(), Path("b").c_str()), 0);
  EXPECT_EQ(Stat("b").st_nlink, 2u);
  EXPECT_EQ(Stat("a").st_ino, Stat("b").st_ino);
  EXPECT_EQ(symlink("a", Path("s").c_str()), 0);
  EXPECT_EQ(ReadFile("s"), "A");
  EXPECT_EQ(Stat("s").st_mode & S_IFMT, mode_t{S_IFLNK});
  char target[16];
  EXPECT_EQ(readlink(Path("s").c_str(), target, sizeof(target)), 1);
  EXPECT_EQ(target[0], 'a');
  EXPECT_EQ(Stat("").st_nlink, 2u);
  EXPECT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  EXPECT_EQ(Stat("").st_nlink, 3u);
}

TEST_F(MountTest, SpecialFilesHaveTheirTypes) {
  EXPECT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(Stat("fifo").st_mode, mode_t{S_IFIFO | 0600});
  EXPECT_EQ(mknod(Path("device").c_str(), S_IFCHR | 0600, makedev(1, 3)), 0);
  EXPECT_EQ(Stat("device").st_rdev, makedev(1, 3));
}

TEST_F(MountTest, FiveThousandNamesAreListedOnce) {
  std::set<std::string> made{".", ".."};
  for (int i = 0; i < 5'000; ++i) {
    const std::string name = absl::StrCat("name-", i);
    ASSERT_EQ(mknod(Path(name).c_str(), S_IFREG | 0644, 0), 0);
    made.insert(name);
  }
  EXPECT_EQ(NamesIn(first_.point.path()), made);
  // From where it stopped, in another order of reading.
  DIR* const directory = opendir(first_.point.path().c_str());
  for (int i = 0; i < 1'000; ++i) ASSERT_NE(readdir(directory), nullptr);
  const int64_t place = telldir(directory);
  const std::string next = readdir(directory)->d_name;
  rewinddir(directory);
  EXPECT_STREQ(readdir(directory)->d_name, ".");
  EXPECT_STREQ(readdir(directory)->d_name, "..");
  seekdir(directory, place);
  EXPECT_EQ(readdir(directory)->d_name, next);
  closedir(directory);
}

TEST_F(MountTest, ADirectoryEmptiesWhileItIsListed) {
  constexpr int kNames = 1'000;
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  for (int i = 0; i < kNames; ++i) ASSERT_EQ(mknod(Path(absl::StrCat("d/", i)).c_str(), S_IFREG | 0644, 0), 0);
  DIR* const directory = opendir(Path("d").c_str());
  int removed = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.' && unlinkat(dirfd(directory), entry->d_name, 0) == 0) ++removed;
  }
  closedir(directory);
  EXPECT_EQ(removed, kNames);
  EXPECT_EQ(rmdir(Path("d").c_str()), 0);
}

TEST_F(MountTest, ExtendedAttributesAreKept) {
  WriteFile("a", "");
  const std::string path = Path("a");
  char value[64];
  EXPECT_EQ(ErrorOf(getxattr(path.c_str(), "user.none", value, sizeof(value))), ENODATA);
  EXPECT_EQ(setxattr(path.c_str(), "user.color", "green", 5, XATTR_CREATE), 0);
  EXPECT_EQ(ErrorOf(setxattr(path.c_str(), "user.color", "red", 3, XATTR_CREATE)), EEXIST);
  EXPECT_EQ(ErrorOf(setxattr(path.c_str(), "user.size", "red", 3, XATTR_REPLACE)), ENODATA);
  EXPECT_EQ(setxattr(path.c_str(), "user.empty", "", 0, 0), 0);
  EXPECT_EQ(getxattr(path.c_str(), "user.color", nullptr, 0), 5);
  EXPECT_EQ(getxattr(path.c_str(), "user.color", value, sizeof(value)), 5);
  EXPECT_EQ(std::string(value, 5), "green");
  EXPECT_EQ(ErrorOf(getxattr(path.c_str(), "user.color", value, 2)), ERANGE);
  EXPECT_EQ(getxattr(path.c_str(), "user.empty", value, sizeof(value)), 0);
  EXPECT_EQ(listxattr(path.c_str(), value, sizeof(value)), 22);
  EXPECT_EQ(removexattr(path.c_str(), "user.color"), 0);
  EXPECT_EQ(ErrorOf(removexattr(path.c_str(), "user.color")), ENODATA);
}

TEST_F(MountTest, SpaceIsSaid) {
  struct statvfs s {};
  ASSERT_EQ(statvfs(first_.point.path().c_str(), &s), 0);
  EXPECT_EQ(s.f_frsize, 4096u);
  EXPECT_GT(s.f_blocks, 0u);
  EXPECT_LE(s.f_bfree, s.f_blocks);
  EXPECT_EQ(s.f_namemax, 255u);
}

TEST_F(MountTest, AFullSpaceIsENOSPC) {
  const Descriptor fd = Open("a", O_RDWR | O_CREAT);
  OnLoop([&] { pages_.SetMostPages(0); });
  const std::string bytes(1 << 20, 'x');
  int error = 0;
  for (int i = 0; i < 100 && error == 0; ++i) error = ErrorOf(write(fd, bytes.data(), bytes.size()));
  EXPECT_EQ(error, ENOSPC);
}

TEST_F(MountTest, PermissionsAreChecked) {
  WriteFile("secret", "x");
  ASSERT_EQ(chmod(Path("secret").c_str(), 0600), 0);
  WriteFile("public", "x");
  const auto try_open = [this](const char* name, int flags) {
    return AsNobody([&] { return OpenError(name, flags); });
  };
  EXPECT_EQ(try_open("secret", O_RDONLY), EACCES);
  EXPECT_EQ(try_open("public", O_RDONLY), 0);
  EXPECT_EQ(try_open("public", O_RDWR), EACCES);
  EXPECT_EQ(try_open("new", O_RDWR | O_CREAT), EACCES);
  ASSERT_EQ(chmod(Path("").c_str(), 01777), 0);
  EXPECT_EQ(try_open("new", O_RDWR | O_CREAT), 0);
  EXPECT_EQ(Stat("new").st_uid, 65534u);
  EXPECT_EQ(AsNobody([&] { return ErrorOf(unlink(Path("public").c_str())); }), EPERM);
  EXPECT_EQ(AsNobody([&] { return ErrorOf(chmod(Path("public").c_str(), 0777)); }), EPERM);
  EXPECT_EQ(AsNobody([&] { return ErrorOf(access(Path("secret").c_str(), R_OK)); }), EACCES);
}

TEST_F(MountTest, AnAclLetsSomebodyIn) {
  WriteFile("secret", "x");
  ASSERT_EQ(chmod(Path("secret").c_str(), 0600), 0);
  // Version 2: owner rw-, user 65534 r--, group ---, mask r--, others ---.
  struct Entry {
    uint16_t tag, permissions;
    uint32_t id;
  };
  struct {
    uint32_t version = 2;
    Entry entries[5] = {{1, 6, ~0U}, {2, 4, 65534}, {4, 0, ~0U}, {0x10, 4, ~0U}, {0x20, 0, ~0U}};
  } acl;
  ASSERT_EQ(ErrorOf(setxattr(Path("secret").c_str(), "system.posix_acl_access", &acl, sizeof(acl), 0)), 0);
  EXPECT_EQ(AsNobody([&] { return OpenError("secret", O_RDONLY); }), 0);
  EXPECT_EQ(AsNobody([&] { return OpenError("secret", O_RDWR); }), EACCES);
  EXPECT_EQ(Stat("secret").st_mode & 0777, mode_t{0640});
}

TEST_F(MountTest, TheUmaskIsTheFilesystemsToApply) {
  umask(077);
  EXPECT_EQ(OpenError("a", O_RDWR | O_CREAT, 0666), 0);
  EXPECT_EQ(mkdir(Path("d").c_str(), 0777), 0);
  umask(022);
  EXPECT_EQ(Stat("a").st_mode & 0777, mode_t{0600});
  EXPECT_EQ(Stat("d").st_mode & 0777, mode_t{0700});
}

TEST_F(MountTest, AWriteClearsSetIdBits) {
  ASSERT_EQ(chmod(Path("").c_str(), 0777), 0);
  WriteFile("a", "x");
  ASSERT_EQ(chmod(Path("a").c_str(), 06777), 0);
  EXPECT_EQ(Stat("a").st_mode & 07777, mode_t{06777});
  EXPECT_EQ(AsNobody([&] {
              const Descriptor fd = Open("a", O_WRONLY);
              return ErrorOf(write(fd, "y", 1));
            }),
            0);
  EXPECT_EQ(Stat("a").st_mode & 07777, mode_t{0777});
}

TEST_F(MountTest, TimesAreSetAndChange) {
  WriteFile("a", "x");
  const timespec times[2] = {{.tv_sec = 1'000, .tv_nsec = 7}, {.tv_sec = -5, .tv_nsec = 999'999'999}};
  ASSERT_EQ(utimensat(AT_FDCWD, Path("a").c_str(), times, 0), 0);
  EXPECT_EQ(Stat("a").st_atim.tv_sec, 1'000);
  EXPECT_EQ(Stat("a").st_atim.tv_nsec, 7);
  EXPECT_EQ(Stat("a").st_mtim.tv_sec, -5);
  EXPECT_EQ(Stat("a").st_mtim.tv_nsec, 999'999'999);
  WriteFile("a", "y");
  EXPECT_GT(Stat("a").st_mtim.tv_sec, 1'000'000'000);
  ASSERT_EQ(utimensat(AT_FDCWD, Path("a").c_str(), nullptr, 0), 0);
  EXPECT_GT(Stat("a").st_atim.tv_sec, 1'000'000'000);
}

TEST_F(MountTest, FilesAreMapped) {
  WriteFile("a", std::string(10'000, 'a'));
  const Descriptor fd = Open("a", O_RDWR);
  auto* const shared = static_cast<char*>(mmap(nullptr, 10'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(shared, MAP_FAILED) << strerror(errno);
  auto* const copy = static_cast<char*>(mmap(nullptr, 10'000, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  ASSERT_NE(copy, MAP_FAILED) << strerror(errno);
  EXPECT_EQ(shared[9'999], 'a');
  shared[5'000] = 's';
  copy[1] = 'c';
  ASSERT_EQ(msync(shared, 10'000, MS_SYNC), 0);
  std::string expected(10'000, 'a');
  expected[5'000] = 's';
  EXPECT_TRUE(ReadFile("a") == expected);
  EXPECT_EQ(pwrite(fd, "w", 1, 7'000), 1);
  EXPECT_EQ(shared[7'000], 'w');
  shared[8'000] = 'm';
  char byte = 0;
  EXPECT_EQ(pread(fd, &byte, 1, 8'000), 1);
  EXPECT_EQ(byte, 'm');
  munmap(copy, 10'000);
  munmap(shared, 10'000);
  expected[7'000] = 'w';
  expected[8'000] = 'm';
  EXPECT_TRUE(ReadFile("a") == expected);
}

TEST_F(MountTest, ProgramsRunFromIt) {
  const std::string script = "#!/bin/sh\nexit 42\n";
  WriteFile("script", script);
  ASSERT_EQ(chmod(Path("script").c_str(), 0755), 0);
  EXPECT_EQ(WEXITSTATUS(system(Path("script").c_str())), 42);
  ASSERT_EQ(system(absl::StrCat("cp /bin/true ", Path("program")).c_str()), 0);
  EXPECT_EQ(system(Path("program").c_str()), 0);
}

}  // namespace
}  // namespace mangrove::fs
