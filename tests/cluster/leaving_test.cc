// Nodes that leave the cluster for good, in order or lost, while it is used.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSegmentBytes = kSegmentPages * kPageBytes;
constexpr uint64_t kSegments = 12;

class Leaving : public testing::Test {
 protected:
  Leaving() : cluster_({.nodes = 4}) {}

  static absl::StatusOr<uint64_t> Word(Region& region, uint64_t segment) {
    uint64_t value = 0;
    const absl::Status read = region.Read(segment * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
    if (!read.ok()) return read;
    return value;
  }
  static void WriteAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kSegments; ++i) {
      const uint64_t value = i + plus;
      ASSERT_TRUE(region.Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    ASSERT_TRUE(Eventually([&] { return region.Flush(0, kSegments * kSegmentBytes).ok(); }));
  }
  static void ExpectAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kSegments; ++i) {
      EXPECT_TRUE(Eventually([&] { return Word(region, i).ok(); })) << i;
      EXPECT_EQ(Take(Word(region, i)), i + plus) << i;
    }
  }
  nlohmann::json MembershipAt(int node) { return cluster_.Ask(node, {"status"})["membership"]; }
  bool Names(int node, const char* what, int other) {
    const nlohmann::json names = MembershipAt(node)[what];
    return std::find(names.begin(), names.end(), absl::StrCat("node-", other)) != names.end();
  }
  bool HasMoved(int node) { return MembershipAt(node)["next_disks"].empty(); }
  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }

  Cluster cluster_;
};

// An anchor at that: nodes 1 to 3 are.
// Covers: C08, C11, C03, G13
TEST_F(Leaving, ADrainedNodeGivesItsPagesAwayEndsAndDoesNotComeBack) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kSegments * kSegmentBytes);
  WriteAll(*region, 100);

  const Output drained = Do(1, {"node", "drain", "node-2"});
  EXPECT_EQ(drained.exit_code, 0) << drained.err;
  EXPECT_THAT(drained.out, HasSubstr("view"));
  WriteAll(*region, 200);  // While pages move.
  EXPECT_EQ(cluster_.AwaitEnd(2), 0);
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && !Names(1, "disks", 2) && !Names(1, "behind", 2); }));
  ExpectAll(*region, 200);
  // Each page has its two copies on the others: one more of them may go. (Two anchors are left, and both are needed.)
  cluster_.Kill(4);
  ExpectAll(*region, 200);
  WriteAll(*region, 300);
  cluster_.Start(4);
  EXPECT_TRUE(Eventually([&] { return !Names(1, "behind", 4); }));
  ExpectAll(*region, 300);
  // Who starts it again is told.
  cluster_.Start(2);
  EXPECT_EQ(cluster_.AwaitEnd(2), 4);
  EXPECT_GT(cluster_.LinesOf(2, "was taken out of the cluster"), 0U);
  const Output status = Do(1, {"status"});
  EXPECT_THAT(status.out, HasSubstr("all 3 nodes are here"));
}

// Covers: C08
TEST_F(Leaving, ADrainThatIsCalledOffLeavesTheNodeWhereItWas) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kSegments * kSegmentBytes);
  WriteAll(*region, 100);
  kill(cluster_.pid(3), SIGSTOP);  // So that pages do not all get to where they are to go.
  ASSERT_EQ(Do(1, {"node", "drain", "node-4"}).exit_code, 0);
  EXPECT_TRUE(Names(1, "draining", 4));
  ASSERT_EQ(Do(1, {"node", "undrain", "node-4"}).exit_code, 0);
  kill(cluster_.pid(3), SIGCONT);
  cluster_.AwaitConnected();
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && Names(1, "disks", 4); }));
  ExpectAll(*region, 100);
}

// Covers: C08
TEST_F(Leaving, WhatIsNotTakenUpInTimeMayStillBeDoneAndTheAnswerSaysHowThatIsSeen) {
  cluster_.StartAll();
  for (const int anchor : {2, 3}) kill(cluster_.pid(anchor), SIGSTOP);
  const Output late = Do(1, {"node", "drain", "node-4", "--timeout", "1"});
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_THAT(late.err, HasSubstr("may still be done, when they answer: then `mangrove node list` shows node-4 as "
                                  "draining, and `mangrove node undrain node-4` calls it off"));
  for (const int anchor : {2, 3}) kill(cluster_.pid(anchor), SIGCONT);
  cluster_.AwaitConnected();
  ASSERT_EQ(Do(1, {"node", "undrain", "node-4"}).exit_code, 0);
  EXPECT_FALSE(Names(1, "draining", 4));
}

// Covers: C06, C08, C10
TEST_F(Leaving, WhatALostNodeKeptTheOthersKeep) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kSegments * kSegmentBytes);
  WriteAll(*region, 100);

  Output refused = Do(1, {"node", "give-up", "node-3"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("node-3 is here, and not lost"));
  refused = Do(1, {"node", "give-up", "node-9"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("no node of the cluster is called \"node-9\"; there are node-1"));

  cluster_.Kill(3);
  EXPECT_TRUE(Eventually([&] { return Names(1, "missing", 3); }));
  WriteAll(*region, 200);
  const Output preview = Do(1, {"node", "give-up", "node-3"});
  EXPECT_EQ(preview.exit_code, 0) << preview.err;
  EXPECT_THAT(preview.out, HasSubstr("nothing would be lost"));
  EXPECT_THAT(preview.out, HasSubstr("mangrove node give-up node-3 --confirm "));
  EXPECT_FALSE(Names(1, "lost", 3));
  const Output lost = cluster_.GiveUp(1, "node-3");
  EXPECT_EQ(lost.exit_code, 0) << lost.err;
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && !Names(1, "disks", 3) && !Names(1, "lost", 3); }));
  ExpectAll(*region, 200);
  // Two copies again: another one may go.
  cluster_.Kill(4);
  ExpectAll(*region, 200);
}

}  // namespace
}  // namespace mangrove::cluster_test
