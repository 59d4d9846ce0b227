// How requests of the kernel's are answered. Known to fs/mount/*.cc alone.

#pragma once

#include <sys/stat.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/mount/session.h"

namespace mangrove::fs {

using State = Mount::State;

inline State* StateOf(fuse_req_t request) { return static_cast<State*>(fuse_req_userdata(request)); }
inline FoundFile FileOf(const State* state, fuse_ino_t number) { return state->known.Find(number); }

// Also OK. Damage is in the log too, with what to do about it: a program gets no more than a number. What is said again is not.
void ReplyError(fuse_req_t request, const absl::Status& status);

// Runs the operation; `reply(state, value)` answers it if it went well. M2
template <typename T, typename Reply>
void Answer(fuse_req_t request, Task<absl::StatusOr<T>> task, Reply reply) {
  auto state = StateOf(request)->shared_from_this();
  ++state->under_way;
  Spawn<absl::StatusOr<T>>(std::move(task), [state, request, reply](absl::StatusOr<T> result) {
    --state->under_way;
    if (result.ok()) {
      reply(state.get(), *std::move(result));
    } else {
      ReplyError(request, result.status());
    }
  });
}

void Answer(fuse_req_t request, Task<absl::Status> task);

// As programs see it.
ino_t InodeOf(const State* state, InodeNumber inode);
struct stat StatOf(const State* state, const Attributes& attributes);
Caller CallerOf(fuse_req_t request);
inline double SecondsOf(DurationNs time) { return static_cast<double>(time) / kSecond; }

// An answer about a file, which the kernel is told of by it (M3), and may keep for no time.
fuse_entry_param EntryOf(State* state, const Attributes& attributes);
// The kernel does not take the answer, or has forgotten it.
void ForgetEntry(State* state, fuse_ino_t number, uint64_t times = 1);

// data_operations.cc, lock_operations.cc
void AddDataOperations(fuse_lowlevel_ops* operations);
void AddLockOperations(fuse_lowlevel_ops* operations);

}  // namespace mangrove::fs
