// mangrove-soak: faults by a seed, one after the other, against nodes that are processes, while programs check what they read. After
// each fault the cluster must be whole again in bounded time, and every program must get on.
//
// Covers: C02, C07, C09, C10, G15

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/node_disks.h"
#include "tests/cluster/node_network.h"
#include "tests/cluster/soak_words.h"
#include "tests/cluster/soak_work.h"

namespace mangrove::cluster_test {
namespace {

constexpr char kUsage[] =
    "usage: mangrove-soak [--faults N] [--seed N] [--nodes 3|5] [--full-disks yes|no] [--monitors yes|no]\n"
    "  --faults N  how many (default 100)\n"
    "  --seed N    what they are drawn from (default: one that nobody has tried)\n"
    "  --nodes N   3 (default) or 5\n"
    "  --full-disks yes|no  whether disks are filled (default yes)\n"
    "  --monitors yes|no    whether nodes pulse by way of monitors, as in large clusters (default: where the seed is "
    "odd)\n";

constexpr int kWholeWithinS = 60;     // From the end of a fault on.
constexpr uint64_t kOperations = 16;  // So many more of each program: it is served.
constexpr char kEndsForItsStore[] = "what is durable is known only after a restart";

struct CommandLine {
  int faults = 100;
  uint64_t seed = std::random_device{}();
  int nodes = 3;
  bool full_disks = true;
  std::optional<bool> monitors;
  bool has_monitors() const { return monitors.value_or(seed % 2 == 1); }
};

[[noreturn]] void Refuse(const std::string& what) {
  std::fprintf(stderr, "mangrove-soak: %s\n%s", what.c_str(), kUsage);
  std::exit(2);
}

CommandLine Parse(int argc, char** argv) {
  CommandLine line;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) Refuse(absl::StrCat("unknown, or without a value: ", flag));
    const std::string value = argv[i + 1];
    if (flag == "--faults") {
      if (!absl::SimpleAtoi(value, &line.faults) || line.faults < 1 || line.faults > 10'000) {
        Refuse(absl::StrCat("--faults is \"", value, "\", expected a number from 1 to 10000"));
      }
    } else if (flag == "--seed") {
      if (!absl::SimpleAtoi(value, &line.seed)) Refuse(absl::StrCat("--seed is \"", value, "\", expected a number"));
    } else if (flag == "--nodes" && (value == "3" || value == "5")) {
      line.nodes = value == "3" ? 3 : 5;
    } else if (flag == "--full-disks" && (value == "yes" || value == "no")) {
      line.full_disks = value == "yes";
    } else if (flag == "--monitors" && (value == "yes" || value == "no")) {
      line.monitors = value == "yes";
    } else {
      Refuse(absl::StrCat("unknown: ", flag, " ", value));
    }
  }
  return line;
}

// Each node is responsible for, owner of and core holder of some of the pages: who kills a node kills all of that.
enum class Kind {
  kKill,
  kKillLeader,
  kKillMonitor,
  kKillAll,
  kShortPause,
  kLongPause,
  kShortCut,
  kLongCut,
  kCutPair,  // Two do not hear each other, and the others hear both.
  kFullDisk,
  kEmptyDisk,  // It dies, and what comes back has lost its disk.
};

bool Pauses(Kind kind) { return kind == Kind::kShortPause || kind == Kind::kLongPause; }
bool Cuts(Kind kind) { return kind == Kind::kShortCut || kind == Kind::kLongCut; }

struct Fault {
  Kind kind = Kind::kKill;
  int node = 0;   // 0: all.
  int other = 0;  // Of a pair; 0: there is none.
  Cut cut = Cut::kBoth;
  int64_t lasts_ms = 0;
  std::string text;

  // Whether its programs are to be served while the fault lasts.
  bool Spares(int which) const { return which != node && which != other; }
};

struct Program {
  std::string name;
  std::function<int()> body;
  std::unique_ptr<Child> child;

  void Start() {
    child = std::make_unique<Child>([this](const Child::Tell&) {
      // Libraries that libfabric brings end a process with 1 instead.
      signal(SIGBUS, SIG_DFL);
      return body();
    });
  }
};

class Soak {
 public:
  explicit Soak(const CommandLine& line)
      : line_(line),
        random_(line.seed),
        shared_(SoakShared::Make()),
        network_(NodeNetwork::Make(line.nodes)),
        cluster_(Options()),
        disks_(MakeDisks()) {}
  ~Soak() {
    programs_.clear();
    cluster_.KillAll();
  }

  // Returns the exit code.
  int Run() {
    std::string failure;
    try {
      Begin();
      for (int i = 1; i <= line_.faults; ++i) Suffer(i);
      End();
    } catch (const std::exception& error) {
      failure = error.what();
      std::printf("\n");
    }
    Summarize();
    if (failure.empty()) return 0;
    std::printf("FAILED (--seed %lu --nodes %d): %s\nlogs: %s\n", line_.seed, line_.nodes, failure.c_str(),
                KeepLogs().c_str());
    return 1;
  }

 private:
  ClusterOptions Options() const {
    ClusterOptions options{.nodes = line_.nodes, .node_settings = "disk_reserve_mib = 64\n"};
    if (line_.has_monitors()) {
      options.node_settings += "monitors_above = 0\n";
      options.ids = {1, 2, 3, 65, 66};  // Of the fourth and the fifth, which are no anchors, one is the other's.
      options.ids.resize(static_cast<size_t>(line_.nodes));
    }
    if (!network_.ok()) return options;
    options.hosts = (*network_)->hosts();
    options.launchers = (*network_)->launchers();
    return options;
  }

  absl::StatusOr<std::unique_ptr<NodeDisks>> MakeDisks() const {
    if (!line_.full_disks) return absl::CancelledError("they are not asked for");
    return NodeDisks::Make(cluster_.directory(), line_.nodes);
  }

  void Begin() {
    std::printf("seed %lu, %d nodes, %d faults, %s monitors\n", line_.seed, line_.nodes, line_.faults,
                line_.has_monitors() ? "with" : "without");
    const auto say_without = [](const char* what, const absl::Status& why) {
      if (!why.ok()) std::printf("not drawn: %s, since %s\n", what, std::string(why.message()).c_str());
    };
    say_without("partitions", network_.status());
    say_without("full disks", disks_.status());
    std::fflush(stdout);
    cluster_.StartAll();
    Child set_up([this](const Child::Tell&) {
      SetUpSoak(cluster_.socket(1), line_.nodes, shared_);
      return 0;
    });
    MakeCorpus(corpus_.path(), line_.nodes, random_());
    if (set_up.AwaitEnd() != 0) throw std::runtime_error("the regions cannot be made");
    for (int program = 0; program < line_.nodes; ++program) {
      const std::string socket = cluster_.socket(program + 1);
      const uint64_t seed = random_();
      const auto add = [this](const std::string& name, std::function<int()> body) {
        programs_.push_back({.name = name, .body = std::move(body), .child = nullptr});
        programs_.back().Start();
      };
      add(absl::StrCat("the checker on node-", program + 1),
          [=, this] { return CheckPages(socket, program, line_.nodes, seed, shared_); });
      add(absl::StrCat("the mover of money on node-", program + 1),
          [=, this] { return MoveMoney(socket, program, ~seed, shared_); });
    }
    programs_.push_back({.name = "the counter of words",
                         .body = [this] { return CountWords(cluster_.sockets(), corpus_.path(), shared_); },
                         .child = nullptr});
    programs_.back().Start();
    AwaitServed("before the first fault");
  }

  int64_t Between(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(random_() % static_cast<uint64_t>(most - least + 1));
  }

  // The same number of draws whatever comes of them.
  Fault Draw() {
    std::vector<Kind> kinds{Kind::kKill,       Kind::kKill,      Kind::kKillLeader, Kind::kKillAll,
                            Kind::kShortPause, Kind::kLongPause, Kind::kEmptyDisk};
    if (line_.has_monitors()) kinds.push_back(Kind::kKillMonitor);
    if (network_.ok()) kinds.insert(kinds.end(), {Kind::kShortCut, Kind::kLongCut, Kind::kLongCut, Kind::kCutPair});
    if (disks_.ok()) kinds.push_back(Kind::kFullDisk);
    Fault fault{.kind = kinds[random_() % kinds.size()]};
    fault.cut = static_cast<Cut>(Between(0, 2));
    fault.node = static_cast<int>(Between(1, line_.nodes));
    const auto next = static_cast<int>(Between(0, line_.nodes - 2));
    const uint64_t share = random_() % 1000;
    const auto lasts = [&](int64_t least_ms, int64_t most_ms) {
      fault.lasts_ms = least_ms + (most_ms - least_ms) * static_cast<int64_t>(share) / 1000;
    };
    switch (fault.kind) {
      case Kind::kKill: lasts(50, 4000); break;
      case Kind::kKillLeader: lasts(50, 4000); break;
      case Kind::kKillMonitor: lasts(50, 4000); break;
      case Kind::kKillAll: lasts(50, 2000); break;
      case Kind::kShortPause: lasts(100, 700); break;  // A lease is 1 s.
      case Kind::kLongPause: lasts(1500, 4000); break;
      case Kind::kShortCut: lasts(100, 700); break;
      case Kind::kLongCut: lasts(1500, 6000); break;
      case Kind::kCutPair: lasts(1500, 6000); break;
      case Kind::kFullDisk: lasts(500, 5000); break;
      case Kind::kEmptyDisk: lasts(50, 4000); break;
    }
    if (fault.kind == Kind::kCutPair) fault.other = (fault.node + next) % line_.nodes + 1;
    const int leader = Leader();
    const int monitor = Monitor(leader);
    if (fault.kind == Kind::kKillLeader) fault.node = leader;
    if (fault.kind == Kind::kKillMonitor) fault.node = monitor;
    if (fault.kind == Kind::kKillAll) fault.node = 0;
    fault.text = TextOf(fault, leader, monitor);
    return fault;
  }

  static std::string TextOf(const Fault& fault, int leader, int monitor) {
    constexpr const char* kCutTexts[] = {"", ", whom nobody hears,", ", which hears nobody,"};
    const auto name = [&](int node) {
      return absl::StrCat("node-", node, node == leader ? " (leader)" : "", node == monitor ? " (monitor)" : "");
    };
    const char* what = "kill ";
    if (Pauses(fault.kind)) what = "pause ";
    if (Cuts(fault.kind)) what = "cut off ";
    if (fault.kind == Kind::kCutPair) what = "cut the cable between ";
    if (fault.kind == Kind::kFullDisk) what = "fill the disk of ";
    if (fault.kind == Kind::kEmptyDisk) what = "kill, and take the disk of, ";
    return absl::StrCat(what, fault.node == 0 ? "all" : name(fault.node),
                        fault.other != 0 ? absl::StrCat(" and ", name(fault.other)) : "",
                        Cuts(fault.kind) ? kCutTexts[static_cast<int>(fault.cut)] : "", " for ", fault.lasts_ms, " ms");
  }

  int Leader() {
    int leader = 0;
    const bool known = Eventually([&] {
      const nlohmann::json name = Status(1)["membership"]["leader"];
      return name.is_string() && absl::SimpleAtoi(name.get<std::string>().substr(5), &leader);
    });
    if (!known) throw std::runtime_error("nobody leads");
    return leader;
  }

  // One that is not the leader, if there is one; 0: there are none.
  int Monitor(int leader) {
    if (!line_.has_monitors()) return 0;
    int monitor = 0;
    const bool known = Eventually([&] {
      for (int node = 1; node <= line_.nodes; ++node) {
        const int of_node = cluster_.MonitorOf(node);
        if (of_node != 0 && (monitor == 0 || monitor == leader)) monitor = of_node;
      }
      return monitor != 0;
    });
    if (!known) throw std::runtime_error("nobody is a monitor");
    return monitor;
  }

  // An object without members, if the node does not answer.
  nlohmann::json Status(int node) const {
    const Output output = RunProgram({"mangrove", "--socket", cluster_.socket(node), "--json", "status"});
    if (output.exit_code != 0) return nlohmann::json::object();
    return nlohmann::json::parse(output.out);
  }

  // "", or what is not.
  std::string WhatIsNotWhole() const {
    for (int node = 1; node <= line_.nodes; ++node) {
      const std::string name = absl::StrCat("node-", node);
      const nlohmann::json status = Status(node);
      if (status.empty()) return name + " does not answer";
      const nlohmann::json& membership = status["membership"];
      if (!status["ready"].get<bool>()) return name + " is not ready";
      if (!membership["has_lease"].get<bool>()) return name + " has no lease";
      for (const char* what : {"missing", "behind"}) {
        if (!membership[what].empty()) return absl::StrCat(name, " says ", what, ": ", membership[what].dump());
      }
      size_t connected = 1;
      for (const auto& peer : status["peers"]) connected += peer["connected"].get<bool>() ? 1 : 0;
      if (static_cast<int>(connected) < line_.nodes) return name + " is not connected to all";
    }
    return "";
  }

  // A node whose disk is full may end: what is durable is known only after a restart.
  bool EndedForItsDisk(int node, const siginfo_t& info) const {
    return node == filled_ && info.si_code == CLD_EXITED && info.si_status == EXIT_FAILURE &&
           cluster_.LinesOf(node, kEndsForItsStore) > 0;
  }

  void ThrowIfFailed() {
    if (!shared_.failure().empty()) throw std::runtime_error(shared_.failure());
    for (int node = 1; node <= line_.nodes; ++node) {
      if (!cluster_.IsRunning(node)) continue;
      siginfo_t info{};
      if (waitid(P_PID, static_cast<id_t>(cluster_.pid(node)), &info, WEXITED | WNOHANG | WNOWAIT) != 0) continue;
      if (info.si_pid == 0) continue;
      if (EndedForItsDisk(node, info)) {
        cluster_.AwaitEnd(node);
        ++ended_for_their_disks_;
        continue;
      }
      throw std::runtime_error(absl::StrCat("node-", node, " has ended by itself, by ",
                                            info.si_code == CLD_EXITED ? "exit code " : "signal ", info.si_status));
    }
    for (Program& program : programs_) {
      const std::optional<int> code = program.child->Ended();
      if (!code.has_value()) continue;
      // What it has found comes before its end. A program that only calls gets no signal, whatever becomes of its node.
      throw std::runtime_error(shared_.failure().empty() ? absl::StrCat(program.name, " has ended with ", *code)
                                                         : shared_.failure());
    }
  }

  std::vector<uint64_t> Done() const {
    std::vector<uint64_t> done;
    for (int program = 0; program < line_.nodes; ++program) {
      done.push_back(shared_.checkers[program].done);
      done.push_back(shared_.movers[program].done);
    }
    return done;
  }

  // "", or a program that has not got on since, of those that the fault spares.
  std::string WhoIsNotServed(const std::vector<uint64_t>& since, const Fault& fault) const {
    const std::vector<uint64_t> done = Done();
    for (size_t i = 0; i < done.size(); ++i) {
      const int node = static_cast<int>(i / 2) + 1;
      if (!fault.Spares(node) || done[i] >= since[i] + kOperations) continue;
      return absl::StrCat("the ", i % 2 == 0 ? "checker" : "mover of money", " on node-", node, " has done ",
                          done[i] - since[i], " operations, expected ", kOperations);
    }
    return "";
  }

  void AwaitServed(const std::string& when) {
    const std::vector<uint64_t> since = Done();
    const uint64_t word_counts = shared_.word_counts;
    std::string lacks;
    const bool served = Eventually(
        [&] {
          ThrowIfFailed();
          lacks = WhoIsNotServed(since, {});
          if (lacks.empty() && shared_.word_counts == word_counts) lacks = "the counter of words has not ended well";
          return lacks.empty();
        },
        kWholeWithinS);
    if (!served) throw std::runtime_error(absl::StrCat(when, ": in ", kWholeWithinS, " s ", lacks));
  }

  void BeginFault(const Fault& fault) {
    if (Cuts(fault.kind)) {
      (*network_)->CutOff(fault.node, fault.cut);
    } else if (fault.kind == Kind::kCutPair) {
      (*network_)->CutPair(fault.node, fault.other);
    } else if (fault.kind == Kind::kFullDisk) {
      filled_ = fault.node;
      (*disks_)->Fill(fault.node);
    } else if (Pauses(fault.kind)) {
      kill(cluster_.pid(fault.node), SIGSTOP);
    } else if (fault.node == 0) {
      cluster_.KillAll();
    } else {
      cluster_.Kill(fault.node);
      if (fault.kind == Kind::kEmptyDisk) EmptyDisk(fault.node);
    }
  }

  void EmptyDisk(int node) const {
    for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat(cluster_.directory(), "/data-", node))) {
      std::filesystem::remove_all(entry);
    }
  }

  void EndFault(const Fault& fault) {
    if (Cuts(fault.kind) || fault.kind == Kind::kCutPair) return (*network_)->Heal(fault.node);
    if (fault.kind == Kind::kFullDisk) (*disks_)->Free(fault.node);
    for (int node = 1; node <= line_.nodes; ++node) {
      if (fault.node != 0 && fault.node != node) continue;
      if (cluster_.IsRunning(node)) {
        kill(cluster_.pid(node), SIGCONT);
      } else {
        cluster_.Start(node);
      }
    }
  }

  // As a service manager would, once there is room again.
  void RestartFilled() {
    ThrowIfFailed();
    if (filled_ != 0 && !cluster_.IsRunning(filled_)) cluster_.Start(filled_);
  }

  void Suffer(int number) {
    const Fault fault = Draw();
    ThrowIfFailed();
    std::printf("%7.1f s  %3d: %s", run_.Seconds(), number, fault.text.c_str());
    std::fflush(stdout);
    shared_.epoch.fetch_add(1);
    const Stopwatch since;
    BeginFault(fault);
    const std::vector<uint64_t> done = Done();
    const double ends = static_cast<double>(fault.lasts_ms) / 1000;
    double served = -1;
    const auto look = [&] {
      ThrowIfFailed();
      if (served < 0 && WhoIsNotServed(done, fault).empty()) served = since.Seconds();
      return served >= 0;
    };
    Eventually([&] { return look(), since.Seconds() >= ends; }, static_cast<int>(ends) + 2);
    EndFault(fault);
    const Stopwatch ended;
    std::string lacks;
    while (!(lacks = WhatIsNotWhole()).empty() || !look()) {
      RestartFilled();
      if (ended.Seconds() <= kWholeWithinS) continue;
      if (lacks.empty()) lacks = WhoIsNotServed(done, fault);
      throw std::runtime_error(
          absl::StrCat("fault ", number, " (", fault.text, "): not whole after ", kWholeWithinS, " s: ", lacks));
    }
    filled_ = 0;
    shared_.epoch.fetch_add(1);
    std::printf("; served after %.2f s, whole %.2f s after its end\n", served, ended.Seconds());
    std::fflush(stdout);
    AwaitServed(absl::StrCat("after fault ", number, " (", fault.text, "), which was whole"));
    std::this_thread::sleep_for(std::chrono::milliseconds(Between(0, 1000)));  // Drawn: where the next one hits.
  }

  // Everything is on the disks: it is read from there.
  void End() {
    programs_.clear();
    cluster_.KillAll();
    cluster_.StartAll();
    for (int node = 1; node <= line_.nodes; ++node) {
      Child check([&](const Child::Tell&) {
        const absl::Status status = CheckAtEnd(cluster_.socket(node), line_.nodes, shared_);
        if (!status.ok()) shared_.Fail(absl::StrCat("at the end, on node-", node, ": ", status.ToString()));
        return 0;
      });
      if (check.AwaitEnd() != 0) throw std::runtime_error(absl::StrCat("at the end, node-", node, " serves nobody"));
      ThrowIfFailed();
    }
    const std::string wrong = WhatIsWrongWithWords(cluster_.sockets(), corpus_.path(), "words at the end");
    if (!wrong.empty()) throw std::runtime_error(absl::StrCat("at the end, ", wrong));
  }

  void Summarize() const {
    int64_t moves = 0;
    for (const auto& acknowledged : shared_.moves_acknowledged) moves += acknowledged;
    std::printf(
        "%.0f s; pages: %lu writes, %lu flushes acknowledged, %lu reads verified; accounts: %ld moves, %lu sums\n",
        run_.Seconds(), shared_.writes.load(), shared_.flushes.load(), shared_.reads.load(), moves,
        shared_.sums.load());
    std::printf("words: counted %lu times, all right; %lu times a fault came between\n", shared_.word_counts.load(),
                shared_.word_counts_cut_short.load());
    std::printf("errors:");
    for (int code = 0; code < kSoakCodes; ++code) {
      uint64_t count = 0;
      for (int program = 0; program < line_.nodes; ++program) {
        count += shared_.checkers[program].errors[code] + shared_.movers[program].errors[code];
      }
      if (count == 0) continue;
      std::printf(" %s %lu", absl::StatusCodeToString(static_cast<absl::StatusCode>(code)).c_str(), count);
    }
    if (ended_for_their_disks_ > 0) std::printf("; nodes ended by full disks: %d", ended_for_their_disks_);
    std::printf("\n");
  }

  // Returns where they are.
  std::string KeepLogs() const {
    std::string kept = std::filesystem::temp_directory_path() / "mangrove_soak_XXXXXX";
    if (mkdtemp(kept.data()) == nullptr) throw std::runtime_error(absl::StrCat("cannot make ", kept));
    for (int node = 1; node <= line_.nodes; ++node) {
      const std::string name = absl::StrCat("/node-", node, ".log");
      std::filesystem::copy_file(cluster_.directory() + name, kept + name);
    }
    return kept;
  }

  const CommandLine line_;
  const Stopwatch run_;
  std::mt19937_64 random_;
  SoakShared& shared_;
  const absl::StatusOr<std::unique_ptr<NodeNetwork>> network_;
  Cluster cluster_;
  const absl::StatusOr<std::unique_ptr<NodeDisks>> disks_;
  const TemporaryDirectory corpus_;
  std::vector<Program> programs_;
  int filled_ = 0;  // The node whose disk is, or was just now, full.
  int ended_for_their_disks_ = 0;
};

}  // namespace
}  // namespace mangrove::cluster_test

int main(int argc, char** argv) {
  try {
    return mangrove::cluster_test::Soak(mangrove::cluster_test::Parse(argc, argv)).Run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mangrove-soak: %s\n", error.what());
    return 1;
  }
}
