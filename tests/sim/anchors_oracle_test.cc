// Each rule of the checker of the anchors' log is broken by hand.
// Covers: C03

#include "tests/sim/anchors_oracle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mangrove::sim {
namespace {

using testing::StartsWith;
using Role = Raft::Role;

LogEntry Entry(uint64_t term, std::string command = "x") {
  return {.term = Term(term), .kind = LogEntry::Kind::kCommand, .command = std::move(command), .votes = {}};
}

class AnchorsOracleTest : public testing::Test {
 protected:
  // The node's log is that, from place 1 on or behind the snapshot.
  void See(int node, Role role, uint64_t term, uint64_t commit, std::vector<LogEntry> entries,
           LogSnapshot snapshot = {}, uint64_t life = 1) {
    const RaftLog log(std::move(snapshot), std::move(entries));
    oracle_.OnAnchor(node, life, {.role = role, .term = Term(term), .commit = LogIndex(commit), .log = log});
  }
  static LogSnapshot UpTo(uint64_t index, uint64_t term, std::string state) {
    return {.index = LogIndex(index), .term = Term(term), .votes = {}, .state = std::move(state)};
  }

  SimWorld world_{1};
  AnchorsOracle oracle_{&world_};
};

TEST_F(AnchorsOracleTest, ALogThatGrowsAndIsReplacedWhereNothingIsCommittedIsSound) {
  See(0, Role::kLeader, 1, 0, {Entry(1)});
  See(1, Role::kFollower, 1, 0, {Entry(1)});
  See(0, Role::kLeader, 1, 1, {Entry(1), Entry(1, "never committed")});
  See(1, Role::kLeader, 2, 1, {Entry(1), Entry(2)});
  See(0, Role::kFollower, 2, 1, {Entry(1), Entry(2)});
  See(1, Role::kLeader, 2, 2, {Entry(1), Entry(2)});
  See(0, Role::kFollower, 2, 2, {}, UpTo(2, 2, "both"));
  See(1, Role::kLeader, 2, 2, {}, UpTo(2, 2, "both"));
  See(0, Role::kLeader, 3, 2, {Entry(3)}, UpTo(2, 2, "both"), /*life=*/2);
  EXPECT_EQ(world_.failure(), "");
  EXPECT_EQ(oracle_.leaders(), 3u);
  EXPECT_EQ(oracle_.committed(), 2u);
}

TEST_F(AnchorsOracleTest, R1ATermHasOneLeader) {
  See(0, Role::kLeader, 1, 0, {});
  See(1, Role::kLeader, 1, 0, {});
  EXPECT_THAT(world_.failure(), StartsWith("R1"));
}

TEST_F(AnchorsOracleTest, R1AlsoWhenTheFirstOneLeadsNoMore) {
  See(0, Role::kLeader, 1, 0, {});
  See(0, Role::kFollower, 1, 0, {});
  See(1, Role::kLeader, 1, 0, {});
  EXPECT_THAT(world_.failure(), StartsWith("R1"));
}

TEST_F(AnchorsOracleTest, R2ALeaderDropsNothing) {
  See(0, Role::kLeader, 2, 0, {Entry(1), Entry(2)});
  See(0, Role::kLeader, 2, 0, {Entry(1)});
  EXPECT_THAT(world_.failure(), StartsWith("R2"));
}

TEST_F(AnchorsOracleTest, R3AnEntryOfATermHasOneContent) {
  See(0, Role::kFollower, 1, 0, {Entry(1, "a")});
  See(1, Role::kFollower, 1, 0, {Entry(1, "b")});
  EXPECT_THAT(world_.failure(), StartsWith("R3"));
}

TEST_F(AnchorsOracleTest, R3WhatIsBeforeACommonEntryIsCommon) {
  See(0, Role::kFollower, 3, 0, {Entry(1), Entry(3)});
  See(1, Role::kFollower, 3, 0, {Entry(2), Entry(3)});
  EXPECT_THAT(world_.failure(), StartsWith("R3"));
}

TEST_F(AnchorsOracleTest, R4ALaterLeaderHasWhatIsCommitted) {
  See(0, Role::kLeader, 1, 1, {Entry(1)});
  See(1, Role::kLeader, 2, 0, {});
  EXPECT_THAT(world_.failure(), StartsWith("R4"));
}

TEST_F(AnchorsOracleTest, R5WhatIsCommittedIsTheSame) {
  See(0, Role::kFollower, 2, 1, {Entry(1)});
  See(1, Role::kFollower, 2, 1, {Entry(2)});
  EXPECT_THAT(world_.failure(), StartsWith("R5"));
}

TEST_F(AnchorsOracleTest, R5WhatIsCommittedIsThere) {
  See(0, Role::kFollower, 1, 2, {Entry(1)});
  EXPECT_THAT(world_.failure(), StartsWith("R5"));
}

TEST_F(AnchorsOracleTest, R5SnapshotsOfAPlaceAreTheSame) {
  See(0, Role::kFollower, 1, 4, {}, UpTo(4, 1, "this"));
  See(1, Role::kFollower, 1, 4, {}, UpTo(4, 1, "that"));
  EXPECT_THAT(world_.failure(), StartsWith("R5"));
}

TEST_F(AnchorsOracleTest, R5ASnapshotIsOfWhatIsCommitted) {
  See(0, Role::kFollower, 2, 1, {Entry(2)});
  See(1, Role::kFollower, 2, 1, {}, UpTo(1, 1, "other"));
  EXPECT_THAT(world_.failure(), StartsWith("R5"));
}

}  // namespace
}  // namespace mangrove::sim
