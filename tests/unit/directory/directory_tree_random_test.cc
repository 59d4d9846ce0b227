// Covers: G06

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/sanitizers.h"
#include "tests/unit/directory/directory_world.h"

namespace mangrove {
namespace {

using directory_test::World;
using directory_test::WorldCounts;

// MANGROVE_DIRECTORY_SEEDS: other numbers of seeds, "first..last".
std::pair<uint64_t, uint64_t> Seeds() {
  unsigned long long first = 1;
  unsigned long long last = Histories(1000);
  if (const char* asked = std::getenv("MANGROVE_DIRECTORY_SEEDS")) {
    if (std::sscanf(asked, "%llu..%llu", &first, &last) != 2) ADD_FAILURE() << "no seeds: " << asked;
  }
  return {first, last};
}

void Add(const WorldCounts& more, WorldCounts* sum) {
  sum->steps += more.steps;
  sum->appointed += more.appointed;
  sum->moved += more.moved;
  sum->removed += more.removed;
  sum->found += more.found;
  sum->failed += more.failed;
  sum->deaths += more.deaths;
  sum->lost += more.lost;
  sum->rounds += more.rounds;
  sum->whole_rounds += more.whole_rounds;
  sum->roots += more.roots;
  sum->stores += more.stores;
}

TEST(DirectoryTreeRandom, NoSegmentHasTwoResponsibleNodesAndAllAreFound) {
  const auto [first, last] = Seeds();
  WorldCounts sum;
  for (uint64_t seed = first; seed <= last; ++seed) {
    World world(seed, &kNoPlantedBugs);
    const std::string failure = world.Run();
    ASSERT_EQ(failure, "") << "seed " << seed;
    Add(world.counts(), &sum);
  }
  std::printf(
      "steps %lu, stores %lu, appointed %lu, moved %lu, removed %lu, found %lu, failed %lu, deaths %lu, pages lost "
      "%lu, "
      "rounds %lu and for roots %lu, roots %lu\n",
      sum.steps, sum.stores, sum.appointed, sum.moved, sum.removed, sum.found, sum.failed, sum.deaths, sum.lost,
      sum.rounds, sum.whole_rounds, sum.roots);
}

void ExpectFound(const PlantedBugs& bugs) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    World world(seed, &bugs);
    if (const std::string failure = world.Run(); !failure.empty()) {
      std::printf("seed %lu: %s\n", seed, failure.c_str());
      return;
    }
  }
  ADD_FAILURE() << "a thousand seeds did not see it";
}

TEST(DirectoryTreeRandom, SeesARightLinkFollowedUnchecked) { ExpectFound({.follow_right_unchecked = true}); }

TEST(DirectoryTreeRandom, SeesAnAppointmentWithoutASecondLook) { ExpectFound({.appoint_unchecked = true}); }

}  // namespace
}  // namespace mangrove
