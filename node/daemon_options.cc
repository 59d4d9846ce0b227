#include "node/daemon_options.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "net/check.h"
#include "node/arguments.h"
#include "node/mount_command.h"

namespace mangrove {

std::string DaemonHelp() {
  return R"(mangroved: a node of a Mangrove cluster.

usage: mangroved --config FILE [flags]

  --config FILE        the node's configuration, in TOML; docs/OPERATIONS.md lists its keys
  --check-config       only say whether the configuration and its key are good
  --recover-anchors    when most anchors are lost for ever: only say what the anchors' log on this disk has, and what
                       beginning anew from it would do; docs/OPERATIONS.md says when, and how to go on
  --confirm TERM.INDEX with --recover-anchors: do it
  --log-level LEVEL    debug, info, warning, error or off, instead of the configuration's
  --log-file FILE      log there, instead of where the configuration says
  --socket PATH        serve local programs there, instead of where the configuration says
  --drain-timeout S    when stopping, flush what is not on disk for at most S seconds (default 10)
  --help, --version

SIGHUP has the file with the cluster's keys read anew. SIGTERM and SIGINT stop the node in order: what is not on disk is
flushed, then it ends. A second of these ends it at once. Exit codes: 0 stopped in order, 1 could not start or not end in
time, 2 wrong usage or configuration, 3 stopped but not everything was flushed, 128 and the signal's number when ended by a
second signal.
)";
}

absl::StatusOr<DaemonOptions> ParseDaemonOptions(std::span<const std::string> arguments) {
  DaemonOptions options;
  const auto take_drain_timeout = [&options](const std::string& text) {
    if (absl::SimpleAtoi(text, &options.drain_timeout_s) && options.drain_timeout_s >= 0 &&
        options.drain_timeout_s <= 3600) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("--drain-timeout is \"", text, "\", expected a whole number of seconds from 0 to 3600"));
  };
  // For tests of clusters of several builds: not in the help.
  const auto take_level = [&options](const std::string& text) {
    for (const absl::string_view name : absl::StrSplit(text, ',')) {
      const std::optional<Subsystem> subsystem = SubsystemOf(std::string(name));
      if (!subsystem) {
        return absl::InvalidArgumentError(
            absl::StrCat("--raise-level is \"", text, "\", expected subsystems with commas between"));
      }
      ++options.levels[static_cast<size_t>(*subsystem)].high;
    }
    return absl::OkStatus();
  };
  const auto words = ParseArguments(
      arguments, {TextFlag("--config", &options.config_path), SwitchFlag("--check-config", &options.check_config),
                  SwitchFlag("--recover-anchors", &options.recover_anchors), TextFlag("--confirm", &options.confirm),
                  TextFlag("--log-level", &options.log_level), TextFlag("--log-file", &options.log_file),
                  TextFlag("--socket", &options.socket_path), Flag{"--drain-timeout", take_drain_timeout},
                  Flag{"--raise-level", take_level}, SwitchFlag("--help", &options.help),
                  SwitchFlag("-h", &options.help), SwitchFlag("--version", &options.version)});
  if (!words.ok()) return words.status();
  if (!words->empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected argument \"", words->front(), "\""));
  if (options.config_path.empty() && !options.help && !options.version) {
    return absl::InvalidArgumentError("--config FILE is missing");
  }
  if (!options.confirm.empty() && !options.recover_anchors) {
    return absl::InvalidArgumentError("--confirm is for --recover-anchors, which is missing");
  }
  return options;
}

namespace {

absl::Status CheckMountOptions(const NodeConfig& config, const std::string& origin) {
  for (size_t i = 0; i < config.mounts.size(); ++i) {
    const MountConfig& mount = config.mounts[i];
    const auto options = ParseOwnMountOptions(mount.options);
    if (options.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat(origin, ": mounts[", i + 1, "].options, of fileset \"",
                                                   mount.fileset, "\" at ", mount.directory, ", is \"", mount.options,
                                                   "\": ", options.status().message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NodeConfig> ConfigOf(const DaemonOptions& options) {
  absl::StatusOr<NodeConfig> config = LoadNodeConfig(options.config_path);
  if (!config.ok()) return config.status();
  if (absl::Status s = CheckMountOptions(*config, options.config_path); !s.ok()) return s;
  if (!options.log_level.empty()) config->log_level = options.log_level;
  if (!options.log_file.empty()) config->log_file = options.log_file;
  if (!options.socket_path.empty()) config->socket_path = options.socket_path;
  config->levels = options.levels;
  if (absl::Status s = ValidateNodeConfig(*config); !s.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("with the flags given: ", std::string(s.message())));
  }
  if (const auto key = LoadClusterKeys(config->key_file); !key.ok()) return key.status();
  return config;
}

LogLevel LogLevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  CHECK(name == "off");
  return LogLevel::kOff;
}

}  // namespace mangrove
