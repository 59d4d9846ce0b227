// Which node is responsible for which segment, as operators see it.
// Covers: G06, G07, G13

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr uint64_t kSegmentBytes = kSegmentPages * kPageBytes;
constexpr uint64_t kSegments = 12;

class Directories : public testing::Test {
 protected:
  // What `node` shows of each segment of the region.
  std::vector<std::string> ResponsibleNodes(int node, GlobalAddress region) {
    std::vector<std::string> names;
    for (uint64_t i = 0; i < kSegments; ++i) {
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
    regions[1] = MakeRegion(*sessions[1], "r", kSegments * kSegmentBytes);
    for (int node = 2; node <= 3; ++node) regions[node] = Take(sessions[node]->Open("r", AccessMode::kWrite));
    address = regions[1]->info().address;
    for (const std::string& name : ResponsibleNodes(1, address)) EXPECT_EQ(name, "nobody");

    for (uint64_t i = 0; i < kSegments; ++i) {
      const int node = 1 + static_cast<int>(i % 3);
      toucher.push_back(absl::StrCat("node-", node));
      const uint64_t value = 100 + i;
      const absl::Status written = regions[node]->Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1)));
      ASSERT_TRUE(written.ok()) << written;
      ASSERT_TRUE(regions[node]->Flush(i * kSegmentBytes, kPageBytes).ok());
    }
    // Everybody holds a page of each.
    for (uint64_t i = 0; i < kSegments; ++i) {
      for (auto& [node, region] : regions) {
        uint64_t value = 0;
        ASSERT_TRUE(region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1))).ok());
        EXPECT_EQ(value, 100 + i);
      }
    }
  }
  for (int node = 1; node <= 3; ++node) EXPECT_EQ(ResponsibleNodes(node, address), toucher);

  const auto whole = cluster_.Ask(2, {"directory", "show"});
  EXPECT_GE(whole["segments"].get<uint64_t>(), kSegments);
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
    for (uint64_t i = 0; i < kSegments; ++i) {
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
    const auto made = MakeRegion(*maker, "r", kSegments * kSegmentBytes);
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
