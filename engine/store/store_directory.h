// The directory that a store lives in: made, locked against a second process, and its disk's free space.

#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mangrove::store {

// Makes `path` and what is missing above it, durably; the directory is the user's own (mode 0700) if it is made here.
// FailedPrecondition: it is there and no directory. PermissionDenied.
absl::Status MakeStoreDirectory(const std::string& path);

// What was made in the directory `path`, or removed from it, is durable when it returns OK.
absl::Status SyncDirectory(const std::string& path);

// `damaged`, of the store at `path`, and what is to be done about it.
absl::Status WithAdvice(const absl::Status& damaged, const std::string& path);

// Holds the store against every other opener, in this process too, until it is destroyed.
class StoreLock {
 public:
  // FailedPrecondition names the path and the process that holds it.
  static absl::StatusOr<StoreLock> Acquire(const std::string& path);

  StoreLock(StoreLock&& other) noexcept;
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  explicit StoreLock(int fd) : fd_(fd) {}
  int fd_;
};

// What an unprivileged user may still write on the disk of `path`; UINT64_MAX if the disk does not say.
uint64_t FreeDiskBytes(const std::string& path);

// What is written when the disk is nearly full: page data leaves the reserve free. What has none (deletions, records) may
// use half of it, so that a full disk can be cleared and the node can go on; the cleaner may use three quarters, so that
// there is space to make space.
enum class SpaceUse { kPages, kSmall, kCleaning };

// Decides what may still be written. Owned by one thread.
class SpaceGuard {
 public:
  SpaceGuard(std::string path, uint64_t reserve_bytes) : path_(std::move(path)), reserve_bytes_(reserve_bytes) {}

  // Looks at the disk. What was admitted before is taken to be written by now.
  void Refresh();
  // The same, unless it was done a few milliseconds ago and little was admitted since. False: it was left.
  bool RefreshIfOld();

  // May `bytes` more be written? They count until the next Refresh. ResourceExhausted names the path, what is needed and
  // what is free.
  absl::Status Admit(uint64_t bytes, SpaceUse use);

 private:
  const std::string path_;
  const uint64_t reserve_bytes_;
  uint64_t free_bytes_ = 0;
  uint64_t admitted_bytes_ = 0;
  std::chrono::steady_clock::time_point refreshed_at_;
};

}  // namespace mangrove::store
