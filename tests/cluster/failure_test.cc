// Nodes, daemons and programs that are killed: what does not need them goes on, what does fails within its bound.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr int kFaultTimeoutMs = 2000;
constexpr int kCallTimeoutMs = 2000;
// What scheduling on a busy machine may add to a bound.
constexpr double kSlackS = 4;
constexpr double kBoundS = 2 + kSlackS;

class Failures : public testing::Test {
 protected:
  // The first pages of segments that need `node` (as responsible node or core holder), or do not.
  std::vector<uint64_t> Offsets(const Region& region, const std::string& node, bool needs) {
    std::vector<uint64_t> offsets;
    for (uint64_t offset = 0; offset < region.info().size_bytes; offset += kSegmentBytes) {
      const auto page = cluster_.Ask(1, {"page", "show", ToString(region.info().address + offset)});
      const auto holders = page["core_holders"].get<std::vector<std::string>>();
      const bool is_holder = std::find(holders.begin(), holders.end(), node) != holders.end();
      if ((is_holder || page["responsible"] == node) == needs) offsets.push_back(offset);
    }
    return offsets;
  }

  // Seen from `node`, the first words of so many segments of region r are 100, 101, ...
  void ExpectCountedSegments(int node, uint64_t segments) {
    const auto session = cluster_.Attach(node);
    const auto region = Take(session->Open("r", AccessMode::kRead));
    for (uint64_t i = 0; i < segments; ++i) {
      uint64_t value = 0;
      const absl::Status read = region->Read(i * kSegmentBytes, std::as_writable_bytes(std::span(&value, 1)));
      EXPECT_TRUE(read.ok()) << read;
      EXPECT_EQ(value, 100 + i) << "node-" << node;
    }
  }

  void SetLease(int ms) {
    const std::string settings = absl::StrCat("[cluster]\nlease_ms = ", ms, "\n");
    for (int node = 1; node <= 3; ++node) {
      cluster_.WriteConfig(node, absl::StrReplaceAll(cluster_.ConfigText(node), {{"[cluster]\n", settings}}));
    }
  }

  // Stores into pages of these segments, such as were used before and such as were not, and flushes each: how long the longest step took.
  static double LongestOf(Region& region, std::byte* base, const std::vector<uint64_t>& offsets) {
    double longest_s = 0;
    for (const uint64_t offset : offsets) {
      for (const uint64_t page : {offset, offset + kPageBytes, offset + 2 * kPageBytes}) {
        const Stopwatch store;
        EXPECT_EQ(TryStore(base + page + 8, 2), 0) << page;
        longest_s = std::max(longest_s, store.Seconds());
        const Stopwatch flush;
        const absl::Status flushed = region.Flush(page, kPageBytes);
        EXPECT_TRUE(flushed.ok()) << flushed;
        longest_s = std::max(longest_s, flush.Seconds());
      }
    }
    return longest_s;
  }

  Cluster cluster_{{.fault_timeout_ms = kFaultTimeoutMs}};
};

// Covers: G08, G19, B02
TEST_F(Failures, WhatDoesNotNeedAKilledNodeGoesOnAndWhatDoesWaitsUntilItIsGone) {
  // So that the view without it comes late, and who waited for that would be seen.
  constexpr double kNoWaitS = 1;
  SetLease(3000);
  cluster_.StartAll();
  const auto session = cluster_.Attach(1, kCallTimeoutMs);
  const auto region = MakeRegion(*session, "r", 16 * kSegmentBytes);
  const std::vector<uint64_t> free = Offsets(*region, "node-3", false);
  const std::vector<uint64_t> bound = Offsets(*region, "node-3", true);
  ASSERT_GE(free.size(), 2u);
  ASSERT_GE(bound.size(), 2u);
  std::byte* const base = Take(region->Map(0, region->info().size_bytes));
  // Segments of which node-1 is responsible; node-3, which touches these first, of the others.
  for (const uint64_t offset : free) ASSERT_EQ(TryStore(base + offset, 1), 0);
  ASSERT_TRUE(region->Flush(free[0], kPageBytes).ok());
  uint64_t value = 0;
  {
    const auto third = cluster_.Attach(3, kCallTimeoutMs);
    const auto its_region = Take(third->Open("r", AccessMode::kRead));
    for (const uint64_t offset : {bound[0], bound[1]}) {
      ASSERT_TRUE(its_region->Read(offset, std::as_writable_bytes(std::span(&value, 1))).ok());
    }
  }
  // What is needed to open a region may be anywhere.
  const auto other = cluster_.Attach(2, kCallTimeoutMs);
  const auto same = Take(other->Open("r", AccessMode::kWrite));
  ASSERT_TRUE(same->Read(free[0], std::as_writable_bytes(std::span(&value, 1))).ok());
  ASSERT_EQ(cluster_.LinesOf(1, " of 2 nodes: node-1, node-2"), 0u);
  cluster_.Kill(3);
  const Stopwatch since;

  double longest_s = LongestOf(*region, base, free);
  const Stopwatch there;
  EXPECT_TRUE(same->Read(free[0] + 8, std::as_writable_bytes(std::span(&value, 1))).ok());
  longest_s = std::max(longest_s, there.Seconds());
  EXPECT_EQ(value, 2u);
  std::printf("%zu segments in %.0f ms, the longest access took %.0f ms\n", free.size(), since.Seconds() * 1000,
              longest_s * 1000);
  EXPECT_LT(longest_s, kNoWaitS);
  // None of them has waited for a view without it: there is none yet.
  EXPECT_EQ(cluster_.LinesOf(1, " of 2 nodes: node-1, node-2"), 0u);

  // What needs it waits until it has left the view, or fails in its bound.
  Stopwatch call;
  const absl::Status read = region->Read(bound[0], std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_LT(call.Seconds(), kBoundS);
  if (!read.ok()) {
    EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable) << read;
    EXPECT_THAT(std::string(read.message()), HasSubstr("node 3"));
  }
  EXPECT_TRUE(Eventually([&] { return region->Read(bound[0], std::as_writable_bytes(std::span(&value, 1))).ok(); }));
  EXPECT_EQ(cluster_.LinesOf(1, " of 2 nodes: node-1, node-2"), 1u);
  EXPECT_GT(since.Seconds(), 2 * kNoWaitS);
  EXPECT_EQ(TryStore(base + bound[1], 5), 0);

  cluster_.Start(3);
  cluster_.AwaitConnected();
  EXPECT_TRUE(same->Read(bound[1], std::as_writable_bytes(std::span(&value, 1))).ok());
  EXPECT_EQ(value, 5u);
}

// Covers: G17
TEST_F(Failures, AKilledNodeComesBackAsANewIncarnationWithWhatWasFlushed) {
  cluster_.StartAll();
  const auto before = cluster_.Ask(3, {"status"})["node"];
  {
    const auto session = cluster_.Attach(3);
    const auto region = MakeRegion(*session, "r", 4 * kSegmentBytes);
    std::byte* const base = Take(region->Map(0, region->info().size_bytes));
    for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(TryStore(base + i * kSegmentBytes, 100 + i), 0);
    const absl::Status flushed = region->Flush(0, region->info().size_bytes);
    ASSERT_TRUE(flushed.ok()) << flushed;
  }
  cluster_.Kill(3);
  cluster_.Start(3);
  cluster_.AwaitConnected();
  const auto after = cluster_.Ask(3, {"status"})["node"];
  EXPECT_EQ(before["id"], after["id"]);
  EXPECT_LT(before["incarnation"].get<uint64_t>(), after["incarnation"].get<uint64_t>());
  for (int node = 1; node <= 3; ++node) ExpectCountedSegments(node, 4);
}

// Covers: G19
TEST_F(Failures, AProgramWhoseDaemonIsKilledGetsTheEventSigbusAndErrors) {
  cluster_.StartAll();
  auto session = cluster_.Attach(1, kCallTimeoutMs);
  auto region = MakeRegion(*session, "r", 4 * kPageBytes);
  std::byte* const base = Take(region->Map(0, region->info().size_bytes));
  ASSERT_EQ(TryStore(base, 1), 0);
  std::mutex mutex;
  std::vector<RegionEvent::Kind> events;
  region->SetEventCallback([&](const RegionEvent& event) {
    const std::lock_guard lock(mutex);
    events.push_back(event.kind);
  });
  Stopwatch watch;
  cluster_.Kill(1);
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex);
    return std::find(events.begin(), events.end(), RegionEvent::Kind::kFenced) != events.end();
  }));
  EXPECT_LT(watch.Seconds(), kBoundS);
  // A page that was here, and one that was not.
  EXPECT_TRUE(Eventually([&] { return TryLoad(base) == SIGBUS; }));
  EXPECT_EQ(TryLoad(base + kPageBytes), SIGBUS);
  EXPECT_LT(watch.Seconds(), kBoundS);
  uint64_t value = 0;
  EXPECT_EQ(region->Read(0, std::as_writable_bytes(std::span(&value, 1))).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(session->Open("r", AccessMode::kRead).ok());
  region.reset();
  session.reset();

  // The way on is to attach again.
  cluster_.Start(1);
  cluster_.AwaitConnected();
  session = cluster_.Attach(1);
  region = Take(session->Open("r", AccessMode::kWrite));
  std::byte* const again = Take(region->Map(0, region->info().size_bytes));
  EXPECT_EQ(TryStore(again, 2), 0);
}

// Covers: G04
TEST_F(Failures, TheLocksOfAKilledProgramAreFree) {
  cluster_.StartAll();
  Child holder([this](const Child::Tell& tell) {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "r", 4 * kPageBytes);
    const auto lock = region->Lock(0, 2 * kPageBytes, LockMode::kExclusive, 5000);
    tell(lock.ok() ? 'y' : 'n');
    pause();
    return 0;
  });
  ASSERT_EQ(holder.AwaitTold(), 'y');
  const auto session = cluster_.Attach(2);
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  for (const LockMode mode : {LockMode::kShared, LockMode::kExclusive}) {
    EXPECT_EQ(region->Lock(0, kPageBytes, mode, 300).status().code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(region->Lock(2 * kPageBytes, kPageBytes, LockMode::kExclusive, 2000).ok());
  holder.Kill();
  Stopwatch watch;
  const auto lock = region->Lock(0, 2 * kPageBytes, LockMode::kExclusive, 10'000);
  EXPECT_TRUE(lock.ok()) << lock.status();
  EXPECT_LT(watch.Seconds(), kBoundS);
}

// Covers: G03
TEST_F(Failures, ProgramsKilledAmidFaultsLeaveTheNodesAndThePagesInOrder) {
  cluster_.StartAll();
  constexpr uint64_t kSize = 4 * kSegmentBytes;
  Child maker([this](const Child::Tell&) {
    const auto session = cluster_.Attach(1);
    MakeRegion(*session, "r", kSize);
    return 0;
  });
  ASSERT_EQ(maker.AwaitEnd(), 0);
  for (int round = 0; round < 4; ++round) {
    std::vector<std::unique_ptr<Child>> children;
    for (int node = 1; node <= 3; ++node) {
      children.push_back(std::make_unique<Child>([this, node](const Child::Tell& tell) {
        const auto session = cluster_.Attach(node);
        const auto region = Take(session->Open("r", AccessMode::kWrite));
        std::byte* const base = Take(region->Map(0, kSize));
        uint64_t accesses = 0;
        for (uint64_t i = 0;; i = (i + 7 * kPageBytes) % kSize) {
          std::atomic_ref(*reinterpret_cast<uint64_t*>(base + i)).fetch_add(1);
          if (++accesses == 100) tell('b');
        }
        return 0;
      }));
    }
    for (const auto& child : children) ASSERT_EQ(child->AwaitTold(), 'b');
    for (const auto& child : children) child->Kill();
  }
  for (int node = 1; node <= 3; ++node) {
    const auto session = cluster_.Attach(node);
    const auto region = Take(session->Open("r", AccessMode::kWrite));
    auto view = region->Access(0, kSegmentBytes, AccessMode::kWrite, 10'000);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_TRUE(view->Release().ok());
    std::byte* const base = Take(region->Map(0, kSize));
    uint64_t value = 0;
    for (uint64_t i = 0; i < kSize; i += 16 * kPageBytes) EXPECT_EQ(TryLoad(base + i, &value), 0);
  }
}

// Covers: G17
TEST_F(Failures, AnOrderlyStopOfEverythingKeepsWhatNobodyFlushed) {
  constexpr uint64_t kPages = 4 * kSegmentPages;
  cluster_.StartAll();
  for (int node = 1; node <= 3; ++node) {
    const auto session = cluster_.Attach(node);
    const auto region = MakeRegion(*session, absl::StrCat("r", node), kPages * kPageBytes);
    std::byte* const base = Take(region->Map(0, region->info().size_bytes));
    for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(TryStore(base + page * kPageBytes, page + 1), 0);
  }
  cluster_.StopAll();
  cluster_.StartAll();
  for (int node = 1; node <= 3; ++node) {
    const auto session = cluster_.Attach(node % 3 + 1);
    const auto region = Take(session->Open(absl::StrCat("r", node), AccessMode::kRead));
    for (uint64_t page = 0; page < kPages; ++page) {
      uint64_t value = 0;
      const absl::Status read = region->Read(page * kPageBytes, std::as_writable_bytes(std::span(&value, 1)));
      ASSERT_TRUE(read.ok()) << read;
      ASSERT_EQ(value, page + 1) << "page " << page << " of node-" << node;
    }
  }
}

// Covers: G19
TEST_F(Failures, WhoUsesAPageThatWentBackToItsFlushedVersionIsTold) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(2, kCallTimeoutMs);
  const auto region = MakeRegion(*session, "r", 16 * kSegmentBytes);
  const std::vector<uint64_t> offsets = Offsets(*region, "node-1", false);
  ASSERT_FALSE(offsets.empty());
  const uint64_t offset = offsets[0];
  std::byte* const base = Take(region->Map(0, region->info().size_bytes));
  ASSERT_EQ(TryStore(base + offset, 1), 0);
  ASSERT_TRUE(region->Flush(offset, kPageBytes).ok());
  std::mutex mutex;
  std::vector<RegionEvent> events;
  region->SetEventCallback([&](const RegionEvent& event) {
    const std::lock_guard lock(mutex);
    events.push_back(event);
  });
  // Changed on node-1, and nowhere else.
  Child writer([&, this](const Child::Tell& tell) {
    const auto its_session = cluster_.Attach(1);
    const auto its_region = Take(its_session->Open("r", AccessMode::kWrite));
    std::byte* const its_base = Take(its_region->Map(0, its_region->info().size_bytes));
    tell(TryStore(its_base + offset, 2) == 0 ? 'y' : 'n');
    pause();
    return 0;
  });
  ASSERT_EQ(writer.AwaitTold(), 'y');
  cluster_.Kill(1);
  // When the cluster has gone on without it, the change is lost.
  uint64_t value = 0;
  EXPECT_TRUE(Eventually([&] { return region->Read(offset, std::as_writable_bytes(std::span(&value, 1))).ok(); }));
  EXPECT_EQ(value, 1u);
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex);
    return std::any_of(events.begin(), events.end(), [&](const RegionEvent& e) {
      return e.kind == RegionEvent::Kind::kReverted && e.offset_bytes <= offset &&
             offset < e.offset_bytes + e.length_bytes;
    });
  }));
  EXPECT_GE(region->Counters().reverts, 1u);
}

// Covers: G17
TEST_F(Failures, ANodeThatLostItsDiskGetsTheFlushedPagesFromTheOthers) {
  cluster_.StartAll();
  constexpr uint64_t kSegments = 12;
  {
    const auto session = cluster_.Attach(3);
    const auto region = MakeRegion(*session, "r", kSegments * kSegmentBytes);
    std::byte* const base = Take(region->Map(0, region->info().size_bytes));
    for (uint64_t i = 0; i < kSegments; ++i) ASSERT_EQ(TryStore(base + i * kSegmentBytes, 100 + i), 0);
    ASSERT_TRUE(region->Flush(0, region->info().size_bytes).ok());
  }
  cluster_.KillAll();
  ASSERT_GT(std::filesystem::remove_all(cluster_.directory() + "/data-3"), 0u);
  cluster_.StartAll();
  for (const int node : {3, 1}) ExpectCountedSegments(node, kSegments);
}

// Covers: G02, G05
TEST_F(Failures, VolatilePagesAreLostWithTheirNodesAndSayThatTheyAre) {
  cluster_.StartAll();
  {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "r", 2 * kPageBytes, {.persistent = false});
    std::byte* const base = Take(region->Map(0, 2 * kPageBytes));
    ASSERT_EQ(TryStore(base, 1), 0);
  }
  cluster_.KillAll();
  cluster_.StartAll();
  const auto session = cluster_.Attach(2);
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  uint64_t value = 0;
  const absl::Status read = region->Read(0, std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss) << read;
  // Allocating them anew is the way on.
  EXPECT_TRUE(Eventually([&] { return region->Allocate(0, kPageBytes, {.persistent = false}).ok(); }));
  const absl::Status again = region->Read(0, std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_TRUE(again.ok()) << again;
  EXPECT_EQ(value, 0u);
}

TEST_F(Failures, ASecondSignalEndsADaemonAtOnce) {
  cluster_.StartAll();
  {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "r", 8 * kSegmentBytes);
    std::byte* const base = Take(region->Map(0, region->info().size_bytes));
    for (uint64_t i = 0; i < 8; ++i) ASSERT_EQ(TryStore(base + i * kSegmentBytes, 1), 0);
  }
  // Without them it waits: not everything can be flushed.
  cluster_.Kill(2);
  cluster_.Kill(3);
  kill(cluster_.pid(1), SIGINT);
  ASSERT_TRUE(Eventually([&] { return cluster_.log(1).find("stopping, since") != std::string::npos; }));
  const Stopwatch watch;
  EXPECT_EQ(cluster_.Stop(1, SIGTERM), 128 + SIGTERM);
  EXPECT_LT(watch.Seconds(), kSlackS);
}

TEST_F(Failures, AStopThatCannotFlushIsBoundedAndSaysSo) {
  cluster_.StartAll();
  {
    const auto session = cluster_.Attach(1);
    const auto region = MakeRegion(*session, "r", 8 * kSegmentBytes);
    std::byte* const base = Take(region->Map(0, region->info().size_bytes));
    for (uint64_t i = 0; i < 8; ++i) ASSERT_EQ(TryStore(base + i * kSegmentBytes, 1), 0);
  }
  cluster_.Kill(2);
  cluster_.Kill(3);
  const Stopwatch watch;
  EXPECT_EQ(cluster_.Stop(1), 3);
  EXPECT_LT(watch.Seconds(), 10 + 5 + kSlackS);
  EXPECT_THAT(cluster_.log(1), HasSubstr("not everything that was written here is on disk"));
}

TEST_F(Failures, AStoppedDaemonFencesItsProgramsAndTheyTheirCluster) {
  cluster_.StartAll();
  const auto session = cluster_.Attach(1, kCallTimeoutMs);
  const auto region = MakeRegion(*session, "r", 4 * kPageBytes);
  std::byte* const base = Take(region->Map(0, region->info().size_bytes));
  ASSERT_EQ(TryStore(base, 1), 0);
  kill(cluster_.pid(1), SIGSTOP);
  int state = 0;  // Every thread of it has stopped, and none serves a fault any more.
  ASSERT_EQ(waitpid(cluster_.pid(1), &state, WUNTRACED), cluster_.pid(1));
  ASSERT_TRUE(WIFSTOPPED(state));
  const Stopwatch watch;
  EXPECT_EQ(TryLoad(base + kPageBytes), SIGBUS);
  EXPECT_LT(watch.Seconds(), 5 + kBoundS);
  kill(cluster_.pid(1), SIGCONT);
}

// The killed node is neither an anchor nor the leader, and passes on the pulses of its group.
// Covers: C02
TEST(Monitors, WhenTheMonitorOfAGroupIsKilledNobodyLosesItsLeaseAndThePagesAreServedInTime) {
  constexpr double kGoneWithinS = 1.1;  // From the view (docs/MEMBERSHIP.md).
  constexpr uint64_t kPages = 16;
  Cluster cluster({.nodes = 6, .node_settings = "monitors_above = 0\n", .ids = {1, 2, 3, 65, 66, 67}});
  cluster.StartAll();
  cluster.AwaitConnected();
  ASSERT_TRUE(Eventually([&] { return cluster.MonitorOf(5) == 4 && cluster.MonitorOf(6) == 4; }));
  EXPECT_EQ(cluster.MonitorOf(4), 0);
  const auto session = cluster.Attach(5, 10'000);
  const auto own = MakeRegion(*session, "own", kPages * kPageBytes);
  {
    const auto of_monitor = cluster.Attach(4);
    const auto made = MakeRegion(*of_monitor, "r", kPages * kPageBytes);
    for (uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(SetWord(*made, page * kPageBytes, page).ok());
    ASSERT_TRUE(made->Flush(0, kPages * kPageBytes).ok());
  }
  const auto region = Take(session->Open("r", AccessMode::kWrite));
  ASSERT_TRUE(SetWord(*own, 0, 1).ok());

  cluster.Kill(4);
  const Stopwatch since;
  for (uint64_t page = 0; page < kPages; ++page) {
    while (!SetWord(*region, page * kPageBytes + 8, page).ok()) ASSERT_LT(since.Seconds(), kGoneWithinS + kSlackS);
  }
  std::printf("served again %.0f ms after the kill of the monitor\n", since.Seconds() * 1000);
  EXPECT_LT(since.Seconds(), kGoneWithinS + kSlackS);
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(Take(Word(*region, page * kPageBytes)), page);
  EXPECT_TRUE(SetWord(*own, 0, 2).ok());
  // Who is the next one follows from the view.
  EXPECT_TRUE(Eventually([&] { return cluster.MonitorOf(6) == 5 && cluster.MonitorOf(5) == 0; }));
  for (const int node : {1, 2, 3, 5, 6}) EXPECT_EQ(cluster.LinesOf(node, "lease has ended"), 0u) << node;

  cluster.Start(4);
  cluster.AwaitConnected();
  EXPECT_TRUE(Eventually([&] { return cluster.MonitorOf(5) == 4 && cluster.MonitorOf(6) == 4; }));
}

}  // namespace
}  // namespace mangrove::cluster_test
