// POSIX ACLs as the kernel has them in extended attributes: version 2 (4 bytes), then for each entry tag 2, permissions 2, id 4.
// Pure functions.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace mangrove::fs {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

// EINVAL says what is wrong with the ACL, everywhere.
absl::Status CheckAcl(std::string_view acl);
// The nine permission bits that the ACL stands for: the owner's, the mask's or the group's, the others'.
absl::StatusOr<mode_t> ModeOfAcl(std::string_view acl);
// The ACL when the file's permissions are set to `mode`.
absl::StatusOr<std::string> WithMode(std::string_view acl, mode_t mode);
// It says no more than mode bits can.
absl::StatusOr<bool> IsMinimal(std::string_view acl);
// That of a file's named streams, by the ACL of the file: they may be read and written by whom the file may, or written by its owner
// alone. Their directory is searched by who may do either.
absl::StatusOr<std::string> OfStreams(std::string_view acl, bool is_directory, bool only_owner_writes);
// The access ACL of a file that is made with `mode` in a directory with this default ACL: what both allow.
absl::StatusOr<std::string> Inherited(std::string_view default_acl, mode_t mode);

}  // namespace mangrove::fs
