// `mangrove fsck`: asks the daemon about a check until it has ended.

#pragma once

#include <string>

#include "node/commands.h"

namespace mangrove {

// As those of fsck(8); for wrong usage kExitUsage.
constexpr int kFsckSound = 0;
constexpr int kFsckRepaired = 1;
constexpr int kFsckProblems = 4;  // That were not repaired.
constexpr int kFsckFailed = 8;    // Nothing is known: the check did not come to its end.

struct FsckOptions {
  bool repair = false;
  bool json = false;
};

int RunFsck(const std::string& fileset, FsckOptions options, const AttachOptions& attach,
            const CommandEnvironment& environment);

}  // namespace mangrove
