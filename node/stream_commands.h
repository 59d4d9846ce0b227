// "mangrove stream": named streams of files and directories of a mounted fileset, by the mount itself, with the rights of who asks. No daemon is
// asked.

#pragma once

#include <span>
#include <string>

#include "node/commands.h"

namespace mangrove {

// `words`: behind "stream". Content comes from descriptor 0, and goes to descriptor 1. Returns the exit code.
int RunStreamCommand(std::span<const std::string> words, const CommandEnvironment& environment);
std::string StreamHelp();

}  // namespace mangrove
