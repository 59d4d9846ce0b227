// The commands of the program "mangrove".

#pragma once

#include <functional>
#include <ostream>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove {

constexpr char kDefaultSocketPath[] = "/run/mangrove/mangroved.sock";

// Exit codes.
constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;  // The daemon is not there, or answered with an error.
constexpr int kExitUsage = 2;

// engine/attach/inspect.h's, or a test's.
using Inspector = std::function<absl::StatusOr<std::string>(const AttachOptions& options, const std::string& what,
                                                            const std::string& argument)>;

struct CommandEnvironment {
  Inspector inspect;
  const char* socket_path = nullptr;  // MANGROVE_SOCKET; may be null.
  std::ostream& out;
  std::ostream& err;
  // For --watch. Waits until it is time to ask again; false: no more.
  std::function<bool()> wait_to_look;
  const char* clear_screen = "";  // Written before each answer of a watch.
};

// Runs one command line, without the program's name. Returns the exit code.
int RunCommand(std::span<const std::string> arguments, const CommandEnvironment& environment);

}  // namespace mangrove
