#include "fs/mount/answer.h"

#include <cerrno>
#include <string>

#include "fs/status.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

timespec TimeOf(int64_t ns) {
  int64_t seconds = ns / kSecond;
  int64_t rest = ns % kSecond;
  if (rest < 0) {
    --seconds;
    rest += kSecond;
  }
  return {.tv_sec = seconds, .tv_nsec = rest};
}

}  // namespace

ino_t InodeOf(const State* state, InodeNumber inode) {
  return inode == state->filesystem->root() ? FUSE_ROOT_ID : inode.value;
}

Caller CallerOf(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {.uid = context->uid, .gid = context->gid, .umask = context->umask};
}

struct stat StatOf(const State* state, const Attributes& a) {
  constexpr uint64_t kBlocksOfPage = 8;
  struct stat s {};
  s.st_ino = InodeOf(state, a.inode);
  s.st_mode = a.mode;
  s.st_nlink = a.links;
  s.st_uid = a.uid;
  s.st_gid = a.gid;
  s.st_rdev = a.device;
  s.st_size = static_cast<off_t>(a.size_bytes);
  s.st_blocks = static_cast<blkcnt_t>(((S_ISDIR(a.mode) ? 1 : 0) + a.pages) * kBlocksOfPage);
  s.st_blksize = 4096;
  s.st_atim = TimeOf(a.accessed_ns);
  s.st_mtim = TimeOf(a.modified_ns);
  s.st_ctim = TimeOf(a.changed_ns);
  return s;
}

fuse_entry_param EntryOf(State* state, const Attributes& a) {
  fuse_entry_param entry{};
  entry.ino = state->known.Tell(a.id());
  entry.generation = a.generation;
  entry.attr = StatOf(state, a);
  return entry;
}
void ForgetEntry(State* state, fuse_ino_t number, uint64_t times) {
  if (state->known.Forget(number, times)) state->cache.Forget(number);
}

void ReplyError(fuse_req_t request, const absl::Status& status) {
  const int error = ErrnoOf(status);
  State* const state = StateOf(request);
  if ((error == EIO || error == EUCLEAN) && state->damage_said != status.message()) {
    state->damage_said = std::string(status.message());
    LogWarning("fileset \"", state->options.source, "\": ", status.message(), "; mangrove fsck ", state->options.source,
               " says more, and with --repair mends what can be mended");
  }
  fuse_reply_err(request, error);
}

void Answer(fuse_req_t request, Task<absl::Status> task) {
  auto state = StateOf(request)->shared_from_this();
  ++state->under_way;
  Spawn<absl::Status>(std::move(task), [state, request](const absl::Status& status) {
    --state->under_way;
    ReplyError(request, status);
  });
}

}  // namespace mangrove::fs
