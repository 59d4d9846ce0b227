// mangroved: a node, until a signal stops it.

#include <signal.h>
#include <string.h>

#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/node.h"
#include "engine/node_config.h"
#include "net/log.h"
#include "node/daemon_options.h"
#include "node/stop_signals.h"

namespace mangrove {
namespace {

// What the end of a node may take beside flushing. The node's own waits are shorter.
constexpr int64_t kEndLimitS = 5;

int Fail(int exit_code, const absl::Status& status) {
  std::cerr << "mangroved: " << status.message() << "\n";
  return exit_code;
}

absl::Status OpenLog(const NodeConfig& config) {
  SetLogLevel(LogLevelOf(config.log_level));
  SetLogName(config.name);
  return config.log_file.empty() ? absl::OkStatus() : SetLogFile(config.log_file);
}

int Stop(std::unique_ptr<Node> node, StopSignals* signals, int64_t drain_timeout_s) {
  const int signal = signals->Wait();
  LogInfo("stopping, since it got ", strsignal(signal), ": flushing for at most ", drain_timeout_s,
          " s; a second signal ends it at once");
  signals->EndWithin(drain_timeout_s + kEndLimitS, kDaemonFailed,
                     [] { LogError("the node did not end in time, and is cut off"); });
  const absl::Status drained = node->Drain(drain_timeout_s * kSecond);
  if (!drained.ok()) LogError("not everything that was written here is on disk: ", drained.message());
  node.reset();
  LogInfo("stopped");
  return drained.ok() ? kDaemonStopped : kDaemonUnflushed;
}

int Serve(const NodeConfig& config, int64_t drain_timeout_s) {
  signal(SIGPIPE, SIG_IGN);
  StopSignals signals;
  LogInfo("starting ", config.name, " of cluster ", config.cluster_name, " with ", config.members.size(),
          " members, data in ", config.data_dir);
  absl::StatusOr<std::unique_ptr<Node>> node = Node::Start(config);
  if (!node.ok()) {
    LogError("cannot start: ", node.status().message());
    // Where the log is elsewhere, who started it looks here.
    return config.log_file.empty() ? kDaemonFailed : Fail(kDaemonFailed, node.status());
  }
  if (!config.socket_path.empty()) LogInfo("local programs attach at ", config.socket_path);
  return Stop(*std::move(node), &signals, drain_timeout_s);
}

int Main(const std::vector<std::string>& arguments) {
  const absl::StatusOr<DaemonOptions> options = ParseDaemonOptions(arguments);
  if (!options.ok()) {
    return Fail(kDaemonBadInput,
                absl::InvalidArgumentError(absl::StrCat(options.status().message(), "; see mangroved --help")));
  }
  if (options->help) {
    std::cout << DaemonHelp();
    return kDaemonStopped;
  }
  if (options->version) {
    std::cout << "mangroved " << MANGROVE_VERSION << "\n";
    return kDaemonStopped;
  }
  const absl::StatusOr<NodeConfig> config = ConfigOf(*options);
  if (!config.ok()) return Fail(kDaemonBadInput, config.status());
  if (options->check_config) {
    std::cout << options->config_path << " is good: " << config->name << " of cluster " << config->cluster_name << ", "
              << config->members.size() << " members\n";
    return kDaemonStopped;
  }
  if (absl::Status s = OpenLog(*config); !s.ok()) return Fail(kDaemonBadInput, s);
  return Serve(*config, options->drain_timeout_s);
}

}  // namespace
}  // namespace mangrove

int main(int argc, char** argv) { return mangrove::Main({argv + 1, argv + argc}); }
