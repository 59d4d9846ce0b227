// Named streams as programs have them, by the kernel.

#include <dirent.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <set>

#include "fs/check.h"
#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

class MountStreamsTest : public MountTest {
 protected:
  int Set(const std::string& name, const std::string& stream, const std::string& value, int flags = 0) const {
    return ErrorOf(setxattr(Path(name).c_str(), ("user.stream." + stream).c_str(), value.data(), value.size(), flags));
  }
  std::string Get(const std::string& name, const std::string& stream) const {
    std::string value(100'000, '\0');
    const ssize_t bytes = getxattr(Path(name).c_str(), ("user.stream." + stream).c_str(), value.data(), XATTR_SIZE_MAX);
    EXPECT_EQ(ErrorOf(bytes), 0) << name << " " << stream;
    value.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
    return value;
  }
  int GetError(const std::string& name, const std::string& stream, size_t size) const {
    std::string value(size, '\0');
    return ErrorOf(getxattr(Path(name).c_str(), ("user.stream." + stream).c_str(), value.data(), size));
  }
  static std::string StreamsName(const std::string& name) { return ".mangrove-streams:" + name; }
  // What `call` gives in a process of that user.
  static int As(uid_t uid, const std::function<int()>& call) {
    const pid_t child = fork();
    if (child == 0) _exit(setgid(uid) != 0 || setuid(uid) != 0 ? 255 : call());
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status);
  }
};

// Covers: F04
TEST_F(MountStreamsTest, StreamsAreFilesInADirectoryThatNoListingHas) {
  WriteFile("a", "default stream");
  EXPECT_EQ(StatError(StreamsName("a")), ENOENT);
  EXPECT_EQ(Set("a", "one", "1"), 0);
  WriteFile(StreamsName("a") + "/two", std::string(300'000, '2'));
  EXPECT_EQ(ReadFile("a"), "default stream");
  EXPECT_EQ(ReadFile(StreamsName("a") + "/one"), "1");
  EXPECT_EQ(ReadFile(StreamsName("a") + "/two"), std::string(300'000, '2'));
  EXPECT_EQ(GetError("a", "two", 65'536), E2BIG);
  EXPECT_EQ(Get("a", "one"), "1");
  EXPECT_EQ(GetError("a", "one", 0), 0);
  EXPECT_EQ(Set("a", "one", "123456789"), 0);
  EXPECT_EQ(GetError("a", "one", 3), ERANGE);
  EXPECT_GE(Stat("a").st_blocks, 300'000 / 512 + 8);
  std::set<std::string> names;
  DIR* const root = opendir(first_.point.path().c_str());
  ASSERT_NE(root, nullptr);
  while (const dirent* entry = readdir(root)) names.insert(entry->d_name);
  closedir(root);
  EXPECT_EQ(names, (std::set<std::string>{".", "..", "a"}));
  names.clear();
  DIR* const streams = opendir(Path(StreamsName("a")).c_str());
  ASSERT_NE(streams, nullptr);
  while (const dirent* entry = readdir(streams)) names.insert(entry->d_name);
  closedir(streams);
  EXPECT_EQ(names, (std::set<std::string>{".", "..", "one", "two"}));
  std::string list(1'000, '\0');
  const ssize_t bytes = listxattr(Path("a").c_str(), list.data(), list.size());
  ASSERT_GT(bytes, 0);
  list.resize(static_cast<size_t>(bytes));
  EXPECT_THAT(list, testing::HasSubstr(std::string("user.stream.two\0", 16)));
}

// Covers: F04
TEST_F(MountStreamsTest, TheyGoWithTheFileWhereverItGoes) {
  WriteFile("a", "x");
  EXPECT_EQ(Set("a", "s", "stream"), 0);
  ASSERT_EQ(link(Path("a").c_str(), Path("b").c_str()), 0);
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  EXPECT_EQ(ReadFile(StreamsName("a") + "/s"), "stream");
  EXPECT_EQ(ReadFile(StreamsName("b") + "/s"), "stream");
  ASSERT_EQ(rename(Path("a").c_str(), Path("d/c").c_str()), 0);
  EXPECT_EQ(ReadFile("d/" + StreamsName("c") + "/s"), "stream");
  EXPECT_EQ(StatError(StreamsName("a")), ENOENT);
  ASSERT_EQ(unlink(Path("b").c_str()), 0);
  const Descriptor open_stream = Open("d/" + StreamsName("c") + "/s", O_RDONLY);
  ASSERT_GE(open_stream, 0);
  ASSERT_EQ(unlink(Path("d/c").c_str()), 0);
  EXPECT_EQ(StatError("d/" + StreamsName("c")), ENOENT);
  char bytes[10];
  EXPECT_EQ(pread(open_stream, bytes, sizeof(bytes), 0), 6);
  EXPECT_EQ(Set("d", "of a directory", "x"), 0);
  EXPECT_EQ(ReadFile("d/" + StreamsName("") + "/of a directory"), "x");
  EXPECT_EQ(rmdir(Path(StreamsName("d")).c_str()), -1);
  EXPECT_EQ(rmdir(Path("d").c_str()), 0);
}

// Covers: F04
TEST_F(MountStreamsTest, NamesOf255BytesAreFoundBesideNamesOf255Bytes) {
  const std::string name(255, 'n');
  const std::string stream(255, 's');
  WriteFile(name, "x");
  EXPECT_EQ(Set(name, "first", "x"), 0);
  WriteFile(StreamsName(name) + "/" + stream, "long");
  EXPECT_EQ(ReadFile(StreamsName(name) + "/" + stream), "long");
  EXPECT_EQ(unlink(Path(StreamsName(name) + "/" + stream).c_str()), 0);
}

// Covers: F04
TEST_F(MountStreamsTest, WhoMayNotReadTheFileReadsNoStreamAndWhoMayNotWriteChangesNone) {
  constexpr uid_t kOwner = 4'001;
  constexpr uid_t kOther = 4'002;
  ASSERT_EQ(chmod(first_.point.path().c_str(), 0777), 0);
  WriteFile("a", "x");
  ASSERT_EQ(chown(Path("a").c_str(), kOwner, kOwner), 0);
  ASSERT_EQ(chmod(Path("a").c_str(), 0644), 0);
  const std::string stream = StreamsName("a") + "/s";
  EXPECT_EQ(As(kOwner, [&] { return Set("a", "s", "owner's"); }), 0);
  EXPECT_EQ(As(kOther, [&] { return OpenError(stream, O_RDONLY); }), 0);
  EXPECT_EQ(As(kOther, [&] { return OpenError(stream, O_WRONLY); }), EACCES);
  EXPECT_EQ(As(kOther, [&] { return OpenError(StreamsName("a") + "/new", O_WRONLY | O_CREAT); }), EACCES);
  EXPECT_EQ(As(kOther, [&] { return ErrorOf(unlink(Path(stream).c_str())); }), EACCES);
  EXPECT_EQ(As(kOther, [&] { return Set("a", "s", "another's"); }), EACCES);
  ASSERT_EQ(chmod(Path("a").c_str(), 0600), 0);
  EXPECT_EQ(As(kOther, [&] { return OpenError(stream, O_RDONLY); }), EACCES);
  EXPECT_EQ(As(kOther, [&] { return GetError("a", "s", 100); }), EACCES);
  EXPECT_EQ(As(kOther, [&] { return OpenError(StreamsName("a"), O_RDONLY | O_DIRECTORY); }), EACCES);
  ASSERT_EQ(chmod(Path("a").c_str(), 0666), 0);
  EXPECT_EQ(As(kOther, [&] { return OpenError(StreamsName("a") + "/new", O_WRONLY | O_CREAT); }), 0);
  EXPECT_EQ(Stat(StreamsName("a") + "/new").st_uid, kOwner);
  EXPECT_EQ(As(kOther, [&] { return ErrorOf(unlink(Path(stream).c_str())); }), 0);
}

// Covers: F04 F09
TEST_F(MountStreamsTest, WhatOneNodeWritesToAStreamAnotherReads) {
  MountHere(&second_);
  WriteFile("a", "x");
  EXPECT_EQ(Set("a", "s", "first"), 0);
  EXPECT_EQ(ReadAll(SecondPath(StreamsName("a") + "/s")), "first");
  EXPECT_EQ(Set("a", "s", "second"), 0);
  EXPECT_EQ(ReadAll(SecondPath(StreamsName("a") + "/s")), "second");
  ASSERT_EQ(unlink(SecondPath(StreamsName("a") + "/s").c_str()), 0);
  EXPECT_EQ(StatError(StreamsName("a") + "/s"), ENOENT);
  EXPECT_EQ(GetError("a", "s", 10), ENODATA);
}

}  // namespace
}  // namespace mangrove::fs
