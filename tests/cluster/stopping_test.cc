// Nodes that are stopped in order: the others go on at once, and whoever is stopped together misses nothing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/words.h"

namespace mangrove::cluster_test {
namespace {

constexpr uint64_t kStoppedPages = 64;
// A lease is 1 s, and an election comes on top where nothing is handed over.
constexpr double kGoesOnWithinS = 0.5;

class Stopping : public testing::Test {
 protected:
  int Leader() {
    const std::string name = cluster_.Ask(1, {"status"})["membership"]["leader"].get<std::string>();
    return name.back() - '0';
  }
  // Looks more often than Eventually.
  template <typename Condition>
  static bool Soon(Condition condition) {
    const Stopwatch since;
    while (!condition()) {
      if (since.Seconds() > 20) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  Cluster cluster_;
};

// Each node in turn, among them the anchors' leader and the view's root. A program of its own has pages of it mapped.
// Covers: C05, C08, C11
TEST_F(Stopping, WhatAStoppedNodeWasResponsibleForTheOthersServeAtOnce) {
  cluster_.StartAll();
  std::string leaders;
  for (const int stopped : {Leader(), 2, 3, 1}) {
    const int writer = stopped % 3 + 1;
    const int reader = writer % 3 + 1;
    const auto of_writer = cluster_.Attach(writer);
    const auto of_reader = cluster_.Attach(reader, 10'000);
    const std::string name = absl::StrCat("r", leaders.size());
    const auto of_stopped = cluster_.Attach(stopped);
    const auto made = MakeRegion(*of_stopped, name, kSegmentBytes);
    std::byte* const base = Take(made->Map(0, kSegmentBytes));
    for (uint64_t page = 0; page < kStoppedPages; ++page) ASSERT_EQ(TryStore(base + page * kPageBytes, page), 0);
    const auto shown = cluster_.Ask(writer, {"page", "show", ToString(made->info().address)});
    ASSERT_EQ(shown["responsible"], absl::StrCat("node-", stopped));
    const auto written = Take(of_writer->Open(name, AccessMode::kWrite));
    const auto read = Take(of_reader->Open(name, AccessMode::kWrite));
    const bool leads = Leader() == stopped;
    absl::StrAppend(&leaders, leads ? "L" : "-");
    const size_t ended_before = cluster_.LinesOf(stopped, "has flushed, and ends");

    kill(cluster_.pid(stopped), SIGTERM);
    ASSERT_TRUE(Soon([&] { return cluster_.LinesOf(stopped, "has flushed, and ends") > ended_before; }));
    const Stopwatch since;
    ASSERT_TRUE(Soon([&] { return Word(*read, 0).ok(); }));
    ASSERT_TRUE(Soon([&] { return SetWord(*written, kPageBytes + 8, 1).ok(); }));
    const double seconds = since.Seconds();
    std::printf("node-%d%s: served by the others after %.0f ms\n", stopped, leads ? ", the leader" : "",
                seconds * 1000);
    EXPECT_LT(seconds, kGoesOnWithinS);
    // What it had written and not flushed is there, and nobody reads it at the old place any more.
    EXPECT_EQ(TryLoad(base), SIGBUS);
    for (uint64_t page = 0; page < kStoppedPages; ++page) EXPECT_EQ(Take(Word(*read, page * kPageBytes)), page) << page;
    EXPECT_EQ(cluster_.AwaitEnd(stopped), 0);

    cluster_.Start(stopped);
    cluster_.AwaitConnected();
  }
  EXPECT_NE(leaders.find('L'), std::string::npos);
}

// Pages that were written at each of them, and flushed nowhere, are flushed to the disks of the others.
// Covers: C08, C11
TEST_F(Stopping, NodesThatAreAllStoppedAtOnceFlushToEachOtherAndHaveMissedNothing) {
  constexpr uint64_t kSegments = 12;
  cluster_.StartAll();
  for (int round = 0; round < 3; ++round) {
    for (int node = 1; node <= 3; ++node) {
      const auto session = cluster_.Attach(node);
      const std::string name = absl::StrCat("r", node);
      const auto region = round == 0 ? MakeRegion(*session, name, kSegments * kSegmentBytes)
                                     : Take(session->Open(name, AccessMode::kWrite));
      for (uint64_t page = 0; page < kSegments * kSegmentPages; page += 3) {
        ASSERT_TRUE(SetWord(*region, page * kPageBytes, page + static_cast<uint64_t>(100 * round + node)).ok());
      }
    }
    std::map<int, size_t> behind;  // Each disk was empty once.
    for (int node = 1; node <= 3; ++node) behind[node] = cluster_.LinesOf(node, "disk is behind");
    cluster_.StopAll();  // Expects that each exits with 0.
    for (int node = 1; node <= 3; ++node) {
      EXPECT_EQ(cluster_.LinesOf(node, "of 2 nodes") + cluster_.LinesOf(node, "of 1 nodes"), 0u) << node;
    }
    cluster_.StartAll();
    cluster_.AwaitConnected();
    for (int node = 1; node <= 3; ++node) {
      EXPECT_EQ(cluster_.LinesOf(node, "disk is behind"), behind[node]) << node;
    }
    const auto session = cluster_.Attach(round + 1, 10'000);
    for (int node = 1; node <= 3; ++node) {
      const auto region = Take(session->Open(absl::StrCat("r", node), AccessMode::kRead));
      for (uint64_t page = 0; page < kSegments * kSegmentPages; page += 93) {
        EXPECT_EQ(Take(Word(*region, page * kPageBytes)), page + static_cast<uint64_t>(100 * round + node)) << page;
      }
    }
  }
}

}  // namespace
}  // namespace mangrove::cluster_test
