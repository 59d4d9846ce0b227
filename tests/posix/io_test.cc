// read, write and their relatives, and lseek.
// Covers: F06

#include <sys/resource.h>
#include <sys/uio.h>

#include <climits>
#include <csignal>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

using testing::AnyOf;

constexpr off_t kLargest = LLONG_MAX;

// What `call` gives of the file "file", open for reading and writing.
template <typename Call>
std::function<int64_t()> OnFile(Call call) {
  return [call] { return call(Open("file")); };
}

const bool refusals = Refuses(
    "ReadAndWriteRefuse",
    {
        {"ReadingWhatIsNotOpen", {EBADF}, [] { return read(987, NoAddress(), 1); }},
        {"WritingWhatIsNotOpen", {EBADF}, [] { return write(987, NoAddress(), 1); }},
        {"ReadingToABadAddress", {EFAULT}, OnFile([](int fd) { return read(fd, NoAddress(), 4); })},
        {"WritingFromABadAddress", {EFAULT}, OnFile([](int fd) { return write(fd, NoAddress(), 4); })},
        {"ReadingBeforeTheStart", {EINVAL}, OnFile([](int fd) {
           char b;
           return pread(fd, &b, 1, -1);
         })},
        {"WritingBeforeTheStart", {EINVAL}, OnFile([](int fd) { return WriteAt(fd, "x", -1); })},
        {"WritingPastTheLargestSize", {EFBIG, EINVAL}, OnFile([](int fd) { return WriteAt(fd, "x", kLargest); })},
        {"SeekingBeforeTheStart", {EINVAL}, OnFile([](int fd) { return lseek(fd, -1, SEEK_SET); })},
        {"SeekingBeforeTheStartFromHere", {EINVAL}, OnFile([](int fd) { return lseek(fd, -1, SEEK_CUR); })},
        {"SeekingBeforeTheStartFromTheEnd", {EINVAL}, OnFile([](int fd) { return lseek(fd, -11, SEEK_END); })},
        {"SeekingInNoKnownWay", {EINVAL}, OnFile([](int fd) { return lseek(fd, 0, 99); })},
        {"SeekingPastTheLargestOffset", {EINVAL, EOVERFLOW}, OnFile([](int fd) {
           return lseek(fd, kLargest, SEEK_END);
         })},
        {"SeekingWhatIsNotOpen", {EBADF}, [] { return lseek(987, 0, SEEK_SET); }},
        {"SeekingAFifo", {ESPIPE}, [] { return lseek(Open("fifo", O_RDWR), 0, SEEK_SET); }},
        {"ReadingAFifoAtAnOffset",
         {ESPIPE},
         [] {
           char b;
           return pread(Open("fifo", O_RDWR), &b, 1, 0);
         }},
        {"WritingAFifoAtAnOffset", {ESPIPE}, [] { return WriteAt(Open("fifo", O_RDWR), "x", 0); }},
        {"DataPastTheEnd", {ENXIO}, OnFile([](int fd) { return lseek(fd, 10, SEEK_DATA); })},
        {"AHolePastTheEnd", {ENXIO}, OnFile([](int fd) { return lseek(fd, 10, SEEK_HOLE); })},
        {"DataBeforeTheStart", {ENXIO, EINVAL}, OnFile([](int fd) { return lseek(fd, -1, SEEK_DATA); })},
        {"TooManyVectors", {EINVAL}, OnFile([](int fd) {
           return readv(fd, std::vector<iovec>(IOV_MAX + 1).data(), IOV_MAX + 1);
         })},
        {"FewerThanNoVectors", {EINVAL}, OnFile([](int fd) {
           iovec v{&v, 1};
           return writev(fd, &v, -1);
         })},
        {"UnknownFlagsOfAWrite", {EOPNOTSUPP}, OnFile([](int fd) {
           iovec v{&v, 1};
           return pwritev2(fd, &v, 1, 0, 1 << 30);
         })},
        {"UnknownFlagsOfARead", {EOPNOTSUPP}, OnFile([](int fd) {
           iovec v{&v, 1};
           return preadv2(fd, &v, 1, 0, 1 << 30);
         })},
        {"ReadAheadOfADirectory", {EINVAL}, [] { return readahead(Open("dir", O_RDONLY), 0, 1); }},
    });

class ReadAndWrite : public Posix {};

TEST_F(ReadAndWrite, ReadsUpToTheEnd) {
  const Fd fd = Open("file");
  char bytes[32];
  EXPECT_EQ(read(fd, bytes, 4), 4);
  EXPECT_EQ(std::string(bytes, 4), "0123");
  EXPECT_EQ(read(fd, bytes, sizeof(bytes)), 6);
  EXPECT_EQ(std::string(bytes, 6), "456789");
  EXPECT_EQ(read(fd, bytes, sizeof(bytes)), 0);
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 10), 0);
  EXPECT_EQ(pread(fd, bytes, sizeof(bytes), 1 << 30), 0);
}

TEST_F(ReadAndWrite, MoveTheOffsetAndTheOnesWithAnOffsetDoNot) {
  const Fd fd = Open("file");
  char bytes[4];
  EXPECT_EQ(pread(fd, bytes, 4, 3), 4);
  EXPECT_EQ(WriteAt(fd, "x", 9), 1);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
  EXPECT_EQ(read(fd, bytes, 3), 3);
  EXPECT_EQ(Write(fd, "yy"), 2);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 5);
  EXPECT_EQ(Read("file"), "012yy5678x");
}

TEST_F(ReadAndWrite, OfNothingDoNothing) {
  const Fd fd = Open("file");
  const struct stat before = Stat("file");
  AwaitLaterTime();
  char byte = 0;
  EXPECT_EQ(read(fd, &byte, 0), 0);
  EXPECT_EQ(write(fd, &byte, 0), 0);
  EXPECT_EQ(pwrite(fd, &byte, 0, 100), 0);
  EXPECT_EQ(Size("file"), 10);
  EXPECT_EQ(Ns(Stat("file").st_mtim), Ns(before.st_mtim));
}

TEST_F(ReadAndWrite, PastTheEndLeavesZerosBetween) {
  const Fd fd = Open("file");
  EXPECT_EQ(WriteAt(fd, "x", 9'000), 1);
  EXPECT_EQ(Read("file"), "0123456789" + std::string(8'990, '\0') + "x");
  EXPECT_EQ(lseek(fd, 20'000, SEEK_SET), 20'000);
  EXPECT_EQ(Size("file"), 9'001);
  EXPECT_EQ(Write(fd, "y"), 1);
  EXPECT_EQ(Size("file"), 20'001);
}

TEST_F(ReadAndWrite, AppendGoesToTheEndWhereverTheOffsetIs) {
  const Fd fd = Open("file", O_RDWR | O_APPEND);
  EXPECT_EQ(lseek(fd, 2, SEEK_SET), 2);
  EXPECT_EQ(Write(fd, "ab"), 2);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 12);
  Make("other", "");
  EXPECT_EQ(WriteAt(Open("file"), "END", 20), 3);
  EXPECT_EQ(Write(fd, "c"), 1);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 24);
  EXPECT_EQ(Read("file").substr(20), "ENDc");
}

// Linux appends then, whatever the offset; POSIX would write at the offset.
TEST_F(ReadAndWrite, AppendingDescriptorsIgnoreTheOffsetOfAWrite) {
  const Fd fd = Open("file", O_RDWR | O_APPEND);
  EXPECT_EQ(WriteAt(fd, "x", 0), 1);
  EXPECT_THAT(Read("file"), AnyOf("0123456789x", "x123456789"));
  EXPECT_EQ(ReadAt(fd, 3, 2), "34");
}

TEST_F(ReadAndWrite, AppendAfterATruncationIsAtTheNewEnd) {
  const Fd fd = Open("file", O_RDWR | O_APPEND);
  EXPECT_EQ(Write(fd, "ab"), 2);
  DONE(truncate("file", 1));
  EXPECT_EQ(Write(fd, "cd"), 2);
  EXPECT_EQ(Read("file"), "0cd");
}

TEST_F(ReadAndWrite, TwoAppendingDescriptorsDoNotOverwriteEachOther) {
  const Fd first = Open("a", O_WRONLY | O_CREAT | O_APPEND);
  const Fd second = Open("a", O_WRONLY | O_APPEND);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Write(first, "1"), 1);
    EXPECT_EQ(Write(second, "2"), 1);
  }
  EXPECT_EQ(Read("a"), "121212");
}

TEST_F(ReadAndWrite, VectorsAreFilledAndWrittenInOrder) {
  const Fd fd = Open("file");
  char first[3];
  char second[4];
  const iovec vectors[2] = {{first, sizeof(first)}, {second, sizeof(second)}};
  EXPECT_EQ(preadv(fd, vectors, 2, 1), 7);
  EXPECT_EQ(std::string(first, 3) + std::string(second, 4), "1234567");
  EXPECT_EQ(writev(fd, vectors, 2), 7);
  EXPECT_EQ(Read("file"), "1234567789");
  EXPECT_EQ(pwritev(fd, vectors, 2, 10), 7);
  EXPECT_EQ(Read("file"), "12345677891234567");
  EXPECT_EQ(readv(fd, vectors, 2), 7);
  EXPECT_EQ(std::string(first, 3) + std::string(second, 4), "7891234");
}

TEST_F(ReadAndWrite, AWriteMayBeAskedToAppendOrToBeSynchronous) {
  const Fd fd = Open("file");
  char byte = 'x';
  const iovec vector{&byte, 1};
  EXPECT_EQ(pwritev2(fd, &vector, 1, 0, RWF_APPEND), 1);
  EXPECT_EQ(Read("file"), "0123456789x");
  EXPECT_EQ(pwritev2(fd, &vector, 1, 0, RWF_SYNC), 1);
  EXPECT_EQ(pwritev2(fd, &vector, 1, 1, RWF_DSYNC), 1);
  EXPECT_EQ(Read("file"), "xx23456789x");
}

TEST_F(ReadAndWrite, SeekGoesFromStartHereAndEnd) {
  const Fd fd = Open("file");
  EXPECT_EQ(lseek(fd, 7, SEEK_SET), 7);
  EXPECT_EQ(lseek(fd, -3, SEEK_CUR), 4);
  EXPECT_EQ(lseek(fd, -1, SEEK_END), 9);
  EXPECT_EQ(lseek(fd, 100, SEEK_END), 110);
  EXPECT_EQ(Size("file"), 10);
}

TEST_F(ReadAndWrite, AFailedSeekLeavesTheOffset) {
  const Fd fd = Open("file");
  EXPECT_EQ(lseek(fd, 7, SEEK_SET), 7);
  FAILS(EINVAL, lseek(fd, -8, SEEK_CUR));
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 7);
}

TEST_F(ReadAndWrite, SeekingTheEndKnowsWhatOthersWrote) {
  const Fd fd = Open("file");
  EXPECT_EQ(WriteAt(Open(There("file")), "abc", 10), 3);
  EXPECT_EQ(lseek(fd, 0, SEEK_END), 13);
  EXPECT_EQ(ReadAt(fd, 10), "abc");
}

TEST_F(ReadAndWrite, UnalignedPiecesMakeAWhole) {
  const Fd fd = Open("a", O_RDWR | O_CREAT);
  std::string expected;
  for (size_t length : {1, 4'095, 4'096, 4'097, 13, 70'000, 1}) {
    const std::string piece(length, static_cast<char>('a' + length % 26));
    EXPECT_EQ(Write(fd, piece), static_cast<int64_t>(length));
    expected += piece;
  }
  EXPECT_TRUE(Read("a") == expected);
  EXPECT_TRUE(ReadAt(fd, 4'000, 10'000) == expected.substr(4'000, 10'000));
}

TEST_F(ReadAndWrite, OverwritingChangesNothingElse) {
  std::string expected(20'000, 'a');
  Make("a", expected);
  const Fd fd = Open("a");
  for (size_t offset : {size_t{0}, size_t{4'095}, size_t{8'190}, size_t{19'998}}) {
    EXPECT_EQ(WriteAt(fd, "bc", static_cast<off_t>(offset)), 2);
    expected.replace(offset, 2, "bc");
  }
  EXPECT_TRUE(Read("a") == expected);
}

TEST_F(ReadAndWrite, AFileWithoutAnyNameIsWrittenAndRead) {
  const Fd fd = Open("file");
  DONE(unlink("file"));
  EXPECT_EQ(WriteAt(fd, "x", 10), 1);
  EXPECT_EQ(ReadAt(fd, 0), "0123456789x");
  struct stat s {};
  DONE(fstat(fd, &s));
  EXPECT_EQ(s.st_nlink, 0u);
  EXPECT_EQ(s.st_size, 11);
  DONE(ftruncate(fd, 3));
  DONE(fchmod(fd, 0600));
  DONE(fsync(fd));
  EXPECT_EQ(ReadAt(fd, 0), "012");
}

TEST_F(ReadAndWrite, AFileOfTheSameNameIsAnotherOne) {
  const Fd fd = Open("file");
  DONE(unlink("file"));
  Make("file", "new");
  EXPECT_EQ(ReadAt(fd, 0), "0123456789");
  EXPECT_EQ(Read("file"), "new");
}

TEST_F(ReadAndWrite, AdviceIsTakenOrIgnored) {
  const Fd fd = Open("file");
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
  EXPECT_EQ(ReadAt(fd, 0), "0123456789");
}

// A limit of the process's on the size of files; the signal is ignored.
class SizeLimit : public Posix {
 protected:
  void SetUp() override {
    Posix::SetUp();
    before_ = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit small{.rlim_cur = 20, .rlim_max = limit_.rlim_max};
    DONE(setrlimit(RLIMIT_FSIZE, &small));
  }
  void TearDown() override {
    DONE(setrlimit(RLIMIT_FSIZE, &limit_));
    signal(SIGXFSZ, before_);
    Posix::TearDown();
  }
  sighandler_t before_ = nullptr;
  rlimit limit_{};
};

TEST_F(SizeLimit, ShortensTheWriteThatMeetsIt) {
  const Fd fd = Open("file");
  EXPECT_EQ(WriteAt(fd, std::string(20, 'x'), 10), 10);
  EXPECT_EQ(Size("file"), 20);
}

TEST_F(SizeLimit, RefusesTheWriteBehindIt) {
  const Fd fd = Open("file");
  FAILS(EFBIG, WriteAt(fd, "x", 20));
  EXPECT_EQ(Size("file"), 10);
}

TEST_F(SizeLimit, RefusesTheAppendBehindIt) {
  const Fd fd = Open("file", O_WRONLY | O_APPEND);
  EXPECT_EQ(Write(fd, std::string(10, 'x')), 10);
  FAILS(EFBIG, Write(fd, "x"));
  EXPECT_EQ(Size("file"), 20);
}

TEST_F(SizeLimit, RefusesGrowingPastIt) {
  FAILS(EFBIG, truncate("file", 21));
  FAILS(EFBIG, ftruncate(Open("file"), 21));
  FAILS(EFBIG, fallocate(Open("file"), 0, 0, 21));
  DONE(truncate("file", 20));
}

TEST_F(SizeLimit, SignalsWhoMeetsIt) {
  static volatile sig_atomic_t signals;
  signals = 0;
  signal(SIGXFSZ, [](int) { signals = signals + 1; });
  FAILS(EFBIG, WriteAt(Open("file"), "x", 20));
  EXPECT_EQ(signals, 1);
}

}  // namespace
}  // namespace mangrove::posix
