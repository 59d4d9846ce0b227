// Clients and servers of tokens over a network that loses, doubles, reorders and delays, with nodes that crash and servers
// that move: nothing conflicting is ever held, values are those of the last writer, and all waits end once the network heals.
// Covers: X01 X02 X07

#include <gtest/gtest.h>

#include "tests/unit/fs/tokens/token_cluster.h"

namespace mangrove::fs {
namespace {

// What of the seeds goes wrong first; empty if nothing does.
std::string FirstFailure(TokenBug bug, uint64_t seeds, TokenCluster::Counts* all = nullptr) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    TokenCluster cluster({.seed = seed,
                          .loss_percent = seed % 4 == 0 ? 0 : 10,
                          .twice_percent = seed % 3 == 0 ? 0 : 10,
                          .crashes = seed % 5 != 0,
                          .most_idle = seed % 2 == 0 ? 1u : 100u,
                          .bug = bug});
    cluster.Run(1200);
    const bool ended = cluster.broken().empty() && cluster.Heal(5000);
    if (!cluster.broken().empty()) return "seed " + std::to_string(seed) + " " + cluster.broken();
    if (!ended) return "seed " + std::to_string(seed) + ": not all waits have ended";
    if (all == nullptr) continue;
    const TokenCluster::Counts& c = cluster.counts();
    all->ready += c.ready;
    all->cancelled += c.cancelled;
    all->changes += c.changes;
    all->crashes += c.crashes;
    all->moves += c.moves;
    all->sizes_read += c.sizes_read;
    all->times_read += c.times_read;
    all->conditional += c.conditional;
    all->refused += c.refused;
    all->own_changes += c.own_changes;
    all->pinning_changes += c.pinning_changes;
    all->values_set += c.values_set;
    all->leases_ended += c.leases_ended;
    all->timed_out += c.timed_out;
  }
  return "";
}

TEST(TokensRandom, NothingConflictsAndAllWaitsEnd) {
  TokenCluster::Counts counts;
  EXPECT_EQ(FirstFailure(TokenBug::kNone, 400, &counts), "");
  // It was about something.
  EXPECT_GT(counts.ready, 2000);
  EXPECT_GT(counts.cancelled, 20);
  EXPECT_GT(counts.changes, 100);
  EXPECT_GT(counts.crashes, 30);
  EXPECT_GT(counts.moves, 60);
  EXPECT_GT(counts.sizes_read, 500);
  EXPECT_GT(counts.times_read, 300);
  EXPECT_GT(counts.refused, 10);
  EXPECT_GT(counts.conditional, counts.refused);
  EXPECT_GT(counts.own_changes, 500);
  EXPECT_GT(counts.pinning_changes, 500);
  EXPECT_GT(counts.values_set, 200);
  EXPECT_GT(counts.leases_ended, 30);
  EXPECT_GT(counts.timed_out, 100);
}

TEST(TokensRandom, EachPlantedBugIsFound) {
  EXPECT_NE(FirstFailure(TokenBug::kReturnBeforeInvalidated, 30), "");
  EXPECT_NE(FirstFailure(TokenBug::kUsesWhatIsLent, 30), "");
  EXPECT_NE(FirstFailure(TokenBug::kTwoWriters, 30), "");
  EXPECT_NE(FirstFailure(TokenBug::kBelievesCrossedReturn, 30), "");
}

}  // namespace
}  // namespace mangrove::fs
