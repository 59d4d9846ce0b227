// A cluster that begins as one node, and grows while it is used: tokens, votes, addresses.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kJoinedPages = 64;

class Joining : public testing::Test {
 protected:
  nlohmann::json Membership(int node) { return cluster_.Ask(node, {"status"})["membership"]; }
  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }
  // All serve, in one view of so many, and what is to be kept is where it is to be.
  void AwaitWhole(const std::vector<int>& nodes) {
    for (int node : nodes) {
      EXPECT_TRUE(Eventually([&] {
        const nlohmann::json status = cluster_.Ask(node, {"status"});
        const nlohmann::json& membership = status["membership"];
        return status["ready"].get<bool>() && membership["members"].size() == nodes.size() &&
               membership["disks"].size() == nodes.size() && membership["next_disks"].empty() &&
               membership["behind"].empty();
      })) << cluster_.Ask(node, {"status"}).dump(1);
    }
  }
  void FoundFirst() {
    const Output made = cluster_.Found(1);
    ASSERT_EQ(made.exit_code, 0) << made.err;
    StartAndAwait(1);
    AwaitWhole({1});
  }
  void StartAndAwait(int node) {
    cluster_.Start(node);
    EXPECT_TRUE(Eventually([&] { return Do(node, {"status"}).exit_code == 0; })) << node;
  }
  void JoinAndStart(int node, int via, const std::vector<std::string>& flags = {}) {
    const Output joined = cluster_.Join(node, via, flags);
    ASSERT_EQ(joined.exit_code, 0) << joined.err;
    StartAndAwait(node);
  }
  uint64_t VotesOf(int node, const std::string& name) {
    for (const nlohmann::json& other : cluster_.Ask(node, {"node", "list"})) {
      if (other["name"] == name) return other["votes"].get<uint64_t>();
    }
    return 0;
  }
  static void WriteAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kJoinedPages; ++i) {
      const uint64_t value = i + plus;
      ASSERT_TRUE(region.Write(i * kPageBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    ASSERT_TRUE(Eventually([&] { return region.Flush(0, kJoinedPages * kPageBytes).ok(); }));
  }
  static void ExpectAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kJoinedPages; ++i) {
      uint64_t value = 0;
      EXPECT_TRUE(Eventually([&] {
        return region.Read(i * kPageBytes, std::as_writable_bytes(std::span(&value, 1))).ok();
      })) << i;
      EXPECT_EQ(value, i + plus) << i;
    }
  }

  Cluster cluster_{{.nodes = 4}};
};

// Covers: C08, C03
TEST_F(Joining, AClusterGrowsFromOneNodeAndOutlivesIt) {
  FoundFirst();
  EXPECT_THAT(Do(1, {"status"}).out, HasSubstr("TOO FEW NODES: pages are to be on 2 disks, and 1 node keeps pages"));
  {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "data", kJoinedPages * kPageBytes);
    WriteAll(*region, 100);
    // While it is used.
    for (int node : {2, 3}) {
      JoinAndStart(node, node - 1, {"--anchor"});
      WriteAll(*region, 100 + static_cast<uint64_t>(node));
    }
  }
  AwaitWhole({1, 2, 3});
  EXPECT_EQ(Membership(3)["anchors"].size(), 3u);
  EXPECT_THAT(Do(1, {"status"}).out, testing::Not(HasSubstr("TOO FEW NODES")));
  // Each page has two copies now, and the anchors are three: whichever goes, the others go on.
  cluster_.Kill(1);
  const auto session = cluster_.Attach(3, 10'000);
  const auto region = Take(session->Open("data", AccessMode::kWrite));
  ExpectAll(*region, 103);
  WriteAll(*region, 500);
  // It knows the others, though its configuration does not.
  StartAndAwait(1);
  AwaitWhole({1, 2, 3});
  const auto again = cluster_.Attach(1);
  ExpectAll(*Take(again->Open("data", AccessMode::kRead)), 500);
}

// Covers: C01, G13
TEST_F(Joining, NodesJoinIntoGroupsWithinGroupsAndCopiesAreInDifferentOnesOfTheHighestLevel) {
  FoundFirst();
  JoinAndStart(2, 1, {"--group", "2/5"});
  JoinAndStart(3, 1, {"--group", "2/6"});
  AwaitWhole({1, 2, 3});
  const uint64_t second = (2 * 64 + 5) * 64;
  EXPECT_EQ(Do(3, {"group", "show"}).out,
            absl::StrCat("group 0: 1 node, 1 here\n  group 0/0: 1 node, 1 here: node-1 (1)\n"
                         "group 2: 2 nodes, 2 here\n  group 2/5: 1 node, 1 here: node-2 (",
                         second, ")\n  group 2/6: 1 node, 1 here: node-3 (", second + 64, ")\n"));
  EXPECT_THAT(Do(1, {"group", "list"}).out, HasSubstr("  2/6 "));
  EXPECT_THAT(cluster_.Join(4, 1, {"--group", "2/64"}).err, HasSubstr("the group is \"2/64\", expected"));
  const auto session = cluster_.Attach(1, 10'000);
  const auto region = MakeRegion(*session, "data", 8 * kSegmentPages * kPageBytes);
  for (uint64_t segment = 0; segment < 8; ++segment) {
    const PageId page = PageOf(region->info().address) + segment * kSegmentPages;
    const auto holders = cluster_.Ask(2, {"page", "show", ToString(AddressOf(page))})["core_holders"];
    EXPECT_EQ(holders.size(), 2u);
    EXPECT_EQ(std::count(holders.begin(), holders.end(), "node-1"), 1) << holders;
  }
}

// Covers: C13
TEST_F(Joining, ATokenWhoseTimeIsOverIsRefusedAndChangesNothing) {
  FoundFirst();
  const std::string token = cluster_.Ask(1, {"node", "token", "--valid", "1"})["token"].get<std::string>();
  ASSERT_TRUE(Eventually([&] { return cluster_.LinesOf(1, "the time of the token") == 1; }));
  const Output late = RunProgram({"mangrove", "node", "join", token, "--name", "node-2", "--address",
                                  absl::StrCat("127.0.0.1:", cluster_.port(2)), "--dir",
                                  absl::StrCat(cluster_.directory(), "/by-hand-2"), "--timeout", "5"});
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_THAT(late.err, HasSubstr("token"));
  EXPECT_FALSE(std::filesystem::exists(cluster_.directory() + "/by-hand-2/cluster.key"));
  EXPECT_TRUE(Membership(1)["joining"].empty());
  EXPECT_EQ(cluster_.LinesOf(1, "wants to join"), 0u);
  // Another one is good.
  EXPECT_EQ(cluster_.Join(2, 1).exit_code, 0);
}

// Covers: C08, C13
TEST_F(Joining, ATokenIsGoodOnce) {
  FoundFirst();
  const std::string token = cluster_.NewToken(1);
  const auto join = [&](const std::string& with, int node) {
    return RunProgram({"mangrove", "node", "join", with, "--name", absl::StrCat("node-", node), "--address",
                       absl::StrCat("127.0.0.1:", cluster_.port(node)), "--dir",
                       absl::StrCat(cluster_.directory(), "/by-hand-", node), "--timeout", "5"});
  };
  const Output first = join(token, 2);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  struct stat key {};
  ASSERT_EQ(stat(absl::StrCat(cluster_.directory(), "/by-hand-2/cluster.key").c_str(), &key), 0);
  EXPECT_EQ(key.st_mode & 0777, 0600u);
  const Output second = join(token, 3);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("token"));
  EXPECT_THAT(join("mgt1.rubbish", 3).err, HasSubstr("token"));
  // A name and an address are one node's.
  const std::string another = cluster_.NewToken(1);
  const Output taken =
      RunProgram({"mangrove", "node", "join", another, "--name", "node-2", "--address",
                  absl::StrCat("127.0.0.1:", cluster_.port(3)), "--dir", cluster_.directory() + "/by-hand-3"});
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_THAT(taken.err, HasSubstr("there is a node called node-2 already"));
  // Nor is a node that runs joined a second time, from another place.
  const Output twice =
      RunProgram({"mangrove", "node", "join", another, "--name", "node-1", "--address",
                  absl::StrCat("127.0.0.1:", cluster_.port(1)), "--dir", cluster_.directory() + "/by-hand-3"});
  EXPECT_THAT(twice.err, HasSubstr("there is a node called node-1 already"));
  // What is there is not written over.
  EXPECT_THAT(join(another, 2).err, HasSubstr("this machine has a node there already"));
  // Who is admitted and never comes is seen, and can be given up.
  EXPECT_THAT(Do(1, {"status"}).out, HasSubstr("node-2 may join: start its daemon"));
  EXPECT_EQ(cluster_.GiveUp(1, "node-2").exit_code, 0);
  EXPECT_TRUE(Eventually([&] { return Membership(1)["joining"].empty(); }));
  // Its name is free again, its number is not.
  const Output after = join(another, 3);
  ASSERT_EQ(after.exit_code, 0) << after.err;
  EXPECT_THAT(after.out, HasSubstr("as node 3"));
}

// Covers: C04, C08
TEST_F(Joining, VotesMoveFromNodeToNode) {
  FoundFirst();
  JoinAndStart(2, 1);
  JoinAndStart(3, 1);
  AwaitWhole({1, 2, 3});
  EXPECT_THAT(Do(1, {"node", "set", "node-1", "--votes", "0"}).err, HasSubstr("last anchor"));
  for (const char* node : {"node-2", "node-3"}) {
    EXPECT_EQ(Do(2, {"node", "set", node, "--votes", "1"}).exit_code, 0);
  }
  EXPECT_TRUE(Eventually([&] { return VotesOf(1, "node-2") == 1 && VotesOf(1, "node-3") == 1; }));
  EXPECT_TRUE(Eventually([&] { return Membership(3)["anchor"].is_object(); }));
  // The first node goes for good, and with it the last that the first configuration has named.
  EXPECT_EQ(Do(2, {"node", "drain", "node-1"}).exit_code, 0);
  EXPECT_EQ(cluster_.AwaitEnd(1), 0);
  AwaitWhole({2, 3});
  EXPECT_EQ(Membership(2)["anchors"].size(), 2u);
  // After a stop of everything they find each other, and agree.
  cluster_.StopAll();
  for (int node : {2, 3}) cluster_.Start(node);
  for (int node : {2, 3}) EXPECT_TRUE(Eventually([&] { return Do(node, {"status"}).exit_code == 0; })) << node;
  AwaitWhole({2, 3});
  JoinAndStart(4, 3, {"--anchor"});
  AwaitWhole({2, 3, 4});
}

// Covers: C08
TEST_F(Joining, ANodeMovesToAnotherAddress) {
  FoundFirst();
  JoinAndStart(2, 1);
  AwaitWhole({1, 2});
  EXPECT_THAT(Do(1, {"node", "set", "node-2", "--address", "nowhere"}).err, HasSubstr("host:port"));
  EXPECT_THAT(Do(1, {"node", "set", "node-2", "--address", absl::StrCat("127.0.0.1:", cluster_.port(1))}).err,
              HasSubstr("node-1 is at"));
  EXPECT_THAT(Do(1, {"node", "set", "node-9", "--votes", "1"}).err, HasSubstr("no node of the cluster is called"));
  const std::string moved = absl::StrCat("127.0.0.1:", cluster_.port(3));
  EXPECT_EQ(Do(1, {"node", "set", "node-2", "--address", moved}).exit_code, 0);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(2, "where the others look for it at") == 1; }));
  cluster_.Stop(2);
  const std::string path = cluster_.config(2);
  ASSERT_EQ(
      RunProgram({"/bin/sed", "-i", absl::StrCat("s/127.0.0.1:", cluster_.port(2), "/", moved, "/"), path}).exit_code,
      0);
  StartAndAwait(2);
  AwaitWhole({1, 2});
  EXPECT_EQ(cluster_.PeerOf(1, "node-2")["address"], moved);
}

}  // namespace
}  // namespace mangrove::cluster_test
