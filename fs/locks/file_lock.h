// Locks of files, as fcntl(2) and flock(2) have them, and who holds them: across all nodes that have the fileset mounted.
//
// They are advice: whoever does not ask for them reads and writes all the same. They belong to an owner, which is the kernel's name for a
// process's table of descriptors, or for an open file, on one mount of one node.

#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/attributes.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// The two do not see each other. Their numbers are in pages.
enum class LockKind : uint8_t {
  kRange = 0,  // fcntl: of bytes, also behind the end of the file.
  kFile = 1,   // flock: of the whole file.
};

struct LockOwner {
  uint8_t place = 0;   // Of its node, below kNodePlaces. FileLocks knows it.
  uint16_t mount = 0;  // On that node.
  uint64_t id = 0;     // The kernel's, of that mount.
  friend auto operator<=>(const LockOwner&, const LockOwner&) = default;
};

struct FileLock {
  static constexpr uint64_t kEnd = std::numeric_limits<uint64_t>::max();

  InodeNumber inode;
  LockKind kind = LockKind::kRange;
  LockOwner owner;
  uint64_t first = 0;
  uint64_t last = kEnd;  // With it.
  bool exclusive = false;
  pid_t pid = 0;        // For people.
  uint64_t handle = 0;  // By which open file it was set; of locks of this node alone.

  bool IsOfSame(const FileLock& other) const { return inode == other.inode && kind == other.kind; }
  bool Overlaps(const FileLock& other) const { return first <= other.last && other.first <= last; }
  friend bool operator==(const FileLock&, const FileLock&) = default;
};

// Somebody waits for a lock, and may stop waiting. Owned by the loop.
class LockWait {
 public:
  explicit LockWait(Clock* clock) : clock_(clock), bell_(clock) {}

  void Cancel() {
    is_cancelled_ = true;
    bell_.Set(true);
  }
  bool is_cancelled() const { return is_cancelled_; }
  // It is worth a look.
  void Ring() { bell_.Set(true); }
  // Until one of these, or until `until`.
  Task<bool> Listen(TimeNs until) {
    const Clock::TimerId timer = clock_->CallAt(until, [bell = bell_]() mutable { bell.Set(false); });
    const bool rung = co_await bell_.Get();
    clock_->Cancel(timer);
    bell_ = Outcome<bool>(clock_);
    if (is_cancelled_) bell_.Set(true);
    co_return rung;
  }

 private:
  Clock* const clock_;
  Outcome<bool> bell_;
  bool is_cancelled_ = false;
};

// The locks of a fileset, for the mounts of one node. Owned by the loop.
class FileLocks {
 public:
  virtual ~FileLocks() = default;

  // OK: it is the owner's, and nobody else has what conflicts with it. What the owner had of these bytes has become this.
  // EAGAIN: another owner has what conflicts, and `wait` is null. EINTR: the wait was cancelled.
  // EDEADLK: of ranges; whoever has it waits, maybe by others, for what this owner has.
  // ENOLCK: there are too many locks; or, without `wait`, the other nodes that may have some cannot be heard for now.
  // `wait` is for this call alone.
  virtual Task<absl::Status> Set(FileLock lock, std::shared_ptr<LockWait> wait) = 0;
  // A lock that would be in the way of this one. Nothing: there is none.
  virtual Task<absl::StatusOr<std::optional<FileLock>>> Find(FileLock lock) = 0;
  // The owner has none of these bytes any more, and the others hear of it: at the latest when they can be heard again.
  // ENOLCK: it would have two locks instead of one, and there are too many; nothing has changed.
  virtual Task<absl::Status> Clear(FileLock range) = 0;
  // The same for all that one of these has.
  virtual Task<bool> ClearHandle(uint16_t mount, uint64_t handle) = 0;
  virtual Task<bool> ClearMount(uint16_t mount) = 0;
};

}  // namespace mangrove::fs
