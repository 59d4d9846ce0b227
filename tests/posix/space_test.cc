// truncate, fallocate in all its modes, SEEK_DATA and SEEK_HOLE, and the blocks that a file has.
// Covers: F03, F06

#include <linux/falloc.h>

#include <climits>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::Ge;
using testing::Le;

constexpr off_t kBlock = 4'096;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

int64_t Allocate(const char* name, int mode, off_t offset, off_t length, int flags = O_RDWR) {
  return fallocate(Open(name, flags), mode, offset, length);
}

const bool refusals = Refuses(
    "SpaceRefuses",
    {
        {"TruncatingNothing", {ENOENT}, [] { return truncate("none", 0); }},
        {"TruncatingThroughAFile", {ENOTDIR}, [] { return truncate("file/x", 0); }},
        {"TruncatingADirectory", {EISDIR}, [] { return truncate("dir", 0); }},
        {"TruncatingALoop", {ELOOP}, [] { return truncate("loop", 0); }},
        {"TruncatingToLessThanNothing", {EINVAL}, [] { return truncate("file", -1); }},
        {"TruncatingAFifo", {EINVAL}, [] { return truncate("fifo", 0); }},
        {"TruncatingAnothersFile", {EACCES}, [] { return truncate("file", 0); }, kUser},
        {"TruncatingABadAddress", {EFAULT}, [] { return truncate(NoAddress(), 0); }},
        {"TruncatingWhatIsNotOpen", {EBADF}, [] { return ftruncate(987, 0); }},
        {"TruncatingAnOpenDirectory", {EINVAL}, [] { return ftruncate(Open("dir", O_RDONLY), 0); }},
        {"TruncatingAnOpenFileToLessThanNothing", {EINVAL}, [] { return ftruncate(Open("file"), -1); }},
        {"AllocatingFromBeforeTheStart", {EINVAL}, [] { return Allocate("file", 0, -1, 1); }},
        {"AllocatingNothing", {EINVAL}, [] { return Allocate("file", 0, 0, 0); }},
        {"AllocatingLessThanNothing", {EINVAL}, [] { return Allocate("file", 0, 0, -1); }},
        {"AllocatingPastTheLargestSize", {EFBIG}, [] { return Allocate("file", 0, LLONG_MAX, 1); }},
        {"AllocatingWithoutWriting", {EBADF}, [] { return Allocate("file", 0, 0, 1, O_RDONLY); }},
        {"AllocatingInADirectory", {EBADF}, [] { return Allocate("dir", 0, 0, 1, O_RDONLY); }},
        {"AllocatingInAFifo", {ESPIPE}, [] { return Allocate("fifo", 0, 0, 1); }},
        {"PunchingAnOtherSize", {EOPNOTSUPP, EINVAL}, [] { return Allocate("file", FALLOC_FL_PUNCH_HOLE, 0, 1); }},
        {"PunchingAndFilling",
         {EOPNOTSUPP, EINVAL},
         [] { return Allocate("file", kPunch | FALLOC_FL_ZERO_RANGE, 0, 1); }},
        {"UnknownModes", {EOPNOTSUPP, EINVAL}, [] { return Allocate("file", 1 << 20, 0, 1); }},
        {"CollapsingAPartOfABlock",
         {EINVAL, EOPNOTSUPP},
         [] { return Allocate("file", FALLOC_FL_COLLAPSE_RANGE, 0, 1); }},
        {"InsertingAPartOfABlock", {EINVAL, EOPNOTSUPP}, [] { return Allocate("file", FALLOC_FL_INSERT_RANGE, 0, 1); }},
        {"AllocatingInWhatIsNotOpen", {EBADF}, [] { return fallocate(987, 0, 0, 1); }},
    });

class SpaceCalls : public Posix {
 protected:
  // Six blocks: data, hole, data, data, hole, and half a block of data.
  void MakeSparse() {
    const Fd fd = Open("sparse", O_RDWR | O_CREAT);
    const std::string block(kBlock, 'x');
    for (const off_t at : {0, 2, 3}) EXPECT_EQ(WriteAt(fd, block, at * kBlock), kBlock);
    EXPECT_EQ(WriteAt(fd, block.substr(kBlock / 2), 5 * kBlock), kBlock / 2);
  }
  static std::string Zeros(size_t length) { return std::string(length, '\0'); }
  static blkcnt_t Blocks(const std::string& name) { return Stat(name).st_blocks; }
};

TEST_F(SpaceCalls, TruncateCutsTheEnd) {
  DONE(truncate("file", 3));
  EXPECT_EQ(Read("file"), "012");
  DONE(truncate("link", 2));
  EXPECT_EQ(Read("file"), "01");
}

TEST_F(SpaceCalls, TruncateGrowsByZeros) {
  DONE(truncate("file", 5'000));
  EXPECT_EQ(Read("file"), "0123456789" + Zeros(4'990));
}

TEST_F(SpaceCalls, WhatWasCutDoesNotComeBack) {
  Make("a", std::string(10'000, 'x'));
  DONE(truncate("a", 100));
  DONE(truncate("a", 10'000));
  EXPECT_EQ(Read("a"), std::string(100, 'x') + Zeros(9'900));
  DONE(truncate("a", 50));
  EXPECT_EQ(WriteAt(Open("a"), "y", 8'000), 1);
  EXPECT_EQ(Read("a"), std::string(50, 'x') + Zeros(7'950) + "y");
}

TEST_F(SpaceCalls, TruncateLeavesOffsetsAndReadersSeeTheEnd) {
  const Fd fd = Open("file");
  EXPECT_EQ(lseek(fd, 8, SEEK_SET), 8);
  DONE(ftruncate(fd, 4));
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 8);
  char byte = 0;
  EXPECT_EQ(read(fd, &byte, 1), 0);
  EXPECT_EQ(Write(fd, "x"), 1);
  EXPECT_EQ(Read("file"), "0123" + Zeros(4) + "x");
}

TEST_F(SpaceCalls, TruncateToTheSameSizeKeepsAll) {
  DONE(truncate("file", 10));
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(SpaceCalls, TruncateNeedsNoReadPermission) {
  DONE(chmod("mine", 0200));
  const As user(kUser);
  DONE(truncate("mine", 1));
  DONE(chmod("mine", 0400));
  FAILS(EACCES, truncate("mine", 0));
}

TEST_F(SpaceCalls, TruncatingToNothingGivesTheBlocksBack) {
  Make("a", std::string(100'000, 'x'));
  DONE(fsync(Open("a")));
  EXPECT_GE(Blocks("a"), 100'000 / 512);
  DONE(truncate("a", 0));
  EXPECT_EQ(Blocks("a"), 0);
}

TEST_F(SpaceCalls, AHugeFileOfHolesTakesNoBlocks) {
  DONE(truncate("file", off_t{1} << 40));
  EXPECT_EQ(Size("file"), off_t{1} << 40);
  EXPECT_LE(Blocks("file"), 16);
  char byte = 'x';
  EXPECT_EQ(pread(Open("file"), &byte, 1, (off_t{1} << 40) - 1), 1);
  EXPECT_EQ(byte, '\0');
}

TEST_F(SpaceCalls, AllocateMakesRoomAndGrows) {
  DONE(Allocate("file", 0, 0, 20'000));
  EXPECT_EQ(Size("file"), 20'000);
  EXPECT_GE(Blocks("file"), 20'000 / 512);
  EXPECT_EQ(Read("file"), "0123456789" + Zeros(19'990));
}

TEST_F(SpaceCalls, AllocateNeverShrinks) {
  DONE(Allocate("file", 0, 2, 3));
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(SpaceCalls, AllocateKeepsTheSizeWhereThatIsAsked) {
  DONE(Allocate("file", FALLOC_FL_KEEP_SIZE, 0, 40'000));
  EXPECT_EQ(Read("file"), "0123456789");
  EXPECT_GE(Blocks("file"), 40'000 / 512);
  DONE(truncate("file", 20'000));
  EXPECT_EQ(Read("file"), "0123456789" + Zeros(19'990));
}

TEST_F(SpaceCalls, PosixFallocateGivesTheErrorItself) {
  const Fd fd = Open("file");
  EXPECT_EQ(posix_fallocate(fd, 5, 10), 0);
  EXPECT_EQ(Size("file"), 15);
  EXPECT_EQ(posix_fallocate(fd, -1, 10), EINVAL);
  EXPECT_EQ(posix_fallocate(fd, 0, 0), EINVAL);
  EXPECT_EQ(posix_fallocate(Open("file", O_RDONLY), 0, 10), EBADF);
}

TEST_F(SpaceCalls, PunchLeavesZerosAndTheSize) {
  Make("a", std::string(20'000, 'x'));
  DONE(Allocate("a", kPunch, 3'000, 10'000));
  EXPECT_EQ(Read("a"), std::string(3'000, 'x') + Zeros(10'000) + std::string(7'000, 'x'));
  DONE(Allocate("a", kPunch, 19'999, 10'000));
  EXPECT_EQ(Size("a"), 20'000);
  EXPECT_EQ(Read("a").back(), '\0');
}

TEST_F(SpaceCalls, PunchGivesBlocksBack) {
  Make("a", std::string(64 * kBlock, 'x'));
  DONE(fsync(Open("a")));
  const blkcnt_t before = Blocks("a");
  DONE(Allocate("a", kPunch, 16 * kBlock, 32 * kBlock));
  EXPECT_LE(Blocks("a"), before - 32 * kBlock / 512);
}

TEST_F(SpaceCalls, PunchBehindTheEndDoesNothing) {
  DONE(Allocate("file", kPunch, 5'000, 100'000));
  EXPECT_EQ(Read("file"), "0123456789");
}

// tmpfs cannot.
TEST_F(SpaceCalls, ZeroingARangeReadsAsZeros) {
  Make("a", std::string(20'000, 'x'));
  const std::string outcome = Outcome(Allocate("a", FALLOC_FL_ZERO_RANGE, 3'000, 10'000));
  if (!places.is_fileset && outcome != "done") {
    EXPECT_EQ(outcome, ErrnoName(EOPNOTSUPP));
    return;
  }
  EXPECT_EQ(outcome, "done");
  EXPECT_EQ(Read("a"), std::string(3'000, 'x') + Zeros(10'000) + std::string(7'000, 'x'));
  DONE(Allocate("a", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 15'000, 10'000));
  EXPECT_EQ(Size("a"), 20'000);
  DONE(Allocate("a", FALLOC_FL_ZERO_RANGE, 19'000, 10'000));
  EXPECT_EQ(Size("a"), 29'000);
  EXPECT_EQ(Read("a").substr(13'000), std::string(2'000, 'x') + Zeros(14'000));
}

// A filesystem may have holes in larger pieces, or none: then all is data, and the hole is at the end.
TEST_F(SpaceCalls, SeekFindsDataAndHoles) {
  MakeSparse();
  const Fd fd = Open("sparse");
  const off_t end = Size("sparse");
  EXPECT_EQ(end, 5 * kBlock + kBlock / 2);
  EXPECT_EQ(lseek(fd, 0, SEEK_DATA), 0);
  EXPECT_THAT(lseek(fd, 0, SEEK_HOLE), AllOf(Ge(kBlock), Le(end)));
  EXPECT_THAT(lseek(fd, kBlock, SEEK_DATA), AllOf(Ge(kBlock), Le(2 * kBlock)));
  EXPECT_THAT(lseek(fd, 2 * kBlock, SEEK_DATA), 2 * kBlock);
  EXPECT_THAT(lseek(fd, 3 * kBlock + 7, SEEK_DATA), 3 * kBlock + 7);
  EXPECT_EQ(lseek(fd, 5 * kBlock, SEEK_HOLE), end);
  FAILS(ENXIO, lseek(fd, end, SEEK_DATA));
}

TEST_F(SpaceCalls, AFilesetFindsHolesByTheBlock) {
  MakeSparse();
  const Fd fd = Open("sparse");
  EXPECT_EQ(lseek(fd, 0, SEEK_HOLE), kBlock);
  EXPECT_EQ(lseek(fd, kBlock + 5, SEEK_HOLE), kBlock + 5);
  EXPECT_EQ(lseek(fd, kBlock + 5, SEEK_DATA), 2 * kBlock);
  EXPECT_EQ(lseek(fd, 2 * kBlock, SEEK_HOLE), 4 * kBlock);
  EXPECT_EQ(lseek(fd, 4 * kBlock, SEEK_DATA), 5 * kBlock);
}

TEST_F(SpaceCalls, SeekMovesTheOffset) {
  MakeSparse();
  const Fd fd = Open("sparse");
  const off_t data = lseek(fd, kBlock, SEEK_DATA);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), data);
  FAILS(ENXIO, lseek(fd, 1 << 30, SEEK_DATA));
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), data);
}

TEST_F(SpaceCalls, AnEmptyFileHasNeitherDataNorHoles) {
  Make("a");
  FAILS(ENXIO, lseek(Open("a"), 0, SEEK_DATA));
  FAILS(ENXIO, lseek(Open("a"), 0, SEEK_HOLE));
}

TEST_F(SpaceCalls, AFileThatIsAllHoleHasNoData) {
  Make("a");
  DONE(truncate("a", 10 * kBlock));
  FAILS(ENXIO, lseek(Open("a"), 0, SEEK_DATA));
  EXPECT_EQ(lseek(Open("a"), 0, SEEK_HOLE), 0);
}

TEST_F(SpaceCalls, WhatIsPunchedIsAHole) {
  Make("a", std::string(8 * kBlock, 'x'));
  DONE(fsync(Open("a")));
  DONE(Allocate("a", kPunch, 2 * kBlock, 4 * kBlock));
  const Fd fd = Open("a");
  EXPECT_EQ(lseek(fd, 0, SEEK_HOLE), 2 * kBlock);
  EXPECT_EQ(lseek(fd, 2 * kBlock, SEEK_DATA), 6 * kBlock);
}

// What a filesystem cannot do it refuses; what it does it does whole.
TEST_F(SpaceCalls, CollapsingAndInsertingMoveWhatIsBehind) {
  Make("a", std::string(kBlock, 'a') + std::string(kBlock, 'b') + std::string(kBlock, 'c'));
  const std::string collapsed = Outcome(Allocate("a", FALLOC_FL_COLLAPSE_RANGE, kBlock, kBlock));
  EXPECT_THAT(collapsed, AnyOf("done", ErrnoName(EOPNOTSUPP)));
  if (collapsed == "done") {
    EXPECT_EQ(Read("a"), std::string(kBlock, 'a') + std::string(kBlock, 'c'));
  }
  Make("b", std::string(kBlock, 'a') + std::string(kBlock, 'b'));
  const std::string inserted = Outcome(Allocate("b", FALLOC_FL_INSERT_RANGE, kBlock, kBlock));
  EXPECT_THAT(inserted, AnyOf("done", ErrnoName(EOPNOTSUPP)));
  if (inserted == "done") {
    EXPECT_EQ(Read("b"), std::string(kBlock, 'a') + Zeros(kBlock) + std::string(kBlock, 'b'));
  }
}

}  // namespace
}  // namespace mangrove::posix
