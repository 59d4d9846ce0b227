// Guests: machines that are no members, and hold a token's key instead of the cluster's.
// Covers: B10, C13

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "net/fabric_transport.h"
#include "tests/unit/net/transport_fixture.h"
#include "tests/wire.h"

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

std::string TextOf(const testing::Received& received) {
  return {reinterpret_cast<const char*>(received.message.data()), received.message.size()};
}

class FabricGuests : public ::testing::Test {
 protected:
  void SetUp() override { host_.Start(); }

  void Open(std::vector<ClusterKey> keys) {
    host_.OnLoop([&] { host_.transport->SetGuestKeys(std::move(keys)); });
  }
  FabricTransportConfig GuestConfig(const ClusterKey& key, uint64_t incarnation = 7) {
    FabricTransportConfig config = MakeConfig(members_, 1);
    config.self = {kGuestNode, Incarnation(incarnation)};
    config.keys = {key};
    config.listen_address.clear();
    config.members = {members_[0]};
    return config;
  }
  std::unique_ptr<TestNode> StartGuest(const ClusterKey& key, uint64_t incarnation = 7) {
    auto guest = std::make_unique<TestNode>(GuestConfig(key, incarnation));
    guest->Start();
    return guest;
  }
  static void Send(TestNode& node, NodeId to, Channel channel, const std::string& text,
                   std::span<const PageBuffer> pages = {}) {
    node.OnLoop([&] { node.transport->Send(to, channel, std::as_bytes(std::span(text)), pages); });
  }
  std::optional<ClusterKey> GuestKey() {
    std::optional<ClusterKey> key;
    host_.OnLoop([&] { key = host_.transport->GuestKey(); });
    return key;
  }
  bool WaitForGuest(const std::optional<ClusterKey>& key) {
    return host_.WaitForStatus([&](const auto&, const auto&) { return host_.transport->GuestKey() == key; });
  }
  static std::optional<RefusalReason> RefusedBy(TestNode& node, uint64_t peer = 1) {
    std::optional<RefusalReason> reason;
    node.WaitForStatus([&](const auto&, const auto&) {
      reason = node.transport->RefusedBy(NodeId(peer));
      return reason.has_value();
    });
    return reason;
  }

  const std::vector<FabricMember> members_ = MakeMembers(2);  // The other one is away, or started by the test.
  const ClusterKey token_ = KeyOf(0x77);
  const NodeInstance guest_instance_{kGuestNode, Incarnation(7)};
  TestNode host_{MakeConfig(members_, 1)};
};

// --- What a guest may -------------------------------------------------------------------------------------------------

TEST_F(FabricGuests, AGuestAndTheNodeOfItsTokenTalkOnTheirChannel) {
  Open({KeyOf(1), token_});
  auto guest = StartGuest(token_);
  ASSERT_TRUE(guest->WaitForPeer(1));
  const std::vector<PageBuffer> pages(5, MakePage(1));
  Send(*guest, NodeId(1), Channel::kJoin, "let me in", pages);
  ASSERT_TRUE(host_.WaitFor([&] { return !host_.received.empty(); }));
  EXPECT_EQ(host_.received[0].from, guest_instance_);
  EXPECT_EQ(host_.received[0].channel, Channel::kJoin);
  EXPECT_EQ(TextOf(host_.received[0]), "let me in");
  EXPECT_EQ(host_.received[0].pages.size(), pages.size());
  EXPECT_EQ(GuestKey(), token_);
  const std::string answer(kMaxMessageBytes, 'a');
  Send(host_, kGuestNode, Channel::kJoin, answer);
  ASSERT_TRUE(guest->WaitFor([&] { return !guest->received.empty(); }));
  EXPECT_EQ(TextOf(guest->received[0]), answer);
  EXPECT_EQ(guest->received[0].from, (NodeInstance{NodeId(1), Incarnation(1)}));
  guest->OnLoop([&] {
    EXPECT_EQ(guest->transport->LevelOf(NodeId(1), Subsystem::kNet),
              kOwnLevels[static_cast<size_t>(Subsystem::kNet)].high);
  });
}

TEST_F(FabricGuests, AGuestIsNoPeerAndNoEventTellsOfIt) {
  Open({token_});
  auto guest = StartGuest(token_);
  ASSERT_TRUE(WaitForGuest(token_));
  host_.OnLoop([&] {
    host_.transport->Expel({kGuestNode, Incarnation(100)});
    ASSERT_EQ(host_.transport->Peers().size(), 1u);
    EXPECT_EQ(host_.transport->Peers()[0].instance.node, NodeId(2));
  });
  EXPECT_EQ(GuestKey(), token_);
  guest->Stop();
  ASSERT_TRUE(WaitForGuest(std::nullopt));
  EXPECT_TRUE(host_.history.empty());
  EXPECT_TRUE(host_.received.empty());
}

TEST_F(FabricGuests, WhatIsSaidWithAGuestIsEncryptedWhateverTheClusterWants) {
  Open({token_});
  std::mutex mutex;
  std::string recorded;
  Wire wire(std::stoi(members_[0].address.substr(members_[0].address.rfind(':') + 1)), [&](int, std::string& bytes) {
    const std::lock_guard lock(mutex);
    recorded += bytes;
    return true;
  });
  FabricTransportConfig config = GuestConfig(token_);
  config.members[0].address = testing::Loopback(wire.port());
  config.security = Security::kAuthenticated;
  TestNode guest(config);
  guest.Start();
  ASSERT_TRUE(guest.WaitForPeer(1));
  Send(guest, NodeId(1), Channel::kJoin, "a secret question");
  ASSERT_TRUE(host_.WaitFor([&] { return !host_.received.empty(); }));
  const std::string long_secret(1000, 'x');
  Send(host_, kGuestNode, Channel::kJoin, "a secret answer" + long_secret);
  ASSERT_TRUE(guest.WaitFor([&] { return !guest.received.empty(); }));
  guest.Stop();
  const std::lock_guard lock(mutex);
  EXPECT_NE(recorded.find("MGE2"), std::string::npos);
  EXPECT_EQ(recorded.find("secret"), std::string::npos);
}

TEST_F(FabricGuests, TheNextGuestTakesThePlaceOfTheOneThatIsThere) {
  Open({token_, KeyOf(9)});
  auto first = StartGuest(token_);
  ASSERT_TRUE(first->WaitForPeer(1));
  ASSERT_TRUE(WaitForGuest(token_));
  auto next = StartGuest(KeyOf(9), 8);
  ASSERT_TRUE(next->WaitForPeer(1));
  EXPECT_TRUE(first->WaitFor([&] { return first->history.size() >= 2; }));
  first->Stop();
  ASSERT_TRUE(WaitForGuest(KeyOf(9)));
  Send(host_, kGuestNode, Channel::kJoin, "for the next");
  EXPECT_TRUE(next->WaitFor([&] { return !next->received.empty(); }));
  EXPECT_TRUE(first->received.empty());
}

// --- What a guest may not ---------------------------------------------------------------------------------------------

class FabricGuestsChannel : public FabricGuests, public ::testing::WithParamInterface<Channel> {};
INSTANTIATE_TEST_SUITE_P(Each, FabricGuestsChannel, ::testing::Values(Channel::kPages, Channel::kMembership));

TEST_P(FabricGuestsChannel, AGuestThatSpeaksOnAMembersChannelIsClosedAndNotHeard) {
  Open({token_});
  auto guest = StartGuest(token_);
  ASSERT_TRUE(guest->WaitForPeer(1));
  const std::vector<PageBuffer> pages(5, MakePage(1));
  guest->OnLoop([&] {
    guest->transport->Send(NodeId(1), GetParam(), {}, pages);
    guest->transport->Send(NodeId(1), Channel::kJoin, {}, {});
  });
  // It is let in again.
  ASSERT_TRUE(guest->WaitFor([&] { return guest->history.size() >= 3 && guest->Up(1) == 1; }));
  EXPECT_EQ(host_.Counters().messages_dropped, 1u);
  Send(*guest, NodeId(1), Channel::kJoin, "as I should");
  ASSERT_TRUE(host_.WaitFor([&] { return !host_.received.empty(); }));
  EXPECT_EQ(TextOf(host_.received[0]), "as I should");
}

TEST_F(FabricGuests, NothingIsSentToAGuestOnAMembersChannelNorWhereNoneIs) {
  Open({token_});
  Send(host_, kGuestNode, Channel::kJoin, "nobody is there");
  EXPECT_EQ(host_.Counters().messages_dropped, 1u);
  auto guest = StartGuest(token_);
  ASSERT_TRUE(WaitForGuest(token_));
  Send(host_, kGuestNode, Channel::kPages, "not for you");
  Send(host_, kGuestNode, Channel::kMembership, "nor this");
  EXPECT_EQ(host_.Counters().messages_dropped, 3u);
  Send(host_, kGuestNode, Channel::kJoin, "this");
  ASSERT_TRUE(guest->WaitFor([&] { return !guest->received.empty(); }));
  EXPECT_EQ(TextOf(guest->received[0]), "this");
}

TEST_F(FabricGuests, AGuestCannotSayThatAnIncarnationHasLeftTheView) {
  Open({token_});
  TestNode guest(GuestConfig(token_));
  ASSERT_TRUE(guest.transport->Start(&guest).ok());
  // So it says Expelled where the Proof is to come.
  guest.transport->Expel({NodeId(1), Incarnation(1)});
  ASSERT_TRUE(guest.loop.Start().ok());
  EXPECT_TRUE(host_.WaitForStatus([](const auto&, const auto& counters) { return counters.peers_refused > 0; }));
  EXPECT_TRUE(host_.expelled_by.empty());
  EXPECT_EQ(GuestKey(), std::nullopt);
}

// More than the ring of slots holds: what is dropped gives them back.
TEST_F(FabricGuests, WhatAMemberSendsOnTheGuestsChannelIsDroppedAndItsConnectionStays) {
  TestNode member(MakeConfig(members_, 2));
  member.Start();
  ASSERT_TRUE(member.WaitForPeer(1));
  const std::vector<PageBuffer> pages(kMaxMessagePages, MakePage(1));
  for (int i = 0; i < 5; ++i) Send(member, NodeId(1), Channel::kJoin, "am I a guest?", pages);
  Send(member, NodeId(1), Channel::kPages, "no");
  ASSERT_TRUE(host_.WaitFor([&] { return !host_.received.empty(); }));
  EXPECT_EQ(TextOf(host_.received[0]), "no");
  EXPECT_EQ(host_.Counters().messages_dropped, 5u);
  EXPECT_EQ(host_.history.size(), 1u);
}

// --- Keys ---------------------------------------------------------------------------------------------------------------

TEST_F(FabricGuests, WithoutATokenThatIsOpenAGuestIsRefused) {
  auto guest = StartGuest(token_);
  EXPECT_EQ(RefusedBy(*guest), RefusalReason::kToken);
  guest->Stop();
  Open({KeyOf(1), KeyOf(2)});
  guest = StartGuest(token_);
  EXPECT_EQ(RefusedBy(*guest), RefusalReason::kToken);
  EXPECT_TRUE(guest->WaitForStatus([](const PeerStatus& status, const auto&) {
    return status.last_error.find("no token with its key is open") != std::string::npos;
  }));
  EXPECT_TRUE(guest->history.empty());
  EXPECT_GT(host_.Counters().peers_refused, 1u);
  Open({token_});
  EXPECT_TRUE(guest->WaitForPeer(1));
  guest->OnLoop([&] { EXPECT_EQ(guest->transport->RefusedBy(NodeId(1)), std::nullopt); });
}

TEST_F(FabricGuests, AGuestWhoseKeyIsTakenAwayIsClosedAndRefused) {
  Open({KeyOf(1), token_});
  auto guest = StartGuest(token_);
  ASSERT_TRUE(guest->WaitForPeer(1));
  ASSERT_TRUE(WaitForGuest(token_));
  Open({token_, KeyOf(2)});
  EXPECT_EQ(GuestKey(), token_);
  Open({KeyOf(2)});
  ASSERT_TRUE(guest->WaitForDown(1));
  EXPECT_EQ(RefusedBy(*guest), RefusalReason::kToken);
  EXPECT_EQ(GuestKey(), std::nullopt);
}

TEST_F(FabricGuests, TheKeysOfTheClusterChangeAndAGuestStays) {
  Open({token_});
  auto guest = StartGuest(token_);
  ASSERT_TRUE(guest->WaitForPeer(1));
  host_.OnLoop([&] { host_.transport->SetKeys({KeyOf(0x33)}); });
  Send(*guest, NodeId(1), Channel::kJoin, "still here");
  ASSERT_TRUE(host_.WaitFor([&] { return !host_.received.empty(); }));
  EXPECT_EQ(guest->history.size(), 1u);
}

TEST_F(FabricGuests, TheClustersKeyMakesNoGuest) {
  Open({token_});
  auto pretender = StartGuest(MakeConfig(members_, 1).keys[0]);
  EXPECT_EQ(RefusedBy(*pretender), RefusalReason::kToken);
  EXPECT_TRUE(pretender->history.empty());
  EXPECT_EQ(GuestKey(), std::nullopt);
}

TEST_F(FabricGuests, ATokensKeyMakesNoMember) {
  Open({token_});
  FabricTransportConfig config = MakeConfig(members_, 2);
  config.keys = {token_};
  TestNode pretender(std::move(config));
  pretender.Start();
  EXPECT_EQ(RefusedBy(pretender), RefusalReason::kKey);
  EXPECT_TRUE(pretender.history.empty());
  EXPECT_TRUE(host_.history.empty());
}

TEST_F(FabricGuests, AGuestThatMeansAnotherNodeIsRefused) {
  Open({token_});
  FabricTransportConfig config = GuestConfig(token_);
  config.members[0].id = NodeId(2);  // Which is not at this address.
  TestNode lost(std::move(config));
  lost.Start();
  EXPECT_EQ(RefusedBy(lost, 2), RefusalReason::kToken);
  EXPECT_TRUE(lost.history.empty());
}

// --- What cannot be -----------------------------------------------------------------------------------------------------

TEST_F(FabricGuests, NoMemberHasTheIdOfGuests) {
  absl::Status status;
  host_.OnLoop([&] { status = host_.transport->SetMembers({{kGuestNode, "n3", members_[1].address}}); });
  EXPECT_NE(status.message().find("n3 has the node id 18446744073709551615"), absl::string_view::npos) << status;
}

TEST_F(FabricGuests, AGuestHasOneKeyAndKnowsOneNode) {
  FabricTransportConfig two_keys = GuestConfig(token_);
  two_keys.keys.push_back(KeyOf(1));
  FabricTransportConfig two_nodes = GuestConfig(token_);
  two_nodes.members = members_;
  FabricTransportConfig no_address = GuestConfig(token_);
  no_address.members[0].address = "nowhere";
  for (const auto& [config, words] : {std::pair(two_keys, "2 keys"), std::pair(two_nodes, "2 members"),
                                      std::pair(no_address, "the member n1 is \"nowhere\"")}) {
    TestNode guest(config);
    const absl::Status status = guest.transport->Start(&guest);
    EXPECT_NE(status.message().find(words), absl::string_view::npos) << status;
  }
}

}  // namespace
}  // namespace mangrove
