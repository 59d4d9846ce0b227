// Nodes that leave the cluster for good, in order or lost, while it is used.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kLeftSegments = 12;

class Leaving : public testing::Test {
 protected:
  explicit Leaving(const ClusterOptions& options = {.nodes = 4}) : cluster_(options) {}

  static absl::StatusOr<uint64_t> Word(Region& region, uint64_t segment) {
    uint64_t value = 0;
    const absl::Status read = region.Read(segment * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
    if (!read.ok()) return read;
    return value;
  }
  static void WriteAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kLeftSegments; ++i) {
      const uint64_t value = i + plus;
      ASSERT_TRUE(region.Write(i * kSegmentBytes, std::as_bytes(std::span(&value, 1))).ok());
    }
    ASSERT_TRUE(Eventually([&] { return region.Flush(0, kLeftSegments * kSegmentBytes).ok(); }));
  }
  static void ExpectAll(Region& region, uint64_t plus) {
    for (uint64_t i = 0; i < kLeftSegments; ++i) {
      EXPECT_TRUE(Eventually([&] { return Word(region, i).ok(); })) << i;
      EXPECT_EQ(Take(Word(region, i)), i + plus) << i;
    }
  }
  nlohmann::json MembershipAt(int node) { return cluster_.Ask(node, {"status"})["membership"]; }
  bool Names(int node, const char* what, int other) {
    const nlohmann::json names = MembershipAt(node)[what];
    return std::find(names.begin(), names.end(), absl::StrCat("node-", other)) != names.end();
  }
  bool HasMoved(int node) { return MembershipAt(node)["next_disks"].empty(); }
  Output Do(int node, const std::vector<std::string>& words) {
    std::vector<std::string> command{"mangrove", "--socket", cluster_.socket(node)};
    command.insert(command.end(), words.begin(), words.end());
    return RunProgram(command);
  }

  Cluster cluster_;
};

// An anchor at that: nodes 1 to 3 are.
// Covers: C08, C11, C03, G13
TEST_F(Leaving, ADrainedNodeGivesItsPagesAwayEndsAndDoesNotComeBack) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kLeftSegments * kSegmentBytes);
  WriteAll(*region, 100);

  const Output drained = Do(1, {"node", "drain", "node-2"});
  EXPECT_EQ(drained.exit_code, 0) << drained.err;
  EXPECT_THAT(drained.out, HasSubstr("view"));
  WriteAll(*region, 200);  // While pages move.
  EXPECT_EQ(cluster_.AwaitEnd(2), 0);
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && !Names(1, "disks", 2) && !Names(1, "behind", 2); }));
  ExpectAll(*region, 200);
  // Each page has its two copies on the others: one more of them may go. (Two anchors are left, and both are needed.)
  cluster_.Kill(4);
  ExpectAll(*region, 200);
  WriteAll(*region, 300);
  cluster_.Start(4);
  EXPECT_TRUE(Eventually([&] { return !Names(1, "behind", 4); }));
  ExpectAll(*region, 300);
  // Who starts it again is told.
  cluster_.Start(2);
  EXPECT_EQ(cluster_.AwaitEnd(2), 4);
  EXPECT_GT(cluster_.LinesOf(2, "was taken out of the cluster"), 0U);
  const Output status = Do(1, {"status"});
  EXPECT_THAT(status.out, HasSubstr("all 3 nodes are here"));
}

// Covers: C08
TEST_F(Leaving, ADrainThatIsCalledOffLeavesTheNodeWhereItWas) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kLeftSegments * kSegmentBytes);
  WriteAll(*region, 100);
  kill(cluster_.pid(3), SIGSTOP);  // So that pages do not all get to where they are to go.
  ASSERT_EQ(Do(1, {"node", "drain", "node-4"}).exit_code, 0);
  EXPECT_TRUE(Names(1, "draining", 4));
  ASSERT_EQ(Do(1, {"node", "undrain", "node-4"}).exit_code, 0);
  kill(cluster_.pid(3), SIGCONT);
  cluster_.AwaitConnected();
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && Names(1, "disks", 4); }));
  ExpectAll(*region, 100);
}

// Covers: C08
TEST_F(Leaving, WhatIsNotTakenUpInTimeMayStillBeDoneAndTheAnswerSaysHowThatIsSeen) {
  cluster_.StartAll();
  for (const int anchor : {2, 3}) kill(cluster_.pid(anchor), SIGSTOP);
  const Output late = Do(1, {"node", "drain", "node-4", "--timeout", "1"});
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_THAT(late.err, HasSubstr("may still be done, when they answer: then `mangrove node list` shows node-4 as "
                                  "draining, and `mangrove node undrain node-4` calls it off"));
  for (const int anchor : {2, 3}) kill(cluster_.pid(anchor), SIGCONT);
  cluster_.AwaitConnected();
  ASSERT_EQ(Do(1, {"node", "undrain", "node-4"}).exit_code, 0);
  EXPECT_FALSE(Names(1, "draining", 4));
}

// Covers: C06, C08, C10
TEST_F(Leaving, WhatALostNodeKeptTheOthersKeep) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = MakeRegion(*session, "r", kLeftSegments * kSegmentBytes);
  WriteAll(*region, 100);

  Output refused = Do(1, {"node", "give-up", "node-3"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("node-3 is here, and not lost"));
  refused = Do(1, {"node", "give-up", "node-9"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("no node of the cluster is called \"node-9\"; there are node-1"));

  cluster_.Kill(3);
  EXPECT_TRUE(Eventually([&] { return Names(1, "missing", 3); }));
  WriteAll(*region, 200);
  const Output preview = Do(1, {"node", "give-up", "node-3"});
  EXPECT_EQ(preview.exit_code, 0) << preview.err;
  EXPECT_THAT(preview.out, HasSubstr("nothing would be lost"));
  EXPECT_THAT(preview.out, HasSubstr("mangrove node give-up node-3 --confirm "));
  EXPECT_FALSE(Names(1, "lost", 3));
  const Output lost = cluster_.GiveUp(1, "node-3");
  EXPECT_EQ(lost.exit_code, 0) << lost.err;
  EXPECT_TRUE(Eventually([&] { return HasMoved(1) && !Names(1, "disks", 3) && !Names(1, "lost", 3); }));
  ExpectAll(*region, 200);
  // Two copies again: another one may go.
  cluster_.Kill(4);
  ExpectAll(*region, 200);
}

// Drains of node-4, which is no anchor, while disks get no more than so much: they take seconds, in which something can happen.
class SlowDrains : public Leaving {
 protected:
  static constexpr uint64_t kLimitBytes = uint64_t{1} << 20;
  static constexpr uint64_t kRegionSegments = 96;
  // What is in a full bucket, and one amount more (engine/token_bucket.h, B1).
  static constexpr double kBurstS = 0.2;

  SlowDrains() : Leaving({.nodes = 4, .node_settings = "repair_limit_mib_per_s = 1\n"}) {}

  int Leader() { return MembershipAt(4)["leader"].get<std::string>().back() - '0'; }
  // So many whole segments that node-4 keeps, with that other one if there is one, in a region of which nothing else is used.
  void Make(int via, uint64_t segments, int other = 0) {
    session_ = cluster_.Attach(via, 10'000);
    region_ = MakeRegion(*session_, "r", kRegionSegments * kSegmentBytes);
    for (uint64_t i = 0; i < kRegionSegments && kept_.size() < segments; ++i) {
      const auto page = cluster_.Ask(via, {"page", "show", ToString(region_->info().address + i * kSegmentBytes)});
      const auto holders = page["core_holders"].get<std::set<std::string>>();
      const bool keeps = holders.contains("node-4");
      if (keeps && (other == 0 || holders.contains(absl::StrCat("node-", other)))) kept_.push_back(i);
    }
    ASSERT_EQ(kept_.size(), segments);
    for (const uint64_t segment : kept_) Write(segment, 100);
  }
  static std::vector<uint64_t> Content(uint64_t segment, uint64_t plus) {
    std::vector<uint64_t> words(kSegmentBytes / sizeof(uint64_t));
    for (uint64_t i = 0; i < words.size(); ++i) words[i] = segment * words.size() + i + plus;
    return words;
  }
  void Write(uint64_t segment, uint64_t plus) {
    const std::vector<uint64_t> words = Content(segment, plus);
    ASSERT_TRUE(Eventually([&] {
      return region_->Write(segment * kSegmentBytes, std::as_bytes(std::span(words))).ok() &&
             region_->Flush(segment * kSegmentBytes, kSegmentBytes).ok();
    }));
  }
  // Of each the content that was written last, where `plus` says for the first ones of them.
  void Expect(const std::vector<uint64_t>& plus) {
    for (size_t i = 0; i < kept_.size(); ++i) {
      std::vector<uint64_t> words(kSegmentBytes / sizeof(uint64_t));
      const auto read = [&] {
        return region_->Read(kept_[i] * kSegmentBytes, std::as_writable_bytes(std::span(words))).ok();
      };
      EXPECT_TRUE(Eventually(read)) << i;
      EXPECT_TRUE(words == Content(kept_[i], i < plus.size() ? plus[i] : 100)) << i;
    }
  }
  uint64_t CopiedAt(int node) { return cluster_.Ask(node, {"status"})["disk"]["pages_copied"].get<uint64_t>(); }
  // Until pages have come to one of these disks, which have not all of them.
  void BeginDrain(const std::vector<int>& getting) {
    ASSERT_EQ(Do(getting.front(), {"node", "drain", "node-4"}).exit_code, 0);
    ASSERT_TRUE(Eventually(
        [&] { return std::any_of(getting.begin(), getting.end(), [&](int node) { return CopiedAt(node) > 0; }); }));
    ASSERT_FALSE(HasMoved(getting.front()));
  }

  std::shared_ptr<Session> session_;
  std::shared_ptr<Region> region_;
  std::vector<uint64_t> kept_;
};

// What `status` has said of a drain.
struct Progress {
  struct Copied {
    double from_s = 0;  // Within these two it was so.
    double until_s = 0;
    uint64_t pages = 0;
  };
  std::map<std::string, std::vector<Copied>> copied;  // By the disk's name.
  std::set<int> percents;
  std::set<uint64_t> seconds_left;

  void Note(const nlohmann::json& status, double from_s, double until_s) {
    if (status["repair"].is_null()) return;
    for (const nlohmann::json& disk : status["repair"]["disks"]) {
      percents.insert(disk["done_percent"].get<int>());
      copied[disk["name"].get<std::string>()].push_back({from_s, until_s, disk["pages_copied"].get<uint64_t>()});
    }
    if (status["repair"].contains("seconds_left"))
      seconds_left.insert(status["repair"]["seconds_left"].get<uint64_t>());
  }
};

// Covers: C06, C08
TEST_F(SlowDrains, SayHowFarTheyAreAndKeepTheLimitOfRepair) {
  constexpr uint64_t kFull = 6;
  cluster_.StartAll();
  Make(1, kFull);
  std::vector<uint64_t> before;
  for (int node = 1; node <= 3; ++node) before.push_back(CopiedAt(node));

  const Stopwatch watch;
  ASSERT_EQ(Do(1, {"node", "drain", "node-4"}).exit_code, 0);
  Progress progress;
  bool is_said_to_be_held = false;
  ASSERT_TRUE(Eventually(
      [&] {
        const double from_s = watch.Seconds();
        const nlohmann::json status = cluster_.Ask(1, {"status"});
        progress.Note(status, from_s, watch.Seconds());
        const std::string text = Do(1 + static_cast<int>(progress.percents.size() % 3), {"status"}).out;
        is_said_to_be_held |= text.find("held at 1.0 MiB/s by repair_limit_mib_per_s") != std::string::npos;
        return !Names(1, "disks", 4);
      },
      60));
  const double took_s = watch.Seconds();
  EXPECT_EQ(cluster_.AwaitEnd(4), 0);

  // No disk got more than it may, neither in all nor between any two looks; and all of it was copied.
  uint64_t copied = 0;
  for (int node = 1; node <= 3; ++node) {
    const uint64_t pages = CopiedAt(node) - before[static_cast<size_t>(node) - 1];
    copied += pages;
    EXPECT_GE(took_s, static_cast<double>(pages * kPageBytes) / kLimitBytes - kBurstS) << "node-" << node;
  }
  EXPECT_GE(copied, kFull * kSegmentPages);
  EXPECT_GE(took_s, static_cast<double>(kFull * kSegmentBytes / 3) / kLimitBytes - kBurstS);
  for (const auto& [name, looks] : progress.copied) {
    for (size_t i = 0; i < looks.size(); ++i) {
      for (size_t j = i + 1; j < looks.size(); ++j) {
        const double bytes = static_cast<double>((looks[j].pages - looks[i].pages) * kPageBytes);
        EXPECT_LE(bytes / kLimitBytes, looks[j].until_s - looks[i].from_s + kBurstS) << name << " " << i << " " << j;
      }
    }
  }
  const auto is_between = [](int percent) { return 0 < percent && percent < 100; };
  EXPECT_GE(std::count_if(progress.percents.begin(), progress.percents.end(), is_between), 3);
  EXPECT_GE(progress.seconds_left.size(), 2U);
  EXPECT_TRUE(is_said_to_be_held);
  Expect({});
}

// Covers: C06, C08
TEST_F(SlowDrains, GoOnWhenTheAnchorsLeaderIsKilledAndStartedAgain) {
  cluster_.StartAll();
  const int leader = Leader();
  const std::vector<int> others{leader % 3 + 1, (leader + 1) % 3 + 1};
  Make(others[0], 5);
  BeginDrain(others);
  cluster_.Kill(leader);
  Write(kept_[0], 200);
  ASSERT_TRUE(Eventually([&] { return Names(others[0], "missing", leader); }));
  EXPECT_NE(Leader(), leader);
  EXPECT_TRUE(Names(others[0], "draining", 4));
  EXPECT_FALSE(HasMoved(others[0]));
  Write(kept_[1], 300);
  cluster_.Start(leader);
  EXPECT_EQ(cluster_.AwaitEnd(4), 0);
  EXPECT_TRUE(Eventually([&] { return HasMoved(others[0]) && !Names(others[0], "disks", 4); }));
  Expect({200, 300});
  // Each page has its two copies on the anchors, of which one may go.
  EXPECT_TRUE(Eventually([&] { return MembershipAt(others[0])["behind"].empty(); }));
  cluster_.Kill(others[1]);
  Expect({200, 300});
}

class SlowDrainsAndReplacements : public SlowDrains {
 protected:
  SlowDrainsAndReplacements() {
    for (int node = 1; node <= 4; ++node) {
      const char* const settings = "[cluster]\nreplace_after_s = 10\n";
      cluster_.WriteConfig(node, absl::StrReplaceAll(cluster_.ConfigText(node), {{"[cluster]\n", settings}}));
    }
  }
};

// What only these two kept, the one that is drained gives to the others before it ends.
// Covers: C06, C08
TEST_F(SlowDrainsAndReplacements, EndWithoutTheAnchorsLeaderWhenItIsKilledAndStaysAway) {
  cluster_.StartAll();
  const int leader = Leader();
  const std::vector<int> others{leader % 3 + 1, (leader + 1) % 3 + 1};
  Make(others[0], 2, leader);
  BeginDrain(others);
  cluster_.Kill(leader);
  Write(kept_[0], 200);
  ASSERT_TRUE(Eventually([&] { return Names(others[0], "missing", leader); }));
  EXPECT_TRUE(Names(others[0], "draining", 4));
  EXPECT_EQ(cluster_.AwaitEnd(4), 0);
  EXPECT_TRUE(Eventually([&] { return HasMoved(others[0]) && MembershipAt(others[0])["disks"].size() == 2U; }));
  EXPECT_FALSE(Names(others[0], "disks", 4) || Names(others[0], "disks", leader));
  Expect({200});
}

}  // namespace
}  // namespace mangrove::cluster_test
