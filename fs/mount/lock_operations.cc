// Locks of fcntl(2) and flock(2), as the kernel asks for them, and back.

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "fs/mount/answer.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

FileLock LockOf(fuse_req_t request, fuse_ino_t number, const fuse_file_info* info, LockKind kind) {
  const State* const state = StateOf(request);
  return {.inode = FileOf(state, number).inode,
          .kind = kind,
          .owner = {.mount = state->number, .id = info->lock_owner},
          .pid = fuse_req_ctx(request)->pid,
          .handle = info->fh};
}

FileLock RangeOf(fuse_req_t request, fuse_ino_t number, const fuse_file_info* info, const struct flock& range) {
  FileLock lock = LockOf(request, number, info, LockKind::kRange);
  lock.first = static_cast<uint64_t>(range.l_start);
  if (range.l_len > 0) lock.last = lock.first + static_cast<uint64_t>(range.l_len) - 1;
  lock.exclusive = range.l_type == F_WRLCK;
  lock.pid = range.l_pid;
  return lock;
}

// Who waits stops when he gets a signal, or the mount ends.
void AnswerLock(fuse_req_t request, const FileLock& lock, bool waits) {
  auto state = StateOf(request)->shared_from_this();
  std::shared_ptr<LockWait> wait;
  if (waits) {
    wait = std::make_shared<LockWait>(state->loop);
    state->lock_waits.insert(wait.get());
    fuse_req_interrupt_func(
        request, [](fuse_req_t, void* waiting) { static_cast<LockWait*>(waiting)->Cancel(); }, wait.get());
  }
  ++state->under_way;
  Spawn<absl::Status>(state->filesystem->locks()->Set(lock, wait), [state, request, wait](const absl::Status& status) {
    --state->under_way;
    if (wait != nullptr) {
      fuse_req_interrupt_func(request, nullptr, nullptr);
      state->lock_waits.erase(wait.get());
    }
    ReplyError(request, status);
  });
}

void SetRange(fuse_req_t request, fuse_ino_t number, fuse_file_info* info, struct flock* range, int waits) {
  const FileLock lock = RangeOf(request, number, info, *range);
  if (range->l_type == F_UNLCK) {
    Answer(request, StateOf(request)->filesystem->locks()->Clear(lock));
  } else {
    AnswerLock(request, lock, waits != 0);
  }
}

void GetRange(fuse_req_t request, fuse_ino_t number, fuse_file_info* info, struct flock* range) {
  const FileLock lock = RangeOf(request, number, info, *range);
  Answer<std::optional<FileLock>>(request, StateOf(request)->filesystem->locks()->Find(lock),
                                  [request](State*, const std::optional<FileLock>& found) {
                                    struct flock other {};
                                    other.l_type = F_UNLCK;
                                    other.l_whence = SEEK_SET;
                                    if (found) {
                                      other.l_type = static_cast<int16_t>(found->exclusive ? F_WRLCK : F_RDLCK);
                                      other.l_start = static_cast<off_t>(found->first);
                                      if (found->last != FileLock::kEnd)
                                        other.l_len = static_cast<off_t>(found->last - found->first + 1);
                                      other.l_pid = found->pid;
                                    }
                                    fuse_reply_lock(request, &other);
                                  });
}

void SetFile(fuse_req_t request, fuse_ino_t number, fuse_file_info* info, int what) {
  FileLock lock = LockOf(request, number, info, LockKind::kFile);
  if ((what & LOCK_UN) != 0) {
    Answer(request, StateOf(request)->filesystem->locks()->Clear(lock));
  } else {
    lock.exclusive = (what & LOCK_EX) != 0;
    AnswerLock(request, lock, (what & LOCK_NB) == 0);
  }
}

// Somebody closes a descriptor: what its process has locked of the file is not locked any more.
void Flush(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  Answer(request, StateOf(request)->filesystem->locks()->Clear(LockOf(request, number, info, LockKind::kRange)));
}

}  // namespace

void AddLockOperations(fuse_lowlevel_ops* operations) {
  operations->getlk = GetRange;
  operations->setlk = SetRange;
  operations->flock = SetFile;
  operations->flush = Flush;
}

}  // namespace mangrove::fs
