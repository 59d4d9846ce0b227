// Errors of filesystem operations: an absl::Status that says which errno a program gets.

#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mangrove::fs {

// `error_number` as of errno.h, not 0; `what` names what was wrong.
absl::Status PosixError(int error_number, absl::string_view what);

// 0 if OK. What the engine says has an errno as well:
//   PermissionDenied EACCES, ResourceExhausted ENOSPC, DataLoss EIO, DeadlineExceeded ETIMEDOUT, Unavailable EAGAIN without a
//   quorum... every other one EIO.
int ErrnoOf(const absl::Status& status);

// Of a flush in an edit: what it had written may be lost with another node, so the edit is tried again.
absl::Status AgainIfLost(absl::Status status);

}  // namespace mangrove::fs
