// Locks of the files of a fileset in memory, for tests.

#pragma once

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "fs/locks/file_lock.h"
#include "fs/locks/lock_list.h"
#include "fs/status.h"

namespace mangrove::fs {

class MemoryLocks final : public FileLocks {
 public:
  size_t size() const { return locks_.size(); }
  size_t waiting() const { return waiting_.size(); }

  Task<absl::Status> Set(FileLock lock, std::shared_ptr<LockWait> wait) override {
    if (wait != nullptr && IsInARing(lock)) co_return PosixError(EDEADLK, "its owner waits for what this one has");
    if (wait != nullptr) waiting_.push_back(wait.get());
    if (wait != nullptr) wanted_.push_back(lock);
    while (locks_.FindConflict(lock) != nullptr && wait != nullptr && !wait->is_cancelled()) {
      co_await wait->Listen(std::numeric_limits<TimeNs>::max() / 2);
    }
    if (wait != nullptr) std::erase(waiting_, wait.get());
    if (wait != nullptr) wanted_.erase(std::find(wanted_.begin(), wanted_.end(), lock));
    if (wait != nullptr && wait->is_cancelled()) co_return PosixError(EINTR, "the wait was ended");
    if (locks_.FindConflict(lock) != nullptr) co_return PosixError(EAGAIN, "another lock is in the way");
    locks_.Set(lock);
    Ring();
    co_return absl::OkStatus();
  }
  Task<absl::StatusOr<std::optional<FileLock>>> Find(FileLock lock) override {
    const FileLock* const found = locks_.FindConflict(lock);
    if (found == nullptr) co_return std::optional<FileLock>();
    co_return std::optional<FileLock>(*found);
  }
  Task<absl::Status> Clear(FileLock range) override {
    locks_.Clear(range);
    Ring();
    co_return absl::OkStatus();
  }
  Task<bool> ClearHandle(uint16_t mount, uint64_t handle) override {
    locks_.EraseIf([=](const FileLock& lock) { return lock.owner.mount == mount && lock.handle == handle; });
    Ring();
    co_return true;
  }
  Task<bool> ClearMount(uint16_t mount) override {
    locks_.EraseIf([=](const FileLock& lock) { return lock.owner.mount == mount; });
    Ring();
    co_return true;
  }

 private:
  bool IsInARing(const FileLock& lock) const {
    if (lock.kind != LockKind::kRange) return false;
    std::vector<LockOwner> owners = locks_.OwnersInTheWay(lock);
    for (size_t i = 0; i < owners.size(); ++i) {
      if (owners[i] == lock.owner) return true;
      for (const FileLock& other : wanted_) {
        if (other.owner != owners[i]) continue;
        for (const LockOwner& next : locks_.OwnersInTheWay(other)) {
          if (std::find(owners.begin(), owners.end(), next) == owners.end()) owners.push_back(next);
        }
      }
    }
    return false;
  }
  void Ring() const {
    for (LockWait* wait : waiting_) wait->Ring();
  }

  LockList locks_;
  std::vector<FileLock> wanted_;
  std::vector<LockWait*> waiting_;
};

}  // namespace mangrove::fs
