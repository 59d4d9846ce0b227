#include "net/fabric_error.h"

#include <rdma/fi_errno.h>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    // Providers differ in which of these a dead, refusing or absent peer becomes.
    case FI_ECANCELED:
    case FI_ECONNABORTED:
    case FI_ECONNREFUSED:
    case FI_ECONNRESET:
    case FI_ENOTCONN:
    case FI_ESHUTDOWN:
    case FI_EHOSTUNREACH:
    case FI_EHOSTDOWN:
    case FI_ENETUNREACH:
    case FI_ENETDOWN:
    case FI_ETIMEDOUT:
    case FI_EIO:
    case FI_ENODATA:
    case EPIPE: return absl::StatusCode::kUnavailable;
    case FI_ENOMEM:
    case FI_EAGAIN:
    case FI_EMFILE:
    case FI_ENOSPC:
    case FI_ENOBUFS:
    case FI_EOVERRUN: return absl::StatusCode::kResourceExhausted;
    case FI_ENOSYS:
    case FI_EOPNOTSUPP:
    case FI_EADDRINUSE:
    case FI_EADDRNOTAVAIL:
    case FI_EBADFLAGS:
    case FI_ENODEV:
    case FI_EACCES:
    case FI_EINVAL: return absl::StatusCode::kFailedPrecondition;
    case FI_ETRUNC: return absl::StatusCode::kDataLoss;
    default: return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status FabricError(int code, std::string_view what) {
  const int error = code < 0 ? -code : code;
  return absl::Status(CodeOf(error), absl::StrCat(absl::string_view(what.data(), what.size()), ": ", fi_strerror(error),
                                                  " (", error, ")"));
}

}  // namespace mangrove
