// mangroved --recover-anchors: what it says and does. docs/OPERATIONS.md, "When most anchors are lost".

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/node_config.h"
#include "recovery/recover_log.h"

namespace mangrove {

// What is on the disk, what would be done, and with which command. `config_path`: as mangroved was told.
std::string DescribeRecovery(const NodeConfig& config, const std::string& config_path, const RecoveredLog& log);

// Returns what is to be printed. `confirm`: empty: nothing is changed.
absl::StatusOr<std::string> RecoverAnchors(const NodeConfig& config, const std::string& config_path,
                                           const std::string& confirm);

}  // namespace mangrove
