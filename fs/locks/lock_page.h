// What is in a bucket of a fileset's locks: the pages that a LockTable shares with those of other nodes.
//
// The first page of a bucket:
//   0 epoch of the view in which it was made anew 8   8 places of the nodes that have put theirs in since, a bit each 8   16 count of locks 4
// In each page, from kLockPageHead on, kLocksOfPage locks:
//   0 inode 8   8 first byte 8   16 last byte 8   24 owner 8   32 pid 4   36 mount 2   38 place 1   39 kind 1, and kExclusive

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "fs/locks/lock_list.h"
#include "fs/pages.h"
#include "net/ids.h"

namespace mangrove::fs {

inline constexpr size_t kLockPageHead = 32;
inline constexpr size_t kLockBytes = 40;
inline constexpr size_t kLocksOfPage = (kPageSize - kLockPageHead) / kLockBytes;

struct LockBucketHead {
  Epoch epoch;
  uint64_t places = 0;
  uint32_t count = 0;
};

// `page`: of kPageSize bytes.
LockBucketHead ReadLockHead(std::span<const std::byte> page);
void WriteLockHead(const LockBucketHead& head, std::span<std::byte> page);
// Appends the first `count` locks of a page. REQUIRES: at most kLocksOfPage.
void ReadLocks(std::span<const std::byte> page, size_t count, LockList* locks);
void WriteLocks(std::span<const FileLock> locks, std::span<std::byte> page);

}  // namespace mangrove::fs
