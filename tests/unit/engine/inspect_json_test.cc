// What a peer says of a page and of itself is read whatever it is; every document becomes text.

#include "engine/inspect_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mangrove {
namespace {

using ::testing::HasSubstr;

PeerReport SomeReport() {
  return {.disk_used_bytes = 1,
          .disk_free_bytes = ~uint64_t{0},
          .home_known = true,
          .home_state = "Owned",
          .owner = NodeId(3),
          .sharers = {NodeId(1), NodeId(2)},
          .allocated = true,
          .is_volatile = true,
          .replicas = 2};
}

TEST(PeerReport, IsReadAsItWasWritten) {
  const auto read = DecodePeerReport("node 1", EncodePeerReport(SomeReport()));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->disk_used_bytes, 1u);
  EXPECT_EQ(read->disk_free_bytes, ~uint64_t{0});
  EXPECT_TRUE(read->home_known);
  EXPECT_EQ(read->home_state, "Owned");
  EXPECT_EQ(read->owner, NodeId(3));
  EXPECT_EQ(read->sharers, (std::vector<NodeId>{NodeId(1), NodeId(2)}));
  EXPECT_TRUE(read->allocated);
  EXPECT_TRUE(read->is_volatile);
  EXPECT_EQ(read->replicas, 2u);
}

TEST(PeerReport, OfADiskIsReadAsItWasWritten) {
  PeerReport report = SomeReport();
  report.is_learned = true;
  report.lost.emplace(2);
  for (uint64_t i = 1; i <= 3; ++i) report.lost->Add({PageId(i * 1000), i});
  report.repair = DiskRepair{.is_behind = true,
                             .done_percent = 40,
                             .pages_copied = 7,
                             .pages_left = 9,
                             .compared_pages_per_second = 3,
                             .copied_bytes_per_second = 4096,
                             .seconds_left = 3};
  const auto read = DecodePeerReport("node 1", EncodePeerReport(report));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->is_learned);
  EXPECT_EQ(read->lost, report.lost);
  EXPECT_EQ(read->lost->pages(), 6u);
  EXPECT_EQ(read->lost->unnamed(), 3u);
  EXPECT_EQ(read->repair, report.repair);
  report.repair = DiskRepair{};  // What is not known is not said.
  report.lost = RangeSummary();
  const auto idle = DecodePeerReport("node 1", EncodePeerReport(report));
  ASSERT_TRUE(idle.ok()) << idle.status();
  EXPECT_EQ(idle->repair, report.repair);
  EXPECT_TRUE(idle->lost->empty());
  const auto earlier = DecodePeerReport("node 1", EncodePeerReport(SomeReport()));
  ASSERT_TRUE(earlier.ok()) << earlier.status();
  EXPECT_FALSE(earlier->lost || earlier->repair || earlier->is_learned);
}

TEST(RangeSummary, JoinsWhatFollowsAndCountsWhatItDoesNotName) {
  RangeSummary pages(2);
  EXPECT_TRUE(pages.empty());
  pages.Add({PageId(10), 2});
  pages.Add({PageId(12), 3});
  pages.Add({PageId(20), 1});
  pages.Add({PageId(30), 4});  // Not named any more.
  pages.Add({PageId(34), 1});
  EXPECT_EQ(pages.first(), (std::vector<PageRange>{{PageId(10), 5}, {PageId(20), 1}}));
  EXPECT_EQ(pages.pages(), 11u);
  EXPECT_EQ(pages.unnamed(), 5u);
}

TEST(PeerReport, OfAPageThatNobodyUsesHasNoHome) {
  const auto read = DecodePeerReport("node 1", EncodePeerReport({}));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->home_known);
  const auto empty = DecodePeerReport("node 1", "{}");
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_FALSE(empty->home_known);
}

TEST(PeerReport, NoDocumentOfAnotherFormIsReadAndTheErrorNamesWhoSentIt) {
  for (const char* text : {"",
                           "x",
                           "[",
                           "null",
                           "1",
                           "[]",
                           "\"text\"",
                           R"({"disk": 1})",
                           R"({"disk": {"free_bytes": "much"}})",
                           R"({"disk": []})",
                           R"({"home": 1})",
                           R"({"home": []})",
                           R"({"home": {"state": 1}})",
                           R"({"home": {"owner": "alpha"}})",
                           R"({"home": {"sharers": ["alpha"]}})",
                           R"({"home": {"sharers": [null]}})",
                           R"({"home": {"sharers": 5}})",
                           R"({"allocated": 1})",
                           R"({"volatile": "yes"})",
                           R"({"replicas": {}})"}) {
    const auto read = DecodePeerReport("node 1", text);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr("node 1 sent")) << text;
  }
}

// Each byte of a good one changed.
TEST(PeerReport, ADamagedOneIsReadOrRefused) {
  const std::string good = EncodePeerReport(SomeReport());
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char byte : {'0', '"', '{', ']', 'n', '\xff', '\0'}) {
      std::string damaged = good;
      damaged[i] = byte;
      const auto read = DecodePeerReport("node 1", damaged);
      EXPECT_TRUE(read.ok() || absl::IsInternal(read.status())) << damaged;
    }
    EXPECT_FALSE(DecodePeerReport("node 1", good.substr(0, i)).ok());
  }
}

TEST(DumpJson, ReplacesWhatIsNoText) {
  const std::string text = DumpJson({{"last_error", "broken \xff\xc3 text"}});
  EXPECT_EQ(text, "{\"last_error\":\"broken \xef\xbf\xbd\xef\xbf\xbd text\"}");
}

}  // namespace
}  // namespace mangrove
