// What two transports must agree on, keys that change, and incarnations that have left the view.
// Covers: B10, C12, C13

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "net/fabric_transport.h"
#include "net/session_keys.h"
#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

ClusterKey KeyOf(int fill) {
  ClusterKey key;
  key.fill(static_cast<std::byte>(fill));
  return key;
}

bool Says(TestNode& node, const std::string& words) {
  return node.WaitForStatus([&](const PeerStatus& status, const TransportCounters&) {
    return !status.connected && status.last_error.find(words) != std::string::npos;
  });
}

std::string KeyInUse(TestNode& node) {
  std::string key;
  node.OnLoop([&] { key = node.transport->Peers().at(0).key; });
  return key;
}
bool WaitForKey(TestNode& node, const ClusterKey& key) {
  return node.WaitForStatus(
      [&](const PeerStatus& status, const TransportCounters&) { return status.key == FingerprintOf(key); });
}

class FabricTrust : public ::testing::Test {
 protected:
  FabricTransportConfig Config(uint64_t node, uint64_t incarnation = 1) {
    return MakeConfig(members_, node, incarnation);
  }
  void Start(const FabricTransportConfig& a, const FabricTransportConfig& b) {
    a_ = std::make_unique<TestNode>(a);
    b_ = std::make_unique<TestNode>(b);
    a_->Start();
    b_->Start();
  }
  void AwaitConnected() {
    ASSERT_TRUE(a_->WaitForPeer(2));
    ASSERT_TRUE(b_->WaitForPeer(1));
  }
  void SetKeys(TestNode& node, std::vector<ClusterKey> keys) {
    node.OnLoop([&] { node.transport->SetKeys(std::move(keys)); });
  }

  const std::vector<FabricMember> members_ = MakeMembers(2);
  std::unique_ptr<TestNode> a_;  // Node 1, which accepts.
  std::unique_ptr<TestNode> b_;  // Node 2, which connects.
};

// --- What both must want --------------------------------------------------------------------------------------------

TEST_F(FabricTrust, AnotherSecurityIsRefusedAndBothSidesNameBoth) {
  FabricTransportConfig encrypted = Config(2);
  encrypted.security = Security::kEncrypted;
  Start(Config(1), encrypted);
  EXPECT_TRUE(Says(*a_, "connections are authenticated, the other's encrypted"));
  EXPECT_TRUE(Says(*b_, "connections are encrypted, the other's authenticated"));
  EXPECT_TRUE(a_->history.empty());
  EXPECT_TRUE(b_->history.empty());
}

// Covers: C12
TEST_F(FabricTrust, AnotherNumberOfCopiesOfTheClustersOwnPagesIsRefusedAndBothSidesNameBoth) {
  FabricTransportConfig one = Config(1);
  FabricTransportConfig two = Config(2);
  one.system_replicas = 1;
  two.system_replicas = 2;
  Start(one, two);
  EXPECT_TRUE(Says(*a_, "system_replicas of this node is 1, of the other one 2"));
  EXPECT_TRUE(Says(*b_, "system_replicas of this node is 2, of the other one 1"));
  EXPECT_TRUE(a_->history.empty());
  EXPECT_TRUE(b_->history.empty());
}

TEST_F(FabricTrust, WhoDoesNotSayOnHowManyDisksTheClustersOwnPagesAreIsNotRefused) {
  FabricTransportConfig newer = Config(1);
  newer.system_replicas = 2;
  Start(newer, Config(2));
  AwaitConnected();
}

TEST_F(FabricTrust, ASubsystemWithoutACommonLevelIsRefusedAndBothSidesNameItAndBothRanges) {
  FabricTransportConfig newer = Config(1);
  const LevelRange own = kOwnLevels[static_cast<size_t>(Subsystem::kMembership)];
  const LevelRange beyond{static_cast<uint8_t>(own.high + 1), static_cast<uint8_t>(own.high + 2)};
  newer.levels[static_cast<size_t>(Subsystem::kMembership)] = beyond;
  Start(newer, Config(2));
  const auto says = [](const LevelRange& mine, const LevelRange& other) {
    return absl::StrCat("of membership this node speaks levels ", mine.low, " to ", mine.high, " and the other levels ",
                        other.low, " to ", other.high);
  };
  EXPECT_TRUE(Says(*a_, says(beyond, own)));
  EXPECT_TRUE(Says(*b_, says(own, beyond)));
  EXPECT_TRUE(a_->history.empty());
  EXPECT_TRUE(b_->history.empty());
}

TEST_F(FabricTrust, TheHighestCommonLevelIsInUseOnBothSides) {
  FabricTransportConfig newer = Config(1);
  newer.levels[static_cast<size_t>(Subsystem::kPages)] = {1, 4};
  FabricTransportConfig older = Config(2);
  older.levels[static_cast<size_t>(Subsystem::kPages)] = {1, 2};
  Start(newer, older);
  AwaitConnected();
  for (TestNode* node : {a_.get(), b_.get()}) {
    const NodeId peer(node == a_.get() ? 2 : 1);
    node->OnLoop([&] {
      EXPECT_EQ(node->transport->LevelOf(peer, Subsystem::kPages), 2);
      EXPECT_EQ(node->transport->LevelOf(peer, Subsystem::kNet), kOwnLevels[static_cast<size_t>(Subsystem::kNet)].high);
      EXPECT_EQ(node->transport->Peers().at(0).levels[static_cast<size_t>(Subsystem::kPages)], 2);
    });
  }
  b_->Stop();
  ASSERT_TRUE(a_->WaitForDown(2));
  a_->OnLoop([&] { EXPECT_EQ(a_->transport->LevelOf(NodeId(2), Subsystem::kPages), 0); });
}

// --- Keys -------------------------------------------------------------------------------------------------------------

TEST_F(FabricTrust, AnyOfSeveralKeysIsTakenAndTheConnectorsFirstIsUsed) {
  FabricTransportConfig a = Config(1);
  a.keys = {KeyOf(1), KeyOf(2), KeyOf(3)};
  FabricTransportConfig b = Config(2);
  b.keys = {KeyOf(3), KeyOf(1)};
  Start(a, b);
  AwaitConnected();
  EXPECT_EQ(KeyInUse(*a_), FingerprintOf(KeyOf(3)));
  EXPECT_EQ(KeyInUse(*b_), FingerprintOf(KeyOf(3)));
}

TEST_F(FabricTrust, AnotherFirstKeyReplacesTheConnectionOnceBothHoldIt) {
  FabricTransportConfig a = Config(1);
  FabricTransportConfig b = Config(2);
  a.keys = b.keys = {KeyOf(1)};
  Start(a, b);
  AwaitConnected();
  SetKeys(*b_, {KeyOf(2), KeyOf(1)});
  // The other one does not hold it yet: what is up stays up.
  EXPECT_TRUE(a_->WaitForStatus([](const auto&, const TransportCounters& c) { return c.peers_refused >= 3; }));
  EXPECT_EQ(KeyInUse(*b_), FingerprintOf(KeyOf(1)));
  b_->Send(1, "under the old key");
  EXPECT_TRUE(a_->WaitFor([&] { return a_->received.size() == 1; }));
  EXPECT_EQ(b_->history.size(), 1u);
  SetKeys(*a_, {KeyOf(1), KeyOf(2)});
  EXPECT_TRUE(WaitForKey(*a_, KeyOf(2)));
  EXPECT_TRUE(WaitForKey(*b_, KeyOf(2)));
  ASSERT_TRUE(b_->WaitFor([&] { return b_->history.size() == 3; }));
  b_->Send(1, "under the new key");
  EXPECT_TRUE(a_->WaitFor([&] { return a_->received.size() == 2; }));
  EXPECT_FALSE(a_->delivered_while_down);
}

TEST_F(FabricTrust, AKeyThatIsTakenAwayEndsItsConnections) {
  FabricTransportConfig a = Config(1);
  FabricTransportConfig b = Config(2);
  a.keys = b.keys = {KeyOf(1)};
  Start(a, b);
  AwaitConnected();
  SetKeys(*a_, {KeyOf(2)});
  EXPECT_TRUE(a_->WaitForDown(2));
  EXPECT_TRUE(b_->WaitForDown(1));
  EXPECT_TRUE(Says(*b_, "does not hold the cluster's key"));
  SetKeys(*b_, {KeyOf(2)});
  EXPECT_TRUE(WaitForKey(*b_, KeyOf(2)));
}

// --- Who has left the view ----------------------------------------------------------------------------------------------

// By the one that accepts, and by the one that connects.
class Expelling : public FabricTrust, public ::testing::WithParamInterface<uint64_t> {
 protected:
  void SetUp() override {
    Start(Config(1), Config(2));
    AwaitConnected();
  }
  NodeInstance expelled() const { return {NodeId(3 - GetParam()), Incarnation(1)}; }
  void StartOtherAs(uint64_t incarnation) {
    other().Stop();
    (GetParam() == 1 ? b_ : a_) = std::make_unique<TestNode>(Config(expelled().node.value, incarnation));
    other().Start();
  }
  TestNode& by() { return GetParam() == 1 ? *a_ : *b_; }
  TestNode& other() { return GetParam() == 1 ? *b_ : *a_; }
};
INSTANTIATE_TEST_SUITE_P(Both, Expelling, ::testing::Values(1, 2));

TEST_P(Expelling, ClosesTheConnectionAndTheOtherIsToldAndNotLetIn) {
  by().OnLoop([&] { by().transport->Expel(expelled()); });
  EXPECT_TRUE(by().WaitForDown(expelled().node.value));
  ASSERT_TRUE(other().WaitFor([&] { return other().expelled_by.size() >= 2; }));
  EXPECT_EQ(other().expelled_by[0], (NodeInstance{NodeId(GetParam()), Incarnation(1)}));
  EXPECT_TRUE(by().expelled_by.empty());
  std::lock_guard<std::mutex> lock(by().mutex);
  EXPECT_EQ(by().history.size(), 2u);
}

TEST_P(Expelling, ANewerIncarnationIsLetIn) {
  by().OnLoop([&] { by().transport->Expel(expelled()); });
  ASSERT_TRUE(other().WaitFor([&] { return !other().expelled_by.empty(); }));
  const uint64_t node = expelled().node.value;
  StartOtherAs(2);
  ASSERT_TRUE(by().WaitForPeer(node, 2));
  ASSERT_TRUE(other().WaitForPeer(GetParam()));
  // Late news of the older one change nothing.
  by().OnLoop([&] { by().transport->Expel(expelled()); });
  other().Send(GetParam(), "from the newer one");
  EXPECT_TRUE(by().WaitFor([&] { return by().received.size() == 1; }));
}

// Its disk was lost, and its count with it: it comes to a newer one only if it is told.
TEST_P(Expelling, AnOlderIncarnationIsToldToo) {
  const NodeInstance newest{expelled().node, Incarnation(4)};
  StartOtherAs(4);
  ASSERT_TRUE(by().WaitForPeer(newest.node.value, 4));
  by().OnLoop([&] { by().transport->Expel(newest); });
  StartOtherAs(2);
  EXPECT_TRUE(other().WaitFor([&] { return !other().expelled_by.empty(); }));
  EXPECT_TRUE(other().history.empty());
  StartOtherAs(5);
  EXPECT_TRUE(by().WaitForPeer(newest.node.value, 5));
}

// What has come in by then, and was not handed on, never is.
TEST_P(Expelling, NothingOfItIsDeliveredFromThenOn) {
  bool is_expelled = false;
  uint64_t delivered_after = 0;
  by().on_delivery = [&](const Delivery&) {
    delivered_after += is_expelled ? 1 : 0;
    if (by().deliveries != 10) return;
    by().transport->Expel(expelled());
    is_expelled = true;
  };
  const std::vector<PageBuffer> page = {MakePage(1)};
  other().OnLoop([&] {
    for (int i = 0; i < 200; ++i) {
      other().transport->Send(NodeId(GetParam()), Channel::kPages, std::as_bytes(std::span("x")), page);
    }
  });
  EXPECT_TRUE(by().WaitForDown(expelled().node.value));
  by().OnLoop([&] {
    EXPECT_EQ(by().deliveries, 10u);
    EXPECT_EQ(delivered_after, 0u);
  });
}

}  // namespace
}  // namespace mangrove
