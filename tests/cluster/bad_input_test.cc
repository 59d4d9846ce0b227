// Bad input gets an error that names it, and the node lives on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"

namespace mangrove::cluster_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

#define EXPECT_ERROR(expression, expected, words)                                    \
  do {                                                                               \
    const absl::Status got = StatusOf(expression);                                   \
    EXPECT_EQ(got.code(), absl::StatusCode::expected) << #expression << ": " << got; \
    EXPECT_THAT(std::string(got.message()), HasSubstr(words)) << #expression;        \
  } while (false)

class BadInput : public testing::Test {
 protected:
  Output RunDaemon(int node, const std::vector<std::string>& flags = {}) {
    std::vector<std::string> command{"mangroved", "--config", cluster_.config(node)};
    command.insert(command.end(), flags.begin(), flags.end());
    return RunProgram(command);
  }
  void Change(int node, const std::string& piece, const std::string& other) {
    const std::string text = absl::StrReplaceAll(cluster_.ConfigText(node), {{piece, other}});
    ASSERT_NE(text, cluster_.ConfigText(node)) << piece;
    cluster_.WriteConfig(node, text);
  }
  // The other two go on, and say of node-3 what is wrong with it.
  void ExpectRefused(const std::string& error) {
    cluster_.Start(1);
    cluster_.Start(2);
    cluster_.AwaitConnected();
    cluster_.Start(3);
    EXPECT_TRUE(Eventually([&] {
      return cluster_.log(1).find(error) != std::string::npos || cluster_.log(3).find(error) != std::string::npos;
    })) << error;
    EXPECT_FALSE(cluster_.PeerOf(1, "node-3")["connected"].get<bool>());
    EXPECT_TRUE(cluster_.PeerOf(1, "node-2")["connected"].get<bool>());
    // It is said once, not at each try.
    const auto tries = [&] { return cluster_.Ask(1, {"status"})["counters"]["peers_refused"].get<uint64_t>(); };
    const uint64_t before = tries();
    EXPECT_TRUE(Eventually([&] { return tries() >= before + 5; }));
    EXPECT_LE(cluster_.LinesOf(1, error), 1u);
    EXPECT_LE(cluster_.LinesOf(3, error), 2u);  // Of each of the two.
  }

  Cluster cluster_;
};

TEST_F(BadInput, ADaemonSaysWhatIsWrongWithItsConfiguration) {
  Change(1, "cache_size_mib", "cache_sise_mib");
  Output output = RunDaemon(1);
  EXPECT_EQ(output.exit_code, 2);
  EXPECT_EQ(output.err, absl::StrCat("mangroved: ", cluster_.config(1),
                                     ":5: node.cache_sise_mib is not a known key; did you mean 'cache_size_mib'?\n"));
  Change(1, "name = \"node-2\"", "name = \"node-1\"");
  output = RunDaemon(1, {"--check-config"});
  EXPECT_EQ(output.exit_code, 2);
  EXPECT_THAT(output.err, HasSubstr("name is \"node-1\", as that of members[1]"));
  EXPECT_EQ(RunDaemon(2, {"--check-config"}).exit_code, 0);
  EXPECT_EQ(RunDaemon(2, {"--no-such-flag"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"mangroved", "--config", "/nonexistent"}).exit_code, 2);
  chmod((cluster_.directory() + "/key").c_str(), 0644);
  output = RunDaemon(2);
  EXPECT_EQ(output.exit_code, 2);
  EXPECT_THAT(output.err, HasSubstr("run chmod 600"));
}

TEST_F(BadInput, AStoreAndASocketAndAnAddressHaveOneDaemon) {
  cluster_.StartAll();
  Output output = RunDaemon(1, {"--socket", cluster_.directory() + "/other.sock"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, AllOf(HasSubstr("cannot start"), HasSubstr(std::to_string(cluster_.pid(1)))));
  // The same node's configuration with a data directory of its own.
  Change(1, "/data-1", "/data-x");
  output = RunDaemon(1);
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("cannot start"));
  EXPECT_TRUE(cluster_.PeerOf(2, "node-1")["connected"].get<bool>());
  EXPECT_EQ(cluster_.Ask(1, {"node", "list"}).size(), 3u);
}

TEST_F(BadInput, ANodeWithAnotherKeyIsRefused) {
  const std::string key = cluster_.directory() + "/other-key";
  std::ofstream(key) << std::string(64, 'b');
  chmod(key.c_str(), 0600);
  Change(3, cluster_.directory() + "/key", key);
  ExpectRefused("does not hold the cluster's key");
}

TEST_F(BadInput, ANodeOfAnotherClusterIsRefused) {
  Change(3, "name = \"test\"", "name = \"another\"");
  ExpectRefused(" met a node of cluster ");
}

TEST_F(BadInput, TheCommandLineNamesWhatIsWrong) {
  Output output = RunProgram({"mangrove", "--socket", cluster_.socket(1), "status"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr(absl::StrCat("no daemon serves ", cluster_.socket(1))));
  EXPECT_EQ(output.out, "");
  cluster_.StartAll();
  EXPECT_EQ(RunProgram({"mangrove", "--socket", cluster_.socket(1), "status"}).exit_code, 0);
  output = RunProgram({"mangrove", "--socket", cluster_.socket(1), "page", "show", "0"});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("is not in the address space"));
  EXPECT_EQ(RunProgram({"mangrove", "--socket", cluster_.socket(1), "page", "show", "hello"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"mangrove", "--socket", cluster_.socket(1), "nonsense"}).exit_code, 2);
}

// Covers: G02
TEST_F(BadInput, CallsNameTheArgumentAndChangeNothing) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  EXPECT_ERROR(session->Reserve({.name = "", .size_bytes = kPageBytes}), kInvalidArgument, "name");
  EXPECT_ERROR(session->Reserve({.name = "a/b", .size_bytes = kPageBytes}), kInvalidArgument, "a/b");
  EXPECT_ERROR(session->Reserve({.name = "a", .size_bytes = 100}), kInvalidArgument, "100");
  EXPECT_ERROR(session->Reserve({.name = "a", .size_bytes = uint64_t{1} << 60}), kInvalidArgument, "");
  EXPECT_ERROR(session->Open("none", AccessMode::kRead), kNotFound, "none");
  EXPECT_ERROR(session->Free("none"), kNotFound, "none");

  const auto region = Take(session->Reserve({.name = "r", .size_bytes = 8 * kPageBytes}));
  EXPECT_ERROR(session->Reserve({.name = "r", .size_bytes = kPageBytes}), kAlreadyExists, "r");
  EXPECT_ERROR(region->Allocate(1, kPageBytes, {}), kInvalidArgument, "1");
  EXPECT_ERROR(region->Allocate(0, 100, {}), kInvalidArgument, "100");
  EXPECT_ERROR(region->Allocate(0, 9 * kPageBytes, {}), kInvalidArgument, "");
  EXPECT_ERROR(region->Allocate(8 * kPageBytes, kPageBytes, {}), kInvalidArgument, "");
  EXPECT_ERROR(region->Allocate(UINT64_MAX - 4095, kPageBytes, {}), kInvalidArgument, "");
  EXPECT_ERROR(region->Allocate(0, kPageBytes, {.replicas = 4}), kInvalidArgument, "4");
  EXPECT_ERROR(region->Map(0, kPageBytes), kFailedPrecondition, "not allocated");
  EXPECT_ERROR(region->Flush(0, kPageBytes), kFailedPrecondition, "not allocated");
  uint64_t value = 0;
  EXPECT_ERROR(region->Read(0, std::as_writable_bytes(std::span(&value, 1))), kFailedPrecondition, "not allocated");
  EXPECT_ERROR(region->Read(8 * kPageBytes - 4, std::as_writable_bytes(std::span(&value, 1))), kInvalidArgument, "");

  ASSERT_TRUE(region->Allocate(0, 4 * kPageBytes, {}).ok());
  EXPECT_ERROR(region->SetAttributes(0, kPageBytes, {.replicas = 3}), kInvalidArgument, "replicas is 3");
  EXPECT_TRUE(region->Allocate(4 * kPageBytes, kPageBytes, {.replicas = 3}).ok());  // Others may have another number.
  EXPECT_TRUE(region->Unallocate(4 * kPageBytes, kPageBytes).ok());
  EXPECT_ERROR(region->Allocate(3 * kPageBytes, 2 * kPageBytes, {}), kAlreadyExists, "");
  EXPECT_ERROR(region->Unallocate(2 * kPageBytes, 4 * kPageBytes), kFailedPrecondition, "");
  EXPECT_ERROR(session->Free("r"), kFailedPrecondition, "r");
  EXPECT_TRUE(region->Unallocate(0, 4 * kPageBytes).ok());
  EXPECT_ERROR(region->Unallocate(0, 4 * kPageBytes), kFailedPrecondition, "");
  EXPECT_TRUE(session->Free("r").ok());
  EXPECT_ERROR(session->Free("r"), kNotFound, "r");
  EXPECT_EQ(cluster_.Ask(2, {"region", "list"}).size(), 0u);
}

// Covers: G01
TEST_F(BadInput, AnAddressThatWasFreedIsNeverHandedOutAgain) {
  cluster_.StartAll();
  std::vector<GlobalAddress> seen;
  for (int round = 0; round < 6; ++round) {
    const auto session = cluster_.Attach(round % 3 + 1);
    const auto region = session->Reserve({.name = "r", .size_bytes = kPageBytes});
    ASSERT_TRUE(region.ok()) << region.status();
    const GlobalAddress address = (*region)->info().address;
    EXPECT_EQ(std::find(seen.begin(), seen.end(), address), seen.end());
    seen.push_back(address);
    ASSERT_TRUE(session->Free("r").ok());
    if (round == 3) {
      cluster_.KillAll();
      cluster_.StartAll();
    }
  }
}

TEST_F(BadInput, RangesThatAreMuchTooLargeAreRefusedWhileTheNodeServesOthers) {
  constexpr uint64_t kReserved = uint64_t{1} << 46;
  constexpr uint64_t kAllocated = uint64_t{4} << 30;
  cluster_.StartAll();
  const auto session = cluster_.Attach(1);
  const auto region = Take(session->Reserve({.name = "r", .size_bytes = kReserved}));
  ASSERT_TRUE(region->Allocate(0, kAllocated, {}).ok());
  const uint64_t value = 1;
  ASSERT_TRUE(region->Write(kPageBytes, std::as_bytes(std::span(&value, 1))).ok());
  EXPECT_ERROR(region->Flush(0, kReserved), kFailedPrecondition, "not allocated");
  EXPECT_ERROR(region->Lock(0, kReserved, LockMode::kShared, 1000), kFailedPrecondition, "not allocated");
  EXPECT_ERROR(region->Access(0, kAllocated, AccessMode::kRead, 1000), kResourceExhausted, "1048576 pages");
  const absl::Status flushed = region->Flush(0, kAllocated);
  EXPECT_TRUE(flushed.ok()) << flushed;
  // What cannot end in time says how far it came, and leaves the node to others meanwhile.
  ASSERT_TRUE(region->Allocate(kAllocated, kReserved - kAllocated, {}).ok());
  const auto hasty = cluster_.Attach(1, 1000);
  const auto again = Take(hasty->Open("r", AccessMode::kWrite));
  std::thread flushing(
      [&] { EXPECT_ERROR(again->Flush(0, kReserved), kDeadlineExceeded, "of the 17179869184 pages"); });
  std::array<std::byte, 8> word;
  for (uint64_t i = 0; i < 20; ++i) EXPECT_TRUE(region->Read(i * kPageBytes, word).ok());
  flushing.join();
}

class SmallNodes : public testing::Test {
 protected:
  uint64_t ReadWord(Region& region, uint64_t offset) {
    uint64_t value = 0;
    const absl::Status read = region.Read(offset, std::as_writable_bytes(std::span(&value, 1)));
    EXPECT_TRUE(read.ok()) << read;
    return value;
  }
};

// Covers: G10
TEST_F(SmallNodes, ACacheFullOfLockedPagesIsAnErrorAndPassesWithTheLocks) {
  Cluster cluster({.cache_size_mib = 4});
  cluster.StartAll();
  const auto session = cluster.Attach(1);
  const auto region = MakeRegion(*session, "r", uint64_t{16} << 20);
  {
    auto held = region->Access(0, uint64_t{3} << 20, AccessMode::kWrite, 10'000);
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_ERROR(region->Access(uint64_t{4} << 20, uint64_t{3} << 20, AccessMode::kWrite, 3000), kResourceExhausted,
                 "cache");
  }
  auto view = region->Access(uint64_t{4} << 20, uint64_t{3} << 20, AccessMode::kWrite, 10'000);
  EXPECT_TRUE(view.ok()) << view.status();
}

// Covers: G10
TEST_F(SmallNodes, ACacheSmallerThanTheDataGivesWayToTheDisk) {
  Cluster cluster({.cache_size_mib = 4});
  cluster.StartAll();
  const auto session = cluster.Attach(1, 20'000);
  constexpr uint64_t kSize = uint64_t{24} << 20;
  const auto region = MakeRegion(*session, "r", kSize);
  std::byte* const base = Take(region->Map(0, kSize));
  for (uint64_t at = 0; at < kSize; at += kPageBytes) ASSERT_EQ(TryStore(base + at, at + 1), 0) << at;
  for (uint64_t at = 0; at < kSize; at += kPageBytes) {
    uint64_t value = 0;
    ASSERT_EQ(TryLoad(base + at, &value), 0) << at;
    ASSERT_EQ(value, at + 1);
  }
  const auto cache = cluster.Ask(1, {"status"})["cache"];
  EXPECT_LE(cache["used_bytes"].get<uint64_t>(), cache["size_bytes"].get<uint64_t>());
}

TEST_F(SmallNodes, AFullDiskIsAnErrorOfItsOwnAndTheNodeLivesOn) {
  // Half of the reserve is for what adds no pages: there is room for that, and none for pages.
  const uint64_t free_mib = std::filesystem::space(std::filesystem::temp_directory_path()).available >> 20;
  Cluster cluster({.node_settings = absl::StrCat("disk_reserve_mib = ", free_mib + free_mib / 2)});
  cluster.StartAll();
  const auto session = cluster.Attach(1);
  auto region = session->Reserve({.name = "r", .size_bytes = kPageBytes});
  absl::Status written = region.status();
  if (written.ok()) written = (*region)->Allocate(0, kPageBytes, {});
  const uint64_t value = 1;
  if (written.ok()) written = (*region)->Write(0, std::as_bytes(std::span(&value, 1)));
  if (written.ok()) written = (*region)->Flush(0, kPageBytes);
  EXPECT_EQ(written.code(), absl::StatusCode::kResourceExhausted) << written;
  EXPECT_THAT(std::string(written.message()), HasSubstr("free"));
  EXPECT_EQ(cluster.Ask(1, {"node", "list"}).size(), 3u);
}

TEST_F(SmallNodes, ANodeThatFindsItsDiskFullDoesNotStartAndSaysWhy) {
  Cluster cluster({.node_settings = "disk_reserve_mib = 1000000000"});
  const Output output = RunProgram({"mangroved", "--config", cluster.config(1)});
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, AllOf(HasSubstr("cannot start"), HasSubstr("free")));
}

// What a node with nothing in its cache takes of the machine.
TEST_F(SmallNodes, AnEmptyNodeIsSmall) {
  Cluster cluster({.cache_size_mib = 1024});
  cluster.StartAll();
  for (int node = 1; node <= 3; ++node) {
    std::ifstream statm(absl::StrCat("/proc/", cluster.pid(node), "/statm"));
    uint64_t size = 0;
    uint64_t resident = 0;
    statm >> size >> resident;
    EXPECT_GT(resident, 0u);
    EXPECT_LT(resident * 4096, uint64_t{64} << 20) << "node-" << node;
  }
}

}  // namespace
}  // namespace mangrove::cluster_test
