#include "fs/mount/answer.h"

#include <cerrno>
#include <string>

#include "fs/status.h"
#include "net/log.h"

namespace mangrove::fs {

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
