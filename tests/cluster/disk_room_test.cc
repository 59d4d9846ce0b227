// What an operator is told before disks are full, and when they are.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/statvfs.h>

#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"

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

std::string StatusOf(Cluster& cluster, int node) {
  return RunProgram({"mangrove", "--socket", cluster.socket(node), "status"}).out;
}

// Covers: B14, G13
TEST(DiskRoom, AFullDiskIsSaidInTheFirstLinesOfTheStatusAndOnceInTheLog) {
  Cluster cluster({.nodes = 2, .node_settings = AllReserved()});
  cluster.StartAll();
  EXPECT_THAT(StatusOf(cluster, 1), HasSubstr("\nDISK FULL: 0 % of this node's disk"));
  EXPECT_TRUE(cluster.Ask(1, {"status"})["disk_room"]["is_full"].get<bool>());
  EXPECT_EQ(cluster.LinesOf(1, "of this node's disk"), 1u);
}

// Covers: B14
TEST(DiskRoom, ADiskWithRoomIsNotTalkedOf) {
  Cluster cluster({.nodes = 1, .replicas = 1});
  cluster.StartAll();
  EXPECT_THAT(StatusOf(cluster, 1), Not(HasSubstr("\nDISK")));
}

}  // namespace
}  // namespace mangrove::cluster_test
