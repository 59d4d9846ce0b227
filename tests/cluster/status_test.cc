// What an operator sees of a cluster that has lost something, and what it is set to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "directory/address.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/node_network.h"

namespace mangrove::cluster_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr uint64_t kShownSegments = 64;

std::string Name(int node) { return absl::StrCat("node-", node); }

Output Do(Cluster& cluster, int node, const std::vector<std::string>& words) {
  std::vector<std::string> command{"mangrove", "--socket", cluster.socket(node)};
  command.insert(command.end(), words.begin(), words.end());
  return RunProgram(command);
}

std::string FirstLine(Cluster& cluster, int node) {
  const std::string text = Do(cluster, node, {"status"}).out;
  return text.substr(0, text.find('\n'));
}

// Of three, the two that do not lead the anchors.
std::vector<int> Followers(Cluster& cluster) {
  const std::string leader = cluster.Ask(1, {"status"})["membership"]["leader"];
  std::vector<int> followers;
  for (int node = 1; node <= 3; ++node) {
    if (Name(node) != leader) followers.push_back(node);
  }
  return followers;
}

bool Lists(Cluster& cluster, int node, const char* what, int other) {
  const json names = cluster.Ask(node, {"status"})["membership"][what];
  return std::find(names.begin(), names.end(), Name(other)) != names.end();
}

// The addresses of these pages that are of the region, one of each segment.
std::vector<uint64_t> SegmentsOf(const json& ranges, const Region& region) {
  std::vector<uint64_t> segments;
  const PageId first = PageOf(region.info().address);
  for (const json& range : ranges) {
    const PageId from = PageOf(Take(ParseGlobalAddress(range["address"].get<std::string>())));
    const PageId end = from + range["pages"].get<uint64_t>();
    for (uint64_t i = 0; i < kShownSegments; ++i) {
      const PageId page = first + i * kSegmentPages;
      if (from <= page && page < end) segments.push_back(i);
    }
  }
  return segments;
}

// Each segment an extent of its own, so that what is lost of one says nothing of another.
std::shared_ptr<Region> MakeSegments(Session& session) {
  auto region = Take(session.Reserve({.name = "r", .size_bytes = kShownSegments * kSegmentBytes, .mode = 0600}));
  for (uint64_t i = 0; i < kShownSegments; ++i) {
    EXPECT_TRUE(region->Allocate(i * kSegmentBytes, kSegmentBytes, {}).ok()) << i;
    const uint64_t value = i + 1;
    EXPECT_TRUE(region->Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1))).ok()) << i;
  }
  EXPECT_TRUE(Eventually([&] { return region->Flush(0, kShownSegments * kSegmentBytes).ok(); }));
  return region;
}

absl::StatusOr<uint64_t> WordOfSegment(Region& region, uint64_t segment) {
  uint64_t value = 0;
  const absl::Status read = region.Read(segment * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
  if (!read.ok()) return read;
  return value;
}

// Two of four disks are lost, and with them what both kept; before that the command says so, and does nothing.
// Covers: C06, C08, C10
TEST(StatusOfACluster, NamesWhatIsLostBeforeItIsGivenUpAndAfterwards) {
  Cluster cluster({.nodes = 4});
  cluster.StartAll();
  std::vector<uint64_t> doomed;
  {
    const auto session = cluster.Attach(3);
    const auto region = MakeSegments(*session);
  }
  EXPECT_EQ(cluster.Ask(1, {"status"})["losses"]["pages"], 0);
  cluster.Kill(3);
  ASSERT_TRUE(Eventually([&] { return Lists(cluster, 1, "missing", 3); }));
  EXPECT_THAT(Do(cluster, 1, {"node", "give-up", "node-3"}).out, HasSubstr("nothing would be lost"));
  cluster.Kill(4);
  ASSERT_TRUE(Eventually([&] { return Lists(cluster, 1, "missing", 4); }));

  const auto session = cluster.Attach(1);
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  // Node 4 has all that node 3 had; not the other way round.
  const json third = cluster.Ask(1, {"node", "give-up", "node-3"});
  const json fourth = cluster.Ask(1, {"node", "give-up", "node-4"});
  EXPECT_EQ(third["is_complete"], true);
  EXPECT_EQ(third["no_other_copy"]["pages"], 0);
  EXPECT_EQ(third["copies_away"]["disks"], json::array({"node-4"}));
  EXPECT_EQ(fourth["older_copies"]["disks"], json::array({"node-3"}));
  doomed = SegmentsOf(third["copies_away"]["ranges"], *region);
  EXPECT_FALSE(doomed.empty());
  EXPECT_EQ(doomed, SegmentsOf(fourth["older_copies"]["ranges"], *region));
  EXPECT_FALSE(Lists(cluster, 1, "lost", 3) || Lists(cluster, 1, "lost", 4));

  // What was shown of node 4 is not what is lost with it when node 3 is gone.
  ASSERT_EQ(cluster.GiveUp(1, "node-3").exit_code, 0);
  const Output grown = Do(cluster, 1, {"node", "give-up", "node-4", "--confirm", fourth["confirm"]});
  EXPECT_EQ(grown.exit_code, 1);
  EXPECT_THAT(grown.err, HasSubstr("confirms something else than what would be lost now"));
  EXPECT_THAT(grown.out, HasSubstr("LOST FOR EVER"));
  const Output last = Do(cluster, 1, {"node", "give-up", "node-4"});
  EXPECT_THAT(last.out, AllOf(HasSubstr("LOST FOR EVER"), HasSubstr("mangrove node give-up node-4 --confirm ")));
  EXPECT_EQ(SegmentsOf(cluster.Ask(1, {"node", "give-up", "node-4"})["no_other_copy"]["ranges"], *region), doomed);
  EXPECT_FALSE(Lists(cluster, 1, "lost", 4));
  ASSERT_EQ(cluster.GiveUp(1, "node-4").exit_code, 0);

  const auto lost = [&] { return SegmentsOf(cluster.Ask(2, {"status"})["losses"]["ranges"], *region); };
  EXPECT_TRUE(Eventually([&] { return lost() == doomed; })) << cluster.Ask(2, {"status"})["losses"];
  EXPECT_THAT(Do(cluster, 1, {"status"}).out, HasSubstr("\nPAGES LOST: no disk that is left has "));
  for (uint64_t i = 0; i < kShownSegments; ++i) {
    const bool is_doomed = std::find(doomed.begin(), doomed.end(), i) != doomed.end();
    if (is_doomed) {
      EXPECT_TRUE(Eventually([&] { return absl::IsDataLoss(WordOfSegment(*region, i).status()); })) << i;
    } else {
      EXPECT_TRUE(Eventually([&] { return WordOfSegment(*region, i).ok(); })) << i;
    }
  }
  // What is allocated anew is not lost any more.
  const uint64_t first = doomed.front() * kSegmentBytes;
  ASSERT_TRUE(region->Unallocate(first, kSegmentBytes).ok());
  ASSERT_TRUE(region->Allocate(first, kSegmentBytes, {}).ok());
  doomed.erase(doomed.begin());
  EXPECT_TRUE(Eventually([&] { return lost() == doomed; })) << cluster.Ask(2, {"status"})["losses"];
}

// Covers: C02, C06
TEST(StatusOfACluster, SaysToWhatItIsSetAndGoesByIt) {
  Cluster cluster({.nodes = 4});
  for (int node = 1; node <= 4; ++node) {
    const char* const settings = "[cluster]\nlease_ms = 2000\nreplace_after_s = 10\n";
    cluster.WriteConfig(node, absl::StrReplaceAll(cluster.ConfigText(node), {{"[cluster]\n", settings}}));
  }
  cluster.StartAll();
  const json expected{{"lease_ms", 2000}, {"pulse_ms", 300}, {"replace_after_s", 10}, {"reweigh_after_s", 600}};
  EXPECT_EQ(cluster.Ask(1, {"status"})["timing"], expected);
  EXPECT_GT(cluster.Ask(1, {"status"})["membership"]["lease_left_ms"], 1000);
  const Stopwatch watch;
  cluster.Kill(4);
  EXPECT_TRUE(Eventually([&] { return Lists(cluster, 1, "missing", 4); }));
  EXPECT_GT(watch.Seconds(), 1.2);  // Its lease has ended before; with the usual one that is a second.
  // Others take its place after ten seconds, and what they get is said while they do.
  EXPECT_TRUE(Eventually([&] { return !Lists(cluster, 1, "disks", 4); }, 40));
  EXPECT_GT(watch.Seconds(), 10);
  EXPECT_LT(watch.Seconds(), 40);
}

// Covers: C12
TEST(StatusOfACluster, NodesWithOtherLeasesDoNotTalkAndSayWhy) {
  Cluster cluster({.nodes = 3});
  cluster.WriteConfig(3, absl::StrReplaceAll(cluster.ConfigText(3), {{"[cluster]\n", "[cluster]\nlease_ms = 1500\n"}}));
  cluster.Start(1);
  cluster.Start(2);
  cluster.Start(3);
  EXPECT_TRUE(Eventually([&] {
    return cluster.LinesOf(3, "lease_ms of this node is 1500, of the other one 1000") > 0 ||
           cluster.LinesOf(1, "lease_ms of this node is 1000, of the other one 1500") > 0;
  }));
  // Corrected, it is one of them; the longer leases of before are waited for.
  cluster.Kill(3);
  cluster.WriteConfig(3, cluster.ConfigText(3));
  cluster.Start(3);
  EXPECT_TRUE(
      Eventually([&] { return cluster.LinesOf(3, "leases were 1500 ms long, and are 1000 ms from now on") == 1; }));
  cluster.AwaitConnected();
}

// Covers: C12
TEST(StatusOfACluster, TheCopiesOfItsOwnPagesStayAsManyAsItWasMadeWith) {
  Cluster cluster({.nodes = 3});
  cluster.StartAll();
  cluster.AwaitConnected();
  EXPECT_EQ(cluster.Stop(3), 0);
  const std::string text = cluster.ConfigText(3);
  const auto with = [&](const std::string& lines) { return absl::StrReplaceAll(text, {{"replicas = 2", lines}}); };
  // A node that has taken part does not start with another number, and the change of one setting alone is such a number.
  cluster.WriteConfig(3, with("replicas = 3"));
  cluster.Start(3);
  EXPECT_EQ(cluster.AwaitEnd(3), 1);
  EXPECT_GT(cluster.LinesOf(3, "the cluster keeps its own pages on 2 disks, and this node's configuration says 3"), 0u);
  // A disk that knows nothing of it: the others refuse it.
  ASSERT_GT(std::filesystem::remove_all(cluster.directory() + "/data-3"), 0u);
  cluster.Start(3);
  EXPECT_TRUE(Eventually([&] {
    return cluster.LinesOf(3, "system_replicas of this node is 3, of the other one 2") > 0 ||
           cluster.LinesOf(1, "system_replicas of this node is 2, of the other one 3") > 0;
  }));
  cluster.Kill(3);
  // The default of allocations may be changed.
  cluster.WriteConfig(3, with("replicas = 3\nsystem_replicas = 2"));
  cluster.Start(3);
  cluster.AwaitConnected();
}

// Who comes back and does not reach one of the members, but the leader, is not let in, and is not told that there is no quorum.
// Covers: C02, C04, C11
TEST(StatusOfACluster, WhoIsOutsideSaysThatTheClusterHasItsQuorumAndWhomItDoesNotReach) {
  const auto network = NodeNetwork::Make(3);
  ASSERT_TRUE(network.ok()) << network.status() << ": this test needs root, iproute2 and nftables";
  Cluster cluster({.nodes = 3, .hosts = (*network)->hosts(), .launchers = (*network)->launchers()});
  cluster.StartAll();
  cluster.AwaitConnected();
  const std::vector<int> others = Followers(cluster);
  const int inside = others[0];
  const int outside = others[1];
  const auto first_line = [&](int node) { return FirstLine(cluster, node); };
  cluster.Kill(outside);
  ASSERT_TRUE(Eventually([&] { return Lists(cluster, inside, "missing", outside); }));
  (*network)->Separate({inside}, {outside});
  cluster.Start(outside);
  EXPECT_TRUE(Eventually([&] {
    return testing::Value(first_line(outside),
                          AllOf(StartsWith("THIS NODE IS OUTSIDE: the cluster has its quorum"),
                                HasSubstr("does not reach " + Name(inside)), Not(HasSubstr("NO QUORUM"))));
  })) << first_line(outside);
  EXPECT_THAT(first_line(inside), StartsWith(Name(outside) + " is MISSING"));
  (*network)->Heal(inside);
  cluster.AwaitConnected();
}

// Nothing is sent between them, and nothing but silence says that the cable is cut.
// Covers: C02, C07
TEST(StatusOfACluster, ACableThatIsCutBetweenTwoIdleNodesIsNoticedAndOneOfThemLeaves) {
  const auto network = NodeNetwork::Make(3);
  ASSERT_TRUE(network.ok()) << network.status() << ": this test needs root, iproute2 and nftables";
  Cluster cluster({.nodes = 3, .hosts = (*network)->hosts(), .launchers = (*network)->launchers()});
  cluster.StartAll();
  cluster.AwaitConnected();
  const std::vector<int> others = Followers(cluster);
  const auto first_line = [&](int node) { return FirstLine(cluster, node); };
  const auto says_so = testing::AnyOf(HasSubstr("does not reach"), HasSubstr("is MISSING"), StartsWith("THIS NODE IS"));
  ASSERT_THAT(first_line(others[0]), Not(says_so));
  (*network)->Separate({others[0]}, {others[1]});
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(Eventually([&] { return testing::Value(first_line(others[0]), says_so); })) << first_line(others[0]);
  const std::chrono::duration<double> noticed = std::chrono::steady_clock::now() - began;
  std::cout << "noticed after " << noticed.count() << " s\n";
  EXPECT_LT(noticed.count(), 2 + 4) << "two seconds, and four for a busy machine";
  // One of the two goes on with the leader, and says who is away.
  EXPECT_TRUE(Eventually([&] {
    return Lists(cluster, others[0], "missing", others[1]) || Lists(cluster, others[1], "missing", others[0]);
  }));
  (*network)->Heal(others[0]);
  cluster.AwaitConnected();
}

}  // namespace
}  // namespace mangrove::cluster_test
