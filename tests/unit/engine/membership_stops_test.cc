// The end of nodes that are stopped in order, by the real driver of each: who leads the anchors after it.
// Covers: C11

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/membership.h"
#include "recovery/lease_settings.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

constexpr DurationNs kWay = kMillisecond;  // Of a message.
constexpr DurationNs kAtOnce = 150 * kMillisecond;

class Anchors;

class LinkTransport final : public Transport {
 public:
  LinkTransport(Anchors* anchors, NodeId self) : anchors_(anchors), self_(self) {}
  absl::Status Start(TransportEvents*) override { return absl::OkStatus(); }
  void Send(NodeId to, Channel channel, std::span<const std::byte> bytes, std::span<const PageBuffer>) override;
  void SetEpoch(Epoch) override {}
  void Expel(NodeInstance) override {}
  uint8_t LevelOf(NodeId, Subsystem) const override { return 3; }
  std::vector<PeerStatus> Peers() const override { return {}; }
  TransportCounters Counters() const override { return {}; }
  TransportSecurity SecurityInUse() const override { return {}; }

 private:
  Anchors* const anchors_;
  const NodeId self_;
};

class SeededEntropy final : public Entropy {
 public:
  explicit SeededEntropy(uint64_t seed) : next_(seed * 1'000'003) {}
  uint64_t Next() override { return next_ += 0x9e3779b97f4a7c15; }

 private:
  uint64_t next_;
};

// All of them are anchors, with one vote each, and have one clock.
class Anchors {
 public:
  Anchors(uint64_t count, uint64_t seed, const RecoveryTiming& timing = {}) {
    SetLogLevel(LogLevel::kOff);
    MembershipOptions options{.self = {}, .nodes = {}, .timing = timing};
    for (uint64_t node = 1; node <= count; ++node) {
      const std::string name = "n" + std::to_string(node);
      options.nodes[NodeId(node)] = {.name = name, .address = name + ":1", .votes = 1};
    }
    for (uint64_t node = 1; node <= count; ++node) {
      options.self = Of(node);
      Host& host = hosts_[node];
      host.transport = std::make_unique<LinkTransport>(this, NodeId(node));
      host.entropy = std::make_unique<SeededEntropy>(seed * 100 + node);
      host.membership =
          std::make_unique<Membership>(options, &clock_, host.transport.get(), &host.disk, host.entropy.get());
      host.membership->Open([](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
    }
    for (auto& [node, host] : hosts_) {
      for (uint64_t other = 1; other <= count; ++other) {
        if (other != node) host.membership->OnPeerUp(Of(other));
      }
      host.membership->Start();
    }
    EXPECT_TRUE(RunUntil([&] { return ViewOf(Leader()).members.size() == count; }, 10 * timing.lease));
    RunFor(timing.lease);
  }

  static NodeInstance Of(uint64_t node) { return {NodeId(node), Incarnation(5)}; }
  Membership& At(uint64_t node) { return *hosts_.at(node).membership; }
  bool Leads(uint64_t node) {
    const auto& membership = hosts_.at(node).membership;
    return membership != nullptr && membership->anchor() != nullptr && membership->anchor()->leads();
  }
  // 0: nobody.
  uint64_t Leader() {
    for (const auto& [node, host] : hosts_) {
      if (Leads(node)) return node;
    }
    return 0;
  }
  // As that node knows it.
  View ViewOf(uint64_t node) { return node == 0 ? View() : At(node).member().view(); }
  // The first, but those.
  uint64_t Other(const std::set<uint64_t>& but) {
    for (const auto& [node, host] : hosts_) {
      if (host.membership != nullptr && !but.contains(node)) return node;
    }
    return 0;
  }
  // Nobody is told: its host is gone.
  void Vanish(uint64_t node) { hosts_.at(node).membership.reset(); }
  void Send(NodeId from, NodeId to, Channel channel, std::span<const std::byte> bytes) {
    clock_.CallAt(clock_.Now() + kWay, [this, from, to, channel, copy = std::vector(bytes.begin(), bytes.end())] {
      const auto& membership = hosts_.at(to.value).membership;
      if (membership == nullptr || hosts_.at(from.value).membership == nullptr) return;
      membership->OnDelivery({.from = Of(from.value), .channel = channel, .message = copy});
    });
  }

  TimeNs now() const { return clock_.Now(); }
  void RunFor(DurationNs time) {
    const TimeNs until = clock_.Now() + time;
    Write();
    while (clock_.RunSoon() || clock_.RunTimer(until)) Write();
    clock_.AdvanceTo(until);
  }
  bool RunUntil(const std::function<bool()>& condition, DurationNs most) {
    for (const TimeNs until = clock_.Now() + most; !condition(); RunFor(kMillisecond)) {
      if (clock_.Now() >= until) return false;
    }
    return true;
  }

 private:
  struct Host {
    std::unique_ptr<LinkTransport> transport;
    std::unique_ptr<SeededEntropy> entropy;
    FakeCoreHolderStore disk;
    std::unique_ptr<Membership> membership;
  };
  // Disks take no time.
  void Write() {
    for (auto& [node, host] : hosts_) {
      while (host.membership != nullptr && !host.disk.commits.empty()) host.disk.FinishCommit();
    }
  }

  ManualClock clock_;
  std::map<uint64_t, Host> hosts_;
};

void LinkTransport::Send(NodeId to, Channel channel, std::span<const std::byte> bytes, std::span<const PageBuffer>) {
  anchors_->Send(self_, to, channel, bytes);
}

// Without that the first of those that answer would take it.
TEST(MembershipStops, TheLeaderHandsOverToWhoDoesNotStop) {
  Anchors anchors(5, 1);
  const uint64_t leader = anchors.Leader();
  const uint64_t stops = anchors.Other({leader});
  for (const uint64_t node : {stops, leader}) anchors.At(node).SetStopping({.flushes = true});
  anchors.RunFor(2 * kWay);
  bool is_done = false;
  anchors.At(leader).HandOver([&] { is_done = true; });
  ASSERT_TRUE(anchors.RunUntil([&] { return is_done && anchors.Leader() != 0; }, kAtOnce));
  EXPECT_NE(anchors.Leader(), leader);
  EXPECT_NE(anchors.Leader(), stops);
}

// It was elected after it had handed over, say.
TEST(MembershipStops, WhoLeadsWhenItLeavesHandsOver) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Anchors anchors(3, seed);
    const uint64_t leader = anchors.Leader();
    anchors.At(leader).SetStopping({.flushes = false});
    bool is_done = false;
    anchors.At(leader).Leave([&] { is_done = true; });
    ASSERT_TRUE(anchors.RunUntil([&] { return is_done; }, kAtOnce)) << seed;
    EXPECT_FALSE(anchors.Leads(leader)) << seed;
    EXPECT_FALSE(anchors.ViewOf(anchors.Other({leader})).Has(Anchors::Of(leader))) << seed;
    anchors.Vanish(leader);
    EXPECT_TRUE(anchors.RunUntil([&] { return anchors.Leader() != 0; }, kAtOnce)) << seed;
  }
}

// The leader has vanished, and others stand for election.
TEST(MembershipStops, WhoIsElectedWhileItLeavesHandsOver) {
  int elected = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Anchors anchors(5, seed);
    const uint64_t leader = anchors.Leader();
    const uint64_t leaves = anchors.Other({leader});
    anchors.Vanish(leader);
    anchors.RunFor(static_cast<DurationNs>(seed) * 15 * kMillisecond);
    bool is_done = false;
    anchors.At(leaves).Leave([&] { is_done = true; });
    TimeNs leads_since = 0;
    DurationNs led = 0;
    ASSERT_TRUE(anchors.RunUntil(
        [&] {
          if (!anchors.Leads(leaves)) leads_since = 0;
          if (anchors.Leads(leaves) && leads_since == 0) leads_since = anchors.now();
          if (leads_since != 0) led = std::max(led, anchors.now() - leads_since);
          return is_done;
        },
        2 * kSecond))
        << seed;
    EXPECT_LT(led, kAtOnce) << seed;
    EXPECT_FALSE(anchors.Leads(leaves)) << seed;
    elected += led != 0 ? 1 : 0;
  }
  EXPECT_GT(elected, 2);
}

// Nobody answers: it waits in proportion to the lease.
TEST(MembershipStops, WhoIsNotHeardWaitsAsLongAsItsLeaseSays) {
  for (const int64_t lease_s : {1, 4}) {
    Anchors anchors(3, 1, TimingOf(lease_s * kSecond, 600 * kSecond, 0));
    const uint64_t leader = anchors.Leader();
    for (uint64_t node = 1; node <= 3; ++node) {
      if (node != leader) anchors.Vanish(node);
    }
    std::optional<TimeNs> handed_over;
    std::optional<TimeNs> left;
    const TimeNs began = anchors.now();
    anchors.At(leader).HandOver([&] { handed_over = anchors.now(); });
    anchors.RunFor(lease_s * kSecond);
    ASSERT_TRUE(handed_over.has_value());
    // It may notice before that it does not lead any more.
    EXPECT_LE(*handed_over - began, lease_s * 300 * kMillisecond);
    EXPECT_GE(*handed_over - began, lease_s * 150 * kMillisecond);
    const TimeNs leaves = anchors.now();
    anchors.At(leader).Leave([&] { left = anchors.now(); });
    anchors.RunFor(lease_s * kSecond);
    ASSERT_TRUE(left.has_value());
    EXPECT_NEAR(*left - leaves, lease_s * 500 * kMillisecond, kMillisecond);
  }
}

}  // namespace
}  // namespace mangrove
