// mangrove-sim: a cluster in one thread under a seed. A replay prints its history's hash; --help says the rest.
//
// Without --scenario a single seed runs `default`, and many seeds run all scenarios in turn. The exit code is 1 when
// something did not hold; the line that replays it is then printed.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "net/log.h"
#include "tests/sim/scale_report.h"
#include "tests/sim/scenario.h"

namespace mangrove::sim {
namespace {

constexpr int kUsageError = 2;
constexpr char kUsage[] =
    "usage: mangrove-sim --seed N [--scenario S] [--plant BUG] [--verbose]   replays one run exactly\n"
    "       mangrove-sim --seeds A..B [--scenario S] [--plant BUG]           runs each of them\n"
    "       mangrove-sim --budget 60s [--scenario S] [--plant BUG]           runs fresh seeds for so long\n"
    "       mangrove-sim --scale 64,512,4096,4x16x64                         what membership and directory cost, by "
    "nodes\n"
    "       mangrove-sim --list                                              names the scenarios and planted bugs\n";
// No run takes so long in real time; one that does is an endless loop.
constexpr unsigned kMaxSecondsPerSeed = 600;

struct Arguments {
  std::optional<uint64_t> seed;
  std::optional<std::pair<uint64_t, uint64_t>> seeds;
  std::optional<double> budget_seconds;
  const Scenario* scenario = nullptr;
  const PlantedBug* plant = nullptr;
  std::optional<std::vector<ScaledCluster>> scale;
  bool verbose = false;
  bool list = false;
  bool help = false;
};

struct Totals {
  uint64_t seeds = 0;
  uint64_t operations = 0;
  uint64_t succeeded = 0;
  uint64_t faults = 0;
  uint64_t fewest_operations = UINT64_MAX;  // Of one seed.
  uint64_t fewest_faults = UINT64_MAX;
  uint64_t events = 0;
  double simulated_seconds = 0;
};

char replay_line[256];

// A broken CHECK ends the process: say first which seed it was.
void OnFatalSignal(int signal) {
  const auto write_all = [](const char* text) { (void)!write(STDERR_FILENO, text, std::strlen(text)); };
  write_all(signal == SIGALRM ? "\nFAILED: an endless loop\n" : "\nFAILED: the process ends\n");
  write_all(replay_line);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::optional<double> ParseSeconds(std::string_view text) {
  double factor = 1;
  if (!text.empty() && text.back() == 's') text.remove_suffix(1);
  if (!text.empty() && text.back() == 'm') {
    text.remove_suffix(1);
    factor = 60;
  }
  double value = 0;
  if (!absl::SimpleAtod({text.data(), text.size()}, &value) || value <= 0) return std::nullopt;
  return value * factor;
}

std::optional<std::pair<uint64_t, uint64_t>> ParseRange(std::string_view text) {
  const size_t dots = text.find("..");
  uint64_t from = 0;
  uint64_t to = 0;
  if (dots == std::string_view::npos || !absl::SimpleAtoi(absl::string_view(text.data(), dots), &from) ||
      !absl::SimpleAtoi(absl::string_view(text.data() + dots + 2, text.size() - dots - 2), &to) || from > to) {
    return std::nullopt;
  }
  return std::pair(from, to);
}

// An error message, or nothing.
std::string ParseValue(std::string_view flag, std::string_view value, Arguments& arguments) {
  const auto bad = [&](const char* expected) { return absl::StrFormat("%s: \"%s\" is not %s", flag, value, expected); };
  if (flag == "--seed") {
    uint64_t seed = 0;
    if (!absl::SimpleAtoi(absl::string_view(value.data(), value.size()), &seed)) return bad("a number");
    arguments.seed = seed;
  } else if (flag == "--seeds") {
    arguments.seeds = ParseRange(value);
    if (!arguments.seeds) return bad("a range, as 1..100");
  } else if (flag == "--budget") {
    arguments.budget_seconds = ParseSeconds(value);
    if (!arguments.budget_seconds) return bad("a time, as 60s or 5m");
  } else if (flag == "--scale") {
    arguments.scale = ParseScale(value);
    if (!arguments.scale) return bad("numbers of 8 to 4096 nodes, or of groups and nodes, as 64,512,4x16x64");
  } else if (flag == "--scenario") {
    arguments.scenario = FindScenario(value);
    if (arguments.scenario == nullptr) return bad("a scenario; see --list");
  } else if (flag == "--plant") {
    arguments.plant = FindPlantedBug(value);
    if (arguments.plant == nullptr) return bad("a planted bug; see --list");
  } else {
    return absl::StrFormat("%s is not a flag; see --help", flag);
  }
  return "";
}

std::string Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--verbose") {
      arguments.verbose = true;
    } else if (flag == "--list") {
      arguments.list = true;
    } else if (flag == "--help") {
      arguments.help = true;
    } else {
      if (i + 1 == argc) return absl::StrFormat("%s needs a value, or is not a flag; see --help", flag);
      std::string error = ParseValue(flag, argv[++i], arguments);
      if (!error.empty()) return error;
    }
  }
  const int ways = arguments.seed.has_value() + arguments.seeds.has_value() + arguments.budget_seconds.has_value() +
                   arguments.scale.has_value();
  if (ways != 1 && !arguments.list && !arguments.help)
    return "one of --seed N, --seeds A..B, --budget TIME and --scale NODES is needed";
  return "";
}

void List() {
  for (const Scenario& s : Scenarios()) absl::PrintF("scenario %-12s %s\n", s.name, s.about);
  for (const PlantedBug& b : AllPlantedBugs()) absl::PrintF("planted bug %s (shows in %s)\n", b.name, b.scenario);
}

void PrintKinds(const RunResult& result) {
  absl::PrintF("faults:");
  for (int kind = 0; kind < kFaultKinds; ++kind) {
    const uint64_t count = result.faults_by_kind[static_cast<size_t>(kind)];
    if (count > 0) absl::PrintF(" %s %d,", Name(static_cast<FaultKind>(kind)), count);
  }
  absl::PrintF("\nsucceeded:");
  for (int kind = 0; kind < kOperationKinds; ++kind) {
    absl::PrintF(" %s %d,", Name(static_cast<OperationKind>(kind)),
                 result.operations_by_kind[static_cast<size_t>(kind)]);
  }
  absl::PrintF("\n");
}

// Returns whether everything held.
bool RunOne(uint64_t seed, const Scenario& scenario, const Arguments& arguments, Totals& totals) {
  RunOptions options;
  options.verbose = arguments.verbose;
  std::string plant;
  if (arguments.plant != nullptr) {
    options.bugs.*arguments.plant->flag = true;
    plant = absl::StrFormat(" --plant %s", arguments.plant->name);
  }
  absl::SNPrintF(replay_line, sizeof replay_line, "replay: build/bin/mangrove-sim --seed %d --scenario %s%s\n", seed,
                 scenario.name, plant);
  alarm(kMaxSecondsPerSeed);
  const RunResult result = RunSeed(seed, scenario, options);
  alarm(0);
  ++totals.seeds;
  totals.operations += result.operations;
  totals.succeeded += result.succeeded;
  totals.faults += result.faults;
  totals.fewest_operations = std::min(totals.fewest_operations, result.operations);
  totals.fewest_faults = std::min(totals.fewest_faults, result.faults);
  totals.events += result.events;
  totals.simulated_seconds += static_cast<double>(result.simulated) / kSecond;
  if (arguments.seed) {
    absl::PrintF("seed %d, scenario %s: %d nodes, %d core holders\n", seed, scenario.name, result.nodes,
                 result.replicas);
    PrintKinds(result);
    absl::PrintF(
        "%d loads, %d without a lease, %d stores, %d reverts, %d pages moved for room, %d times other weights\nhash "
        "%016x\n",
        result.loads, result.stale_loads, result.stores, result.reverts, result.moved, result.weighed, result.hash);
  }
  if (result.failure.empty()) return true;
  std::fflush(stdout);
  std::fprintf(stderr, "FAILED: %s\n%s", result.failure.c_str(), replay_line);
  return false;
}

bool RunAll(const Arguments& arguments, Totals& totals) {
  if (arguments.seed) {
    return RunOne(*arguments.seed, arguments.scenario ? *arguments.scenario : Scenarios()[0], arguments, totals);
  }
  const auto scenario_of = [&](uint64_t seed) -> const Scenario& {
    return arguments.scenario ? *arguments.scenario : ScenarioInTurn(seed);
  };
  if (arguments.seeds) {
    for (uint64_t seed = arguments.seeds->first; seed <= arguments.seeds->second; ++seed) {
      if (!RunOne(seed, scenario_of(seed), arguments, totals)) return false;
    }
    return true;
  }
  std::random_device device;
  const uint64_t first = (uint64_t{device()} << 16) ^ device();
  absl::PrintF("fresh seeds from %d on\n", first);
  std::fflush(stdout);
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t seed = first;; ++seed) {
    if (!RunOne(seed, scenario_of(seed), arguments, totals)) return false;
    const std::chrono::duration<double> gone = std::chrono::steady_clock::now() - begin;
    if (gone.count() >= *arguments.budget_seconds) return true;
  }
}

int Main(int argc, char** argv) {
  Arguments arguments;
  const std::string error = Parse(argc, argv, arguments);
  if (!error.empty()) {
    std::fprintf(stderr, "mangrove-sim: %s\n", error.c_str());
    return kUsageError;
  }
  if (arguments.help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (arguments.list) {
    List();
    return 0;
  }
  if (arguments.scale) {
    PrintScale(*arguments.scale);
    return 0;
  }
  SetLogLevel(arguments.verbose ? LogLevel::kError : LogLevel::kOff);
  if (arguments.verbose) std::setvbuf(stdout, nullptr, _IOLBF, 0);  // Whole when a CHECK ends the process.
  for (const int signal : {SIGABRT, SIGSEGV, SIGALRM}) std::signal(signal, OnFatalSignal);
  Totals totals;
  const auto begin = std::chrono::steady_clock::now();
  const bool held = RunAll(arguments, totals);
  const std::chrono::duration<double> gone = std::chrono::steady_clock::now() - begin;
  absl::PrintF("%d seeds, %d operations (%d succeeded), %d faults, %d events: %s\n", totals.seeds, totals.operations,
               totals.succeeded, totals.faults, totals.events, held ? "everything held" : "FAILED");
  absl::PrintF("each seed at least %d operations, %d faults\n", totals.fewest_operations, totals.fewest_faults);
  absl::PrintF("%.1f s, %.0f events and %.1f simulated seconds per second\n", gone.count(),
               static_cast<double>(totals.events) / gone.count(), totals.simulated_seconds / gone.count());
  return held ? 0 : 1;
}

}  // namespace
}  // namespace mangrove::sim

int main(int argc, char** argv) { return mangrove::sim::Main(argc, argv); }
