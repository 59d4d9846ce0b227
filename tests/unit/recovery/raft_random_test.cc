// The anchors' log under every kind of fault, and with mistakes built in that have to be found.

#include <gtest/gtest.h>

#include "tests/sanitizers.h"
#include "tests/unit/recovery/raft_world.h"

namespace mangrove {
namespace {

std::string FirstFailure(const RaftWorld::Options& options) {
  RaftWorld world(options);
  world.RunFor(20 * kSecond);
  return world.failure();
}

TEST(RaftRandom, WithoutFaultsOneLeaderAndEverythingIsAgreedOn) {
  RaftWorld world({.seed = 1, .faults = false});
  world.RunFor(20 * kSecond);
  EXPECT_EQ(world.failure(), "");
  EXPECT_EQ(world.leaders(), 1u);
  EXPECT_GT(world.applied(), 500u);
}

TEST(RaftRandom, NoFaultBreaksIt) {
  uint64_t applied = 0;
  uint64_t leaders = 0;
  uint64_t snapshots = 0;
  uint64_t changes = 0;
  uint64_t replaced = 0;
  constexpr uint64_t kHistories = Histories(120);
  for (uint64_t seed = 1; seed <= kHistories; ++seed) {
    RaftWorld world({.seed = seed, .anchors = seed % 2 == 0 ? 3 : 5, .rough = seed % 3 == 0});
    world.RunFor(20 * kSecond);
    ASSERT_EQ(world.Settle(), "") << world.Describe();
    applied += world.applied();
    leaders += world.leaders();
    snapshots += world.snapshots();
    changes += world.changes();
    replaced += world.replaced();
  }
  // It was not because nothing happened.
  EXPECT_GT(applied, kHistories * 300);
  EXPECT_GT(leaders, kHistories * 5);
  EXPECT_GT(snapshots, kHistories);
  EXPECT_GT(changes, kHistories);
  EXPECT_GT(replaced, kHistories);
}

struct Mistake {
  const char* name;
  RaftBugs bugs;
};

class RaftMistakes : public testing::TestWithParam<Mistake> {};

TEST_P(RaftMistakes, IsFound) {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    const bool rough = seed % 2 == 0;
    if (!FirstFailure({.seed = seed, .changes_votes = !rough, .rough = rough, .bugs = GetParam().bugs}).empty()) return;
  }
  FAIL() << "not within 3,000 seeds";
}

INSTANTIATE_TEST_SUITE_P(All, RaftMistakes,
                         testing::Values(Mistake{"CommitByCounting", {.commit_by_counting = true}},
                                         Mistake{"VoteAgain", {.vote_again = true}},
                                         Mistake{"VotesAtOnce", {.votes_at_once = true}},
                                         Mistake{"IgnoreStaleLog", {.ignore_stale_log = true}},
                                         Mistake{"VoteWithNewDisk", {.vote_with_new_disk = true}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mangrove
