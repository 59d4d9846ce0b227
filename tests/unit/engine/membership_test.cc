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

class NoTransport : public Transport {
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

// Counts what others hear of an end.
class LevelTransport final : public NoTransport {
 public:
  uint8_t LevelOf(NodeId, Subsystem subsystem) const override {
    return subsystem == Subsystem::kMembership ? level : 1;
  }
  void Send(NodeId, Channel, std::span<const std::byte> bytes, std::span<const PageBuffer>) override {
    const absl::StatusOr<RecoveryMessage> message = DecodeMessage(bytes);
    ASSERT_TRUE(message.ok()) << message.status();
    const auto* pulse = std::get_if<Pulse>(&*message);
    pulses += pulse != nullptr && !pulse->leaves ? 1 : 0;
    leaves += pulse != nullptr && pulse->leaves ? 1 : 0;
    stopping += std::holds_alternative<Stopping>(*message) ? 1 : 0;
  }
  uint8_t level = 0;
  int pulses = 0;
  int leaves = 0;
  int stopping = 0;
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

// It would take the word for another pulse, and give a lease for it. So nothing is said there, and all is as after a kill.
// Covers: C11, C12
TEST(Membership, ThatANodeStopsIsSaidOnlyToWhoUnderstandsIt) {
  SetLogLevel(LogLevel::kOff);
  for (const int level : {2, 3}) {
    const NodeInstance self{NodeId(2), Incarnation(5)};
    MembershipOptions options{.self = self, .nodes = {}};
    options.nodes[NodeId(1)] = {.name = "one", .address = "h:1", .votes = 1};
    options.nodes[NodeId(2)] = {.name = "two", .address = "h:2"};
    ManualClock clock;
    LevelTransport transport;
    transport.level = static_cast<uint8_t>(level);
    BadDisk disk;
    OneEntropy entropy;
    Membership membership(options, &clock, &transport, &disk, &entropy);
    membership.Open([](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
    membership.Start();
    const NodeInstance anchor{NodeId(1), Incarnation(3)};
    membership.OnPeerUp(anchor);
    const std::string view = EncodeMessage(ViewPart{.epoch = Epoch(7),
                                                    .is_last = true,
                                                    .nodes = {{.node = NodeId(1), .incarnation = Incarnation(3)},
                                                              {.node = NodeId(2), .incarnation = Incarnation(5)}},
                                                    .root = NodeId(1)});
    membership.OnDelivery({.from = anchor, .channel = Channel::kMembership, .message = std::as_bytes(std::span(view))});
    const auto run = [&](DurationNs time) {
      const TimeNs until = clock.Now() + time;
      while (clock.RunSoon() || clock.RunTimer(until)) {
      }
      clock.AdvanceTo(until);
    };
    membership.SetStopping({.flushes = true});
    run(kSecond);
    EXPECT_EQ(transport.stopping > 0, level == 3);
    EXPECT_GT(transport.pulses, 0);
    bool has_left = false;
    membership.Leave([&] { has_left = true; });
    transport.pulses = 0;
    run(400 * kMillisecond);
    EXPECT_FALSE(has_left);
    EXPECT_EQ(transport.leaves > 3, level == 3);
    EXPECT_EQ(transport.pulses, 0);
    run(200 * kMillisecond);
    EXPECT_TRUE(has_left);
    membership.Shutdown();
  }
}

// Covers: C11
TEST(Membership, WhoIsAloneInItsViewNeedTellNobody) {
  SetLogLevel(LogLevel::kOff);
  MembershipOptions options{.self = {NodeId(1), Incarnation(5)}, .nodes = {}};
  options.nodes[NodeId(1)] = {.name = "one", .address = "h:1", .votes = 1};
  ManualClock clock;
  NoTransport transport;
  BadDisk disk;
  OneEntropy entropy;
  Membership membership(options, &clock, &transport, &disk, &entropy);
  membership.Open([](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
  membership.Start();
  const TimeNs until = clock.Now() + 5 * kSecond;
  while (clock.RunSoon() || clock.RunTimer(until)) {
    while (!disk.commits.empty()) disk.FinishCommit();
  }
  ASSERT_TRUE(membership.anchor() != nullptr && membership.anchor()->leads());
  ASSERT_TRUE(membership.member().view().Has(options.self));
  int done = 0;
  membership.HandOver([&] { ++done; });
  membership.Leave([&] { ++done; });
  EXPECT_EQ(done, 2);
  EXPECT_TRUE(membership.member().view().Has(options.self));
  membership.Shutdown();
}

}  // namespace
}  // namespace mangrove
