// What an operator sets of a fileset, and what is shown of it: "fileset set" and "fileset show", in the daemon.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "net/runtime/task.h"

namespace mangrove {

namespace fs {
class SuperRoot;
}

// In the daemon, on its loop: the name of the fileset that was changed.
Task<absl::StatusOr<std::string>> SetFileset(fs::SuperRoot* super_root, std::string request);
// {"used_bytes", "used_inodes", "quota_bytes", "quota_inodes"} as text; 0: no quota.
Task<absl::StatusOr<std::string>> UsageOfFileset(fs::SuperRoot* super_root, std::string name);

}  // namespace mangrove
