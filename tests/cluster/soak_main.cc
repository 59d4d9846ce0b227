// mangrove-soak: faults by a seed, one after the other, against nodes that are processes, while programs check what they read. After
// each fault the cluster must be whole again in bounded time, and every program must get on.
//
// Covers: C02, C07, C08, C09, C10, G15

#include <gtest/gtest.h>
#include <signal.h>

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
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/soak_faults.h"
#include "tests/cluster/soak_nodes.h"
#include "tests/cluster/soak_options.h"
#include "tests/cluster/soak_whole.h"
#include "tests/cluster/soak_words.h"
#include "tests/cluster/soak_work.h"

namespace mangrove::cluster_test {
namespace {

constexpr int kWholeWithinS = 60;      // From the end of a fault on.
constexpr double kStandsS = 1.1;       // A lease is 1 s.
constexpr uint64_t kOperations = 16;   // So many more of each program: it is served.
constexpr double kMostSOfAFault = 12;  // Of all of them, in the mean.
constexpr double kLeastLimitS = 120;

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
  explicit Soak(const SoakOptions& options)
      : options_(options),
        limit_s_(std::max(kLeastLimitS, kMostSOfAFault * options.faults)),
        random_(~options.seed),
        shared_(SoakShared::Make()),
        nodes_(options),
        draws_(nodes_.cluster(), options.seed) {}
  ~Soak() {
    programs_.clear();
    nodes_.KillAll();
  }

  // Returns the exit code.
  int Run() {
    std::string failure;
    try {
      Begin();
      for (int i = 1; i <= options_.faults; ++i) Suffer(i);
      End();
      if (testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed()) failure = "what is said above";
    } catch (const std::exception& error) {
      failure = error.what();
      std::printf("\n");
    }
    Summarize();
    if (StopSignal() != 0) {
      std::printf("stopped by signal %d (--seed %lu --nodes %d)\n", StopSignal(), options_.seed, options_.nodes);
      return 128 + StopSignal();
    }
    if (failure.empty()) return 0;
    std::printf("FAILED (--seed %lu --nodes %d): %s\nlogs: %s\n", options_.seed, options_.nodes, failure.c_str(),
                KeepLogs().c_str());
    return 1;
  }

 private:
  struct Taken {
    std::string fault;
    double seconds;
  };
  struct Work {
    std::vector<uint64_t> done;  // By checkers and movers.
    uint64_t word_counts = 0;
  };
  struct Whole {
    double since_s = -1;
    Work work;  // What had been done by then.
  };

  void Begin() {
    std::printf("seed %lu, %d nodes and one that joins, %d faults in %.0f s at most, %s monitors\n", options_.seed,
                options_.nodes, options_.faults, limit_s_, options_.has_monitors() ? "with" : "without");
    const auto say_without = [](const char* what, const absl::Status& why) {
      if (!why.ok()) std::printf("not drawn: %s, since %s\n", what, std::string(why.message()).c_str());
    };
    say_without("partitions", nodes_.network_status());
    say_without("full disks", nodes_.disks_status());
    std::fflush(stdout);
    nodes_.Found();
    nodes_.JoinFirst();
    const Stopwatch joining;
    AwaitWhole("before the first fault", joining, [] { return ""; });
    Child set_up([this](const Child::Tell&) {
      SetUpSoak(nodes_.socket(1), options_.nodes, shared_);
      return 0;
    });
    MakeCorpus(corpus_.path(), options_.nodes, random_());
    if (set_up.AwaitEnd() != 0) throw std::runtime_error("the regions cannot be made");
    StartPrograms();
    AwaitServed("before the first fault", Now());
  }

  void StartPrograms() {
    const auto add = [this](const std::string& name, std::function<int()> body) {
      programs_.push_back({.name = name, .body = std::move(body), .child = nullptr});
      programs_.back().Start();
    };
    for (int program = 0; program < options_.nodes; ++program) {
      const std::string socket = nodes_.socket(program + 1);
      const uint64_t seed = random_();
      add(absl::StrCat("the checker on node-", program + 1),
          [=, this] { return CheckPages(socket, program, options_.nodes, seed, shared_); });
      add(absl::StrCat("the mover of money on node-", program + 1),
          [=, this] { return MoveMoney(socket, program, ~seed, shared_); });
    }
    add("the counter of words", [this] { return CountWords(nodes_.sockets(), corpus_.path(), shared_); });
  }

  void ThrowIfFailed() {
    if (!shared_.failure().empty()) throw std::runtime_error(shared_.failure());
    nodes_.NoteEnds();
    for (Program& program : programs_) {
      const std::optional<int> code = program.child->Ended();
      if (!code.has_value()) continue;
      // What it has found comes before its end. A program that only calls gets no signal, whatever becomes of its node.
      throw std::runtime_error(shared_.failure().empty() ? absl::StrCat(program.name, " has ended with ", *code)
                                                         : shared_.failure());
    }
    if (run_.Seconds() > limit_s_) {
      throw std::runtime_error(absl::StrCat("the run takes longer than ", limit_s_, " s; longest were", Longest(5)));
    }
  }

  std::string Longest(size_t count) const {
    std::vector<Taken> taken = taken_;
    if (!fault_.empty()) taken.push_back({fault_ + ", the last one", run_.Seconds() - began_s_});
    std::stable_sort(taken.begin(), taken.end(), [](const Taken& a, const Taken& b) { return a.seconds > b.seconds; });
    taken.resize(std::min(count, taken.size()));
    std::string text;
    for (const Taken& each : taken) absl::StrAppendFormat(&text, "\n  %.1f s: %s", each.seconds, each.fault);
    return text;
  }

  std::vector<uint64_t> Done() const {
    std::vector<uint64_t> done;
    for (int program = 0; program < options_.nodes; ++program) {
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

  Work Now() const { return {.done = Done(), .word_counts = shared_.word_counts}; }

  // All of them: each has got on since, and words have been counted.
  void AwaitServed(const std::string& when, const Work& since) {
    std::string lacks;
    const bool served = Eventually(
        [&] {
          ThrowIfFailed();
          lacks = WhoIsNotServed(since.done, {});
          if (lacks.empty() && shared_.word_counts == since.word_counts) {
            lacks = "the counter of words has not ended well";
          }
          return lacks.empty();
        },
        kWholeWithinS);
    if (!served) throw std::runtime_error(absl::StrCat(when, ": in ", kWholeWithinS, " s ", lacks));
  }

  // Nothing has changed for longer than a lease when it returns.
  Whole AwaitWhole(const std::string& when, const Stopwatch& since,
                   const std::function<std::string()>& who_is_not_served) {
    WholeWatch watch(kStandsS);
    Whole whole;
    std::string lacks;
    const bool is_whole = Eventually(
        [&] {
          ThrowIfFailed();
          nodes_.RestartFilled();
          const WholeLook look = nodes_.Look();
          const bool stands = watch.Add(since.Seconds(), look);
          if (watch.since_s() != whole.since_s) whole = {.since_s = watch.since_s(), .work = Now()};
          lacks = look.lacks.empty() ? who_is_not_served() : look.lacks;
          view_ = look.view;
          return stands && lacks.empty();
        },
        kWholeWithinS);
    if (is_whole) return whole;
    if (lacks.empty()) lacks = "views change";
    throw std::runtime_error(absl::StrCat(when, ": not whole after ", kWholeWithinS, " s: ", lacks));
  }

  // No fault has come since everything was whole; a disk may be taken only if it still is.
  void LookAgain(const std::string& fault) {
    const WholeLook look = nodes_.Look();
    if (look.lacks.empty() && look.view == view_) return;
    ++disturbed_;
    std::printf("           before \"%s\", with no fault: %s\n", fault.c_str(),
                look.lacks.empty() ? "another view" : look.lacks.c_str());
    const Stopwatch since;
    AwaitWhole(absl::StrCat("before \"", fault, "\", with no fault"), since, [] { return ""; });
  }

  void Suffer(int number) {
    Fault fault = draws_.Next();
    const SoakRoles roles = nodes_.Roles();
    Aim(&fault, roles);
    const std::string text = TextOf(fault, roles);
    ThrowIfFailed();
    if (CostsADisk(fault)) LookAgain(text);
    std::printf("%7.1f s  %3d: %s", run_.Seconds(), number, text.c_str());
    std::fflush(stdout);
    fault_ = absl::StrCat("fault ", number, " (", text, ")");
    const Stopwatch since;
    began_s_ = run_.Seconds();
    shared_.epoch.fetch_add(1);
    nodes_.Begin(fault);
    const std::vector<uint64_t> done = Done();
    double served = -1;
    const auto who_is_not_served = [&]() -> std::string {
      if (served >= 0) return "";
      std::string who = WhoIsNotServed(done, fault);
      if (who.empty()) served = since.Seconds();
      return who;
    };
    const double ends = static_cast<double>(fault.lasts_ms) / 1000;
    const bool is_over = Eventually(
        [&] {
          ThrowIfFailed();
          who_is_not_served();
          return since.Seconds() >= ends && nodes_.IsOver(fault);
        },
        kWholeWithinS);
    if (!is_over) throw std::runtime_error(absl::StrCat(fault_, " has not come to its end in ", kWholeWithinS, " s"));
    nodes_.End(fault);
    const Stopwatch ended;
    const Whole whole = AwaitWhole(fault_, ended, who_is_not_served);
    nodes_.NoteWhole();
    shared_.epoch.fetch_add(1);
    std::printf("; served after %.2f s, whole %.2f s after its end\n", served, whole.since_s);
    std::fflush(stdout);
    AwaitServed(absl::StrCat("after ", fault_, ", which was whole"), whole.work);
    taken_.push_back({std::exchange(fault_, ""), since.Seconds()});
    std::this_thread::sleep_for(std::chrono::milliseconds(fault.rest_ms));  // Drawn: where the next one hits.
  }

  // Everything is on the disks: it is read from there.
  void End() {
    programs_.clear();
    nodes_.KillAll();
    nodes_.StartAll();
    for (int node = 1; node <= options_.nodes; ++node) {
      Child check([&](const Child::Tell&) {
        const absl::Status status = CheckAtEnd(nodes_.socket(node), options_.nodes, shared_);
        if (!status.ok()) shared_.Fail(absl::StrCat("at the end, on node-", node, ": ", status.ToString()));
        return 0;
      });
      if (check.AwaitEnd() != 0) throw std::runtime_error(absl::StrCat("at the end, node-", node, " serves nobody"));
      ThrowIfFailed();
    }
    const std::string wrong = WhatIsWrongWithWords(nodes_.sockets(), corpus_.path(), "words at the end");
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
      for (int program = 0; program < options_.nodes; ++program) {
        count += shared_.checkers[program].errors[code] + shared_.movers[program].errors[code];
      }
      if (count == 0) continue;
      std::printf(" %s %lu", absl::StatusCodeToString(static_cast<absl::StatusCode>(code)).c_str(), count);
    }
    if (nodes_.ended_for_their_disks() > 0) {
      std::printf("; nodes ended by full disks: %d", nodes_.ended_for_their_disks());
    }
    if (disturbed_ > 0) std::printf("; not whole with no fault: %d times", disturbed_);
    std::printf("\n");
  }

  // Returns where they are.
  std::string KeepLogs() const {
    std::string kept = std::filesystem::temp_directory_path() / "mangrove_soak_XXXXXX";
    if (mkdtemp(kept.data()) == nullptr) throw std::runtime_error(absl::StrCat("cannot make ", kept));
    nodes_.CopyLogs(kept);
    std::error_code not_there;
    std::filesystem::copy_file(SoakWordErrorsIn(corpus_.path()), kept + "/words.err", not_there);
    return kept;
  }

  const SoakOptions options_;
  const double limit_s_;
  const Stopwatch run_;
  std::mt19937_64 random_;
  SoakShared& shared_;
  SoakNodes nodes_;
  FaultDraws draws_;
  const TemporaryDirectory corpus_;
  std::vector<Program> programs_;
  std::string fault_;   // The one under way.
  double began_s_ = 0;  // When it did.
  std::vector<Taken> taken_;
  uint64_t view_ = 0;  // In which everything was whole.
  int disturbed_ = 0;
};

// Of a cluster in which nothing is left out.
int List(const SoakOptions& options) {
  FaultDraws draws({.nodes = options.nodes,
                    .has_monitors = options.has_monitors(),
                    .has_network = true,
                    .has_disks = options.full_disks},
                   options.seed);
  for (int i = 1; i <= options.faults; ++i) std::printf("%3d: %s\n", i, TextOf(draws.Next(), {}).c_str());
  return 0;
}

int Main(int argc, char** argv) {
  const SoakOptions options = ParseSoakOptions(argc, argv);
  if (options.only_lists) return List(options);
  ThrowOnSignals();
  return Soak(options).Run();
}

}  // namespace
}  // namespace mangrove::cluster_test

int main(int argc, char** argv) {
  try {
    return mangrove::cluster_test::Main(argc, argv);
  } catch (const mangrove::cluster_test::Stopped& stopped) {
    return 128 + stopped.signal();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mangrove-soak: %s\n", error.what());
    return 1;
  }
}
