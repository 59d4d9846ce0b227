// A region that is read where there is no quorum, by programs that have it open and by those that open it then.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/cluster/cluster.h"
#include "tests/cluster/node_network.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kSize = kSegmentPages * kPageBytes;
// What is refused is so at once; a call that waits takes longer than this.
constexpr int kReadTimeoutMs = 10'000;
constexpr double kAtOnceS = 3;
constexpr uint64_t kElsewhere = 16 * kPageBytes;  // A page that node 1 has not.

std::shared_ptr<Region> MakeReadable(Session& session, const std::string& name) {
  const auto region =
      Take(session.Reserve({.name = name, .size_bytes = kSize, .mode = 0640, .without_quorum = WithoutQuorum::kRead}));
  const absl::Status allocated = region->Allocate(0, kSize, {});
  if (!allocated.ok()) throw std::runtime_error(allocated.ToString());
  return region;
}

bool IsReadingOnly(Cluster& cluster, int node) { return !cluster.Ask(node, {"status"})["read_only"].is_null(); }

std::string ShownStatus(Cluster& cluster, int node) {
  return RunProgram({"mangrove", "--socket", cluster.socket(node), "status"}).out;
}

void ExpectRefused(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no quorum"));
}

void ExpectAllButReadingRefused(Region& region) {
  const Stopwatch since;
  ExpectRefused(SetWord(region, 0, 9));
  ExpectRefused(Word(region, kElsewhere).status());
  ExpectRefused(region.Flush(0, kPageBytes));
  ExpectRefused(region.Lock(0, kPageBytes, LockMode::kShared, kReadTimeoutMs).status());
  ExpectRefused(region.Lock(0, kPageBytes, LockMode::kExclusive, kReadTimeoutMs).status());
  ExpectRefused(region.Access(0, kPageBytes, AccessMode::kWrite, kReadTimeoutMs).status());
  ExpectRefused(region.Access(0, 32 * kPageBytes, AccessMode::kRead, kReadTimeoutMs).status());
  ExpectRefused(region.Unallocate(0, kPageBytes));
  ExpectRefused(region.SetAttributes(0, kPageBytes, {.keep_in_ram = true}));
  EXPECT_LT(since.Seconds(), kAtOnceS);
}

// Covers: C07
TEST(ReadOnly, WithoutQuorumWhatANodeHasIsReadAndAllElseIsRefusedAtOnce) {
  Cluster cluster;
  cluster.StartAll();
  const auto session = cluster.Attach(1, kReadTimeoutMs);
  const auto region = MakeReadable(*session, "r");
  std::byte* const base = Take(region->Map(0, kSize));
  ASSERT_EQ(TryStore(base, 7), 0);
  ASSERT_TRUE(SetWord(*region, kPageBytes, 8).ok());
  {
    const auto of_other = cluster.Attach(2);
    const auto other = Take(of_other->Open("r", AccessMode::kWrite));
    ASSERT_TRUE(SetWord(*other, kElsewhere, 1).ok());
  }
  // A program that has something else mapped is cut off, as ever.
  const auto strict = cluster.Attach(1, kReadTimeoutMs);
  const auto refusing = MakeRegion(*strict, "refusing", kSize);
  std::byte* const refused = Take(refusing->Map(0, kSize));
  ASSERT_EQ(TryStore(refused, 1), 0);
  EXPECT_THAT(ShownStatus(cluster, 1), Not(HasSubstr("READING ONLY")));

  cluster.Kill(2);
  cluster.Kill(3);
  ASSERT_TRUE(Eventually([&] { return IsReadingOnly(cluster, 1); }));
  EXPECT_THAT(ShownStatus(cluster, 1), AllOf(HasSubstr("NO QUORUM"), HasSubstr("READING ONLY: of region r ")));
  EXPECT_TRUE(Eventually([&] { return TryLoad(refused) == SIGBUS; }));

  uint64_t value = 0;
  EXPECT_EQ(TryLoad(base, &value), 0);
  EXPECT_EQ(value, 7u);
  EXPECT_EQ(TryLoad(base + kPageBytes, &value), 0);
  EXPECT_EQ(value, 8u);
  EXPECT_EQ(Take(Word(*region, 0)), 7u);
  EXPECT_EQ(TryStore(base, 9), SIGSEGV);
  ExpectAllButReadingRefused(*region);
  {
    const auto view = Take(region->Access(0, 2 * kPageBytes, AccessMode::kRead, kReadTimeoutMs));
    EXPECT_EQ(view.bytes()[0], std::byte{7});
  }
  EXPECT_EQ(TryLoad(base, &value), 0);
  EXPECT_EQ(value, 7u);

  // A program that comes now.
  const auto later = cluster.Attach(1, kReadTimeoutMs);
  ExpectRefused(later->Open("r", AccessMode::kWrite).status());
  {
    const auto opened = Take(later->Open("r", AccessMode::kRead));
    EXPECT_EQ(Take(Word(*opened, 0)), 7u);
    ExpectAllButReadingRefused(*opened);
    EXPECT_EQ(TryLoad(Take(opened->Map(0, kPageBytes)), &value), 0);
    EXPECT_EQ(value, 7u);
    ExpectRefused(opened->Map(0, kSize).status());
  }

  cluster.Start(2);
  cluster.Start(3);
  EXPECT_TRUE(Eventually([&] { return SetWord(*region, 0, 10).ok(); }));
  EXPECT_FALSE(IsReadingOnly(cluster, 1));
  EXPECT_TRUE(Eventually([&] { return TryStore(base, 11) == 0; }));
  cluster.AwaitConnected();
  EXPECT_TRUE(region->Flush(0, 2 * kPageBytes).ok());
  const auto of_other = cluster.Attach(3, kReadTimeoutMs);
  EXPECT_EQ(Take(Word(*Take(of_other->Open("r", AccessMode::kRead)), 0)), 11u);
}

// Covers: C07
TEST(ReadOnly, ThePolicyIsChangedByTheRegionsOwnerForWhoOpensItFromThenOn) {
  Cluster cluster;
  cluster.StartAll();
  const auto policy_of = [&](int node) {
    return cluster.Ask(node, {"region", "list"})[0]["without_quorum"].get<std::string>();
  };
  const auto set = [&](const std::string& policy) {
    return RunProgram({"mangrove", "--socket", cluster.socket(2), "region", "set", "r", "--without-quorum", policy});
  };
  const auto session = cluster.Attach(1, /*call_timeout_ms=*/500);
  {
    const auto region = MakeRegion(*session, "r", kSize);
    ASSERT_TRUE(SetWord(*region, 0, 7).ok());
  }
  EXPECT_EQ(policy_of(1), "refuse");
  EXPECT_THAT(set("perhaps").err, HasSubstr("expected \"refuse\" or \"read\""));
  EXPECT_EQ(set("read").exit_code, 0);
  EXPECT_EQ(policy_of(3), "read");
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  EXPECT_EQ(region->info().without_quorum, WithoutQuorum::kRead);
  EXPECT_EQ(Take(Word(*region, 0)), 7u);
  cluster.Kill(2);
  cluster.Kill(3);
  ASSERT_TRUE(Eventually([&] { return IsReadingOnly(cluster, 1); }));
  EXPECT_EQ(Take(Word(*region, 0)), 7u);
}

// The others go on, and write what the node that is cut off goes on reading as it was; whoever reads there never sees it go back.
// Covers: C07
TEST(ReadOnly, TheSideWithoutQuorumReadsWhatItHadUntilItIsBackAndNeverGoesBack) {
  const auto network = NodeNetwork::Make(3);
  ASSERT_TRUE(network.ok()) << network.status() << ": this test needs root, iproute2 and nftables";
  Cluster cluster({.hosts = (*network)->hosts(), .launchers = (*network)->launchers()});
  cluster.StartAll();
  cluster.AwaitConnected();
  const auto cut_off = cluster.Attach(1, kReadTimeoutMs);
  const auto stale = MakeReadable(*cut_off, "r");
  const auto of_other = cluster.Attach(2, kReadTimeoutMs);
  const auto fresh = Take(of_other->Open("r", AccessMode::kWrite));
  std::byte* const base = Take(stale->Map(0, kSize));
  ASSERT_EQ(TryStore(base, 1), 0);
  ASSERT_TRUE(stale->Flush(0, kPageBytes).ok());

  (*network)->CutOff(1, Cut::kBoth);
  ASSERT_TRUE(Eventually([&] { return IsReadingOnly(cluster, 1); }));
  for (uint64_t value = 2; value < 5; ++value) {
    EXPECT_TRUE(Eventually([&] { return SetWord(*fresh, 0, value).ok(); })) << value;
    EXPECT_TRUE(fresh->Flush(0, kPageBytes).ok());
    EXPECT_EQ(Take(Word(*fresh, 0)), value);
    EXPECT_EQ(Take(Word(*stale, 0)), 1u);
    uint64_t seen = 0;
    EXPECT_EQ(TryLoad(base, &seen), 0);
    EXPECT_EQ(seen, 1u);
    ExpectRefused(SetWord(*stale, 0, 100));
  }

  (*network)->Heal(1);
  std::vector<uint64_t> seen;
  EXPECT_TRUE(Eventually([&] {
    uint64_t value = 0;
    const auto again = Session::Attach({.socket_path = cluster.socket(1), .limits = {500}});
    if (!again.ok()) return false;
    const auto opened = (*again)->Open("r", AccessMode::kRead);
    if (opened.ok()) {
      if (const auto word = Word(**opened, 0); word.ok()) seen.push_back(*word);
    }
    // What was mapped before the cut ends when others are served anew: then it shows nothing, or what they see.
    if (TryLoad(base, &value) == 0) seen.push_back(value);
    return !seen.empty() && seen.back() == 4;
  }));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(TryLoad(base), SIGBUS);
  EXPECT_FALSE(IsReadingOnly(cluster, 1));
}

}  // namespace
}  // namespace mangrove::cluster_test
