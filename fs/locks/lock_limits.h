// Numbers and errors that the parts of a LockTable share. Known to fs/locks/*.cc alone.

#pragma once

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/locks/lock_table.h"
#include "fs/status.h"

namespace mangrove::fs {

inline constexpr size_t kMostLocks = LockTable::kPagesOfBucket * kLocksOfPage;
inline constexpr uint64_t kWaitsBucket = LockTable::kBuckets - 1;
// As that of other operations on pages.
inline constexpr DurationNs kLockPatience = 10 * kSecond;
// Where this node, or another one, has not heard of a view yet.
inline constexpr DurationNs kLookAgain = 5 * kMillisecond;

// EIO: a page of locks is lost, or damaged.
inline absl::Status NoLockNow(const absl::Status& why) {
  if (ErrnoOf(why) == EIO) return PosixError(EIO, why.message());
  return PosixError(ENOLCK, absl::StrCat("no lock can be had for now: ", why.message()));
}

inline absl::Status TooManyLocks() {
  return PosixError(ENOLCK, absl::StrCat("there are ", kMostLocks, " locks on this file and those beside it"));
}

}  // namespace mangrove::fs
