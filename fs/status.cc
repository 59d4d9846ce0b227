#include "fs/status.h"

#include <cerrno>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace mangrove::fs {
namespace {

constexpr absl::string_view kErrnoPayload = "mangrove/errno";

}  // namespace

absl::Status PosixError(int error_number, absl::string_view what) {
  absl::StatusCode code = absl::ErrnoToStatusCode(error_number);
  // Abseil's code for ESTALE, and EDEADLK; here it says that a transaction is to be tried again.
  if (code == absl::StatusCode::kAborted) code = absl::StatusCode::kFailedPrecondition;
  absl::Status status(code, what);
  status.SetPayload(kErrnoPayload, absl::Cord(absl::StrCat(error_number)));
  return status;
}

absl::Status AgainIfLost(absl::Status status) {
  return absl::IsDataLoss(status) ? absl::AbortedError(status.message()) : status;
}

int ErrnoOf(const absl::Status& status) {
  if (status.ok()) return 0;
  const auto payload = status.GetPayload(kErrnoPayload);
  int error_number = 0;
  if (payload && absl::SimpleAtoi(std::string(*payload), &error_number)) return error_number;
  switch (status.code()) {
    case absl::StatusCode::kPermissionDenied: return EACCES;
    case absl::StatusCode::kResourceExhausted: return ENOSPC;
    case absl::StatusCode::kDeadlineExceeded: return ETIMEDOUT;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted: return EAGAIN;
    default: return EIO;
  }
}

}  // namespace mangrove::fs
