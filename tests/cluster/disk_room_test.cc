// What an operator is told before disks are full, and when they are.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/statvfs.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/node_disks.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

using testing::HasSubstr;
using testing::Not;

// Of which nothing is free for pages on this machine, but for what frees space.
std::string AllReserved() {
  struct statvfs info;
  if (statvfs("/tmp", &info) != 0) throw std::runtime_error("statvfs of /tmp");
  const uint64_t free_mib = (info.f_bavail * info.f_frsize) >> 20;
  return absl::StrCat("disk_reserve_mib = ", free_mib + free_mib / 2, "\n");
}

std::string StatusShown(Cluster& cluster, int node) {
  return RunProgram({"mangrove", "--socket", cluster.socket(node), "status"}).out;
}

// Covers: B14, G13
TEST(DiskRoom, AFullDiskIsSaidInTheFirstLinesOfTheStatusAndOnceInTheLog) {
  Cluster cluster({.nodes = 2, .node_settings = AllReserved()});
  cluster.StartAll();
  EXPECT_THAT(StatusShown(cluster, 1), HasSubstr("\nDISK FULL: 0 % of this node's disk"));
  EXPECT_TRUE(cluster.Ask(1, {"status"})["disk_room"]["is_full"].get<bool>());
  EXPECT_EQ(cluster.LinesOf(1, "of this node's disk"), 1u);
}

// On disks of 512 MiB: what is kept free is enough for what comes when a disk is lost.
class SmallDisks : public testing::Test {
 protected:
  static constexpr uint64_t kPart = uint64_t{16} << 20;

  SmallDisks() : cluster_({.nodes = 3, .node_settings = "disk_reserve_mib = 256\n"}) {}

  static std::vector<std::byte> Content(uint64_t part) { return std::vector<std::byte>(kPart, std::byte(part + 1)); }
  // A node that loses its lease for a moment, as on a busy machine, cuts its programs off.
  absl::Status Again(absl::FunctionRef<absl::Status(Region&)> work) {
    absl::Status status;
    std::ignore = Eventually([&] {
      if (region_ == nullptr) {
        auto opened = cluster_.Attach(1, 30'000)->Open("r", AccessMode::kWrite);
        if (!opened.ok()) return false;
        region_ = *std::move(opened);
      }
      status = work(*region_);
      if (absl::IsUnavailable(status)) region_ = nullptr;
      return region_ != nullptr;
    });
    return status;
  }
  static absl::Status Write(Region& region, uint64_t part) {
    const absl::Status written = region.Write(part * kPart, Content(part));
    return written.ok() ? region.Flush(part * kPart, kPart) : written;
  }
  absl::Status Fill(uint64_t part) {
    const absl::Status allocated = Again([&](Region& region) { return region.Allocate(part * kPart, kPart, {}); });
    return allocated.ok() || absl::IsAlreadyExists(allocated)
               ? Again([&](Region& region) { return Write(region, part); })
               : allocated;
  }
  uint64_t FreeAt(int node) { return cluster_.Ask(node, {"status"})["disk"]["free_bytes"].get<uint64_t>(); }
  // Until every node has seen that much less of its disk free than it was, or has looked twice since: it does so when it is asked, and
  // its last look is 2 s old.
  void AwaitLooks(const std::vector<uint64_t>& free_before) {
    const auto sees = [&] {
      bool all = true;
      for (int node = 1; node <= 3; ++node) {
        all = FreeAt(node) + kPart / 4 <= free_before[static_cast<size_t>(node) - 1] && all;
      }
      return all;
    };
    std::ignore = Eventually(sees, 5);
  }

  Cluster cluster_;
  std::shared_ptr<Region> region_;
};

// Covers: G13, B14
TEST_F(SmallDisks, KeepRoomForWhatComesWhenOneIsLost) {
  const auto disks = NodeDisks::Make(cluster_.directory(), 3);
  ASSERT_TRUE(disks.ok()) << disks.status();
  cluster_.StartAll();
  region_ = Take(cluster_.Attach(1, 30'000)->Reserve({.name = "r", .size_bytes = 64 * kPart}));
  constexpr uint64_t kAtOnce = 5;
  uint64_t parts = 0;
  absl::Status status;
  for (; parts < 64 && status.ok(); parts += status.ok() ? 1 : 0) {
    const std::vector<uint64_t> free{FreeAt(1), FreeAt(2), FreeAt(3)};
    status = Fill(parts);
    if (status.ok() && parts >= kAtOnce) AwaitLooks(free);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("for repair when another disk is lost"));
  EXPECT_GT(parts, kAtOnce);
  // What is there may be written over.
  EXPECT_TRUE(Again([](Region& region) { return Write(region, 0); }).ok());

  cluster_.Kill(3);
  const auto membership = [this] { return cluster_.Ask(1, {"status"})["membership"]; };
  ASSERT_TRUE(Eventually([&] { return membership()["missing"].size() == 1u; }));
  const Output lost = cluster_.GiveUp(1, "node-3");
  ASSERT_EQ(lost.exit_code, 0) << lost.err;
  EXPECT_TRUE(Eventually([&] { return membership()["next_disks"].empty() && membership()["disks"].size() == 2u; }));
  for (int node = 1; node <= 2; ++node)
    EXPECT_FALSE(cluster_.Ask(node, {"status"})["disk_room"]["is_full"].get<bool>());
  for (uint64_t part = 0; part < parts; ++part) {
    std::vector<std::byte> read(kPart);
    const absl::Status got = Again([&](Region& region) { return region.Read(part * kPart, read); });
    EXPECT_TRUE(got.ok()) << part << ": " << got;
    EXPECT_TRUE(read == Content(part)) << part;
  }
}

// Covers: G13
TEST(DiskWeightsOfACluster, ASmallDiskGetsFewerPagesAfterAWhileAndOneThatComesAtOnce) {
  Cluster cluster({.nodes = 3, .node_settings = "disk_reserve_mib = 64\n"});
  for (int node = 1; node <= 3; ++node) {
    const char* const settings = "[cluster]\nreweigh_after_s = 3\nreplace_after_s = 10\n";
    cluster.WriteConfig(node, absl::StrReplaceAll(cluster.ConfigText(node), {{"[cluster]\n", settings}}));
  }
  const auto disks = NodeDisks::Make(cluster.directory(), 3);
  ASSERT_TRUE(disks.ok()) << disks.status();
  for (const auto& [node, mib] : {std::pair(1, 2048), {2, 2048}, {3, 560}})
    ASSERT_TRUE((*disks)->Resize(node, mib).ok());
  cluster.StartAll();
  constexpr uint64_t kBytes = uint64_t{96} << 20;
  const std::vector<std::byte> content(kBytes, std::byte(7));
  const auto region = Take(cluster.Attach(1, 30'000)->Reserve({.name = "r", .size_bytes = kBytes}));
  ASSERT_TRUE(region->Allocate(0, kBytes, {}).ok());
  ASSERT_TRUE(region->Write(0, content).ok());
  ASSERT_TRUE(region->Flush(0, kBytes).ok());
  const auto membership = [&] { return cluster.Ask(1, {"status"})["membership"]; };
  // 64 MiB of each are not for pages: a quarter of the others' is left.
  const nlohmann::json weights{{"node-3", 4}};
  ASSERT_TRUE(Eventually([&] { return membership()["weights"] == weights; })) << membership().dump();
  ASSERT_TRUE(Eventually([&] { return membership()["next_disks"].empty(); })) << membership().dump();
  EXPECT_THAT(StatusShown(cluster, 1), HasSubstr("node-3 4"));
  const auto used = [&](int node) { return cluster.Ask(node, {"status"})["disk"]["used_bytes"].get<uint64_t>(); };
  EXPECT_TRUE(Eventually([&] { return 2 * used(3) < used(1) && 2 * used(3) < used(2); }))
      << used(1) << " " << used(2) << " " << used(3);
  std::vector<std::byte> read(kBytes);
  ASSERT_TRUE(region->Read(0, read).ok());
  EXPECT_TRUE(read == content);

  // When others have taken its place it comes back as any other would, and is weighed as it comes.
  cluster.Kill(3);
  ASSERT_TRUE(Eventually([&] { return membership()["disks"].size() == 2u; }, 40)) << membership().dump();
  EXPECT_TRUE(membership()["weights"].empty());
  cluster.Start(3);
  ASSERT_TRUE(Eventually([&] { return !membership()["next_disks"].empty() || membership()["disks"].size() == 3u; }));
  const nlohmann::json then = membership();
  EXPECT_EQ(then["next_disks"].empty() ? then["weights"] : then["next_weights"], weights) << then.dump();
}

// Covers: B14
TEST(DiskRoom, ADiskWithRoomIsNotTalkedOf) {
  Cluster cluster({.nodes = 1, .replicas = 1});
  cluster.StartAll();
  EXPECT_THAT(StatusShown(cluster, 1), Not(HasSubstr("\nDISK")));
}

// Leaves a node so much of its disk beside what is there.
void LeaveFree(const NodeDisks& disks, const Cluster& cluster, int node, uint64_t mib) {
  struct statvfs info;
  if (statvfs(absl::StrCat(cluster.directory(), "/data-", node).c_str(), &info) != 0)
    throw std::runtime_error("statvfs");
  const uint64_t used_mib = ((info.f_blocks - info.f_bfree) * info.f_frsize) >> 20;
  const absl::Status resized = disks.Resize(node, static_cast<int>(used_mib + mib));
  if (!resized.ok()) throw std::runtime_error(resized.ToString());
}

std::shared_ptr<Region> MakeFull(Session& session, uint64_t size_bytes, std::byte content) {
  auto region = MakeRegion(session, "r", size_bytes);
  EXPECT_TRUE(region->Write(0, std::vector<std::byte>(size_bytes, content)).ok());
  EXPECT_TRUE(Eventually([&] { return region->Flush(0, size_bytes).ok(); }));
  return region;
}

// Covers: B14
TEST(DiskRoom, ADiskThatGetsLowIsSaidBeforeItIsFullUntilThereIsRoom) {
  Cluster cluster({.nodes = 1, .replicas = 1, .node_settings = "disk_reserve_mib = 64\n"});
  const auto disks = NodeDisks::Make(cluster.directory(), 1);
  ASSERT_TRUE(disks.ok()) << disks.status();
  cluster.StartAll();
  const auto session = cluster.Attach(1, 30'000);
  const auto region = MakeFull(*session, uint64_t{32} << 20, std::byte(1));
  EXPECT_THAT(StatusShown(cluster, 1), Not(HasSubstr("\nDISK")));
  LeaveFree(**disks, cluster, 1, 64 + 4);
  const auto room = [&] { return cluster.Ask(1, {"status"})["disk_room"]; };
  EXPECT_TRUE(Eventually([&] { return room()["is_low"].get<bool>(); })) << room();
  EXPECT_FALSE(room()["is_full"].get<bool>());
  EXPECT_THAT(StatusShown(cluster, 1),
              testing::ContainsRegex("\nDISK LOW: [0-9]+ % of this node's disk, [1-9][0-9]* MiB, is free: let another "
                                     "node join, or enlarge the disk, before it is full\n"));
  EXPECT_EQ(cluster.LinesOf(1, "before it is full"), 1u);
  // It is a warning: pages are still taken.
  EXPECT_TRUE(SetWord(*region, 0, 2).ok());
  EXPECT_TRUE(region->Flush(0, kPageBytes).ok());
  ASSERT_TRUE((*disks)->Resize(1, 512).ok());
  EXPECT_TRUE(Eventually([&] { return !room()["is_low"].get<bool>(); })) << room();
  EXPECT_THAT(StatusShown(cluster, 1), Not(HasSubstr("\nDISK")));
  EXPECT_EQ(cluster.LinesOf(1, "this node's disk has room again"), 1u);
}

// Covers: C06, B14
TEST(DiskRoom, RepairThatAFullDiskHoldsUpGoesOnAndEndsWhenThereIsRoom) {
  constexpr uint64_t kBytes = uint64_t{96}
                              << 20;  // Half of it on each disk, and a third more when one of four is lost.
  Cluster cluster({.nodes = 4, .node_settings = "disk_reserve_mib = 64\nkeep_headroom = false\n"});
  const auto disks = NodeDisks::Make(cluster.directory(), 4);
  ASSERT_TRUE(disks.ok()) << disks.status();
  cluster.StartAll();
  const auto session = cluster.Attach(2, 30'000);
  const auto region = MakeFull(*session, kBytes, std::byte(7));
  const auto status = [&](int node) { return cluster.Ask(node, {"status"}); };
  const auto membership = [&] { return status(2)["membership"]; };

  cluster.Kill(4);
  ASSERT_TRUE(Eventually([&] { return membership()["missing"].size() == 1u; }));
  LeaveFree(**disks, cluster, 1, 64 + 2);
  const Output lost = cluster.GiveUp(2, "node-4");
  ASSERT_EQ(lost.exit_code, 0) << lost.err;
  const nlohmann::json others{"node-2", "node-3"};
  ASSERT_TRUE(Eventually([&] { return membership()["moved"] == others; })) << membership();
  ASSERT_TRUE(Eventually([&] {
    return testing::Value(status(1)["disk"]["trouble"].get<std::string>(), HasSubstr("disk full"));
  })) << status(1)["disk"];
  EXPECT_THAT(StatusShown(cluster, 1), testing::ContainsRegex("gets the pages that it is to keep: [0-9]+ %.*; it tries "
                                                              "again: .*disk full"));
  EXPECT_THAT(StatusShown(cluster, 1), HasSubstr("\nDISK "));
  // It is said everywhere, and is no more than held up: what is there is used.
  EXPECT_THAT(StatusShown(cluster, 3),
              HasSubstr("\nREPAIR: pages move, so that they are kept by node-1, node-2, node-3: 2 of "
                        "3 have theirs"));
  const nlohmann::json repair = status(3)["repair"];
  ASSERT_EQ(repair["disks"].size(), 1u) << repair;
  EXPECT_EQ(repair["disks"][0]["name"], "node-1");
  EXPECT_LT(repair["disks"][0]["done_percent"], 100);
  EXPECT_FALSE(membership()["next_disks"].empty());

  ASSERT_TRUE((*disks)->Resize(1, 512).ok());
  EXPECT_TRUE(Eventually([&] { return membership()["next_disks"].empty() && membership()["disks"].size() == 3u; }))
      << status(1)["disk"];
  EXPECT_TRUE(Eventually([&] { return status(3)["repair"].is_null(); })) << status(3)["repair"];
  EXPECT_EQ(status(1)["disk"]["trouble"], "");
  EXPECT_THAT(StatusShown(cluster, 1), Not(HasSubstr("\nDISK")));
  // Each page has two copies again, of which one may go.
  cluster.Kill(3);
  std::vector<std::byte> read(kBytes);
  EXPECT_TRUE(Eventually([&] { return region->Read(0, read).ok(); }));
  EXPECT_TRUE(read == std::vector<std::byte>(kBytes, std::byte(7)));
}

}  // namespace
}  // namespace mangrove::cluster_test
