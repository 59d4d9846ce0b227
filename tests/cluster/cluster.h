// Nodes as processes on this machine, with a directory and ports of their own; and the programs that use them.
//
// Nothing outlives the test: every process that is started here is killed with the thread that started it. What a test
// cannot go on without is an exception, which ends the test.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "directory/address.h"
#include "engine/mangrove.h"

namespace mangrove::cluster_test {

// A directory that everybody may enter, removed with this object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline constexpr uint64_t kSegmentBytes = kSegmentPages * kPageBytes;

struct Output {
  int exit_code = -1;  // 128 + the signal's number, if one ended it.
  std::string out;
  std::string err;
};

// Where the programs of this build are.
std::string ProgramPath(const std::string& program);

// Runs a program to its end; a test failure if that takes longer. What does not begin with '/' is in build/bin.
Output RunProgram(const std::vector<std::string>& command, int timeout_s = 60);
// Several at once.
std::vector<Output> RunPrograms(const std::vector<std::vector<std::string>>& commands, int timeout_s = 60);

class Stopwatch {
 public:
  double Seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A signal that asks this process to end, as an exception: so what was made is removed.
class Stopped : public std::exception {
 public:
  explicit Stopped(int signal) : signal_(signal) {}
  int signal() const { return signal_; }
  const char* what() const noexcept override { return "stopped by a signal"; }

 private:
  const int signal_;
};

// From now on the first SIGINT, SIGTERM or SIGHUP makes Eventually, and what waits by it, throw Stopped, once; a second one ends the
// process at once. Each Child has the usual handlers.
void ThrowOnSignals();
// The one that has come; 0: none.
int StopSignal();

// Waits until `condition` holds; false if it does not in time.
bool Eventually(const std::function<bool()>& condition, int timeout_s = 20);

// How many lines of the file have these words.
size_t LinesWith(const std::string& path, const std::string& words);

struct ClusterOptions {
  int nodes = 3;
  int joiners = 0;  // So many of them, the last ones, are in no configuration that the test writes: they join.
  int replicas = 2;
  int cache_size_mib = 64;
  int fault_timeout_ms = 3000;
  std::string node_settings;  // Further lines of [node].
  std::vector<int> ids;       // By these nodes are in groups; otherwise their numbers.
  // For each node, where it is not beside this process on loopback: its address, and what comes before its command.
  std::vector<std::string> hosts;
  std::vector<std::vector<std::string>> launchers;
};

// Nodes are numbered from 1.
class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options = {});
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  int size() const { return options_.nodes; }
  std::string directory() const { return directory_.path(); }
  std::string socket(int node) const;
  std::string sockets() const;  // Of all, with commas between.
  std::string config(int node) const;
  std::string MadeConfig(int node) const;  // Its text.
  int port(int node) const { return ports_[static_cast<size_t>(node) - 1]; }
  std::string log(int node) const;                           // What it has written there.
  size_t LinesOf(int node, const std::string& words) const;  // Of its log.
  pid_t pid(int node) const { return processes_.at(node); }
  bool IsRunning(int node) const { return processes_.contains(node); }

  void Start(int node, const std::vector<std::string>& flags = {});
  void StartAll();  // But for those that have not joined.
  // SIGTERM, or another signal; returns the exit code.
  int Stop(int node, int signal = 0);
  void StopAll();  // All at once.
  void Kill(int node);
  void KillAtOnce(const std::vector<int>& nodes);
  void KillAll();
  // Until every running node is connected to every other, and, if all of them run, is ready and in one view with them, in
  // which every disk is current.
  void AwaitConnected();
  // Waits for the end of a node that was not told to end.
  int AwaitEnd(int node);

  // What its status says of another one.
  nlohmann::json PeerOf(int node, const std::string& name);
  nlohmann::json Ask(int node, const std::vector<std::string>& command);
  // The monitor of its group, as its status says; 0: it has none, and pulses to the anchors' leader.
  int MonitorOf(int node);
  // Gives the node of that name up, with whatever is lost.
  Output GiveUp(int via, const std::string& name);
  // Attaches this process.
  std::shared_ptr<Session> Attach(int node, int call_timeout_ms = 5000);

  // Instead of the configuration that the test has written, the program's: of the first node of a cluster "test", or of one that joins
  // it by a token of `via`, which runs. `flags`: further ones of the command.
  Output Found(int node, const std::vector<std::string>& flags = {});
  Output Join(int node, int via, const std::vector<std::string>& flags = {});
  std::string NewToken(int via);

  // For changes before Start.
  std::string ConfigText(int node) const;
  void WriteConfig(int node, const std::string& text) const;
  // Of all nodes.
  void WriteKeys(const std::vector<std::string>& keys) const;

 private:
  std::string HostOf(int node) const;
  int named() const { return options_.nodes - options_.joiners; }
  std::vector<int> Startable() const;

  const ClusterOptions options_;
  const TemporaryDirectory directory_;
  std::vector<int> ports_;
  std::map<int, pid_t> processes_;
  std::map<int, std::string> set_up_;  // The directories that the program has made.

  Output SetUp(int node, std::vector<std::string> command, const std::vector<std::string>& flags);
};

// A part of this test in a process of its own. REQUIRES: no session in this process.
class Child {
 public:
  // `body` returns the exit code; it may tell the parent that it has come to a place.
  using Tell = std::function<void(char)>;
  explicit Child(const std::function<int(const Tell& tell)>& body);
  ~Child();                            // Kills it.
  char AwaitTold(int timeout_s = 20);  // 0 if nothing is told.
  void Kill();
  int AwaitEnd(int timeout_s = 60);  // The exit code, or 128 + the signal's number.
  std::optional<int> Ended();        // The same; nothing, if it runs.

 private:
  pid_t pid_ = -1;
  int told_ = -1;
};

// The value, or an exception that ends the test.
template <typename T>
T Take(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}

// A mapped access that may get a signal: its number, or 0.
int TryLoad(const std::byte* place, uint64_t* value = nullptr);
int TryStore(std::byte* place, uint64_t value);

// A region of `size_bytes`, all of it allocated.
std::shared_ptr<Region> MakeRegion(Session& session, const std::string& name, uint64_t size_bytes,
                                   const AllocateOptions& options = {}, uint16_t mode = 0600);

}  // namespace mangrove::cluster_test
