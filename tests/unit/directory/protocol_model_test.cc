// Tries every order of events on one page, as far as the limits of each test go, and long random histories beyond.
// Covers: G10

#include "tests/unit/directory/protocol_model.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"

namespace mangrove::model {
namespace {

struct Step {
  uint32_t before = 0;
  Action action;
};

// The history that is being tried, for the report of a CHECK that ends the process.
struct Tried {
  Limits limits;
  const PlantedBugs* bugs = nullptr;
  std::vector<Action> actions;
};
Tried* tried = nullptr;

std::string Tell(const Tried& history) {
  World world(history.limits, history.bugs);
  std::string text;
  for (const Action& action : history.actions) {
    text += "- " + world.Describe(action) + "\n";
    if (&action == &history.actions.back()) text += world.Describe();
    if (&action == &history.actions.back() && tried != nullptr) break;
    world.Apply(action);
  }
  if (tried == nullptr) text += "now\n" + world.Describe();
  return text;
}

void OnAbort(int /*signal*/) {
  if (tried != nullptr) std::fprintf(stderr, "%s", Tell(*tried).c_str());
  std::signal(SIGABRT, SIG_DFL);
}

std::vector<Action> Path(const std::vector<Step>& steps, uint32_t at) {
  std::vector<Action> path;
  for (; at != 0; at = steps[at].before) path.insert(path.begin(), steps[at].action);
  return path;
}

struct Explored {
  size_t states = 0;
  bool complete = false;
  std::string broken;
};

// Breadth first over all histories, up to `max_states` states; every `settle_every`-th of them is brought to rest.
Explored Explore(const Limits& limits, size_t max_states, size_t settle_every, const PlantedBugs* bugs = nullptr) {
  std::signal(SIGABRT, OnAbort);
  Explored result;
  absl::flat_hash_set<size_t> seen;
  std::vector<Step> steps{{}};
  std::deque<std::pair<uint32_t, World>> frontier;
  frontier.emplace_back(0, World(limits, bugs));
  const auto broken = [&](uint32_t at, const Action* last, const World& world) {
    std::vector<Action> path = Path(steps, at);
    if (last != nullptr) path.push_back(*last);
    result.broken = world.broken() + "\n" + Tell({limits, bugs, path}) + "which became\n" + world.Describe();
  };
  while (!frontier.empty()) {
    if (steps.size() >= max_states) break;
    auto [at, world] = std::move(frontier.front());
    frontier.pop_front();
    for (const Action& action : world.Actions()) {
      World next(world);
      next.Apply(action);
      if (!next.broken().empty()) {
        broken(at, &action, next);
        return result;
      }
      if (!seen.insert(absl::Hash<std::string>()(next.Key())).second) continue;
      steps.push_back({at, action});
      const auto number = static_cast<uint32_t>(steps.size() - 1);
      if (number % settle_every == 0) {
        for (const bool lose : {true, false}) {
          World rest(next);
          rest.Settle(lose);
          if (rest.broken().empty()) continue;
          broken(number, nullptr, rest);
          return result;
        }
      }
      frontier.emplace_back(number, std::move(next));
    }
  }
  result.states = steps.size();
  result.complete = frontier.empty();
  return result;
}

// MODEL_SEED and MODEL_HISTORIES make the search another or a longer one than that of every test run.
uint64_t FirstSeed() {
  const char* seed = std::getenv("MODEL_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

int Histories() {
  const char* histories = std::getenv("MODEL_HISTORIES");
  return histories == nullptr ? 6000 : std::atoi(histories);
}

// Random histories, each of up to `length` events, then brought to rest. Messages are delivered more often than anything
// else happens.
std::string Wander(const Limits& limits, uint64_t first_seed, int histories, int length,
                   const PlantedBugs* bugs = nullptr) {
  std::signal(SIGABRT, OnAbort);
  for (int h = 0; h < histories; ++h) {
    std::mt19937_64 random(first_seed + h);
    World world(limits, bugs);
    Tried now{limits, bugs, {}};
    tried = &now;
    for (int i = 0; i < length && world.broken().empty(); ++i) {
      const std::vector<Action> actions = world.Actions();
      if (actions.empty()) break;
      Action action = actions[random() % actions.size()];
      if (action.act == Act::kCrash && random() % 4 != 0) continue;
      const bool hurry = action.act != Act::kDeliver && random() % 2 == 0 && actions.front().act == Act::kDeliver;
      if (hurry) {
        size_t deliveries = 0;
        while (deliveries < actions.size() && actions[deliveries].act == Act::kDeliver) ++deliveries;
        action = actions[random() % deliveries];
      }
      now.actions.push_back(action);
      world.Apply(action);
    }
    const World before(world);
    const bool lose = random() % 2 == 0;
    if (world.broken().empty()) world.Settle(lose);
    tried = nullptr;
    if (world.broken().empty()) continue;
    return "seed " + std::to_string(first_seed + h) + ": " + world.broken() + "\n" + Tell(now) + "which became\n" +
           world.Describe();
  }
  return "";
}

void ExpectSound(const Explored& explored, bool complete) {
  EXPECT_TRUE(explored.broken.empty()) << explored.broken;
  EXPECT_EQ(explored.complete, complete) << explored.states << " states";
}

void ExpectSound(const std::string& broken) { EXPECT_TRUE(broken.empty()) << broken; }

TEST(ProtocolModel, TwoNodesInEveryOrder) {
  ExpectSound(Explore({.nodes = 2, .wants = 2, .writes = 1}, 100000, 3), true);
}

TEST(ProtocolModel, TwoNodesInEveryOrderWithALoss) {
  ExpectSound(Explore({.nodes = 2, .wants = 2, .writes = 1, .crashes = 1}, 200000, 7), true);
}

TEST(ProtocolModel, TwoNodesThatEvict) {
  ExpectSound(Explore({.nodes = 2, .wants = 3, .writes = 2, .evicts = 1}, 100000, 11), false);
}

TEST(ProtocolModel, TwoNodesWithDoubledMessages) {
  ExpectSound(Explore({.nodes = 2, .deliveries = 2, .wants = 3, .writes = 2, .evicts = 1}, 100000, 11), false);
}

TEST(ProtocolModel, TwoNodesThatFlushWithALoss) {
  ExpectSound(Explore({.nodes = 2, .wants = 2, .writes = 1, .flushes = 1, .crashes = 1}, 100000, 11), false);
}

TEST(ProtocolModel, TwoNodesThatOffer) {
  ExpectSound(Explore({.nodes = 2, .wants = 2, .writes = 1, .offers = 1}, 200000, 11), false);
}

TEST(ProtocolModel, TwoNodesThatOfferWithDoubledMessages) {
  ExpectSound(Explore({.nodes = 2, .deliveries = 2, .wants = 2, .writes = 1, .evicts = 1, .offers = 2}, 100000, 11),
              false);
}

TEST(ProtocolModel, TwoNodesThatOfferWithALoss) {
  ExpectSound(Explore({.nodes = 2, .wants = 2, .writes = 1, .offers = 1, .flushes = 1, .crashes = 1}, 100000, 11),
              false);
}

TEST(ProtocolModel, ThreeNodesThatOffer) {
  ExpectSound(Explore({.nodes = 3, .wants = 3, .writes = 1, .evicts = 1, .offers = 1}, 100000, 11), false);
}

TEST(ProtocolModel, ThreeNodes) {
  ExpectSound(Explore({.nodes = 3, .wants = 3, .writes = 2, .evicts = 1}, 100000, 11), false);
}

constexpr Limits kLong{.nodes = 3,
                       .deliveries = 2,
                       .wants = 8,
                       .writes = 4,
                       .evicts = 3,
                       .offers = 3,
                       .flushes = 2,
                       .cancels = 1,
                       .pins = 2,
                       .holds = 3};

TEST(ProtocolModel, LongHistories) { ExpectSound(Wander(kLong, FirstSeed(), Histories(), 120)); }

TEST(ProtocolModel, LongHistoriesWithALoss) {
  Limits limits = kLong;
  limits.crashes = 1;
  ExpectSound(Wander(limits, FirstSeed(), Histories(), 120));
}

TEST(ProtocolModel, LongHistoriesWithLosses) {
  Limits limits = kLong;
  limits.crashes = 3;
  ExpectSound(Wander(limits, FirstSeed(), Histories(), 150));
}

TEST(ProtocolModel, ShortHistoriesWithLosses) {
  const Limits limits{.nodes = 3, .wants = 3, .writes = 2, .evicts = 2, .offers = 1, .flushes = 2, .crashes = 2};
  ExpectSound(Wander(limits, FirstSeed(), Histories(), 80));
}

TEST(ProtocolModel, ThreeNodesThatEvictWithALoss) {
  ExpectSound(Explore({.nodes = 3, .wants = 2, .writes = 1, .evicts = 1, .crashes = 1}, 100000, 11), false);
}

TEST(ProtocolModel, SeesThatTheLastCopyIsDroppedUnasked) {
  const Limits limits{.nodes = 3, .wants = 3, .writes = 2, .evicts = 2, .crashes = 2, .drops_unasked = true};
  EXPECT_NE(Wander(limits, 1, 20000, 80), "");
}

// The model is only as good as what it sees.
TEST(ProtocolModel, SeesEachPlantedBug) {
  const std::vector<std::pair<const char*, bool PlantedBugs::*>> planted = {
      {"skip_one_invalidation", &PlantedBugs::skip_one_invalidation},
      {"drop_frame_at_send", &PlantedBugs::drop_frame_at_send},
      {"drop_frame_at_move", &PlantedBugs::drop_frame_at_move},
      {"move_after_refusal", &PlantedBugs::move_after_refusal},
      {"forget_incarnation", &PlantedBugs::forget_incarnation},
      {"activate_before_acks", &PlantedBugs::activate_before_acks},
      {"accept_stale_grant", &PlantedBugs::accept_stale_grant},
      {"skip_completion", &PlantedBugs::skip_completion},
      {"keep_rights_on_forward", &PlantedBugs::keep_rights_on_forward}};
  const Limits limits{
      .nodes = 3, .wants = 3, .writes = 2, .evicts = 2, .offers = 2, .flushes = 2, .cancels = 1, .crashes = 2};
  for (const auto& [name, bug] : planted) {
    PlantedBugs bugs;
    bugs.*bug = true;
    EXPECT_NE(Wander(limits, 1, 20000, 80, &bugs), "") << name;
  }
}

}  // namespace
}  // namespace mangrove::model
