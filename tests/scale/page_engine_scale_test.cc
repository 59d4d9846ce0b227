// How long the steps of a node's loop are when the directory is large. Processor time, since others share the machine.
//
// Covers: G06

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <nlohmann/json.hpp>

#include "engine/local_operations.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr int64_t kLongestStepNs = 10 * kMillisecond;
// Of the last ones, enough to split a page above the leaves, so that whoever is appointed to them has stored the root.
constexpr uint64_t kLastSegments = 14'000;

// Every second one: each is a run of its own.
constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + 2 * n * kSegmentPages; }

// MANGROVE_SEGMENTS=1000000 asks for as many.
uint64_t Segments() {
  const char* text = std::getenv("MANGROVE_SEGMENTS");
  return text == nullptr ? 60'000 : std::strtoull(text, nullptr, 10);
}

int64_t ProcessorTime() {
  timespec t{};
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
  return t.tv_sec * kSecond + t.tv_nsec;
}

Task<absl::Status> TouchAll(PageEngine* engine, Clock* clock, uint64_t from, uint64_t to) {
  for (uint64_t i = from; i < to; ++i) {
    const absl::Status located = co_await engine->Locate(Segment(i), clock->Now() + kSecond);
    if (!located.ok()) co_return located;
    co_await YieldTo(clock);
  }
  co_return absl::OkStatus();
}

class PageEngineScale : public testing::Test {
 protected:
  PageEngineScale() { SetLogLevel(LogLevel::kOff); }

  template <typename T>
  T Do(const char* what, Task<T> task) {
    std::optional<T> result;
    longest_step_ns_ = 0;
    const int64_t start = ProcessorTime();
    int64_t step = start;
    Spawn<T>(std::move(task), [&](T value) { result.emplace(std::move(value)); });
    do {
      const int64_t now = ProcessorTime();
      longest_step_ns_ = std::max(longest_step_ns_, now - std::exchange(step, now));
    } while (!result && cluster_.Step(cluster_.clock.Now() + 600 * kSecond));
    std::printf("%s: %lu segments, %.0f ms, longest step %.2f ms\n", what, Segments(),
                static_cast<double>(ProcessorTime() - start) / 1e6, static_cast<double>(longest_step_ns_) / 1e6);
    return *std::move(result);
  }
  // As `mangrove directory show` counts.
  uint64_t Count(uint64_t node) {
    NodeConfig config;
    for (uint64_t i = 1; i <= 3; ++i) config.members.push_back({NodeId(i), absl::StrCat("n", i), "h:1"});
    EngineHost& host = cluster_.host(node);
    LocalOperations operations(&config, &cluster_.clock, host.engine.get(), nullptr, host.transport.get(), &host.store,
                               nullptr, host.self.incarnation);
    const auto shown = Do("shown", operations.Inspect("directory", "", cluster_.In(120 * kSecond)));
    EXPECT_TRUE(shown.ok()) << shown.status();
    EXPECT_LT(longest_step_ns_, kLongestStepNs);
    EXPECT_LT(shown->size(), 8192u);
    return shown.ok() ? nlohmann::json::parse(*shown)["runs"].get<uint64_t>() : 0;
  }

  EngineCluster cluster_{3, [](PageEngineOptions& options) { options.cache_pages = 65'536; }};
  int64_t longest_step_ns_ = 0;
};

TEST_F(PageEngineScale, ALargeDirectoryIsMadeAndMadeAnewInShortSteps) {
  const uint64_t kept = Segments() - kLastSegments;
  for (const auto& [node, from, to] : {std::tuple<uint64_t, uint64_t, uint64_t>{1, 0, kept}, {2, kept, Segments()}}) {
    const absl::Status touched = Do("appointed", TouchAll(&cluster_.engine(node), &cluster_.clock, from, to));
    ASSERT_TRUE(touched.ok()) << touched;
    EXPECT_LT(longest_step_ns_, kLongestStepNs);
  }
  // The root is lost, and everything beneath it out of reach.
  cluster_.Start({NodeId(2), Incarnation(2)});
  cluster_.RunFor(kSecond);
  const absl::Status found = Do("made anew", TouchAll(&cluster_.engine(3), &cluster_.clock, kept / 2, kept / 2 + 1));
  EXPECT_TRUE(found.ok()) << found;
  EXPECT_LT(longest_step_ns_, kLongestStepNs);
  EXPECT_EQ(cluster_.engine(3).ResponsibleFor(Segment(kept / 2)), NodeId(1));
  EXPECT_EQ(Count(3), kept);
}

}  // namespace
}  // namespace mangrove
