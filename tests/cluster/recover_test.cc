// The way back when most anchors are lost for ever.
// Covers: C15

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kRecoveredPages = 16;
constexpr int kRecoveryTimeoutMs = 20'000;

// Three anchors, each with a key file of its own, as on machines of their own.
class Recovery : public testing::Test {
 protected:
  void SetUp() override {
    for (int node = 1; node <= 3; ++node) {
      CopyKey(cluster_.directory() + "/key", node);
      const std::string shared = cluster_.directory() + "/key\"";
      cluster_.WriteConfig(node, absl::StrReplaceAll(cluster_.ConfigText(node), {{shared, KeyFile(node) + "\""}}));
    }
    cluster_.StartAll();
    const auto session = cluster_.Attach(1, kRecoveryTimeoutMs);
    const auto region = MakeRegion(*session, "r", kRecoveredPages * kPageBytes, {.replicas = 3});
    for (uint64_t page = 0; page < kRecoveredPages; ++page) {
      const uint64_t value = 100 + page;
      ASSERT_TRUE(region->Write(page * kPageBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    ASSERT_TRUE(region->Flush(0, kRecoveredPages * kPageBytes).ok());
  }
  std::string KeyFile(int node) const { return absl::StrCat(cluster_.directory(), "/key-", node); }
  void CopyKey(const std::string& from, int node) {
    std::filesystem::copy_file(from, KeyFile(node), std::filesystem::copy_options::overwrite_existing);
  }
  static std::string TextOf(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  Output Recover(int node, const std::string& confirm = "") {
    std::vector<std::string> command{"mangroved", "--config", cluster_.config(node), "--recover-anchors"};
    if (!confirm.empty()) command.insert(command.end(), {"--confirm", confirm});
    return RunProgram(command);
  }
  // As the dry run prints it.
  static std::string PositionIn(const std::string& out) {
    const std::vector<std::string> parts = absl::StrSplit(out, "--confirm ");
    return std::string(absl::StripAsciiWhitespace(parts.back()));
  }
  nlohmann::json MembershipOf(int node) { return cluster_.Ask(node, {"status"})["membership"]; }
  void ExpectAll(int node) {
    const auto session = cluster_.Attach(node, kRecoveryTimeoutMs);
    const auto region = Take(session->Open("r", AccessMode::kWrite));
    for (uint64_t page = 0; page < kRecoveredPages; ++page) {
      uint64_t value = 0;
      const absl::Status read = region->Read(page * kPageBytes, std::as_writable_bytes(std::span(&value, 1)));
      ASSERT_TRUE(read.ok()) << "page " << page << ": " << read;
      ASSERT_EQ(value, 100 + page);
    }
  }

  Cluster cluster_{ClusterOptions{.replicas = 3}};
};

TEST_F(Recovery, TheSurvivorServesAloneAndTheLostAnchorsAreStrangers) {
  const Output in_use = Recover(3);
  EXPECT_EQ(in_use.exit_code, 1);
  EXPECT_THAT(in_use.err, HasSubstr("is in use by"));
  cluster_.KillAll();

  const std::string old_key = TextOf(KeyFile(3));
  const Output dry = Recover(3);
  ASSERT_EQ(dry.exit_code, 0) << dry.err;
  EXPECT_THAT(dry.out,
              AllOf(HasSubstr("node-1 (id 1) with 1 vote;"), HasSubstr("node-3 (id 3) with 1 vote, this node")));
  const std::string position = PositionIn(dry.out);
  const Output wrong = Recover(3, position + "1");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("ends at " + position), HasSubstr("nothing was changed")));
  EXPECT_EQ(TextOf(KeyFile(3)), old_key);
  EXPECT_EQ(Recover(3).out, dry.out);

  const Output done = Recover(3, position);
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_NE(TextOf(KeyFile(3)), old_key);
  EXPECT_EQ(TextOf(KeyFile(3) + ".before-recovery"), old_key);
  const Output again = Recover(3, position);
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, HasSubstr("nothing is lost; just start it"));

  cluster_.Start(3);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(3, "has a lease on its place") > 1; }));
  for (const std::string lost : {"node-1", "node-2"}) {
    const Output given_up = cluster_.GiveUp(3, lost);
    EXPECT_EQ(given_up.exit_code, 0) << given_up.err;
  }
  ExpectAll(3);

  // Two of three: they have a majority of the old log, and not the new key.
  cluster_.Start(1);
  cluster_.Start(2);
  EXPECT_TRUE(Eventually([&] {
    return cluster_.LinesOf(1, "does not hold the cluster's key") +
               cluster_.LinesOf(3, "does not hold the cluster's key") >
           0;
  }));
  EXPECT_TRUE(Eventually([&] { return MembershipOf(1)["has_lease"].get<bool>(); }));  // Of a cluster of their own.
  ExpectAll(3);
  for (const auto& peer : cluster_.Ask(3, {"status"})["peers"]) EXPECT_FALSE(peer["connected"].get<bool>());
}

TEST_F(Recovery, TheOthersComeBackWithTheNewKeyWithTheirDisksOrWithout) {
  cluster_.KillAll();
  const Output done = Recover(3, PositionIn(Recover(3).out));
  ASSERT_EQ(done.exit_code, 0) << done.err;
  for (int node : {1, 2}) CopyKey(KeyFile(3), node);
  ASSERT_GT(std::filesystem::remove_all(cluster_.directory() + "/data-1"), 0u);
  cluster_.Start(3);
  EXPECT_TRUE(Eventually([&] { return cluster_.LinesOf(3, "has a lease on its place") > 1; }));
  cluster_.Start(1);
  cluster_.Start(2);
  cluster_.AwaitConnected();
  for (int node : {1, 2, 3}) ExpectAll(node);
  // They are made anchors again: any two of them go on.
  for (const std::string node : {"node-1", "node-2"}) {
    const Output set = RunProgram({"mangrove", "--socket", cluster_.socket(3), "node", "set", node, "--votes", "1"});
    EXPECT_EQ(set.exit_code, 0) << set.err;
  }
  EXPECT_TRUE(Eventually([&] {
    const nlohmann::json anchor = MembershipOf(3)["anchor"];
    return anchor["votes"] == nlohmann::json{{"node-1", 1}, {"node-2", 1}, {"node-3", 1}} && anchor["votes_settled"];
  }));
  cluster_.Kill(3);
  EXPECT_TRUE(
      Eventually([&] { return !MembershipOf(1)["missing"].empty() && MembershipOf(1)["has_lease"].get<bool>(); }));
  ExpectAll(1);
}

}  // namespace
}  // namespace mangrove::cluster_test
