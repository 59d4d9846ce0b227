// Files that are written at once: whole and on the disk, or as before, whenever this ends.

#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace mangrove {

enum class IfThere { kRefuse, kReplace };

// Writes PATH.new, syncs it, puts it in its place and syncs the directory. `mode` but for what the process's umask takes away.
// AlreadyExists: with kRefuse; then nothing is changed. PermissionDenied, NotFound (of the directory) and Unavailable name what could
// not be done.
absl::Status WriteWholeFile(const std::string& path, mode_t mode, std::string_view text, IfThere if_there);

// What the system says of a file, as above: "cannot WHAT PATH: ..."
absl::Status FileError(int error, const std::string& what, const std::string& path);

}  // namespace mangrove
