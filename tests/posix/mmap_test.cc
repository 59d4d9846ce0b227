// Files that are mapped: shared and private, at and past the end, and beside read and write.
// Covers: F06, F16

#include <sys/mman.h>
#include <sys/wait.h>

#include <csignal>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

constexpr size_t kPage = 4'096;

// 0, or -1 with errno; nothing stays mapped.
int64_t TryMap(int fd, int protection, int flags, size_t length = kPage, off_t offset = 0) {
  void* const mapped = mmap(nullptr, length, protection, flags, fd, offset);
  if (mapped == MAP_FAILED) return -1;
  munmap(mapped, length);
  return 0;
}

const bool refusals = Refuses(
    "MmapRefuses",
    {
        {"WhatIsNotOpen", {EBADF}, [] { return TryMap(987, PROT_READ, MAP_SHARED); }},
        {"NoLength", {EINVAL}, [] { return TryMap(Open("file"), PROT_READ, MAP_SHARED, 0); }},
        {"APartOfAPage", {EINVAL}, [] { return TryMap(Open("file"), PROT_READ, MAP_SHARED, kPage, 1); }},
        {"NeitherSharedNorPrivate", {EINVAL}, [] { return TryMap(Open("file"), PROT_READ, 0); }},
        {"ReadingWhatIsOnlyWritten", {EACCES}, [] { return TryMap(Open("file", O_WRONLY), PROT_READ, MAP_SHARED); }},
        {"PrivatelyWhatIsOnlyWritten", {EACCES}, [] { return TryMap(Open("file", O_WRONLY), PROT_READ, MAP_PRIVATE); }},
        {"SharingStoresToWhatIsOnlyRead",
         {EACCES},
         [] { return TryMap(Open("file", O_RDONLY), PROT_READ | PROT_WRITE, MAP_SHARED); }},
        {"ADirectory", {ENODEV}, [] { return TryMap(Open("dir", O_RDONLY), PROT_READ, MAP_SHARED); }},
        {"AFifo", {ENODEV}, [] { return TryMap(Open("fifo"), PROT_READ, MAP_SHARED); }},
        {"AnOffsetThatOverflows",
         {EOVERFLOW, EINVAL},
         [] { return TryMap(Open("file"), PROT_READ, MAP_SHARED, kPage, off_t{0x7ffffffffffff000}); }},
    });

class Mapping : public Posix {
 protected:
  struct Mapped {
    char* at = nullptr;
    size_t length = 0;
    ~Mapped() { munmap(at, length); }
    volatile char& operator[](size_t i) const { return at[i]; }
    char Load(size_t i) const { return (*this)[i]; }
  };
  static Mapped Map(const std::string& name, int flags, int protection = PROT_READ | PROT_WRITE, size_t length = kPage,
                    off_t offset = 0) {
    void* const at = mmap(nullptr, length, protection, flags, Open(name), offset);
    EXPECT_NE(at, MAP_FAILED) << ErrnoName(errno);
    return {static_cast<char*>(at), length};
  }
  // What a child dies of that does it; 0: it lives.
  static int SignalOf(const std::function<void()>& what) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGBUS, SIG_DFL);
      signal(SIGSEGV, SIG_DFL);
      what();
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
};

TEST_F(Mapping, ReadsTheFile) {
  const Mapped shared = Map("file", MAP_SHARED);
  const Mapped kept = Map("file", MAP_PRIVATE);
  EXPECT_EQ(std::string(shared.at, 10), "0123456789");
  EXPECT_EQ(std::string(kept.at, 10), "0123456789");
}

TEST_F(Mapping, BehindTheEndOfTheLastPageAreZeros) {
  const Mapped mapped = Map("file", MAP_SHARED, PROT_READ);
  for (size_t i = 10; i < kPage; ++i) ASSERT_EQ(mapped[i], '\0') << i;
}

TEST_F(Mapping, SharedStoresAreInTheFileAfterASync) {
  const Mapped mapped = Map("file", MAP_SHARED);
  mapped[3] = 'x';
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(Read("file"), "012x456789");
}

TEST_F(Mapping, SharedStoresAreReadOnTheSameHostAtOnce) {
  const Mapped mapped = Map("file", MAP_SHARED);
  mapped[3] = 'x';
  EXPECT_EQ(ReadAt(Open("file"), 0), "012x456789");
  const Mapped other = Map("file", MAP_SHARED);
  EXPECT_EQ(other[3], 'x');
  mapped[4] = 'y';
  EXPECT_EQ(other[4], 'y');
}

TEST_F(Mapping, WritesAreSeenInAMapping) {
  const Mapped mapped = Map("file", MAP_SHARED);
  EXPECT_EQ(mapped[0], '0');
  EXPECT_EQ(WriteAt(Open("file"), "abc", 0), 3);
  EXPECT_EQ(std::string(mapped.at, 5), "abc34");
}

TEST_F(Mapping, AWriteDoesNotTakeStoresBesideItAway) {
  Make("a", std::string(kPage, 'a'));
  const Mapped mapped = Map("a", MAP_SHARED);
  mapped[100] = 'm';
  EXPECT_EQ(WriteAt(Open("a"), "w", 200), 1);
  EXPECT_EQ(mapped[100], 'm');
  EXPECT_EQ(mapped[200], 'w');
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(Read("a")[100], 'm');
  EXPECT_EQ(Read("a")[200], 'w');
}

TEST_F(Mapping, PrivateStoresStayPrivate) {
  const Mapped mapped = Map("file", MAP_PRIVATE);
  mapped[3] = 'x';
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(Read("file"), "0123456789");
  EXPECT_EQ(std::string(mapped.at, 10), "012x456789");
}

TEST_F(Mapping, PrivateStoresAreAllowedToWhatIsOnlyRead) {
  DONE(TryMap(Open("file", O_RDONLY), PROT_READ | PROT_WRITE, MAP_PRIVATE));
  DONE(TryMap(Open("file", O_RDWR | O_APPEND), PROT_READ | PROT_WRITE, MAP_SHARED));
}

TEST_F(Mapping, StoresBehindTheEndAreNotInTheFile) {
  {
    const Mapped mapped = Map("file", MAP_SHARED);
    mapped[10] = 'x';
    mapped[100] = 'y';
    DONE(msync(mapped.at, kPage, MS_SYNC));
  }
  EXPECT_EQ(Read("file"), "0123456789");
  DONE(truncate("file", 200));
  EXPECT_EQ(Read("file"), "0123456789" + std::string(190, '\0'));
}

TEST_F(Mapping, PagesPastTheEndAreASignal) {
  const Mapped mapped = Map("file", MAP_SHARED, PROT_READ | PROT_WRITE, 3 * kPage);
  EXPECT_EQ(SignalOf([&] { mapped.Load(kPage - 1); }), 0);
  EXPECT_EQ(SignalOf([&] { mapped.Load(kPage); }), SIGBUS);
  EXPECT_EQ(SignalOf([&] { mapped[2 * kPage] = 'x'; }), SIGBUS);
  EXPECT_EQ(Read("file"), "0123456789");
}

TEST_F(Mapping, AnEmptyFileCanBeMappedAndNotTouched) {
  Make("a");
  const Mapped mapped = Map("a", MAP_SHARED);
  EXPECT_EQ(SignalOf([&] { mapped.Load(0); }), SIGBUS);
}

TEST_F(Mapping, WhatIsCutIsASignalAndWhatGrowsIsThere) {
  Make("a", std::string(2 * kPage, 'a'));
  const Mapped mapped = Map("a", MAP_SHARED, PROT_READ | PROT_WRITE, 2 * kPage);
  EXPECT_EQ(mapped[kPage], 'a');
  DONE(truncate("a", 100));
  EXPECT_EQ(SignalOf([&] { mapped.Load(kPage); }), SIGBUS);
  EXPECT_EQ(mapped[99], 'a');
  EXPECT_EQ(mapped[100], '\0');
  DONE(truncate("a", 2 * kPage));
  EXPECT_EQ(mapped[kPage], '\0');
}

TEST_F(Mapping, OutlivesItsDescriptorAndTheName) {
  const Mapped mapped = Map("file", MAP_SHARED);
  DONE(unlink("file"));
  mapped[0] = 'x';
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(std::string(mapped.at, 10), "x123456789");
}

TEST_F(Mapping, OfAnOffsetIsThatPart) {
  Make("a", std::string(kPage, 'a') + std::string(kPage, 'b'));
  const Mapped mapped = Map("a", MAP_SHARED, PROT_READ | PROT_WRITE, kPage, kPage);
  EXPECT_EQ(mapped[0], 'b');
  mapped[0] = 'x';
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(Read("a")[kPage], 'x');
}

TEST_F(Mapping, StoresToAHoleFillIt) {
  Make("a");
  DONE(truncate("a", 4 * kPage));
  {
    const Mapped mapped = Map("a", MAP_SHARED, PROT_READ | PROT_WRITE, 4 * kPage);
    EXPECT_EQ(mapped[2 * kPage], '\0');
    mapped[2 * kPage + 5] = 'x';
    DONE(msync(mapped.at, 4 * kPage, MS_SYNC));
  }
  std::string expected(4 * kPage, '\0');
  expected[2 * kPage + 5] = 'x';
  EXPECT_EQ(Read("a"), expected);
}

TEST_F(Mapping, MsyncRefusesWhatIsNotMapped) {
  const Mapped mapped = Map("file", MAP_SHARED);
  FAILS(EINVAL, msync(mapped.at + 1, kPage, MS_SYNC));
  FAILS(EINVAL, msync(mapped.at, kPage, MS_SYNC | MS_ASYNC));
  DONE(msync(mapped.at, kPage, MS_ASYNC));
  DONE(msync(mapped.at, kPage, MS_SYNC | MS_INVALIDATE));
}

TEST_F(Mapping, MprotectCannotGiveWhatTheDescriptorHadNot) {
  void* const at = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, Open("file", O_RDONLY), 0);
  ASSERT_NE(at, MAP_FAILED);
  const Mapped mapped{static_cast<char*>(at), kPage};
  FAILS(EACCES, mprotect(at, kPage, PROT_READ | PROT_WRITE));
  EXPECT_EQ(SignalOf([&] { mapped[0] = 'x'; }), SIGSEGV);
}

TEST_F(Mapping, AChildSharesIt) {
  const Mapped mapped = Map("file", MAP_SHARED);
  EXPECT_EQ(SignalOf([&] { mapped[0] = 'c'; }), 0);
  EXPECT_EQ(mapped[0], 'c');
  DONE(msync(mapped.at, kPage, MS_SYNC));
  EXPECT_EQ(Read("file"), "c123456789");
}

TEST_F(Mapping, ReadingIntoAMappingOfTheSameFile) {
  Make("a", std::string(2 * kPage, 'a'));
  EXPECT_EQ(WriteAt(Open("a"), std::string(kPage, 'b'), 0), static_cast<int64_t>(kPage));
  const Mapped mapped = Map("a", MAP_SHARED, PROT_READ | PROT_WRITE, 2 * kPage);
  const Fd fd = Open("a");
  EXPECT_EQ(pread(fd, mapped.at + kPage, kPage, 0), static_cast<ssize_t>(kPage));
  EXPECT_EQ(pwrite(fd, mapped.at + kPage, 10, 10), 10);
  DONE(msync(mapped.at, 2 * kPage, MS_SYNC));
  EXPECT_EQ(Read("a"), std::string(2 * kPage, 'b'));
}

}  // namespace
}  // namespace mangrove::posix
