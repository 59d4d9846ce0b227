// The real engine in the simulated cluster: histories repeat, seeds hold, and planted bugs are found.
// Covers: B01, C05, C07, G10, G15, G16

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "net/log.h"
#include "tests/sanitizers.h"
#include "tests/sim/scenario.h"

namespace mangrove::sim {

// For the test's runner.
static void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }
static void PrintTo(const PlantedBug& bug, std::ostream* out) { *out << bug.name; }

namespace {

// Every seed that ever failed, with the scenario in which it did.
struct Regression {
  const char* scenario;
  uint64_t seed;
};
constexpr auto kRegressions = std::to_array<Regression>({
    {"default", 1},
    {"default", 22},
    {"default", 33},
    {"default", 44},
    {"default", 55},
    {"calm", 320},
    {"crashes", 13},
    {"crashes", 24},
    {"crashes", 446},
    {"partitions", 14},
    {"storms", 4},
    {"storms", 37},
    {"stragglers", 14},
    {"stragglers", 116},
    {"stragglers", 127},
    {"stragglers", 531},
    {"stragglers", 750},
    {"stragglers", 817},
    // A store of an earlier view was repeated to a disk that was behind, and had stored what came after it.
    {"stragglers", 98700000096},
    {"pauses", 5},
    {"pauses", 38},
    {"locks", 6},
    {"locks", 17},
    {"locks", 28},
    {"locks", 51701529321534},
    {"locks", 103776358329111},
    {"evictions", 18},
    {"evictions", 29},
    {"evictions", 51},
    {"evictions", 62},
    {"evictions", 73},
    {"evictions", 177},
    {"evictions", 2461},
    {"storage", 8},
    {"storage", 52},
    {"storage", 96},
    {"storage", 283},
    {"allocation", 9},
    {"allocation", 20},
    {"allocation", 64},
    {"allocation", 1282},
    {"default", 180599617466884},
    {"pauses", 270},
    {"wipes", 26},
    {"wipes", 377},
    {"wipes", 434},
    {"storage", 121468676486757},
    {"evictions", 102592427984360},
    {"stragglers", 103712028118661},
    {"allocation", 124280339512486},
    {"wipes", 59551387937111},
    {"stragglers", 241411901425205},
    {"storage", 88222733136225},
    // A corrupt record that was never acknowledged stayed where another disk had none, and later counted alone.
    {"storage", 99600000014},
    // What was written was in the RAM of another node that stood still, and was expelled.
    {"files", 100000000128},
    // One copy is damaged, and the other disk fell behind with what a flush had brought there alone.
    {"default", 99900000102},
    {"latecomers", 287},
    {"evictions", 106322618977843},
    {"stragglers", 186899799043313},
    {"evictions", 237403963381433},
    // A read copy, the last of its page, that a full cache dropped before the page was taken over.
    {"files", 100},
    // A page was lost with the node that it had been evicted to, in the middle of a flush that then found nothing to do.
    {"files", 95020000128},
    // Bytes that a lost write had left behind the end of a file.
    {"files", 95010000980},
    {"files", 95020000228},
    // The node that allocated a page died before it had its answer; others wrote the page, and then heard that there is none.
    {"readers", 95030000367},
    // The same, and the page had been flushed.
    {"pauses", 96010001083},
    // Pages that move.
    {"moves", 17},
    {"moves", 20},
    {"moves", 42},
    {"moves", 52},
    {"replacements", 25},
    {"replacements", 59},
    {"replacements", 224},
    {"replacements", 97600000046},
    {"joins", 45077345606753},
    // An allocation that a disk had learned of before it was put there.
    {"partitions", 258080803196449},
    // An unallocation that a crash interrupted, taken for the loss of two disks.
    {"default", 142475121786059},
    // A disk that was away had learned of a log's pages by segments. A replay applied what its writer could not flush, and took along.
    {"accounts", 1004},
    {"accounts", 1219},
    // A segment's terms had begun at 1 again, and a node that remembered a later one claimed it for who had started anew.
    {"stragglers", 194729495604090},
    // Whose log it was had been given up, and removed, before anybody saw that the page that names the logs is lost.
    {"names", 184},
    {"names", 191},
    // Who is away, and comes back when the old anchors have left, has what a disk waits for that those are waiting for.
    {"anchors", 12},
    {"anchors", 27},
    // Three nodes that were killed every 0.7 s for as long as they had work.
    {"stragglers", 337410434922},
    {"latecomers", 337410434900},
    {"latecomers", 337410434920},
    {"latecomers", 337410434924},
    // Disks that were all behind waited for each other's pages, since some were lost and pages moved.
    {"names", 811700030009},
});
// So many seeds a planted bug may take, and so often it is looked for.
constexpr uint64_t kMaxSeeds = 500;
// The sanitizers look for other defects: that the checkers see these is shown without them, in a tenth of the time.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSearches = 1;
#else
constexpr uint64_t kSearches = 5;
#endif

std::string Replay(const Scenario& scenario, uint64_t seed) {
  return "replay: build/bin/mangrove-sim --seed " + std::to_string(seed) + " --scenario " + std::string(scenario.name);
}

class SimTest : public testing::Test {
 protected:
  SimTest() { SetLogLevel(LogLevel::kOff); }
};

TEST_F(SimTest, TwoRunsOfASeedHaveOneHistory) {
  if (kSanitized) return;  // They look for something else.
  for (const Scenario& scenario : Scenarios()) {
    const RunResult first = RunSeed(3, scenario, {});
    const RunResult second = RunSeed(3, scenario, {});
    EXPECT_EQ(first.hash, second.hash) << Replay(scenario, 3);
    EXPECT_EQ(first.events, second.events);
    EXPECT_NE(first.hash, RunSeed(4, scenario, {}).hash);
  }
}

class ScenarioTest : public testing::TestWithParam<Scenario> {
 protected:
  ScenarioTest() { SetLogLevel(LogLevel::kOff); }
};

TEST_P(ScenarioTest, HoldsForItsFirstSeeds) {
  uint64_t moved = 0;
  std::array<uint64_t, kFaultKinds> faults{};
  uint64_t stale_loads = 0;
  for (uint64_t seed = 1; seed <= (kSanitized ? 3 : 10); ++seed) {
    const RunResult result = RunSeed(seed, GetParam(), {});
    ASSERT_EQ(result.failure, "") << Replay(GetParam(), seed);
    EXPECT_GE(result.operations, 2000u);
    EXPECT_GE(result.faults, 20u);
    EXPECT_GT(result.leaders, 0u);
    EXPECT_GE(result.committed, 5u);
    // Where nodes die all the time, and each is missed for a second, little succeeds; nor do transactions of several pages.
    const uint64_t one_of = (GetParam().traits & kStragglers) != 0 ? 20 : (GetParam().traits & kAccounts) != 0 ? 6 : 4;
    EXPECT_GT(result.succeeded, result.operations / one_of) << Replay(GetParam(), seed);
    moved += result.moved;
    stale_loads += result.stale_loads;
    for (size_t kind = 0; kind < faults.size(); ++kind) faults[kind] += result.faults_by_kind[kind];
    if ((GetParam().traits & kLostNames) != 0) {
      EXPECT_GT(result.faults_by_kind[static_cast<size_t>(FaultKind::kLoseLogs)], 0u) << Replay(GetParam(), seed);
    }
  }
  if (kSanitized) return;  // Those say what ten seeds meet.
  if ((GetParam().traits & kNewAnchors) != 0) {
    EXPECT_GE(faults[static_cast<size_t>(FaultKind::kNewAnchors)], 7u);  // One in a run that is long enough for it.
  }
  for (size_t kind = 0; kind < faults.size(); ++kind) {
    if (GetParam().faults[kind] < 10) continue;
    EXPECT_GT(faults[kind], 0u) << Name(static_cast<FaultKind>(kind));
  }
  if ((GetParam().traits & kReaders) != 0) {
    EXPECT_GT(stale_loads, 300u);  // Few seeds cut a node off for long.
  }
  if ((GetParam().traits & kUnevenCaches) != 0) {
    EXPECT_GT(moved, 1000u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ScenarioTest, testing::ValuesIn(Scenarios()),
                         [](const auto& instance) { return std::string(instance.param.name); });

// Of what sanitizers look for each scenario meets the most in any of its seeds.
TEST_F(SimTest, EverySeedThatEverFailedHolds) {
  const size_t step = kSanitized ? 10 : 1;
  for (size_t i = 0; i < kRegressions.size(); i += step) {
    const Regression& regression = kRegressions[i];
    const Scenario* scenario = FindScenario(regression.scenario);
    ASSERT_NE(scenario, nullptr) << regression.scenario;
    const RunResult result = RunSeed(regression.seed, *scenario, {});
    EXPECT_EQ(result.failure, "") << Replay(*scenario, regression.seed);
    const FaultOptions bound;
    EXPECT_LE(result.faults, bound.free_faults + result.operations / bound.operations_per_fault);
  }
}

// Whether the seed fails, be it by a broken CHECK. A process of its own, so that this one goes on.
bool Fails(uint64_t seed, const Scenario& scenario, const RunOptions& options) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    // A broken CHECK is expected here; its words would only confuse.
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(3);
    std::signal(SIGABRT, SIG_DFL);
    alarm(120);
    _exit(RunSeed(seed, scenario, options).failure.empty() ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// How many seeds from `first` on it takes until one fails with the bug that holds without it; 0 if none does.
uint64_t SeedsUntilFound(const PlantedBug& bug, const Scenario& scenario, uint64_t first) {
  RunOptions options;
  options.bugs.*bug.flag = true;
  for (uint64_t tried = 1; tried <= kMaxSeeds; ++tried) {
    const uint64_t seed = first + tried - 1;
    if (Fails(seed, scenario, options) && !Fails(seed, scenario, {})) return tried;
  }
  return 0;
}

class PlantedBugTest : public testing::TestWithParam<PlantedBug> {
 protected:
  PlantedBugTest() { SetLogLevel(LogLevel::kOff); }
};

TEST_P(PlantedBugTest, IsFound) {
  const Scenario* scenario = FindScenario(GetParam().scenario);
  ASSERT_NE(scenario, nullptr);
  std::vector<uint64_t> took;
  for (uint64_t search = 0; search < kSearches; ++search) {
    const uint64_t tried = SeedsUntilFound(GetParam(), *scenario, 1 + search * 10'000);
    ASSERT_GT(tried, 0u) << "not found within " << kMaxSeeds << " seeds of " << scenario->name;
    took.push_back(tried);
  }
  std::sort(took.begin(), took.end());
  std::printf("planted bug %-24s found in scenario %-10s after %3lu seeds (median of %lu searches; at most %lu)\n",
              std::string(GetParam().name).c_str(), std::string(scenario->name).c_str(),
              static_cast<unsigned long>(took[took.size() / 2]), static_cast<unsigned long>(took.size()),
              static_cast<unsigned long>(took.back()));
  RecordProperty("median_seeds", static_cast<int>(took[took.size() / 2]));
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBugTest, testing::ValuesIn(AllPlantedBugs()),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace mangrove::sim
