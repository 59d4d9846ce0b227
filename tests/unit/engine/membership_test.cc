// The driver of a node's part in who is there, where the simulator's disks do not go.
// Covers: C08

#include "engine/membership.h"

#include <gtest/gtest.h>

#include <span>
#include <string>

#include "recovery/codec.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class NoTransport final : public Transport {
 public:
  absl::Status Start(TransportEvents*) override { return absl::OkStatus(); }
  void Send(NodeId, Channel, std::span<const std::byte>, std::span<const PageBuffer>) override {}
  void SetEpoch(Epoch) override {}
  void Expel(NodeInstance) override {}
  uint8_t LevelOf(NodeId, Subsystem) const override { return 1; }
  std::vector<PeerStatus> Peers() const override { return {}; }
  TransportCounters Counters() const override { return {}; }
  TransportSecurity SecurityInUse() const override { return {}; }
};

class OneEntropy final : public Entropy {
 public:
  uint64_t Next() override { return ++next_; }

 private:
  uint64_t next_ = 0;
};

// Its records of an anchor's log cannot be read for a while.
class BadDisk final : public FakeCoreHolderStore {
 public:
  void ReadRecords(std::string prefix, RecordsDone done) override {
    if (prefix == AnchorRecords::kPrefix && is_bad) {
      ++failed;
      return done(absl::UnavailableError("the disk does not answer"));
    }
    FakeCoreHolderStore::ReadRecords(std::move(prefix), std::move(done));
  }
  bool is_bad = false;
  int failed = 0;
};

TEST(Membership, WhoIsMadeAnAnchorAndCannotReadItsLogTriesAgain) {
  SetLogLevel(LogLevel::kOff);
  const NodeInstance self{NodeId(2), Incarnation(5)};
  MembershipOptions options{.self = self, .nodes = {}};
  options.nodes[NodeId(1)] = {.name = "one", .address = "h:1", .votes = 1};
  options.nodes[NodeId(2)] = {.name = "two", .address = "h:2"};
  ManualClock clock;
  NoTransport transport;
  BadDisk disk;
  OneEntropy entropy;
  Membership membership(options, &clock, &transport, &disk, &entropy);
  membership.Open([](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
  membership.Start();
  ASSERT_EQ(membership.anchor(), nullptr);
  disk.is_bad = true;
  NodeDatabase database;
  for (const auto& [node, record] : options.nodes) {
    DatabaseCommand command{.node = node, .record = record};
    command.record.votes = 1;
    ASSERT_TRUE(database.Apply(command).ok());
  }
  const std::string part = EncodeMessage(PartSince(database.nodes(), 0));
  membership.OnDelivery({.from = {NodeId(1), Incarnation(3)},
                         .channel = Channel::kMembership,
                         .message = std::as_bytes(std::span(part))});
  ASSERT_TRUE(membership.roster().anchors().contains(NodeId(2)));
  const auto run = [&](DurationNs time) {
    const TimeNs until = clock.Now() + time;
    while (clock.RunSoon() || clock.RunTimer(until)) {
      while (!disk.commits.empty()) disk.FinishCommit();
    }
    clock.AdvanceTo(until);
  };
  run(5 * kSecond);
  EXPECT_EQ(membership.anchor(), nullptr);
  EXPECT_GE(disk.failed, 3);
  EXPECT_LE(disk.failed, 6);  // Not with each pulse.
  disk.is_bad = false;
  run(2 * kSecond);
  EXPECT_NE(membership.anchor(), nullptr);
  membership.Shutdown();
}

}  // namespace
}  // namespace mangrove
