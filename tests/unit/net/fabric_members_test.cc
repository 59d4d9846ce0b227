// Members that come, move and go while the transport runs.
// Covers: C13

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/fabric_transport.h"
#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

class FabricMembers : public ::testing::Test {
 protected:
  FabricTransportConfig Alone(uint64_t id) {
    FabricTransportConfig config = MakeConfig(members_, id);
    config.members = {members_[id - 1]};
    return config;
  }
  void Start(const FabricTransportConfig& a, const FabricTransportConfig& b) {
    a_ = std::make_unique<TestNode>(a);
    b_ = std::make_unique<TestNode>(b);
    a_->Start();
    b_->Start();
  }
  void StartTogether() {
    Start(MakeConfig(members_, 1), MakeConfig(members_, 2));
    AwaitConnected();
  }
  void AwaitConnected() {
    ASSERT_TRUE(a_->WaitForPeer(2));
    ASSERT_TRUE(b_->WaitForPeer(1));
  }
  absl::Status SetMembers(TestNode& node, const std::vector<FabricMember>& members) {
    absl::Status status;
    node.OnLoop([&] { status = node.transport->SetMembers(members); });
    return status;
  }
  // Each way.
  void ExpectTheyTalk() {
    const uint64_t a_before = a_->Counters().messages_received;
    const uint64_t b_before = b_->Counters().messages_received;
    a_->Send(2, "there");
    b_->Send(1, "and back");
    EXPECT_TRUE(
        a_->WaitForStatus([&](const auto&, const auto& counters) { return counters.messages_received > a_before; }));
    EXPECT_TRUE(
        b_->WaitForStatus([&](const auto&, const auto& counters) { return counters.messages_received > b_before; }));
  }
  static bool Says(TestNode& node, const std::string& words) {
    return node.WaitForStatus([&](const PeerStatus& status, const TransportCounters&) {
      return !status.connected && status.last_error.find(words) != std::string::npos;
    });
  }
  static size_t PeersOf(TestNode& node) {
    size_t peers = 0;
    node.OnLoop([&] { peers = node.transport->Peers().size(); });
    return peers;
  }

  const std::vector<FabricMember> members_ = MakeMembers(2);
  std::unique_ptr<TestNode> a_;  // Node 1, which accepts.
  std::unique_ptr<TestNode> b_;  // Node 2, which connects.
};

// --- Who comes --------------------------------------------------------------------------------------------------------

TEST_F(FabricMembers, OneThatIsAddedWhileBothRunIsConnectedAndTalks) {
  Start(Alone(1), Alone(2));
  EXPECT_EQ(PeersOf(*a_), 0u);
  ASSERT_TRUE(SetMembers(*a_, members_).ok());
  ASSERT_TRUE(SetMembers(*b_, members_).ok());
  AwaitConnected();
  EXPECT_EQ(PeersOf(*a_), 1u);
  ExpectTheyTalk();
}

TEST_F(FabricMembers, OneThatLearnsOfAnotherBeforeThatKnowsItIsRefusedUntilThen) {
  Start(Alone(1), Alone(2));
  ASSERT_TRUE(SetMembers(*b_, members_).ok());
  EXPECT_TRUE(Says(*b_, "not among the members"));
  EXPECT_TRUE(a_->history.empty());
  ASSERT_TRUE(SetMembers(*a_, members_).ok());
  AwaitConnected();
}

// More than the queues were made for.
TEST_F(FabricMembers, ManyThatAreAddedAtOnceAreAllHeard) {
  constexpr uint64_t kNodes = 9;
  constexpr uint64_t kMessages = 500;
  const auto members = MakeMembers(kNodes);
  FabricTransportConfig config = MakeConfig(members, kNodes);
  config.members.clear();
  TestNode last(std::move(config));
  last.on_delivery = [](const Delivery&) {};
  last.Start();
  std::vector<std::unique_ptr<TestNode>> others;
  for (uint64_t id = 1; id < kNodes; ++id) {
    FabricTransportConfig other = MakeConfig(members, id);
    other.members = {members.back()};
    others.push_back(std::make_unique<TestNode>(std::move(other)));
    others.back()->Start();
  }
  ASSERT_TRUE(SetMembers(last, members).ok());
  for (uint64_t id = 1; id < kNodes; ++id) ASSERT_TRUE(others[id - 1]->WaitForPeer(kNodes));
  const std::vector<PageBuffer> pages(2, MakePage(1));
  for (auto& node : others) {
    node->OnLoop([&] {
      for (uint64_t i = 0; i < kMessages; ++i) {
        node->transport->Send(NodeId(kNodes), Channel::kPages, {}, i % 8 == 0 ? pages : std::vector<PageBuffer>());
      }
    });
  }
  EXPECT_TRUE(last.WaitFor([&] { return last.deliveries == (kNodes - 1) * kMessages; }));
}

// --- Who goes ---------------------------------------------------------------------------------------------------------

TEST_F(FabricMembers, OneThatIsRemovedIsDownAndItsMessagesAreRefused) {
  StartTogether();
  ASSERT_TRUE(SetMembers(*a_, {members_[0]}).ok());
  ASSERT_TRUE(a_->WaitForDown(2));
  EXPECT_NE(a_->reasons.back().find("n2 (node 2) is no member any more"), std::string::npos) << a_->reasons.back();
  EXPECT_EQ(PeersOf(*a_), 0u);
  ASSERT_TRUE(b_->WaitForDown(1));
  b_->Send(1, "to who does not know me");
  EXPECT_TRUE(Says(*b_, "not among the members"));
  EXPECT_EQ(a_->history.size(), 2u);
  EXPECT_TRUE(a_->received.empty());
}

TEST_F(FabricMembers, OneThatIsRemovedIsNotDialledAnyMore) {
  StartTogether();
  ASSERT_TRUE(SetMembers(*b_, {members_[1]}).ok());
  ASSERT_TRUE(b_->WaitForDown(1));
  ASSERT_TRUE(a_->WaitForDown(2));
  // An attempt is repeated within half a second, and this one would let it in.
  a_->Stop();
  a_ = std::make_unique<TestNode>(MakeConfig(members_, 1, 2));
  a_->Start();
  usleep(700'000);
  EXPECT_TRUE(a_->history.empty());
}

TEST_F(FabricMembers, WhatWaitsForOneThatIsRemovedIsLetGo) {
  StartTogether();
  PageBuffer page = MakePage(1);
  const std::weak_ptr<const PageBytes> held = page;
  a_->OnLoop([&] {
    const std::vector<PageBuffer> pages(kMaxMessagePages, page);
    for (int i = 0; i < 50; ++i) a_->transport->Send(NodeId(2), Channel::kPages, {}, pages);
    EXPECT_GT(a_->transport->Gauges().queued_messages, 0u);
    ASSERT_TRUE(a_->transport->SetMembers({members_[0]}).ok());
    page = nullptr;
  });
  ASSERT_TRUE(a_->WaitForDown(2));
  EXPECT_TRUE(held.expired());
  a_->OnLoop([&] {
    const FabricTransportGauges gauges = a_->transport->Gauges();
    EXPECT_EQ(gauges.connections + gauges.queued_messages + gauges.in_flight_messages, 0u);
    EXPECT_GT(a_->transport->Counters().messages_dropped, 0u);
  });
}

TEST_F(FabricMembers, NothingIsDeliveredOfOneThatAHandlerRemoves) {
  Start(MakeConfig(members_, 1), MakeConfig(members_, 2));
  a_->on_delivery = [&](const Delivery&) {
    ASSERT_TRUE(a_->transport->SetMembers({members_[0]}).ok());
    EXPECT_EQ(a_->transport->LevelOf(NodeId(2), Subsystem::kPages), 0);
  };
  AwaitConnected();
  b_->OnLoop([&] {
    for (int i = 0; i < 20; ++i) b_->transport->Send(NodeId(1), Channel::kPages, {}, {});
  });
  ASSERT_TRUE(a_->WaitForDown(2));
  EXPECT_EQ(a_->deliveries, 1u);
}

TEST_F(FabricMembers, OneThatIsRemovedAndAddedAgainIsLetInButNotAsAnOlderIncarnation) {
  Start(MakeConfig(members_, 1), MakeConfig(members_, 2, 5));
  ASSERT_TRUE(a_->WaitForPeer(2, 5));
  ASSERT_TRUE(SetMembers(*a_, {members_[0]}).ok());
  ASSERT_TRUE(a_->WaitForDown(2));
  ASSERT_TRUE(SetMembers(*a_, members_).ok());
  ASSERT_TRUE(a_->WaitForPeer(2, 5));
  ASSERT_TRUE(SetMembers(*a_, {members_[0]}).ok());
  ASSERT_TRUE(a_->WaitForDown(2));
  b_->Stop();
  b_ = std::make_unique<TestNode>(MakeConfig(members_, 2, 4));
  b_->Start();
  ASSERT_TRUE(SetMembers(*a_, members_).ok());
  EXPECT_TRUE(Says(*b_, "newer incarnation"));
}

TEST_F(FabricMembers, RemovedAndAddedBeforeItsConnectionIsGoneItComesBack) {
  StartTogether();
  for (TestNode* node : {a_.get(), b_.get()}) {
    node->OnLoop([&] {
      ASSERT_TRUE(node->transport->SetMembers({members_[node == a_.get() ? 0 : 1]}).ok());
      ASSERT_TRUE(node->transport->SetMembers(members_).ok());
    });
  }
  ASSERT_TRUE(a_->WaitFor([&] { return a_->history.size() >= 3 && a_->Up(2) == 1; }));
  ASSERT_TRUE(b_->WaitFor([&] { return b_->history.size() >= 3 && b_->Up(1) == 1; }));
}

// --- Who is at another place --------------------------------------------------------------------------------------------

TEST_F(FabricMembers, AnotherAddressLeavesTheConnectionThatIsUpAndIsUsedForTheNext) {
  StartTogether();
  auto moved = members_;
  moved[0].address = testing::Loopback(FreePort());
  ASSERT_TRUE(SetMembers(*b_, moved).ok());
  ExpectTheyTalk();
  EXPECT_EQ(b_->history.size(), 1u);
  b_->OnLoop([&] { EXPECT_EQ(b_->transport->Peers().at(0).address, moved[0].address); });
  a_->Stop();
  ASSERT_TRUE(b_->WaitForDown(1));
  a_ = std::make_unique<TestNode>(MakeConfig(moved, 1, 2));
  a_->Start();
  EXPECT_TRUE(b_->WaitForPeer(1, 2));
}

TEST_F(FabricMembers, OneThatIsAwayIsLookedForAtItsNewAddress) {
  auto elsewhere = members_;
  elsewhere[0].address = testing::Loopback(FreePort());
  FabricTransportConfig lost = MakeConfig(members_, 2);
  lost.members = elsewhere;
  Start(MakeConfig(members_, 1), lost);
  EXPECT_TRUE(Says(*b_, ""));
  ASSERT_TRUE(SetMembers(*b_, members_).ok());
  AwaitConnected();
}

// --- What cannot be -----------------------------------------------------------------------------------------------------

TEST_F(FabricMembers, WhatCannotBeUsedIsNamedAndChangesNothing) {
  StartTogether();
  struct Case {
    const char* word;
    std::function<void(FabricMember&)> change;
  };
  const std::vector<Case> cases = {
      {"n3 is \"127.0.0.1\", expected \"host:port\"", [](FabricMember& m) { m.address = "127.0.0.1"; }},
      {"n3 has the node id 0", [](FabricMember& m) { m.id = NodeId(0); }},
      {"n1 and n3 are both node 1", [](FabricMember& m) { m.id = NodeId(1); }},
  };
  for (const Case& c : cases) {
    // Without node 2, so that a change would be seen.
    std::vector<FabricMember> members = {members_[0], {NodeId(3), "n3", testing::Loopback(FreePort())}};
    c.change(members[1]);
    const absl::Status status = SetMembers(*a_, members);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(c.word), absl::string_view::npos) << status;
  }
  a_->OnLoop([&] {
    ASSERT_EQ(a_->transport->Peers().size(), 1u);
    EXPECT_EQ(a_->transport->Peers()[0].instance.node, NodeId(2));
  });
  ExpectTheyTalk();
  EXPECT_EQ(a_->history.size(), 1u);
}

// One whose name nobody knows just now keeps none of the others away.
TEST_F(FabricMembers, AHostThatIsNotFoundIsNamedAndTheOthersAreMembers) {
  Start(Alone(1), MakeConfig(members_, 2));
  std::vector<FabricMember> members = members_;
  members.push_back({NodeId(3), "n3", "no-such-host.invalid:1"});
  members.push_back({NodeId(4), "n4", testing::Loopback(FreePort())});
  const absl::Status status = SetMembers(*a_, members);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("no-such-host.invalid:1"), absl::string_view::npos) << status;
  AwaitConnected();
  a_->OnLoop([&] { EXPECT_EQ(a_->transport->Peers().size(), 3u); });
}

TEST_F(FabricMembers, WhatIsSentToNoMemberIsDroppedAndCounted) {
  Start(Alone(1), Alone(2));
  const std::vector<PageBuffer> pages(4, MakePage(1));
  a_->Send(2, "you will be one");
  a_->Send(4711, "nobody", pages);
  EXPECT_EQ(a_->Counters().messages_dropped, 2u);
  EXPECT_EQ(a_->Counters().messages_sent, 0u);
  a_->OnLoop([&] { EXPECT_EQ(a_->transport->LevelOf(NodeId(4711), Subsystem::kPages), 0); });
}

TEST_F(FabricMembers, OneThatWasExpelledBeforeItIsAMemberIsToldSo) {
  Start(Alone(1), MakeConfig(members_, 2));
  a_->OnLoop([&] { a_->transport->Expel({NodeId(2), Incarnation(1)}); });
  EXPECT_EQ(PeersOf(*a_), 0u);
  ASSERT_TRUE(SetMembers(*a_, members_).ok());
  EXPECT_TRUE(b_->WaitFor([&] { return !b_->expelled_by.empty(); }));
  EXPECT_TRUE(a_->history.empty());
}

}  // namespace
}  // namespace mangrove
