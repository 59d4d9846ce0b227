// What mangroved is told on its command line.

#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/node_config.h"
#include "net/levels.h"
#include "net/log.h"

namespace mangrove {

// Exit codes of mangroved. Ended by a second signal, it exits with 128 and the signal's number.
constexpr int kDaemonStopped = 0;
constexpr int kDaemonFailed = 1;     // The node could not start, or not end in time.
constexpr int kDaemonBadInput = 2;   // Usage, configuration or key.
constexpr int kDaemonRemoved = 4;    // The cluster has taken the node out for good while it was away.
constexpr int kDaemonUnflushed = 3;  // It ended, and something of this node alone was not on disk by then.

struct DaemonOptions {
  std::string config_path;
  bool check_config = false;
  bool recover_anchors = false;
  std::string confirm;  // Of that; empty: it only says what there is.
  bool help = false;
  bool version = false;
  int64_t drain_timeout_s = 10;
  // Instead of the configuration's, unless empty.
  std::string log_level;
  std::string log_file;
  std::string socket_path;
  LevelTable levels = kOwnLevels;
};

std::string DaemonHelp();
// InvalidArgument: wrong usage.
absl::StatusOr<DaemonOptions> ParseDaemonOptions(std::span<const std::string> arguments);
// The configuration of the file with the flags' settings, validated, and its key file looked at.
absl::StatusOr<NodeConfig> ConfigOf(const DaemonOptions& options);
// Of a validated configuration.
LogLevel LogLevelOf(const std::string& name);

}  // namespace mangrove
