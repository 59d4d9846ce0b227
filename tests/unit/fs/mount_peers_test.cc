// Two instances of a fileset, mounted side by side as two nodes' are: what one kernel cache might keep, the other has changed.
// Covers: F02, F09, F16

#include <dirent.h>
#include <sys/mman.h>

#include <string>

#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

class MountPeers : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (CanMount()) MountHere(&second_);
  }
};

TEST_F(MountPeers, NamesAreSeenAtOnce) {
  struct stat s {};
  EXPECT_EQ(ErrorOf(stat(SecondPath("a").c_str(), &s)), ENOENT);
  WriteFile("a", "x");
  EXPECT_EQ(ErrorOf(stat(SecondPath("a").c_str(), &s)), 0);
  ASSERT_EQ(rename(SecondPath("a").c_str(), SecondPath("b").c_str()), 0);
  EXPECT_EQ(StatError("a"), ENOENT);
  EXPECT_EQ(ReadFile("b"), "x");
  ASSERT_EQ(unlink(Path("b").c_str()), 0);
  EXPECT_EQ(ErrorOf(stat(SecondPath("b").c_str(), &s)), ENOENT);
  ASSERT_EQ(mkdir(SecondPath("b").c_str(), 0700), 0);
  EXPECT_EQ(Stat("b").st_mode, mode_t{S_IFDIR | 0700});
}

TEST_F(MountPeers, AttributesAreSeenAtOnce) {
  WriteFile("a", "x");
  struct stat s {};
  ASSERT_EQ(stat(SecondPath("a").c_str(), &s), 0);
  ASSERT_EQ(chmod(Path("a").c_str(), 0600), 0);
  WriteFile("a", "longer");
  ASSERT_EQ(stat(SecondPath("a").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, mode_t{0600});
  EXPECT_EQ(s.st_size, 6);
}

TEST_F(MountPeers, ADescriptorThatStaysOpenReadsWhatTheOtherWrites) {
  WriteFile("a", "first");
  const Descriptor fd(open(SecondPath("a").c_str(), O_RDONLY));
  char bytes[16];
  ASSERT_EQ(pread(fd, bytes, sizeof(bytes), 0), 5);
  const Descriptor writer = Open("a", O_WRONLY);
  for (const std::string text : {"other", "again", "longer text"}) {
    ASSERT_EQ(pwrite(writer, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    ASSERT_EQ(pread(fd, bytes, sizeof(bytes), 0), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(std::string(bytes, text.size()), text);
  }
}

// As copying programs do, which keep a file's time.
TEST_F(MountPeers, ADescriptorReadsWhatWasWrittenAlsoIfSizeAndTimeAreSetBack) {
  WriteFile("a", "first");
  const struct stat before = Stat("a");
  const Descriptor fd(open(SecondPath("a").c_str(), O_RDONLY));
  char bytes[16];
  ASSERT_EQ(pread(fd, bytes, sizeof(bytes), 0), 5);
  WriteFile("a", "other");
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, Path("a").c_str(), times, 0), 0);
  ASSERT_EQ(pread(fd, bytes, sizeof(bytes), 0), 5);
  EXPECT_EQ(std::string(bytes, 5), "other");
}

TEST_F(MountPeers, BothAppendToOneFile) {
  WriteFile("log", "");
  const Descriptor first = Open("log", O_RDWR | O_APPEND);
  const Descriptor second(open(SecondPath("log").c_str(), O_RDWR | O_APPEND));
  std::string expected;
  char bytes[256];
  for (int i = 0; i < 10; ++i) {
    const std::string line = absl::StrCat("line ", i, "\n");
    const int writer = i % 2 == 0 ? first : second;
    const int reader = i % 3 == 0 ? first : second;
    ASSERT_EQ(write(writer, line.data(), line.size()), static_cast<ssize_t>(line.size()));
    expected += line;
    const ssize_t length = pread(reader, bytes, sizeof(bytes), 0);
    ASSERT_EQ(std::string(bytes, static_cast<size_t>(std::max<ssize_t>(length, 0))), expected);
  }
}

TEST_F(MountPeers, WhatIsMappedHereIsReadThereAfterASync) {
  WriteFile("a", std::string(4'096, 'a'));
  const Descriptor fd = Open("a", O_RDWR);
  auto* const mapped = static_cast<char*>(mmap(nullptr, 4'096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  mapped[7] = 'm';
  ASSERT_EQ(msync(mapped, 4'096, MS_SYNC), 0);
  EXPECT_EQ(ReadAll(SecondPath("a"))[7], 'm');
  munmap(mapped, 4'096);
}

}  // namespace
}  // namespace mangrove::fs
