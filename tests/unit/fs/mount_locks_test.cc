// fcntl(2) and flock(2) on two mounts of a fileset.
// Covers: F07

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/unit/fs/mount_harness.h"

namespace mangrove::fs {
namespace {

struct flock Range(int16_t type, off_t first, off_t length) {
  struct flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = first;
  range.l_len = length;
  return range;
}

int Lock(int fd, int how, int16_t type, off_t first = 0, off_t length = 0) {
  struct flock range = Range(type, first, length);
  return ErrorOf(fcntl(fd, how, &range));
}

class MountLocks : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (!CanMount()) return;
    MountHere(&second_);
    WriteFile("a", "text");
  }
  Descriptor OpenSecond(const std::string& name, int flags = O_RDWR) const {
    return Descriptor(open(SecondPath(name).c_str(), flags));
  }
  size_t Waiting() {
    size_t count = 0;
    OnLoop([&] { count = pages_.locks()->waiting(); });
    return count;
  }
  size_t Held() {
    size_t count = 0;
    OnLoop([&] { count = pages_.locks()->size(); });
    return count;
  }
};

TEST_F(MountLocks, RangesOfOneMountAreInTheWayOnTheOther) {
  const Descriptor first = Open("a", O_RDWR);
  const Descriptor second = OpenSecond("a");
  EXPECT_EQ(Lock(first, F_SETLK, F_WRLCK, 10, 10), 0);
  EXPECT_EQ(Lock(second, F_SETLK, F_RDLCK, 0, 10), 0);
  EXPECT_EQ(Lock(second, F_SETLK, F_RDLCK, 19, 1), EAGAIN);
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK, 20, 0), 0);
  EXPECT_EQ(Lock(first, F_SETLK, F_UNLCK, 15, 5), 0);
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK, 15, 5), 0);
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK, 14, 1), EAGAIN);
}

TEST_F(MountLocks, WhoHasItIsTold) {
  const Descriptor first = Open("a", O_RDWR);
  const Descriptor second = OpenSecond("a");
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK, 10, 10), 0);
  struct flock range = Range(F_RDLCK, 0, 0);
  ASSERT_EQ(fcntl(second, F_GETLK, &range), 0);
  EXPECT_EQ(range.l_type, F_WRLCK);
  EXPECT_EQ(range.l_start, 10);
  EXPECT_EQ(range.l_len, 10);
  EXPECT_EQ(range.l_pid, getpid());
  range = Range(F_WRLCK, 0, 10);
  ASSERT_EQ(fcntl(second, F_GETLK, &range), 0);
  EXPECT_EQ(range.l_type, F_UNLCK);
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK, 30, 0), 0);
  range = Range(F_RDLCK, 25, 0);
  ASSERT_EQ(fcntl(second, F_GETLK, &range), 0);
  EXPECT_EQ(range.l_start, 30);
  EXPECT_EQ(range.l_len, 0);
}

// Of a process, at any of its descriptors.
TEST_F(MountLocks, AClosedDescriptorGivesItsProcesssLocksBack) {
  const Descriptor second = OpenSecond("a");
  {
    const Descriptor first = Open("a", O_RDWR);
    ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
    EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), EAGAIN);
    Open("a", O_RDONLY);  // And is closed.
    EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), 0);
    EXPECT_EQ(Lock(first, F_SETLK, F_WRLCK), EAGAIN);
  }
  EXPECT_EQ(Held(), size_t{1});
}

TEST_F(MountLocks, AnEndedProcessHasNone) {
  const Descriptor second = OpenSecond("a");
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = open(Path("a").c_str(), O_RDWR);
    const bool has = Lock(fd, F_SETLK, F_WRLCK) == 0 && flock(fd, LOCK_EX) == 0;
    if (write(ready[1], has ? "y" : "n", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), EAGAIN);
  EXPECT_EQ(ErrorOf(flock(second, LOCK_SH | LOCK_NB)), EWOULDBLOCK);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(Lock(second, F_SETLKW, F_WRLCK), 0);
  EXPECT_EQ(ErrorOf(flock(second, LOCK_EX)), 0);
  close(ready[0]);
  close(ready[1]);
}

TEST_F(MountLocks, WhoWaitsGetsItWhenItIsFree) {
  const Descriptor first = Open("a", O_RDWR);
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
  std::atomic<int> error = -1;
  const Descriptor second = OpenSecond("a");
  std::thread waiter([&] { error = Lock(second, F_SETLKW, F_WRLCK, 3, 4); });
  EXPECT_TRUE(Comes([&] { return Waiting() == 1; }));
  EXPECT_EQ(error, -1);
  EXPECT_EQ(Lock(first, F_SETLK, F_UNLCK, 0, 5), 0);  // Not all of it.
  EXPECT_EQ(Waiting(), size_t{1});
  EXPECT_EQ(Lock(first, F_SETLK, F_UNLCK), 0);
  waiter.join();
  EXPECT_EQ(error, 0);
}

void DoNothing(int) {}

TEST_F(MountLocks, ASignalEndsAWait) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = DoNothing;  // Without SA_RESTART.
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const Descriptor first = Open("a", O_RDWR);
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
  ASSERT_EQ(flock(first, LOCK_EX), 0);
  const Descriptor second = OpenSecond("a");
  for (const bool of_file : {false, true}) {
    std::atomic<int> error = -1;
    std::thread waiter([&] { error = of_file ? ErrorOf(flock(second, LOCK_SH)) : Lock(second, F_SETLKW, F_RDLCK); });
    EXPECT_TRUE(Comes([&] { return Waiting() == 1; }));
    pthread_kill(waiter.native_handle(), SIGUSR1);
    waiter.join();
    EXPECT_EQ(error, EINTR);
    EXPECT_EQ(Waiting(), size_t{0});
  }
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(MountLocks, FilesAreLockedByOpenFile) {
  const Descriptor first = Open("a", O_RDWR);
  const Descriptor second = OpenSecond("a");
  EXPECT_EQ(ErrorOf(flock(first, LOCK_SH)), 0);
  EXPECT_EQ(ErrorOf(flock(second, LOCK_SH | LOCK_NB)), 0);
  EXPECT_EQ(ErrorOf(flock(first, LOCK_EX | LOCK_NB)), EWOULDBLOCK);
  EXPECT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);  // The other kind.
  EXPECT_EQ(ErrorOf(flock(second, LOCK_UN)), 0);
  EXPECT_EQ(ErrorOf(flock(first, LOCK_EX | LOCK_NB)), 0);
  {
    const Descriptor same(dup(first));  // One file that is open.
    EXPECT_EQ(ErrorOf(flock(same, LOCK_EX | LOCK_NB)), 0);
  }
  EXPECT_EQ(ErrorOf(flock(second, LOCK_SH | LOCK_NB)), EWOULDBLOCK);
}

TEST_F(MountLocks, AClosedFileHasNone) {
  const Descriptor second = OpenSecond("a");
  {
    const Descriptor first = Open("a", O_RDWR);
    EXPECT_EQ(ErrorOf(flock(first, LOCK_EX)), 0);
    EXPECT_EQ(Lock(first, F_OFD_SETLK, F_WRLCK), 0);
    EXPECT_EQ(Lock(second, F_OFD_SETLK, F_RDLCK), EAGAIN);
    EXPECT_EQ(Lock(second, F_SETLK, F_RDLCK), EAGAIN);
  }
  EXPECT_EQ(ErrorOf(flock(second, LOCK_EX)), 0);
  EXPECT_EQ(Lock(second, F_OFD_SETLKW, F_WRLCK), 0);
  EXPECT_EQ(Held(), size_t{2});
}

TEST_F(MountLocks, AMountThatEndsHasNobodyWait) {
  const Descriptor first = Open("a", O_RDWR);
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
  std::atomic<int> error = 0;
  std::thread waiter([&] {
    const Descriptor second = OpenSecond("a");
    error = Lock(second, F_SETLKW, F_WRLCK);
  });
  EXPECT_TRUE(Comes([&] { return Waiting() == 1; }));
  OnLoop([&] { second_.mount->Stop(); });
  EXPECT_TRUE(Comes([&] { return Waiting() == 0; }));
  EndMount(&second_);
  waiter.join();
  EXPECT_NE(error, 0);
}

}  // namespace
}  // namespace mangrove::fs
