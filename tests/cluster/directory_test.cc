// Which node is responsible for which segment, as operators see it.
// Covers: G06, G07, G13

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr uint64_t kListedSegments = 12;

class Directories : public testing::Test {
 protected:
  // What `node` shows of each segment of the region.
  std::vector<std::string> ResponsibleNodes(int node, GlobalAddress region) {
    std::vector<std::string> names;
    for (uint64_t i = 0; i < kListedSegments; ++i) {
      const auto at = cluster_.Ask(node, {"directory", "show", ToString(region + i * kSegmentBytes + 8)});
      names.push_back(at["run"].is_null() ? "nobody" : at["run"]["responsible"].get<std::string>());
    }
    return names;
  }

  Cluster cluster_;
};

TEST_F(Directories, TheDirectoryNamesWhoFirstTouchedASegmentAlsoAfterThatNodeWasKilled) {
  cluster_.StartAll();
  GlobalAddress address;
  std::vector<std::string> toucher;
  {
    std::map<int, std::shared_ptr<Session>> sessions;
    for (int node = 1; node <= 3; ++node) sessions[node] = cluster_.Attach(node);
    std::map<int, std::shared_ptr<Region>> regions;
    regions[1] = MakeRegion(*sessions[1], "r", kListedSegments * kSegmentBytes);
    for (int node = 2; node <= 3; ++node) regions[node] = Take(sessions[node]->Open("r", AccessMode::kWrite));
    address = regions[1]->info().address;
    for (const std::string& name : ResponsibleNodes(1, address)) EXPECT_EQ(name, "nobody");

    for (uint64_t i = 0; i < kListedSegments; ++i) {
      const int node = 1 + static_cast<int>(i % 3);
      toucher.push_back(absl::StrCat("node-", node));
      const uint64_t value = 100 + i;
      const absl::Status written = regions[node]->Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1)));
      ASSERT_TRUE(written.ok()) << written;
      ASSERT_TRUE(regions[node]->Flush(i * kSegmentBytes, kPageBytes).ok());
    }
    // Everybody holds a page of each.
    for (uint64_t i = 0; i < kListedSegments; ++i) {
      for (auto& [node, region] : regions) {
        uint64_t value = 0;
        ASSERT_TRUE(region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1))).ok());
        EXPECT_EQ(value, 100 + i);
      }
    }
  }
  for (int node = 1; node <= 3; ++node) EXPECT_EQ(ResponsibleNodes(node, address), toucher);

  const auto whole = cluster_.Ask(2, {"directory", "show"});
  EXPECT_GE(whole["segments"].get<uint64_t>(), kListedSegments);
  EXPECT_EQ(whole["nodes"].size(), 3u);
  const Output text = RunProgram({"mangrove", "--socket", cluster_.socket(3), "directory", "show"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr(absl::StrCat(ToString(address), "         1  node-1")));
  const Output at = RunProgram({"mangrove", "--socket", cluster_.socket(3), "directory", "show", ToString(address)});
  EXPECT_THAT(at.out, StartsWith(absl::StrCat("node-1 is responsible for ", ToString(address))));

  for (const int killed : {2, 1}) {
    cluster_.Kill(killed);
    cluster_.Start(killed);
    cluster_.AwaitConnected();
    for (int node = 1; node <= 3; ++node) EXPECT_EQ(ResponsibleNodes(node, address), toucher) << killed;
    const auto session = cluster_.Attach(killed);
    const auto region = Take(session->Open("r", AccessMode::kRead));
    for (uint64_t i = 0; i < kListedSegments; ++i) {
      uint64_t value = 0;
      const absl::Status read = region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
      EXPECT_TRUE(read.ok()) << read;
      EXPECT_EQ(value, 100 + i);
    }
  }
}

TEST_F(Directories, ASegmentGoesToTheNodeThatUsesItAndEachMayDieThen) {
  cluster_.StartAll();
  GlobalAddress address;
  {
    const auto maker = cluster_.Attach(1);
    const auto made = MakeRegion(*maker, "r", kListedSegments * kSegmentBytes);
    address = made->info().address;
    const auto session = cluster_.Attach(2);
    const auto region = Take(session->Open("r", AccessMode::kWrite));
    for (uint64_t i = 0; i < kSegmentPages; ++i) {
      ASSERT_TRUE(made->Write(i * kPageBytes, std::as_bytes(std::span(&i, 1))).ok());
    }
    ASSERT_EQ(ResponsibleNodes(3, address).front(), "node-1");
    // In no order, so that each is a miss.
    for (uint64_t i = 0; i < kSegmentPages; ++i) {
      const uint64_t page = i * 197 % kSegmentPages;
      uint64_t value = 0;
      ASSERT_TRUE(region->Read(page * kPageBytes, std::as_writable_bytes(std::span(&value, 1))).ok());
      ASSERT_EQ(value, page);
      value = page + 1000;
      ASSERT_TRUE(region->Write(page * kPageBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    for (int node = 1; node <= 3; ++node) EXPECT_EQ(ResponsibleNodes(node, address).front(), "node-2");
    EXPECT_EQ(cluster_.Ask(2, {"status"})["counters"]["segments_taken"].get<uint64_t>(), 1u);
    ASSERT_TRUE(region->Flush(0, kSegmentBytes).ok());
  }
  for (const int killed : {1, 2, 3}) {
    cluster_.Kill(killed);
    cluster_.Start(killed);
    cluster_.AwaitConnected();
    const auto session = cluster_.Attach(1 + killed % 3);
    const auto region = Take(session->Open("r", AccessMode::kRead));
    for (uint64_t i = 0; i < kSegmentPages; ++i) {
      uint64_t value = 0;
      const absl::Status read = region->Read(i * kPageBytes, std::as_writable_bytes(std::span(&value, 1)));
      ASSERT_TRUE(read.ok()) << read;
      ASSERT_EQ(value, i + 1000) << killed;
    }
  }
}

// Nodes 1 and 2 are of one group, 3 and 4 of another.
class DirectoriesOfTwoGroups : public testing::Test {
 protected:
  // The pages of a segment, each for the first time, by these nodes in turn; in no order, so that each is a miss.
  void ReadByTurns(const std::vector<int>& nodes, uint64_t segment) {
    std::vector<std::shared_ptr<Session>> sessions;
    std::vector<std::shared_ptr<Region>> regions;
    for (const int node : nodes) {
      sessions.push_back(cluster_.Attach(node));
      regions.push_back(Take(sessions.back()->Open("r", AccessMode::kRead)));
    }
    for (uint64_t i = 0; i < kSegmentPages; ++i) {
      const uint64_t page = i * 197 % kSegmentPages;
      const auto word = Word(*regions[i % regions.size()], segment * kSegmentBytes + page * kPageBytes);
      ASSERT_TRUE(word.ok()) << word.status();
      ASSERT_EQ(*word, page);
    }
  }
  std::string ResponsibleFor(GlobalAddress address) {
    return cluster_.Ask(2, {"directory", "show", ToString(address)})["run"]["responsible"].get<std::string>();
  }

  Cluster cluster_{{.nodes = 4, .ids = {1, 2, 65, 66}}};
};

// To the one that uses it most, or to one of a group whose nodes together do.
TEST_F(DirectoriesOfTwoGroups, ASegmentGoesToTheNodeThatUsesItOrToItsGroup) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", 2 * kSegmentBytes);
  const GlobalAddress address = region->info().address;
  for (uint64_t page = 0; page < 2 * kSegmentPages; ++page) {
    ASSERT_TRUE(SetWord(*region, page * kPageBytes, page % kSegmentPages).ok());
  }
  ASSERT_EQ(ResponsibleFor(address), "node-1");
  ASSERT_EQ(ResponsibleFor(address + kSegmentBytes), "node-1");
  ReadByTurns({4}, 0);
  EXPECT_EQ(ResponsibleFor(address), "node-4");
  ReadByTurns({3, 4}, 1);
  EXPECT_THAT(ResponsibleFor(address + kSegmentBytes), testing::AnyOf("node-3", "node-4"));
  for (const uint64_t segment : {0, 1}) {
    for (int node = 1; node <= 4; ++node) {
      const auto opened = Take(cluster_.Attach(node)->Open("r", AccessMode::kRead));
      EXPECT_EQ(Take(Word(*opened, segment * kSegmentBytes + 7 * kPageBytes)), 7u);
    }
  }
}

// Two nodes use segments by turns, so that none is of one run with the next: they do not fit into one page.
class LargeDirectory : public testing::Test {
 protected:
  static constexpr uint64_t kMany = 140;  // A leaf holds 125 runs (docs/DIRECTORY.md).

  void Make() {
    cluster_.StartAll();
    session_ = cluster_.Attach(1, 10'000);
    region_ = MakeRegion(*session_, "r", kMany * kSegmentBytes);
    const auto second = cluster_.Attach(2);
    const auto other = Take(second->Open("r", AccessMode::kWrite));
    for (uint64_t i = 0; i < kMany; ++i) {
      ASSERT_TRUE(SetWord(i % 2 == 0 ? *region_ : *other, i * kSegmentBytes, 100 + i).ok()) << i;
    }
    ASSERT_TRUE(other->Flush(0, kMany * kSegmentBytes).ok());
  }
  // What node 3 shows of some of the segments.
  nlohmann::json At(uint64_t segment) {
    return cluster_.Ask(3, {"directory", "show", ToString(region_->info().address + segment * kSegmentBytes)});
  }
  uint64_t SegmentsOf(const nlohmann::json& whole, const std::string& name) {
    for (const nlohmann::json& node : whole["nodes"]) {
      if (node["name"] == name) return node["segments"].get<uint64_t>();
    }
    return 0;
  }

  Cluster cluster_;
  std::shared_ptr<Session> session_;
  std::shared_ptr<Region> region_;
};

TEST_F(LargeDirectory, SplitsAndEachLookupIsRightAlsoWithoutANodeThatWasKilled) {
  ASSERT_NO_FATAL_FAILURE(Make());
  const auto whole = cluster_.Ask(3, {"directory", "show"});
  EXPECT_EQ(whole["root"]["level"], 1) << whole;
  ASSERT_EQ(whole["pages"].size(), 2u) << whole;
  EXPECT_GE(whole["pages"][0], 2);  // Leaves.
  EXPECT_GE(whole["runs"], kMany);
  EXPECT_TRUE(whole["stopped"].is_null());
  EXPECT_GE(SegmentsOf(whole, "node-1"), kMany / 2);
  EXPECT_GE(SegmentsOf(whole, "node-2"), kMany / 2);
  EXPECT_THAT(RunProgram({"mangrove", "--socket", cluster_.socket(1), "directory", "show"}).out,
              testing::AllOf(HasSubstr(", level 1, entries "), HasSubstr("level 0  ")));
  std::set<std::string> leaves;
  for (uint64_t i = 0; i < kMany; i += i < kMany - 5 ? 9 : 1) {
    const auto at = At(i);
    ASSERT_EQ(at["path"].size(), 2u) << at;
    leaves.insert(at["path"][1]["address"].get<std::string>());
    EXPECT_EQ(at["run"]["responsible"], i % 2 == 0 ? "node-1" : "node-2") << at;
    EXPECT_EQ(at["run"]["address"], ToString(region_->info().address + i * kSegmentBytes));
    EXPECT_EQ(at["run"]["segments"], 1);
  }
  EXPECT_GE(leaves.size(), 2u);
  // A node that knows nothing of them yet has to look each of them up.
  const auto third = Take(cluster_.Attach(3)->Open("r", AccessMode::kRead));
  for (uint64_t i = 0; i < kMany; ++i) EXPECT_EQ(Take(Word(*third, i * kSegmentBytes)), 100 + i);

  cluster_.Kill(2);
  const auto missing = [&] { return cluster_.Ask(3, {"status"})["membership"]["missing"]; };
  ASSERT_TRUE(Eventually([&] { return missing() == nlohmann::json{"node-2"}; }));
  // Others take over what it was responsible for as they use it.
  for (uint64_t i = 0; i < kMany; ++i) {
    EXPECT_TRUE(Eventually([&] { return SetWord(*region_, i * kSegmentBytes + 8, i).ok(); })) << i;
    EXPECT_EQ(Take(Word(*region_, i * kSegmentBytes)), 100 + i);
  }
  const auto then = cluster_.Ask(3, {"directory", "show"});
  EXPECT_TRUE(then["stopped"].is_null()) << then;
  EXPECT_GE(SegmentsOf(then, "node-1") + SegmentsOf(then, "node-3"), kMany);
  EXPECT_EQ(SegmentsOf(then, "node-2"), 0u) << then["nodes"];
  for (uint64_t i = 0; i < kMany; i += 9) EXPECT_EQ(At(i)["run"]["responsible"], "node-1") << i;
  for (uint64_t i = 0; i < kMany; ++i) EXPECT_EQ(Take(Word(*third, i * kSegmentBytes + 8)), i);
}

TEST_F(Directories, ABadAddressIsRefused) {
  cluster_.Start(1);
  cluster_.AwaitConnected();
  for (const char* bad : {"zero", "-1", "340282366920938463463374607431768211456"}) {
    const Output shown = RunProgram({"mangrove", "--socket", cluster_.socket(1), "directory", "show", bad});
    EXPECT_EQ(shown.exit_code, 2) << bad;
    EXPECT_THAT(shown.err, HasSubstr(bad));
  }
  const Output shown = RunProgram({"mangrove", "--socket", cluster_.socket(1), "directory", "show", "0xfff"});
  EXPECT_EQ(shown.exit_code, 1);
  EXPECT_THAT(shown.err, HasSubstr("is not in the address space"));
}

// The other nodes have not been started yet.
TEST_F(Directories, WithoutALeaseALookupFailsInTimeAndSaysWhatToDo) {
  cluster_.Start(1);
  cluster_.AwaitConnected();
  Stopwatch watch;
  const Output shown =
      RunProgram({"mangrove", "--socket", cluster_.socket(1), "directory", "show", "0x100000000", "--timeout", "3"});
  EXPECT_LT(watch.Seconds(), 8);
  EXPECT_EQ(shown.exit_code, 1);
  EXPECT_THAT(shown.err, testing::ContainsRegex("no lease.*`mangrove status` says which"));
}

}  // namespace
}  // namespace mangrove::cluster_test
