// What a node tells people of the RAM directory, and of pages that it has never touched.
//
// Covers: G06, G07

#include <nlohmann/json.hpp>

#include "engine/local_operations.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

// Three nodes, as their programs see them. The directory's pages have room for few entries.
class InspectDirectory : public testing::Test {
 protected:
  InspectDirectory() {
    SetLogLevel(LogLevel::kOff);
    config_.replicas = 2;
    for (uint64_t i = 1; i <= 3; ++i) config_.members.push_back({NodeId(i), absl::StrCat("n", i), "h:1"});
    for (uint64_t i = 1; i <= 3; ++i) Serve(i);
  }

  void Serve(uint64_t node) {
    EngineHost& host = cluster_.host(node);
    operations_[node] =
        std::make_unique<LocalOperations>(&config_, &cluster_.clock, host.engine.get(), nullptr, host.transport.get(),
                                          &host.store, nullptr, host.self.incarnation);
  }
  void Touch(uint64_t node, PageId page) {
    const absl::Status located = cluster_.Wait(cluster_.engine(node).Locate(page, cluster_.In(kSecond)));
    ASSERT_TRUE(located.ok()) << located;
  }
  // Nodes 1 and 2 by turns.
  void TouchByTurns(uint64_t segments) {
    for (uint64_t i = 0; i < segments; ++i) Touch(1 + i % 2, Segment(i));
  }
  absl::StatusOr<std::string> Ask(uint64_t node, const std::string& what, const std::string& argument) {
    return cluster_.Wait(operations_.at(node)->Inspect(what, argument, cluster_.In(5 * kSecond)));
  }
  json Document(uint64_t node, const std::string& what, const std::string& argument = "") {
    const auto text = Ask(node, what, argument);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? json::parse(*text) : json();
  }

  EngineCluster cluster_{3, [](PageEngineOptions& options) { options.directory_limits = {.runs = 4, .children = 4}; }};
  NodeConfig config_;
  std::map<uint64_t, std::unique_ptr<LocalOperations>> operations_;
};

TEST_F(InspectDirectory, ItNamesTheNodesTheirSegmentsAndTheFirstRuns) {
  TouchByTurns(100);
  for (uint64_t i = 0; i < 5; ++i) Touch(3, Segment(200 + i));
  const json whole = Document(3, "directory");
  EXPECT_EQ(whole["segments"], 105);
  EXPECT_EQ(whole["runs"], 101);
  EXPECT_EQ(whole["nodes"], json::parse(R"([{"name": "n1", "segments": 50, "runs": 50},
    {"name": "n2", "segments": 50, "runs": 50}, {"name": "n3", "segments": 5, "runs": 1}])"));
  ASSERT_EQ(whole["first_runs"].size(), 32u);
  EXPECT_EQ(whole["first_runs"][1],
            json({{"address", ToString(Segment(1))}, {"segments", 1}, {"responsible", "n2"}, {"term", 1}}));
  EXPECT_EQ(whole["root"]["address"], ToString(kRamDirectoryRootPage));
  const size_t levels = whole["root"]["level"].get<size_t>() + 1;
  ASSERT_GE(levels, 3u);
  ASSERT_EQ(whole["pages"].size(), levels);
  EXPECT_EQ(whole["pages"].back(), 1);
  EXPECT_GE(whole["pages"][0], 101 / 4);
  EXPECT_LE(whole["pages"][0], 101 / 2);
  EXPECT_TRUE(whole["stopped"].is_null());
}

// A run has its parts in several leaves.
TEST_F(InspectDirectory, ARunThatGoesOnInTheNextLeafIsOneRun) {
  TouchByTurns(12);
  for (uint64_t i = 12; i < 40; i += 3) Touch(1, Segment(i));
  for (uint64_t i = 12; i < 40; ++i) Touch(1, Segment(i));
  const json whole = Document(1, "directory");
  EXPECT_EQ(whole["segments"], 40);
  EXPECT_EQ(whole["runs"], 13);
  EXPECT_EQ(whole["first_runs"].back()["segments"], 28);
}

TEST_F(InspectDirectory, AnEmptyDirectoryIsALeaf) {
  const json whole = Document(2, "directory");
  EXPECT_EQ(whole["segments"], 0);
  EXPECT_EQ(whole["runs"], 0);
  EXPECT_EQ(whole["pages"], json({1}));
  EXPECT_TRUE(whole["nodes"].empty());
}

TEST_F(InspectDirectory, AnAddressIsShownWithThePathToItAndItsRun) {
  TouchByTurns(100);
  const json at = Document(3, "directory", ToString(Segment(7) + 5));
  EXPECT_EQ(at["run"], json({{"address", ToString(Segment(7))}, {"segments", 1}, {"responsible", "n2"}, {"term", 1}}));
  EXPECT_TRUE(at["gap"].is_null());
  EXPECT_TRUE(at["fixed"].is_null());
  const json& path = at["path"];
  ASSERT_GE(path.size(), 3u);
  EXPECT_EQ(path[0]["address"], ToString(kRamDirectoryRootPage));
  EXPECT_TRUE(path[0]["end"].is_null());
  EXPECT_TRUE(path[0]["right"].is_null());
  for (size_t i = 0; i < path.size(); ++i) EXPECT_EQ(path[i]["level"], path.size() - 1 - i);
  EXPECT_FALSE(path.back()["right"].is_null());
  EXPECT_THAT(path.back()["responsible"].get<std::string>(), testing::AnyOf("n1", "n2"));
}

TEST_F(InspectDirectory, ToAskMakesNobodyResponsible) {
  Touch(1, Segment(0));
  for (const char* what : {"directory", "page"}) {
    for (int i = 0; i < 2; ++i) Document(2, what, ToString(Segment(9)));
  }
  const json at = Document(2, "directory", ToString(Segment(9)));
  EXPECT_TRUE(at["run"].is_null());
  EXPECT_EQ(at["gap"]["first"], ToString(Segment(1)));
  EXPECT_TRUE(Document(2, "page", ToString(Segment(9)))["responsible"].is_null());
  EXPECT_EQ(Document(2, "directory")["segments"], 1);
}

TEST_F(InspectDirectory, PagesThatTheDirectoryDoesNotNameAreSaidToBeSo) {
  const json table = Document(1, "directory", "0x1000");
  EXPECT_FALSE(table["fixed"].is_null());
  EXPECT_TRUE(table["run"].is_null());
  EXPECT_EQ(Document(1, "directory", ToString(RamDirectoryPage(3, 1, 1)))["fixed"], "n3");
}

TEST_F(InspectDirectory, BadAddressesAreRefused) {
  for (const char* what : {"directory", "page"}) {
    for (const char* bad : {"0", "0xfff", "zero", "0x", "-1", "340282366920938463463374607431768211456"}) {
      const auto answer = Ask(1, what, bad);
      EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument) << what << " " << bad;
    }
    EXPECT_TRUE(Ask(1, what, "0xffffffffffffffffffffffffffffffff").ok());
  }
}

TEST_F(InspectDirectory, WhatCannotBeReadIsNamedAndTheRestIsCounted) {
  TouchByTurns(40);
  operations_.erase(2);
  cluster_.Stop(NodeId(2));
  const json whole = Document(1, "directory");
  EXPECT_FALSE(whole["stopped"].is_null()) << whole;
  EXPECT_THAT(whole["stopped"]["why"].get<std::string>(), HasSubstr("node 2"));
  EXPECT_LT(whole["segments"], 40);
}

TEST_F(InspectDirectory, PagesMoveWithoutAWriteToTheDirectory) {
  cluster_.Allocate({Segment(0), 4});
  ASSERT_TRUE(cluster_.Write(1, Segment(0), 1).ok());
  const auto version = [&] { return cluster_.engine(1).Describe(kRamDirectoryRootPage).version; };
  const Version before = version();
  for (uint8_t turn = 0; turn < 9; ++turn) {
    const uint64_t node = 1 + turn % 3;
    ASSERT_TRUE(cluster_.Write(node, Segment(0) + turn % 4, turn).ok());
    EXPECT_EQ(*cluster_.Read(1 + (turn + 1) % 3, Segment(0) + turn % 4), turn);
  }
  EXPECT_EQ(version(), before);
  EXPECT_EQ(Document(2, "directory", ToString(Segment(0)))["run"]["responsible"], "n1");
}

// The node that is responsible may be none of those that keep the page.
TEST_F(InspectDirectory, APageIsShownByANodeThatHasNotTouchedIt) {
  PageId page = Segment(0);
  while (true) {
    const auto holders = cluster_.locator().CoreHolders(page, 2);
    if (std::find(holders.begin(), holders.end(), NodeId(1)) == holders.end()) break;
    page = page + kSegmentPages;
  }
  cluster_.Allocate({page, 1});
  ASSERT_TRUE(cluster_.Write(1, page, 7).ok());
  for (uint64_t node = 1; node <= 3; ++node) {
    const json shown = Document(node, "page", ToString(page));
    EXPECT_EQ(shown["responsible"], "n1") << node;
    EXPECT_EQ(shown["allocated"], true) << node;
    EXPECT_EQ(shown["core_holders"].size(), 2u) << node;
    EXPECT_EQ(shown["home"]["owner"], "n1") << node;
  }
}

}  // namespace
}  // namespace mangrove
