// mangroved: a node, until a signal stops it.

#include <signal.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/node.h"
#include "engine/node_config.h"
#include "net/log.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"
#include "node/daemon_options.h"
#include "node/mount_command.h"
#include "node/mounts.h"
#include "node/quiet_watch.h"
#include "node/recover.h"
#include "node/stop_signals.h"

namespace mangrove {
namespace {

// What the end of a node may take beside flushing: QuietWatch's waits, and the node's own, of which those for the anchors are two
// leases at most (recovery/stop_patience.h).
constexpr int64_t EndLimitS(int64_t lease_ms) { return 6 + (2 * lease_ms + 999) / 1000; }
constexpr int kLookMs = 100;

int Fail(int exit_code, const absl::Status& status) {
  std::cerr << "mangroved: " << status.message() << "\n";
  return exit_code;
}

absl::Status OpenLog(const NodeConfig& config) {
  SetLogLevel(LogLevelOf(config.log_level));
  SetLogName(config.name);
  return config.log_file.empty() ? absl::OkStatus() : SetLogFile(config.log_file);
}

TimeNs Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// About pages.
uint64_t MessagesTaken(Node* node) {
  std::string document;
  Completion done;
  node->loop()->RunUntil(
      [&] {
        Spawn<absl::StatusOr<std::string>>(node->operations()->Inspect("status", "", node->loop()->Now() + kSecond),
                                           [&](absl::StatusOr<std::string> status) {
                                             if (status.ok()) document = *std::move(status);
                                             done.Set();
                                           });
      },
      done);
  const nlohmann::json status = nlohmann::json::parse(document, nullptr, false);
  if (!status.is_object() || !status.contains("counters")) return 0;
  return status["counters"].value("messages_taken", uint64_t{0});
}

void AwaitQuiet(Node* node, TimeNs flush_until) {
  QuietWatch watch(Now(), flush_until, MessagesTaken(node));
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
  } while (!watch.Look(Now(), MessagesTaken(node), node->OthersFlush()));
}

int Stop(std::unique_ptr<Node> node, std::unique_ptr<Mounts> mounts, const std::string& why, StopSignals* signals,
         int64_t drain_timeout_s) {
  LogInfo("stopping, since ", why, ": flushing for at most ", drain_timeout_s, " s; a second signal ends it at once");
  signals->EndWithin(drain_timeout_s + EndLimitS(node->config().lease_ms), kDaemonFailed,
                     [] { LogError("the node did not end in time, and is cut off"); });
  const TimeNs flush_until = Now() + drain_timeout_s * kSecond;
  node->SetStopping(/*flushes=*/true);
  mounts.reset();
  absl::Status drained = node->Drain(drain_timeout_s * kSecond);
  node->SetStopping(/*flushes=*/false);
  node->HandOver();
  if (drained.ok()) {
    AwaitQuiet(node.get(), flush_until);
    drained = node->Drain(kSecond);  // What programs of this host have written meanwhile.
  }
  if (!drained.ok()) LogError("not everything that was written here is on disk: ", drained.message());
  LogInfo(drained.ok() ? "has flushed, and ends" : "ends");
  node->Leave();
  node.reset();
  LogInfo("stopped");
  return drained.ok() ? kDaemonStopped : kDaemonUnflushed;
}

void ReloadKeys(Node* node) {
  const absl::StatusOr<std::vector<std::string>> keys = node->ReloadKeys();
  if (!keys.ok()) return LogError("the keys are as they were: ", keys.status().message());
  LogInfo("has read its keys anew: uses ", keys->front(), ", takes ", absl::StrJoin(*keys, ", "));
}

int Serve(const NodeConfig& config, int64_t drain_timeout_s) {
  signal(SIGPIPE, SIG_IGN);
  StopSignals signals;
  LogInfo("starting ", config.name, " of cluster ", config.cluster_name, " with ", config.members.size(),
          " members, data in ", config.data_dir);
  std::vector<Mounts::Wanted> mounted;
  for (const MountConfig& mount : config.mounts) {
    mounted.push_back({mount.fileset, mount.directory, *ParseOwnMountOptions(mount.options)});  // ConfigOf has checked.
  }
  for (bool is_first = true;; is_first = false) {
    std::atomic<bool> is_drained = false;
    std::atomic<bool> is_removed = false;
    const auto interrupt = [&signals](std::atomic<bool>* flag) {
      if (flag != nullptr) flag->store(true);
      signals.Interrupt();
    };
    absl::StatusOr<std::unique_ptr<Node>> node = Node::Start(config, {.expelled = [&] { interrupt(nullptr); },
                                                                      .drained = [&] { interrupt(&is_drained); },
                                                                      .removed = [&] { interrupt(&is_removed); }});
    if (!node.ok()) {
      LogError("cannot start: ", node.status().message());
      if (!is_first && !signals.HasComeWithin(1)) continue;  // What is in its way may pass.
      // Where the log is elsewhere, who started it looks here.
      return config.log_file.empty() ? kDaemonFailed : Fail(kDaemonFailed, node.status());
    }
    if (!config.socket_path.empty()) LogInfo("local programs attach at ", config.socket_path);
    auto mounts = std::make_unique<Mounts>(node->get());
    mounts->Keep(std::move(mounted));
    int signal = signals.Wait();
    for (; signal == SIGHUP; signal = signals.Wait()) ReloadKeys(node->get());
    if (signal != 0) {
      return Stop(*std::move(node), std::move(mounts), absl::StrCat("it got ", strsignal(signal)), &signals,
                  drain_timeout_s);
    }
    // What is flushed nowhere else yet must not end with this process.
    while (is_drained && !(*node)->Drain(drain_timeout_s * kSecond).ok() && !signals.HasComeWithin(1)) {
      LogWarning("not everything that was written here can be flushed yet; it is tried again");
    }
    if (is_drained) return Stop(*std::move(node), std::move(mounts), "it is drained", &signals, drain_timeout_s);
    if (is_removed) return kDaemonRemoved;
    mounted = mounts->Kept();
    LogWarning("the cluster has gone on without this node; it starts anew");
  }
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
  if (options->recover_anchors) {
    const absl::StatusOr<std::string> text = RecoverAnchors(*config, options->config_path, options->confirm);
    if (!text.ok()) return Fail(kDaemonFailed, text.status());
    std::cout << *text;
    return kDaemonStopped;
  }
  if (absl::Status s = OpenLog(*config); !s.ok()) return Fail(kDaemonBadInput, s);
  return Serve(*config, options->drain_timeout_s);
}

}  // namespace
}  // namespace mangrove

int main(int argc, char** argv) { return mangrove::Main({argv + 1, argv + argc}); }
