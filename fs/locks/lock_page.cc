#include "fs/locks/lock_page.h"

#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove::fs {
namespace {

constexpr size_t kPlacesAt = 8;
constexpr size_t kCountAt = 16;

constexpr size_t kFirstAt = 8;
constexpr size_t kLastAt = 16;
constexpr size_t kOwnerAt = 24;
constexpr size_t kPidAt = 32;
constexpr size_t kMountAt = 36;
constexpr size_t kPlaceAt = 38;
constexpr size_t kKindAt = 39;
constexpr uint8_t kExclusive = 0x80;

}  // namespace

LockBucketHead ReadLockHead(std::span<const std::byte> page) {
  return {.epoch = Epoch(LoadLittle<uint64_t>(page.data())),
          .places = LoadLittle<uint64_t>(page.data() + kPlacesAt),
          .count = LoadLittle<uint32_t>(page.data() + kCountAt)};
}

void WriteLockHead(const LockBucketHead& head, std::span<std::byte> page) {
  StoreLittle(page.data(), head.epoch.value);
  StoreLittle(page.data() + kPlacesAt, head.places);
  StoreLittle(page.data() + kCountAt, head.count);
}

void ReadLocks(std::span<const std::byte> page, size_t count, LockList* locks) {
  CHECK(count <= kLocksOfPage);
  for (size_t i = 0; i < count; ++i) {
    const std::byte* const at = page.data() + kLockPageHead + i * kLockBytes;
    const auto kind = std::to_integer<uint8_t>(at[kKindAt]);
    FileLock lock;
    lock.inode.value = LoadLittle<uint64_t>(at);
    lock.first = LoadLittle<uint64_t>(at + kFirstAt);
    lock.last = LoadLittle<uint64_t>(at + kLastAt);
    lock.owner.id = LoadLittle<uint64_t>(at + kOwnerAt);
    lock.pid = static_cast<pid_t>(LoadLittle<uint32_t>(at + kPidAt));
    lock.owner.mount = LoadLittle<uint16_t>(at + kMountAt);
    lock.owner.place = std::to_integer<uint8_t>(at[kPlaceAt]);
    lock.kind = LockKind(kind & ~kExclusive);
    lock.exclusive = (kind & kExclusive) != 0;
    locks->Add(lock);
  }
}

void WriteLocks(std::span<const FileLock> locks, std::span<std::byte> page) {
  CHECK(locks.size() <= kLocksOfPage);
  std::byte* at = page.data() + kLockPageHead;
  for (const FileLock& lock : locks) {
    StoreLittle(at, lock.inode.value);
    StoreLittle(at + kFirstAt, lock.first);
    StoreLittle(at + kLastAt, lock.last);
    StoreLittle(at + kOwnerAt, lock.owner.id);
    StoreLittle(at + kPidAt, static_cast<uint32_t>(lock.pid));
    StoreLittle(at + kMountAt, lock.owner.mount);
    at[kPlaceAt] = std::byte{lock.owner.place};
    at[kKindAt] = std::byte(static_cast<uint8_t>(lock.kind) | (lock.exclusive ? kExclusive : 0));
    at += kLockBytes;
  }
}

}  // namespace mangrove::fs
