// copy_file_range, sendfile, splice, tee: bytes that move without the program's seeing them.
// Covers: F06

#include <sys/sendfile.h>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

using testing::AnyOf;

int64_t Copy(int from, loff_t at, int to, loff_t there, size_t length) {
  return copy_file_range(from, &at, to, &there, length, 0);
}

const bool refusals = Refuses(
    "CopyRefuses",
    {
        {"TheSameBytes",
         {EINVAL},
         [] {
           const Fd fd = Open("file");
           return Copy(fd, 0, fd, 4, 5);
         }},
        {"FromWhatIsOnlyWritten", {EBADF}, [] { return Copy(Open("file", O_WRONLY), 0, Open("other"), 0, 5); }},
        {"ToWhatIsOnlyRead", {EBADF}, [] { return Copy(Open("file"), 0, Open("other", O_RDONLY), 0, 5); }},
        {"ToWhatAppends", {EBADF}, [] { return Copy(Open("file"), 0, Open("other", O_RDWR | O_APPEND), 0, 5); }},
        {"FromADirectory", {EISDIR}, [] { return Copy(Open("dir", O_RDONLY), 0, Open("other"), 0, 5); }},
        {"FromAFifo", {EINVAL}, [] { return Copy(Open("fifo"), 0, Open("other"), 0, 5); }},
        {"UnknownFlags", {EINVAL}, [] { return copy_file_range(Open("file"), nullptr, Open("other"), nullptr, 1, 8); }},
        {"FromWhatIsNotOpen", {EBADF}, [] { return Copy(987, 0, Open("other"), 0, 5); }},
        {"SendingFromAFifo",
         {EINVAL, ESPIPE},
         [] {
           off_t at = 0;
           return sendfile(Open("other"), Open("fifo"), &at, 1);
         }},
        {"SendingToWhatIsOnlyRead",
         {EBADF},
         [] { return sendfile(Open("other", O_RDONLY), Open("file"), nullptr, 1); }},
        {"SendingToWhatAppends",
         {EINVAL},
         [] { return sendfile(Open("other", O_RDWR | O_APPEND), Open("file"), nullptr, 1); }},
        {"SplicingWithoutAPipe", {EINVAL}, [] { return splice(Open("file"), nullptr, Open("other"), nullptr, 1, 0); }},
    });

class CopyCalls : public Posix {
 protected:
  void SetUp() override {
    Posix::SetUp();
    int ends[2];
    DONE(pipe(ends));
    reader_ = std::make_unique<Fd>(ends[0]);
    writer_ = std::make_unique<Fd>(ends[1]);
  }

  std::unique_ptr<Fd> reader_;  // Of a pipe.
  std::unique_ptr<Fd> writer_;
};

TEST_F(CopyCalls, CopyTakesBytesFromHereToThere) {
  const Fd from = Open("file", O_RDONLY);
  const Fd to = Open("other");
  EXPECT_EQ(Copy(from, 2, to, 3, 4), 4);
  EXPECT_EQ(Read("other"), "oth2345");
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 0);
  EXPECT_EQ(lseek(to, 0, SEEK_CUR), 0);
}

TEST_F(CopyCalls, CopyWithoutOffsetsMovesThem) {
  const Fd from = Open("file", O_RDONLY);
  const Fd to = Open("other");
  EXPECT_EQ(lseek(from, 6, SEEK_SET), 6);
  EXPECT_EQ(copy_file_range(from, nullptr, to, nullptr, 100, 0), 4);
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 10);
  EXPECT_EQ(lseek(to, 0, SEEK_CUR), 4);
  EXPECT_EQ(Read("other"), "6789r");
  EXPECT_EQ(copy_file_range(from, nullptr, to, nullptr, 100, 0), 0);
}

TEST_F(CopyCalls, CopyPastTheEndLeavesZerosBetween) {
  EXPECT_EQ(Copy(Open("file"), 0, Open("other"), 5'000, 10), 10);
  EXPECT_EQ(Read("other"), "other" + std::string(4'995, '\0') + "0123456789");
}

TEST_F(CopyCalls, CopyWithinAFileTakesPartsThatAreApart) {
  const Fd fd = Open("file");
  EXPECT_EQ(Copy(fd, 0, fd, 5, 5), 5);
  EXPECT_EQ(Read("file"), "0123401234");
}

TEST_F(CopyCalls, CopyOfALargeFileIsWhole) {
  std::string bytes(3'000'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  Make("a", bytes);
  const Fd from = Open("a", O_RDONLY);
  const Fd to = Open("b", O_WRONLY | O_CREAT);
  ssize_t length = 0;
  while ((length = copy_file_range(from, nullptr, to, nullptr, 10'000'000, 0)) > 0) continue;
  DONE(length);
  EXPECT_TRUE(Read("b") == bytes);
}

TEST_F(CopyCalls, CopyToAnotherFilesystemCopiesOrSaysThatItCannot) {
  const Fd to(open("/dev/shm", O_TMPFILE | O_RDWR, 0600));
  DONE(to);
  const Fd from = Open("file");
  const std::string outcome = Outcome(Copy(from, 0, to, 0, 10));
  EXPECT_THAT(outcome, AnyOf("done", ErrnoName(EXDEV)));
  if (outcome == "done") {
    EXPECT_EQ(ReadAt(to, 0), "0123456789");
  }
}

TEST_F(CopyCalls, SendfileWritesAtTheOffsetOfTheOther) {
  const Fd from = Open("file", O_RDONLY);
  const Fd to = Open("other");
  EXPECT_EQ(lseek(to, 5, SEEK_SET), 5);
  off_t at = 3;
  EXPECT_EQ(sendfile(to, from, &at, 4), 4);
  EXPECT_EQ(at, 7);
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 0);
  EXPECT_EQ(sendfile(to, from, nullptr, 1), 1);
  EXPECT_EQ(lseek(from, 0, SEEK_CUR), 1);
  EXPECT_EQ(Read("other"), "other34560");
}

TEST_F(CopyCalls, SendfileStopsAtTheEnd) {
  const Fd from = Open("file", O_RDONLY);
  const Fd to = Open("a", O_RDWR | O_CREAT);
  EXPECT_EQ(sendfile(to, from, nullptr, 100), 10);
  EXPECT_EQ(sendfile(to, from, nullptr, 100), 0);
  EXPECT_EQ(Read("a"), "0123456789");
}

TEST_F(CopyCalls, SendfileGoesToPipes) {
  const Fd from = Open("file", O_RDONLY);
  EXPECT_EQ(sendfile(*writer_, from, nullptr, 4), 4);
  char bytes[8];
  EXPECT_EQ(read(*reader_, bytes, sizeof(bytes)), 4);
  EXPECT_EQ(std::string(bytes, 4), "0123");
}

TEST_F(CopyCalls, SpliceGoesThroughAPipe) {
  loff_t from = 2;
  loff_t to = 5;
  EXPECT_EQ(splice(Open("file"), &from, *writer_, nullptr, 6, 0), 6);
  EXPECT_EQ(from, 8);
  EXPECT_EQ(splice(*reader_, nullptr, Open("other"), &to, 6, 0), 6);
  EXPECT_EQ(to, 11);
  EXPECT_EQ(Read("other"), "other234567");
}

TEST_F(CopyCalls, SpliceRefusesWhatIsNoPlaceForIt) {
  loff_t at = 0;
  FAILS(ESPIPE, splice(*reader_, &at, Open("other"), nullptr, 1, 0));
  FAILS(EBADF, splice(Open("file", O_WRONLY), nullptr, *writer_, nullptr, 1, 0));
  EXPECT_EQ(Write(*writer_, "x"), 1);
  FAILS(EBADF, splice(*reader_, nullptr, Open("other", O_RDONLY), nullptr, 1, 0));
  FAILS(EINVAL, splice(*reader_, nullptr, Open("other", O_RDWR | O_APPEND), nullptr, 1, 0));
  EXPECT_EQ(Read("other"), "other");
}

TEST_F(CopyCalls, WhatWasSplicedIsAsItWasThen) {
  EXPECT_EQ(splice(Open("file"), nullptr, *writer_, nullptr, 10, 0), 10);
  DONE(unlink("file"));
  char bytes[16];
  EXPECT_EQ(read(*reader_, bytes, sizeof(bytes)), 10);
  EXPECT_EQ(std::string(bytes, 10), "0123456789");
}

}  // namespace
}  // namespace mangrove::posix
