// Who is there: what `mangrove status` says of it while nodes are killed, stopped and come back.
// Covers: C02, C03, C04

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;
using Names = std::vector<std::string>;

// What is promised, and what scheduling on a busy machine may add.
constexpr double kTruthS = 2;
constexpr double kSlackS = 4;

class MembershipTest : public testing::Test {
 protected:
  json Of(int node) { return cluster_.Ask(node, {"status"})["membership"]; }
  // Of a node that may be about to start.
  bool Says(int node, const std::function<bool(const json&)>& condition) {
    const Output status = RunProgram({"mangrove", "--socket", cluster_.socket(node), "status", "--json"});
    return status.exit_code == 0 && condition(json::parse(status.out)["membership"]);
  }
  std::string FirstLineOf(int node) {
    const std::string text = RunProgram({"mangrove", "--socket", cluster_.socket(node), "status"}).out;
    return text.substr(0, text.find('\n'));
  }
  bool AllSay(const Names& missing, const std::vector<int>& nodes) {
    return std::all_of(nodes.begin(), nodes.end(), [&](int node) {
      return Says(node, [&](const json& m) { return m["has_lease"] && m["view"] > 0 && m["missing"] == missing; });
    });
  }
  void AwaitAll() {
    ASSERT_TRUE(Eventually([&] { return AllSay({}, {1, 2, 3}); })) << FirstLineOf(1);
  }
  // Every one of `nodes` says so in time.
  void ExpectSoon(const Names& missing, const std::vector<int>& nodes) {
    const Stopwatch since;
    EXPECT_TRUE(Eventually([&] { return AllSay(missing, nodes); })) << FirstLineOf(nodes.front());
    EXPECT_LT(since.Seconds(), kTruthS + kSlackS);
    RecordProperty("seconds", std::to_string(since.Seconds()));
  }
  int Leader() {
    const std::string name = Of(1)["leader"].get<std::string>();
    return name.back() - '0';
  }
  std::vector<int> Without(int node) {
    std::vector<int> others = {1, 2, 3};
    std::erase(others, node);
    return others;
  }
  static std::string Name(int node) { return "node-" + std::to_string(node); }

  Cluster cluster_;
};

TEST_F(MembershipTest, WhoIsKilledIsMissingSoonAndBackSoonAfterItsStart) {
  cluster_.StartAll();
  AwaitAll();
  EXPECT_THAT(FirstLineOf(1), StartsWith("all 3 nodes are here; view "));
  const int leader = Leader();
  const int member = Without(leader).front();
  for (const int node : {member, leader}) {
    const json before = Of(Without(node).front());
    cluster_.Kill(node);
    ExpectSoon({Name(node)}, Without(node));
    EXPECT_GT(Of(Without(node).front())["view"], before["view"]);
    EXPECT_THAT(FirstLineOf(Without(node).front()), StartsWith(Name(node) + " is MISSING; 2 nodes are here; view "));
    cluster_.Start(node);
    ExpectSoon({}, {1, 2, 3});
  }
}

TEST_F(MembershipTest, WhoIsStoppedForLongIsMissingAndComesBackByItself) {
  cluster_.StartAll();
  AwaitAll();
  const int node = Without(Leader()).back();
  kill(cluster_.pid(node), SIGSTOP);
  ExpectSoon({Name(node)}, Without(node));
  kill(cluster_.pid(node), SIGCONT);
  ExpectSoon({}, {1, 2, 3});
  EXPECT_EQ(cluster_.LinesOf(node, "the view went on without this node"), 1u);
}

TEST_F(MembershipTest, WithoutAMajorityOfTheAnchorsNobodyHasALease) {
  cluster_.StartAll();
  AwaitAll();
  cluster_.Kill(2);
  cluster_.Kill(3);
  const Stopwatch since;
  EXPECT_TRUE(Eventually([&] { return !Of(1)["has_lease"].get<bool>(); }));
  EXPECT_LT(since.Seconds(), kTruthS + kSlackS);
  EXPECT_THAT(FirstLineOf(1), StartsWith("NO QUORUM"));
  cluster_.Start(2);
  ExpectSoon({"node-3"}, {1, 2});
}

// Three votes of five: with the one that has them a node alone serves, and two others without it do not.
TEST_F(MembershipTest, VotesWeighAsTheOperatorSays) {
  cluster_.StartAll();
  AwaitAll();
  const Output set = RunProgram({"mangrove", "--socket", cluster_.socket(2), "node", "set", "node-1", "--votes", "3"});
  ASSERT_EQ(set.exit_code, 0) << set.err;
  ASSERT_TRUE(Eventually([&] {
    return Says(1, [](const json& m) {
      return m["anchor"].is_object() && m["anchor"]["votes_settled"] == true && m["anchor"]["votes"]["node-1"] == 3;
    });
  }));
  cluster_.Kill(1);
  EXPECT_TRUE(Eventually([&] { return Says(2, [](const json& m) { return !m["has_lease"]; }); }));
  EXPECT_THAT(FirstLineOf(3), StartsWith("NO QUORUM"));
  cluster_.Start(1);
  AwaitAll();
  cluster_.Kill(2);
  cluster_.Kill(3);
  ExpectSoon({"node-2", "node-3"}, {1});
}

TEST_F(MembershipTest, TheFirstStartNeedsEveryAnchorAndALaterOneNeedsAMajority) {
  cluster_.Start(1);
  cluster_.Start(2);
  ASSERT_TRUE(Eventually([&] {
    return Says(1, [](const json& m) { return m["awaited_anchors"] == Names{"node-3"}; });
  })) << FirstLineOf(1);
  EXPECT_THAT(FirstLineOf(1), HasSubstr("node-3 did not answer yet"));
  EXPECT_FALSE(Of(1)["has_lease"].get<bool>());
  cluster_.Start(3);
  AwaitAll();
  cluster_.KillAll();
  cluster_.Start(1);
  cluster_.Start(2);
  EXPECT_TRUE(Eventually([&] { return AllSay({"node-3"}, {1, 2}); })) << FirstLineOf(1);
}

TEST_F(MembershipTest, AnAnchorWithAnotherDiskVotesAgainWhenTheOthersHaveSeenToIt) {
  cluster_.StartAll();
  AwaitAll();
  cluster_.Kill(3);
  std::filesystem::remove_all(cluster_.directory() + "/data-3");
  cluster_.Start(3);
  AwaitAll();
  EXPECT_TRUE(Eventually([&] {
    const json anchor = Of(3)["anchor"];
    return anchor["has_log"].get<bool>() && anchor["standing"] == "full" &&
           anchor["committed"] == Of(1)["anchor"]["committed"];
  })) << Of(3).dump();
  // It took the others for that: with one of them it is a majority again.
  cluster_.Kill(1);
  ExpectSoon({"node-1"}, {2, 3});
}

}  // namespace
}  // namespace mangrove::cluster_test
