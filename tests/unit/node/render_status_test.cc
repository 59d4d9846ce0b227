// What operators read of losses, of the whole cluster's repair, and of a node that is outside; and before a node is given up.
//
// Covers: C04, C06, C08

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "node/commands.h"
#include "node/render.h"

namespace mangrove {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

json Membership() {
  return json::parse(
      R"({"view": 4, "members": ["a", "b"], "missing": [], "joining": [], "behind": [], "disks": ["a", "b"],
    "next_disks": [], "moved": [], "draining": [], "has_lease": true, "leader": "b", "anchors": ["a", "b"],
    "awaited_anchors": [], "is_in_view": true, "hears_leader": true, "unreachable": []})");
}

json StatusWith(json membership) {
  json status{{"replicas", 2}, {"read_only", nullptr}, {"disk_room", nullptr}};
  status["membership"] = std::move(membership);
  status["disk"] = {{"is_behind", false}, {"is_moving", false}};
  return status;
}

std::string Lines(const json& status) {
  const auto text = RenderMembership(status.dump());
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

TEST(RenderStatus, NamesTheFirstLostPagesAndHowManyMore) {
  json status = StatusWith(Membership());
  status["losses"] = {{"pages", 0}, {"ranges", json::array()}, {"pages_not_named", 0}, {"silent", json::array()}};
  EXPECT_EQ(Lines(status), "all 2 nodes are here; view 4, led by b\n");
  json ranges = json::array();
  for (int i = 1; i <= 6; ++i) ranges.push_back({{"address", "0x" + std::to_string(i)}, {"pages", i}});
  status["losses"] = {{"pages", 121}, {"ranges", ranges}, {"pages_not_named", 100}, {"silent", json::array()}};
  EXPECT_THAT(Lines(status),
              HasSubstr("\nPAGES LOST: no disk that is left has 121 pages, 484.0 KiB, that were allocated: "
                        "0x1 (1 page), 0x2 (2 pages), 0x3 (3 pages), 0x4 (4 pages), 111 pages more; "));
}

TEST(RenderStatus, SaysOfWhichDisksLossesAreNotKnown) {
  json status = StatusWith(Membership());
  status["losses"] = {{"pages", 0}, {"ranges", json::array()}, {"pages_not_named", 0}, {"silent", {"b"}}};
  EXPECT_THAT(Lines(status), HasSubstr("whether pages are lost is not known yet of the disks of b\n"));
  status["losses"]["pages"] = 1;
  status["losses"]["ranges"] = json::array({{{"address", "0x200000"}, {"pages", 1}}});
  EXPECT_THAT(Lines(status), HasSubstr("allocated anew; not known yet of the disks of b\n"));
}

TEST(RenderStatus, WhatOnlyGivenUpDisksKeptIsLostBeforeItIsCounted) {
  json status = StatusWith(Membership());
  status["replicas"] = 1;
  status["membership"]["disks"] = {"a", "b", "c"};
  status["membership"]["behind"] = {"c"};
  status["membership"]["lost"] = {"c"};
  EXPECT_THAT(Lines(status), HasSubstr("PAGES LOST: what only c kept"));
  status["replicas"] = 2;
  EXPECT_THAT(Lines(status), Not(HasSubstr("PAGES LOST")));
}

TEST(RenderStatus, AnEarlierDaemonSaysNothingOfLossesNorOfTheWholeRepair) {
  EXPECT_EQ(Lines(StatusWith(Membership())), "all 2 nodes are here; view 4, led by b\n");
}

TEST(RenderStatus, SumsUpTheRepairOfAllDisks) {
  json status = StatusWith(Membership());
  status["repair"] = json::parse(R"({"disks": [{"name": "a"}, {"name": "b"}], "silent": [], "pages_copied": 70,
    "pages_left": 1000, "compared_pages_per_second": 50, "copied_bytes_per_second": 8192, "seconds_left": 20})");
  EXPECT_THAT(Lines(status),
              HasSubstr("\nof the whole cluster 2 disks get pages: about 1000 pages left to compare, 70 copied, "
                        "50 pages/s compared, 8.0 KiB/s copied, time left: about 20 s\n"));
  status["repair"] = json::parse(R"({"disks": [{"name": "a"}], "silent": ["c"], "pages_copied": 0})");
  EXPECT_THAT(Lines(status),
              HasSubstr("\nof the whole cluster 1 disk gets pages: an unknown number left to compare, 0 copied, "
                        "time left: unknown; without c, which did not answer in time\n"));
}

TEST(RenderStatus, WhoHearsTheLeaderAndHasNoLeaseIsOutsideAndTheQuorumStands) {
  json outside = Membership();
  outside["has_lease"] = false;
  outside["is_in_view"] = false;
  outside["unreachable"] = json::array({"a", "c"});
  EXPECT_THAT(
      Lines(StatusWith(outside)),
      AllOf(StartsWith("THIS NODE IS OUTSIDE: the cluster has its quorum, led by b; this node does not reach a, c, "),
            Not(HasSubstr("NO QUORUM"))));
  outside["unreachable"] = json::array();
  EXPECT_THAT(Lines(StatusWith(outside)), HasSubstr("led by b; this node is about to join; if that stays so"));
  outside["is_in_view"] = true;
  EXPECT_THAT(Lines(StatusWith(outside)), HasSubstr("led by b; this node has no lease just now; if that stays so"));
  outside["hears_leader"] = false;
  EXPECT_THAT(Lines(StatusWith(outside)), StartsWith("NO QUORUM as far as this node knows"));
}

TEST(RenderStatus, AMemberSaysWhomItDoesNotReach) {
  json cut = Membership();
  cut["unreachable"] = json::array({"b"});
  EXPECT_EQ(Lines(StatusWith(cut)), "all 2 nodes are here; this node does not reach b; view 4, led by b\n");
}

// --- Before a node is given up ----------------------------------------------------------------------------------------

class GiveUp : public testing::Test {
 protected:
  int Run(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    const auto inspect = [this](const AttachOptions&, const std::string& what, const std::string& argument) {
      asked_ = what + ": " + argument;
      return absl::StatusOr<std::string>(answer_.dump());
    };
    return RunCommand(arguments, {inspect, nullptr, out_, err_, [] { return false; }, ""});
  }
  static json Pages(uint64_t pages, const json& disks = json::array()) {
    json ranges = json::array();
    if (pages > 0) ranges.push_back({{"address", "0x200000"}, {"pages", pages}});
    return {{"pages", pages}, {"bytes", pages * 4096}, {"ranges", ranges}, {"pages_not_named", 0}, {"disks", disks}};
  }

  json answer_{{"node", 3},
               {"name", "n3"},
               {"is_given_up", false},
               {"is_complete", true},
               {"current_disks", json::array({"n1"})},
               {"kept_pages", 700},
               {"no_other_copy", Pages(0)},
               {"older_copies", Pages(0)},
               {"not_known", Pages(0)},
               {"copies_away", Pages(0)},
               {"confirm", "12ab"}};
  std::string asked_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(GiveUp, IsDoneOnlyWhenWhatWasShownIsConfirmed) {
  EXPECT_EQ(Run({"node", "give-up", "n3"}), kExitDone);
  EXPECT_EQ(asked_, "give up node: n3");
  EXPECT_THAT(out_.str(),
              AllOf(StartsWith("nothing is done yet. The disk of n3 keeps 700 pages"),
                    HasSubstr("nothing would be lost"), HasSubstr("\n  mangrove node give-up n3 --confirm 12ab\n")));
  EXPECT_EQ(Run({"node", "drain", "n3", "--confirm", "n3"}), kExitUsage);
  answer_ = StatusWith(Membership());
  EXPECT_EQ(Run({"node", "give-up", "n3", "--confirm", "12ab"}), kExitDone) << err_.str();
  EXPECT_EQ(asked_, "give up node: n3 confirmed 12ab");
  EXPECT_THAT(out_.str(), StartsWith("all 2 nodes are here"));
}

TEST_F(GiveUp, IsRefusedWithWhatWouldBeLostNowIfSomethingElseWasConfirmed) {
  answer_["refused"] = "something else";
  answer_["no_other_copy"] = Pages(512);
  EXPECT_EQ(Run({"node", "give-up", "n3", "--confirm", "99"}), kExitFailed);
  EXPECT_THAT(out_.str(), AllOf(StartsWith("nothing is done yet."), HasSubstr("LOST FOR EVER"), HasSubstr("12ab")));
  EXPECT_THAT(err_.str(), HasSubstr("something else"));
  EXPECT_EQ(Run({"node", "give-up", "n3", "--confirm", "99", "--json"}), kExitFailed);
  EXPECT_EQ(json::parse(out_.str())["confirm"], "12ab");
}

TEST_F(GiveUp, SaysWhatWouldBeLostAndWhoHasTheRest) {
  answer_["no_other_copy"] = Pages(512);
  answer_["older_copies"] = Pages(2, json::array({"n4"}));
  answer_["not_known"] = Pages(3, json::array({"n7"}));
  answer_["copies_away"] = Pages(1, json::array({"n5", "n6"}));
  EXPECT_EQ(Run({"node", "give-up", "n3"}), kExitDone);
  EXPECT_THAT(
      out_.str(),
      AllOf(
          HasSubstr("\nLOST FOR EVER, as no disk that is left has them: 512 pages, 2.0 MiB:\n  0x200000 (512 pages)\n"),
          HasSubstr("\nBACK TO AN OLDER STATE, as n4 fell behind before n3 was away: 2 pages, 8.0 KiB:\n"),
          HasSubstr("\nNOT KNOWN, as no disk that counts has them, and what that of n7 has is not known"),
          HasSubstr("\nkept only by n5, n6, which have to come back and catch up: 1 page, 4.0 KiB:\n"),
          Not(HasSubstr("nothing would be lost"))));
}

TEST_F(GiveUp, ANodeThatDoesNotKnowSaysWhoDoes) {
  answer_["is_complete"] = false;
  EXPECT_EQ(Run({"node", "give-up", "n3"}), kExitDone);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("\nTHIS NODE DOES NOT KNOW"), HasSubstr("ask one of n1\n"),
                                Not(HasSubstr("nothing would be lost")), Not(HasSubstr("--confirm"))));
}

}  // namespace
}  // namespace mangrove
