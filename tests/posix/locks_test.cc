// Locks of fcntl and flock within a host, and leases.
// Covers: F06

#include <sys/file.h>
#include <sys/wait.h>

#include <csignal>

#include "tests/posix/posix.h"

namespace mangrove::posix {
namespace {

struct flock Range(short type, off_t start = 0, off_t length = 0, short whence = SEEK_SET) {
  return {.l_type = type, .l_whence = whence, .l_start = start, .l_len = length, .l_pid = 0};
}

int64_t Lock(int fd, int command, short type, off_t start = 0, off_t length = 0, short whence = SEEK_SET) {
  struct flock range = Range(type, start, length, whence);
  return fcntl(fd, command, &range);
}

const bool refusals = Refuses(
    "LockRefuses",
    {
        {"WhatIsNotOpen", {EBADF}, [] { return Lock(987, F_SETLK, F_RDLCK); }},
        {"SharingWhatIsOnlyWritten", {EBADF}, [] { return Lock(Open("file", O_WRONLY), F_SETLK, F_RDLCK); }},
        {"ExcludingFromWhatIsOnlyRead", {EBADF}, [] { return Lock(Open("file", O_RDONLY), F_SETLK, F_WRLCK); }},
        {"NoKnownType", {EINVAL}, [] { return Lock(Open("file"), F_SETLK, 99); }},
        {"NoKnownPlace", {EINVAL}, [] { return Lock(Open("file"), F_SETLK, F_RDLCK, 0, 0, 99); }},
        {"BeforeTheStart", {EINVAL}, [] { return Lock(Open("file"), F_SETLK, F_RDLCK, -1, 5); }},
        {"BackToBeforeTheStart", {EINVAL}, [] { return Lock(Open("file"), F_SETLK, F_RDLCK, 3, -5); }},
        {"NothingKnownByFlock", {EINVAL}, [] { return flock(Open("file"), 16); }},
        {"FlockOfWhatIsNotOpen", {EBADF}, [] { return flock(987, LOCK_SH); }},
        {"ALeaseOfAnothers",
         {EACCES, EAGAIN, EINVAL},
         [] { return fcntl(Open("file", O_RDONLY), F_SETLEASE, F_RDLCK); },
         kUser},
        {"ALeaseOfADirectory", {EINVAL, EAGAIN}, [] { return fcntl(Open("dir", O_RDONLY), F_SETLEASE, F_RDLCK); }},
    });

class Locks : public Posix {
 protected:
  // The errno of what another process gets that does it, 0 if it is done.
  static std::string Elsewhere(const std::function<int64_t()>& what) {
    const pid_t child = fork();
    if (child == 0) _exit(what() < 0 ? errno : 0);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status) == 0 ? "done" : ErrnoName(WEXITSTATUS(status));
  }
  static std::string LockElsewhere(short type, off_t start = 0, off_t length = 0) {
    return Elsewhere([=] { return Lock(Open("file"), F_SETLK, type, start, length); });
  }
};

TEST_F(Locks, OfWritersExcludeAllOthers) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK));
  EXPECT_EQ(LockElsewhere(F_WRLCK), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_RDLCK), "EAGAIN");
  DONE(Lock(fd, F_SETLK, F_UNLCK));
  EXPECT_EQ(LockElsewhere(F_WRLCK), "done");
}

TEST_F(Locks, OfReadersExcludeWriters) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_RDLCK));
  EXPECT_EQ(LockElsewhere(F_RDLCK), "done");
  EXPECT_EQ(LockElsewhere(F_WRLCK), "EAGAIN");
}

TEST_F(Locks, AreOfRanges) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 10, 10));
  EXPECT_EQ(LockElsewhere(F_WRLCK, 0, 10), "done");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 0, 11), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 19, 1), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 20, 0), "done");
  EXPECT_EQ(LockElsewhere(F_WRLCK), "EAGAIN");
}

TEST_F(Locks, ReachPastTheEndOfTheFile) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 1'000'000, 0));
  EXPECT_EQ(LockElsewhere(F_WRLCK, 2'000'000'000, 1), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 0, 1'000'000), "done");
}

TEST_F(Locks, AreSplitByUnlockingTheMiddle) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 0, 30));
  DONE(Lock(fd, F_SETLK, F_UNLCK, 10, 10));
  EXPECT_EQ(LockElsewhere(F_WRLCK, 10, 10), "done");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 9, 1), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 20, 1), "EAGAIN");
}

TEST_F(Locks, AreChangedByTheirHolder) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK));
  DONE(Lock(fd, F_SETLK, F_RDLCK));
  EXPECT_EQ(LockElsewhere(F_RDLCK), "done");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 0, 5));
  EXPECT_EQ(LockElsewhere(F_RDLCK, 0, 5), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_RDLCK, 5, 5), "done");
}

TEST_F(Locks, AreToldByWhatWouldMeetThem) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 3, 4));
  EXPECT_EQ(Elsewhere([parent = getpid()] {
              struct flock range = Range(F_RDLCK);
              if (fcntl(Open("file"), F_GETLK, &range) != 0) return -1;
              const bool right = range.l_type == F_WRLCK && range.l_start == 3 && range.l_len == 4 &&
                                 range.l_whence == SEEK_SET && range.l_pid == parent;
              errno = EBADMSG;
              return right ? 0 : -1;
            }),
            "done");
  struct flock own = Range(F_WRLCK);
  DONE(fcntl(fd, F_GETLK, &own));
  EXPECT_EQ(own.l_type, F_UNLCK);
}

TEST_F(Locks, CountFromHereAndFromTheEnd) {
  const Fd fd = Open("file");
  EXPECT_EQ(lseek(fd, 4, SEEK_SET), 4);
  DONE(Lock(fd, F_SETLK, F_WRLCK, 1, 2, SEEK_CUR));
  DONE(Lock(fd, F_SETLK, F_WRLCK, -1, 1, SEEK_END));
  EXPECT_EQ(LockElsewhere(F_WRLCK, 5, 2), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 9, 1), "EAGAIN");
  EXPECT_EQ(LockElsewhere(F_WRLCK, 7, 2), "done");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 3, -2));
  EXPECT_EQ(LockElsewhere(F_WRLCK, 1, 2), "EAGAIN");
}

TEST_F(Locks, AllGoWithAnyDescriptorOfTheProcess) {
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK));
  Open("file").Close();
  EXPECT_EQ(LockElsewhere(F_WRLCK), "done");
}

TEST_F(Locks, OfAProcessThatEndsAreGone) {
  EXPECT_EQ(LockElsewhere(F_WRLCK), "done");
  DONE(Lock(Open("file"), F_SETLK, F_WRLCK));
}

TEST_F(Locks, AreWaitedFor) {
  int ends[2];
  DONE(pipe(ends));
  const Fd from(ends[0]);
  Fd to(ends[1]);
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK));
  const pid_t child = fork();
  if (child == 0) {
    const Fd own = Open("file");
    _exit(Lock(own, F_SETLKW, F_WRLCK) == 0 && Write(to, "got it") == 6 ? 0 : 1);
  }
  to.Close();
  EXPECT_EQ(WriteAt(fd, "x", 0), 1);
  DONE(Lock(fd, F_SETLK, F_UNLCK));
  char bytes[16];
  EXPECT_EQ(read(from, bytes, sizeof(bytes)), 6);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(Locks, OfTwoThatWaitForEachOtherOneFails) {
  int ends[2];
  DONE(pipe(ends));
  const Fd from(ends[0]);
  const Fd to(ends[1]);
  const Fd fd = Open("file");
  DONE(Lock(fd, F_SETLK, F_WRLCK, 0, 1));
  const pid_t child = fork();
  if (child == 0) {
    const Fd own = Open("file");
    const bool has_own = Lock(own, F_SETLK, F_WRLCK, 1, 1) == 0;
    const bool told = has_own && Write(to, "x") == 1;
    _exit(told && Lock(own, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : errno);
  }
  char byte = 0;
  EXPECT_EQ(read(from, &byte, 1), 1);
  const int here = Lock(fd, F_SETLKW, F_WRLCK, 1, 1) == 0 ? 0 : errno;
  DONE(Lock(fd, F_SETLK, F_UNLCK));
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ((std::set<int>{here, WEXITSTATUS(status)}), (std::set<int>{0, EDEADLK}));
}

TEST_F(Locks, OfOpenDescriptionsExcludeEachOtherInAProcess) {
  const Fd first = Open("file");
  Fd second = Open("file");
  const Fd copy(dup(first));
  DONE(Lock(first, F_OFD_SETLK, F_WRLCK));
  FAILS(EAGAIN, Lock(second, F_OFD_SETLK, F_RDLCK));
  DONE(Lock(copy, F_OFD_SETLK, F_RDLCK));
  DONE(Lock(second, F_OFD_SETLK, F_RDLCK));
  FAILS(EAGAIN, Lock(first, F_OFD_SETLK, F_WRLCK));
  second.Close();
  DONE(Lock(first, F_OFD_SETLK, F_WRLCK));
  EXPECT_EQ(LockElsewhere(F_RDLCK), "EAGAIN");
}

TEST_F(Locks, OfFlockAreOfOpenDescriptions) {
  const Fd first = Open("file");
  Fd second = Open("file", O_RDONLY);
  DONE(flock(first, LOCK_EX));
  FAILS(EWOULDBLOCK, flock(second, LOCK_SH | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(second, LOCK_EX | LOCK_NB));
  DONE(flock(first, LOCK_SH));
  DONE(flock(second, LOCK_SH | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(first, LOCK_EX | LOCK_NB));
  second.Close();
  DONE(flock(first, LOCK_EX | LOCK_NB));
  EXPECT_EQ(Elsewhere([] { return flock(Open("file"), LOCK_SH | LOCK_NB); }), "EAGAIN");
  DONE(flock(first, LOCK_UN));
  EXPECT_EQ(Elsewhere([] { return flock(Open("file"), LOCK_EX | LOCK_NB); }), "done");
}

TEST_F(Locks, OfFlockAreTakenOnDirectoriesToo) {
  const Fd first = Open("dir", O_RDONLY);
  const Fd second = Open("dir", O_RDONLY);
  DONE(flock(first, LOCK_EX));
  FAILS(EWOULDBLOCK, flock(second, LOCK_SH | LOCK_NB));
}

TEST_F(Locks, OfFlockStayWithAChildUntilAllHaveClosed) {
  Fd fd = Open("file");
  DONE(flock(fd, LOCK_EX));
  EXPECT_EQ(Elsewhere([&] { return close(fd); }), "done");
  EXPECT_EQ(Elsewhere([] { return flock(Open("file"), LOCK_SH | LOCK_NB); }), "EAGAIN");
  fd.Close();
  EXPECT_EQ(Elsewhere([] { return flock(Open("file"), LOCK_SH | LOCK_NB); }), "done");
}

// Some filesystems have none.
TEST_F(Locks, ALeaseIsGivenOrThereAreNone) {
  const Fd fd = Open("file", O_RDONLY);
  const std::string outcome = Outcome(fcntl(fd, F_SETLEASE, F_RDLCK));
  if (outcome != "done") {
    EXPECT_EQ(outcome, "EINVAL");
    return;
  }
  EXPECT_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
  signal(SIGIO, SIG_IGN);
  FAILS(EWOULDBLOCK, open("file", O_WRONLY | O_NONBLOCK));
  DONE(fcntl(fd, F_SETLEASE, F_UNLCK));
}

}  // namespace
}  // namespace mangrove::posix
