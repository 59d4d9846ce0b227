// Locks of ranges beside those of the kernel: random ones of several owners, which are open files of a local file there.
// Covers: F07

#include "fs/locks/lock_list.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "fs/locks/lock_page.h"

namespace mangrove::fs {
namespace {

constexpr size_t kOwners = 4;
constexpr uint64_t kBytes = 24;

class KernelLocks {
 public:
  KernelLocks() {
    std::string name = "/tmp/mangrove_locks_XXXXXX";
    const int first = mkstemp(name.data());
    EXPECT_GE(first, 0);
    for (int& fd : fds_) fd = open(name.c_str(), O_RDWR | O_CLOEXEC);
    close(first);
    unlink(name.c_str());
  }
  KernelLocks(const KernelLocks&) = delete;
  KernelLocks& operator=(const KernelLocks&) = delete;
  ~KernelLocks() {
    for (const int fd : fds_) close(fd);
  }
  static struct flock RangeOf(const FileLock& lock, int16_t type) {
    struct flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(lock.first);
    range.l_len = lock.last == FileLock::kEnd ? 0 : static_cast<off_t>(lock.last - lock.first + 1);
    return range;
  }
  bool Set(const FileLock& lock) {
    struct flock range = RangeOf(lock, lock.exclusive ? F_WRLCK : F_RDLCK);
    return fcntl(fds_[lock.owner.id], F_OFD_SETLK, &range) == 0;
  }
  void Clear(const FileLock& lock) {
    struct flock range = RangeOf(lock, F_UNLCK);
    EXPECT_EQ(fcntl(fds_[lock.owner.id], F_OFD_SETLK, &range), 0);
  }
  bool IsFree(const FileLock& lock) {
    struct flock range = RangeOf(lock, lock.exclusive ? F_WRLCK : F_RDLCK);
    EXPECT_EQ(fcntl(fds_[lock.owner.id], F_OFD_GETLK, &range), 0);
    return range.l_type == F_UNLCK;
  }

 private:
  std::array<int, kOwners> fds_{};
};

void ExpectNeighboursDiffer(const LockList& list) {
  for (const FileLock& a : list.locks()) {
    for (const FileLock& b : list.locks()) {
      if (&a == &b || a.owner != b.owner) continue;
      EXPECT_FALSE(a.Overlaps(b));
      const bool touches = a.last != FileLock::kEnd && a.last + 1 == b.first;
      EXPECT_FALSE(touches && a.exclusive == b.exclusive);  // L2
    }
  }
}

TEST(LockList, DoesWhatTheKernelDoes) {
  KernelLocks kernel;
  LockList list;
  std::mt19937_64 random(20'261'129);
  size_t set = 0;
  size_t refused = 0;
  for (int step = 0; step < 20'000; ++step) {
    FileLock lock;
    lock.owner.id = random() % kOwners;
    lock.first = random() % kBytes;
    lock.last = random() % 8 == 0 ? FileLock::kEnd : lock.first + random() % 6;
    lock.exclusive = random() % 2 == 0;
    const bool is_free = list.FindConflict(lock) == nullptr;
    ASSERT_EQ(is_free, kernel.IsFree(lock)) << "step " << step;
    if (random() % 3 == 0) {
      list.Clear(lock);
      kernel.Clear(lock);
    } else {
      ASSERT_EQ(is_free, kernel.Set(lock)) << "step " << step;
      if (is_free) list.Set(lock);
      is_free ? ++set : ++refused;
    }
    ExpectNeighboursDiffer(list);
  }
  EXPECT_GT(set, size_t{1000});
  EXPECT_GT(refused, size_t{1000});
}

TEST(LockList, FilesKindsAndOwnersOfOtherMountsAreApart) {
  const FileLock lock{.inode = {1}, .owner = {.place = 1, .mount = 1, .id = 1}, .exclusive = true};
  LockList list({lock});
  FileLock other = lock;
  EXPECT_EQ(list.FindConflict(other), nullptr);
  other.owner.mount = 2;
  EXPECT_NE(list.FindConflict(other), nullptr);
  EXPECT_FALSE(list.Clear(other));
  other.kind = LockKind::kFile;
  EXPECT_EQ(list.FindConflict(other), nullptr);
  other.kind = LockKind::kRange;
  other.inode = {2};
  EXPECT_EQ(list.FindConflict(other), nullptr);
}

TEST(LockPage, ComesBackAsItWasWritten) {
  std::vector<FileLock> locks;
  for (uint64_t i = 0; i < kLocksOfPage; ++i) {
    locks.push_back({.inode = {i << 40 | 7},
                     .kind = i % 2 == 0 ? LockKind::kRange : LockKind::kFile,
                     .owner = {.place = static_cast<uint8_t>(i % 64), .mount = static_cast<uint16_t>(i << 8), .id = ~i},
                     .first = i,
                     .last = FileLock::kEnd - i,
                     .exclusive = i % 3 == 0,
                     .pid = static_cast<pid_t>(i + 1)});
  }
  std::array<std::byte, kPageSize> page{};
  WriteLockHead({.epoch = Epoch(9), .places = 5, .count = 3}, page);
  WriteLocks(locks, page);
  LockList read;
  ReadLocks(page, locks.size(), &read);
  EXPECT_EQ(read.locks(), locks);
  EXPECT_EQ(ReadLockHead(page).epoch, Epoch(9));
  EXPECT_EQ(ReadLockHead(page).places, uint64_t{5});
  EXPECT_EQ(ReadLockHead(page).count, uint32_t{3});
}

}  // namespace
}  // namespace mangrove::fs
