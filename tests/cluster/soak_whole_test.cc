// When a soak run takes its nodes to be whole, by what they say.

#include "tests/cluster/soak_whole.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

using nlohmann::json;

constexpr int kNodes = 4;
constexpr int kAnchors = 3;

// What node-1 to node-4 say when all is well; the first three are anchors.
std::vector<json> AllIsWell() {
  const json nodes{"node-1", "node-2", "node-3", "node-4"};
  const json none = json::array();
  std::vector<json> statuses;
  for (int node = 1; node <= kNodes; ++node) {
    json anchor = nullptr;
    if (node <= kAnchors) {
      anchor = {{"has_log", true},
                {"votes", {{"node-1", 1}, {"node-2", 1}, {"node-3", 1}}},
                {"votes_settled", true},
                {"standing", "full"}};
    }
    statuses.push_back({{"ready", true},
                        {"membership",
                         {{"view", 7},
                          {"is_in_view", true},
                          {"has_lease", true},
                          {"members", nodes},
                          {"disks", nodes},
                          {"missing", none},
                          {"joining", none},
                          {"behind", none},
                          {"unreachable", none},
                          {"next_disks", none},
                          {"draining", none},
                          {"lost", none},
                          {"awaited_anchors", none},
                          {"anchor", anchor}}}});
  }
  return statuses;
}

std::string LacksWith(int node, const std::string& pointer, const json& value) {
  std::vector<json> statuses = AllIsWell();
  statuses[static_cast<size_t>(node) - 1][json::json_pointer(pointer)] = value;
  return LookAtStatuses(statuses, kAnchors).lacks;
}

TEST(SoakWhole, NothingLacksWhereAllNodesSayThatAllIsWellInTheSameView) {
  const WholeLook look = LookAtStatuses(AllIsWell(), kAnchors);
  EXPECT_EQ(look.lacks, "");
  EXPECT_EQ(look.view, 7u);
}

TEST(SoakWhole, WhatOneNodeSaysIsEnoughNotToBeWhole) {
  const json one{"node-2"};
  EXPECT_EQ(LacksWith(4, "/ready", false), "node-4 is not ready");
  EXPECT_EQ(LacksWith(4, "/membership/is_in_view", false), "node-4 is not in the view that it knows");
  EXPECT_EQ(LacksWith(4, "/membership/has_lease", false), "node-4 has no lease");
  for (const std::string what :
       {"missing", "joining", "behind", "unreachable", "next_disks", "draining", "lost", "awaited_anchors"}) {
    EXPECT_EQ(LacksWith(3, "/membership/" + what, one), absl::StrCat("node-3 says ", what, ": [\"node-2\"]"));
  }
  for (const std::string what : {"members", "disks"}) {
    EXPECT_EQ(LacksWith(3, "/membership/" + what, one),
              absl::StrCat("node-3 says ", what, ": [\"node-2\"], expected 4"));
  }
  EXPECT_EQ(LacksWith(2, "/membership/view", 8), "node-2 is in view 8, and node-1 in 7");
  std::vector<json> statuses = AllIsWell();
  statuses[1] = json::object();
  EXPECT_EQ(LookAtStatuses(statuses, kAnchors).lacks, "node-2 does not answer");
}

TEST(SoakWhole, EachAnchorHasTheVotesOfAllAnchorsInItsLog) {
  EXPECT_EQ(LacksWith(2, "/membership/anchor", nullptr), "node-2 has no log of the anchors");
  EXPECT_EQ(LacksWith(2, "/membership/anchor/has_log", false), "node-2 has no log of the anchors");
  EXPECT_EQ(LacksWith(2, "/membership/anchor/votes", {{"node-1", 1}, {"node-3", 1}}),
            "node-2 has other votes in its log than one of each anchor: {\"node-1\":1,\"node-3\":1}");
  EXPECT_NE(LacksWith(2, "/membership/anchor/votes/node-1", 2), "");
  EXPECT_EQ(LacksWith(2, "/membership/anchor/votes_settled", false), "node-2 says that votes are about to change");
  EXPECT_EQ(LacksWith(2, "/membership/anchor/standing", "waits for votes"), "node-2 is an anchor that waits for votes");
}

TEST(SoakWhole, OnlyWhatStandsForLongEnoughInOneViewIsWhole) {
  const WholeLook whole{.lacks = "", .view = 7};
  WholeWatch watch(1.1);
  EXPECT_FALSE(watch.Add(5.0, whole));
  EXPECT_FALSE(watch.Add(6.0, whole));
  EXPECT_TRUE(watch.Add(6.2, whole));
  EXPECT_EQ(watch.since_s(), 5.0);
  // Another view begins it anew, and so does what lacks.
  EXPECT_FALSE(watch.Add(6.3, {.lacks = "", .view = 8}));
  EXPECT_FALSE(watch.Add(7.3, {.lacks = "", .view = 8}));
  EXPECT_FALSE(watch.Add(7.5, {.lacks = "node-1 has no lease"}));
  EXPECT_FALSE(watch.Add(7.6, {.lacks = "", .view = 8}));
  EXPECT_FALSE(watch.Add(8.6, {.lacks = "", .view = 8}));
  EXPECT_TRUE(watch.Add(8.8, {.lacks = "", .view = 8}));
  EXPECT_EQ(watch.since_s(), 7.6);
}

}  // namespace
}  // namespace mangrove::cluster_test
