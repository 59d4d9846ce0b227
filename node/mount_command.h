// The options of "mangrove mount", and mount(8)'s helper: the program "mangrove" under the name mount.fuse.mangrove, which mount(8) runs for
// "mount -t fuse.mangrove FILESET DIR" and for such lines of fstab.

#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "node/commands.h"

namespace mangrove {

constexpr char kMountHelperName[] = "mount.fuse.mangrove";

// As mount(8) has them, with commas between.
struct MountWords {
  std::vector<std::string> options;  // Of the mount: fs::IsMountOption.
  bool remounts = false;
  // Of how the daemon is asked; empty where they are not there.
  std::string socket;
  std::string config;
  std::string timeout;
};
// InvalidArgument names the option that is not known. What is for mount(8) and systemd alone is passed over.
absl::StatusOr<MountWords> ParseMountOptions(std::string_view text);
// Of a mount in a daemon's own configuration. InvalidArgument also for an option about how a daemon is asked, or what is mounted is changed.
absl::StatusOr<std::vector<std::string>> ParseOwnMountOptions(std::string_view text);

// For the daemon, whose working directory is another one.
std::string AbsoluteDirectory(const std::string& directory);
std::string UnmountRequest(const std::string& directory, bool by_force);
// REQUIRES: `options` was parsed.
std::string MountRequest(const std::string& fileset, const std::string& directory, const std::string& options);

// `arguments`: as mount(8) gives them. Returns an exit code of mount(8).
int RunMountHelper(std::span<const std::string> arguments, const CommandEnvironment& environment);

}  // namespace mangrove
