// Locks of files across the mounts of three nodes: programs that rely on them, and what becomes of them when nodes die, or stand still.
// Covers: F07, F08

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/cluster/mounted_cluster.h"

namespace mangrove::cluster_test {
namespace {

constexpr int kLockLimitS = 120;

class Locks : public MountedCluster {
 protected:
  using Clock = std::chrono::steady_clock;

  int OpenAt(int node, const std::string& name) const {
    const int fd = open((DirectoryOf(node) + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    EXPECT_GE(fd, 0) << name << " at node " << node << ": " << strerror(errno);
    return fd;
  }
  static int Lock(int fd, int how, int16_t type) {
    struct flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    return fcntl(fd, how, &range) == 0 ? 0 : errno;
  }
  // Both kinds are waited for by node 2 while node 1 has them, and `lose` does something to node 1. Seconds until both are had.
  template <typename Lose>
  double SecondsUntilHad(int first, int second, Lose lose) {
    EXPECT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
    EXPECT_EQ(flock(first, LOCK_EX), 0);
    EXPECT_EQ(Lock(second, F_SETLK, F_RDLCK), EAGAIN);
    std::atomic<bool> is_early = true;
    const Clock::time_point lost = Clock::now();
    std::thread waiter([&] {
      EXPECT_EQ(Lock(second, F_SETLKW, F_WRLCK), 0);
      EXPECT_FALSE(is_early);
      EXPECT_EQ(flock(second, LOCK_EX), 0);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // Nothing is to happen in it.
    is_early = false;
    lose();
    waiter.join();
    return std::chrono::duration<double>(Clock::now() - lost).count();
  }
};

// As sqlite's documentation has it for locks that work: a rollback journal, and many writers.
TEST_F(Locks, SqliteHasWritersOnThreeMounts) {
  StartMounted();
  ExpectRuns(R"sh(
    sqlite3 $1/db 'create table t(v integer primary key, who int); create table c(n int); insert into c values(0);'
    write() {
      for i in $(seq 60); do
        sqlite3 -bail -cmd '.timeout 60000' $1/db "begin immediate; update c set n = n + 1; insert into t select n, $2 from c; commit;"
      done
    }
    write $1 1 & one=$!
    write $2 2 & two=$!
    write $3 3 & three=$!
    wait $one; wait $two; wait $three
    test "$(sqlite3 $2/db 'select count(*), max(v), (select n from c) from t')" = '180|180|180'
    test "$(sqlite3 $3/db 'pragma integrity_check')" = ok
  )sh",
             kLockLimitS);
}

// By dot-locks, by flock and by fcntl: each way deliveries from three mounts to a mailbox, none of which is lost or mixed with another one.
TEST_F(Locks, MailIsDeliveredFromThreeMounts) {
  StartMounted();
  ExpectRuns(R"sh(
    cat >deliver.py <<'END'
import fcntl, os, sys, time
box, how, who, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
for i in range(count):
    lock = box + '.lock'
    while how == 'dot':
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            time.sleep(0.001)
    with open(box, 'r+b') as file:
        if how == 'flock': fcntl.flock(file, fcntl.LOCK_EX)
        if how == 'fcntl': fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(0, os.SEEK_END)
        place = file.tell()
        text = ('From %s %d\n' % (who, i)).encode()
        file.write(text[:5]); file.flush()
        assert os.fstat(file.fileno()).st_size == place + 5
        file.write(text[5:]); file.flush()
    if how == 'dot': os.unlink(lock)
END
    for how in dot flock fcntl; do
      : >$1/$how
      python3 deliver.py $1/$how $how one 150 & one=$!
      python3 deliver.py $2/$how $how two 150 & two=$!
      python3 deliver.py $3/$how $how three 150 & three=$!
      wait $one; wait $two; wait $three
      for who in one two three; do
        for i in $(seq 0 149); do echo From $who $i; done
      done | sort >wanted
      sort $2/$how | cmp - wanted
    done
  )sh",
             kLockLimitS);
}

TEST_F(Locks, AKilledNodeHasNone) {
  StartMounted();
  const int first = OpenAt(1, "a");
  const int second = OpenAt(2, "a");
  const double seconds = SecondsUntilHad(first, second, [&] { cluster_.Kill(1); });
  RecordProperty("seconds", absl::StrCat(seconds));
  EXPECT_LT(seconds, 10);
  close(first);
  close(second);
}

// It is expelled meanwhile; what its programs had open they cannot use any more, so nobody writes under a lock that another one has.
TEST_F(Locks, ANodeThatStoodStillForLongHasNoneAndItsFilesFail) {
  StartMounted();
  const int first = OpenAt(1, "a");
  const int second = OpenAt(2, "a");
  const pid_t daemon = cluster_.pid(1);
  const double seconds = SecondsUntilHad(first, second, [&] { kill(daemon, SIGSTOP); });
  EXPECT_LT(seconds, 10);
  ASSERT_EQ(pwrite(second, "second", 6, 0), 6);
  kill(daemon, SIGCONT);
  EXPECT_LT(pwrite(first, "first", 5, 0), 0);
  EXPECT_NE(Lock(first, F_SETLK, F_WRLCK), 0);
  char bytes[6];
  EXPECT_EQ(pread(second, bytes, 6, 0), 6);
  EXPECT_EQ(std::string(bytes, 6), "second");
  close(first);
  close(second);
}

// Another node that nobody locks anything on: what is held stays.
TEST_F(Locks, WhatIsHeldStaysThoughAnotherNodeDies) {
  StartMounted();
  const int first = OpenAt(1, "a");
  const int second = OpenAt(2, "a");
  const int third = OpenAt(3, "a");
  ASSERT_EQ(Lock(third, F_SETLK, F_RDLCK), 0);
  ASSERT_EQ(Lock(third, F_SETLK, F_UNLCK), 0);
  ASSERT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
  cluster_.Kill(3);
  const Clock::time_point end = Clock::now() + std::chrono::seconds(4);
  int refused = 0;
  while (Clock::now() < end) {
    const int error = Lock(second, F_SETLK, F_RDLCK);
    EXPECT_TRUE(error == EAGAIN || error == ENOLCK) << strerror(error);
    if (error == EAGAIN) ++refused;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // A question now and then.
  }
  EXPECT_GT(refused, 20);
  EXPECT_EQ(Lock(first, F_SETLK, F_UNLCK), 0);
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), 0);
  for (const int fd : {first, second, third}) close(fd);
}

// Again and again, since the kernel's word that a mount has gone and the command's own race.
TEST_F(Locks, ANodeThatHasUnmountedIsNotWaitedFor) {
  StartMounted();
  for (int round = 0; round < 10; ++round) {
    const int first = OpenAt(1, "a");
    EXPECT_EQ(Lock(first, F_SETLK, F_WRLCK), 0);
    close(first);
    const Output output = RunProgram({"mangrove", "--socket", cluster_.socket(1), "unmount", DirectoryOf(1)});
    EXPECT_EQ(output.exit_code, 0) << output.err;
    if (round < 9) Mount(1);
  }
  const int second = OpenAt(2, "a");
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), 0);
  cluster_.Kill(3);
  const Clock::time_point end = Clock::now() + std::chrono::seconds(4);
  while (Clock::now() < end) {
    EXPECT_EQ(Lock(second, F_SETLKW, F_WRLCK), 0);
    EXPECT_EQ(Lock(second, F_SETLKW, F_UNLCK), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // A question now and then.
  }
  EXPECT_EQ(Lock(second, F_SETLK, F_WRLCK), 0);
  EXPECT_EQ(cluster_.log(1).find("is left as if"), std::string::npos);
  close(second);
}

}  // namespace
}  // namespace mangrove::cluster_test
