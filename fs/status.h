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

}  // namespace mangrove::fs
