// Who can change, repeat and send back what goes over the wire, and a peer that floods.
// Covers: B10, C13

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "net/envelope.h"
#include "net/fabric_transport.h"
#include "net/handshake.h"
#include "tests/unit/net/transport_fixture.h"
#include "tests/wire.h"

namespace mangrove {
namespace {

using testing::MakeConfig;
using testing::MakeMembers;
using testing::MakePage;
using testing::TestNode;

int PortOf(const FabricMember& member) { return std::stoi(member.address.substr(member.address.rfind(':') + 1)); }

// Node 2 connects to node 1 through a wire.
class HostileWire : public ::testing::Test {
 protected:
  using Change = std::function<bool(int from, std::string& bytes)>;  // Whether it has done what it should.

  void Start(Security security = Security::kAuthenticated) {
    FabricTransportConfig b = MakeConfig(members_, 2);
    b.members[0].address = testing::Loopback(wire_.port());
    FabricTransportConfig a = MakeConfig(members_, 1);
    a.security = b.security = security;
    a_ = std::make_unique<TestNode>(std::move(a));
    b_ = std::make_unique<TestNode>(std::move(b));
    a_->Start();
    b_->Start();
    ASSERT_TRUE(a_->WaitForPeer(2));
    ASSERT_TRUE(b_->WaitForPeer(1));
  }
  // Once, for the first bytes that it wants.
  void Arm(Change change) {
    const std::lock_guard lock(mutex_);
    change_ = std::move(change);
    done_ = false;
  }
  // `receiver` has lost its peer, for what is said with `words`; and they go on, in another connection, as ever.
  void ExpectRefused(TestNode& receiver, const std::string& words) {
    ASSERT_TRUE(receiver.WaitFor([&] { return !receiver.reasons.empty(); }));
    EXPECT_TRUE(done_);
    EXPECT_NE(receiver.reasons[0].find(words), std::string::npos) << receiver.reasons[0];
    ASSERT_TRUE(a_->WaitFor([&] { return a_->history.size() >= 3 && a_->Up(2) == 1; }));
    ASSERT_TRUE(b_->WaitFor([&] { return b_->history.size() >= 3 && b_->Up(1) == 1; }));
    b_->Send(1, "as ever");
    EXPECT_TRUE(a_->WaitFor([&] { return !a_->received.empty() && TextOf(a_->received.back()) == "as ever"; }));
    EXPECT_FALSE(a_->delivered_while_down);
  }
  static std::string TextOf(const testing::Received& received) {
    return {reinterpret_cast<const char*>(received.message.data()), received.message.size()};
  }

  bool OnBytes(int from, std::string& bytes) {
    const std::lock_guard lock(mutex_);
    recorded_[from] += bytes;
    if (!done_ && change_) done_ = change_(from, bytes);
    return true;
  }

  std::vector<FabricMember> members_ = MakeMembers(2);
  std::mutex mutex_;
  Change change_;
  std::atomic<bool> done_ = true;
  std::string recorded_[2];
  Wire wire_{PortOf(members_[0]), [this](int from, std::string& bytes) { return OnBytes(from, bytes); }};
  std::unique_ptr<TestNode> a_;
  std::unique_ptr<TestNode> b_;
};

// --- A bit of each part -------------------------------------------------------------------------------------------------

struct Place {
  const char* name;
  size_t offset;  // From the envelope's beginning.
  size_t pages;
  const char* words = "the tag does not fit message 0 ";
};

class TamperedMessage : public HostileWire, public ::testing::WithParamInterface<std::tuple<Place, Security>> {};
INSTANTIATE_TEST_SUITE_P(
    Each, TamperedMessage,
    ::testing::Combine(::testing::Values(Place{"Magic", 0, 0}, Place{"Kind", 4, 0}, Place{"Flags", 5, 0},
                                         Place{"Channel", 6, 0}, Place{"Epoch", 8, 0}, Place{"Length", 16, 0},
                                         Place{"PageCount", 20, 1}, Place{"FirstSlot", 22, 5}, Place{"Returned", 24, 0},
                                         Place{"Number", 28, 0}, Place{"Tag", 32, 0}, Place{"Message", 48, 0},
                                         Place{"Padding", 60, 1}, Place{"InlinePage", 64 + 100, 1},
                                         Place{"LastInlinePage", 64 + 3 * kPageBytes - 1, 3},
                                         Place{"SlotsTag", 48 + 7, 5}),
                       ::testing::Values(Security::kAuthenticated, Security::kEncrypted)),
    [](const auto& instance) {
      return std::string(std::get<0>(instance.param).name) + Name(std::get<1>(instance.param));
    });

TEST_P(TamperedMessage, CostsItsConnectionAndNothingOfItIsDelivered) {
  const auto& [place, security] = GetParam();
  Start(security);
  // Counted from the magic on, over as many pieces as it comes in.
  Arm([left = std::string::npos, offset = place.offset](int from, std::string& bytes) mutable {
    if (from != 0) return false;
    if (left == std::string::npos) {
      const size_t at = bytes.find("MGE2");
      if (at == std::string::npos) return false;
      left = at + offset;
    }
    if (left >= bytes.size()) {
      left -= bytes.size();
      return false;
    }
    bytes[left] ^= 1;
    return true;
  });
  b_->Send(1, "message", std::vector<PageBuffer>(place.pages, MakePage(1)));
  ExpectRefused(*a_, place.words);
  for (const auto& received : a_->received) EXPECT_NE(TextOf(received), "message");
}

class TamperedSlots : public HostileWire, public ::testing::WithParamInterface<Security> {};
INSTANTIATE_TEST_SUITE_P(Both, TamperedSlots, ::testing::Values(Security::kAuthenticated, Security::kEncrypted));

TEST_P(TamperedSlots, CostTheirConnectionAndNothingOfTheMessageIsDelivered) {
  Start(GetParam());
  // The pages come before the message, each piece of them behind a head of the provider's, which has the key of the slots; that
  // was in the Ready.
  const size_t ready = recorded_[1].find(std::string("MH\4\0", 4));
  ASSERT_NE(ready, std::string::npos);
  const std::string key = recorded_[1].substr(ready + 16, 8);
  Arm([&key](int from, std::string& bytes) {
    const size_t at = bytes.find(key);
    if (from != 0 || at == std::string::npos || at + 1000 >= bytes.size()) return false;
    bytes[at + 1000] ^= 4;
    return true;
  });
  b_->Send(1, "message", std::vector<PageBuffer>(64, MakePage(1)));
  ExpectRefused(*a_, "corrupt pages: the tag does not fit the 64 pages from slot 0");
  for (const auto& received : a_->received) EXPECT_NE(TextOf(received), "message");
}

// --- Again, or back -----------------------------------------------------------------------------------------------------

TEST_F(HostileWire, ARepeatedMessageCostsItsConnectionAndIsDeliveredOnce) {
  Start();
  Arm([](int from, std::string& bytes) {
    if (from != 0 || bytes.find("MGE2") == std::string::npos) return false;
    bytes += bytes;
    return true;
  });
  b_->Send(1, "once");
  ExpectRefused(*a_, "the tag does not fit message 1 of its connection; it says that it is number 0");
  size_t times = 0;
  for (const auto& received : a_->received) times += TextOf(received) == "once" ? 1 : 0;
  EXPECT_EQ(times, 1u);
}

TEST_F(HostileWire, AMessageThatIsSentBackIsRefused) {
  Start();
  std::string sent;
  Arm([&sent](int from, std::string& bytes) {
    if (from == 0 && sent.empty() && bytes.find("MGE2") != std::string::npos) sent = bytes;
    if (from != 1 || sent.empty() || bytes.find("MGE2") == std::string::npos) return false;
    bytes = sent;
    return true;
  });
  b_->Send(1, "there");
  ASSERT_TRUE(a_->WaitFor([&] { return a_->received.size() == 1; }));
  a_->Send(2, "and back");
  ExpectRefused(*b_, "the tag does not fit message 0 ");
  EXPECT_TRUE(b_->received.empty());
}

// Of an earlier connection: the secrets are others.
TEST_F(HostileWire, AMessageOfAnEarlierConnectionIsRefused) {
  Start();
  std::string sent;
  Arm([&sent](int from, std::string& bytes) {
    if (from != 0 || bytes.find("MGE2") == std::string::npos) return false;
    sent = bytes;
    return true;
  });
  b_->Send(1, "first");
  ASSERT_TRUE(a_->WaitFor([&] { return a_->received.size() == 1; }));
  b_->Stop();
  ASSERT_TRUE(a_->WaitForDown(2));
  FabricTransportConfig config = MakeConfig(members_, 2, 2);
  config.members[0].address = testing::Loopback(wire_.port());
  b_ = std::make_unique<TestNode>(std::move(config));
  b_->Start();
  ASSERT_TRUE(a_->WaitForPeer(2, 2));
  ASSERT_TRUE(b_->WaitForPeer(1));
  Arm([&sent](int from, std::string& bytes) {
    if (from != 0 || bytes.find("MGE2") == std::string::npos) return false;
    bytes = sent;
    return true;
  });
  b_->Send(1, "other");
  ASSERT_TRUE(a_->WaitFor([&] { return a_->reasons.size() == 2; }));
  EXPECT_NE(a_->reasons[1].find("the tag does not fit message 0 "), std::string::npos) << a_->reasons[1];
  std::lock_guard<std::mutex> lock(a_->mutex);
  EXPECT_EQ(a_->received.size(), 1u);
}

class RecordedHandshake : public HostileWire {
 protected:
  // Of node 2: a Hello that asks, and then everything of the connection that it came to, up to a message.
  void Record() {
    Start();
    b_->Send(1, "message");
    ASSERT_TRUE(a_->WaitFor([&] { return a_->received.size() == 1; }));
    const std::lock_guard lock(mutex_);
    const std::vector<std::string> connections = SplitAtHellos(recorded_[0], kProtocolVersion);
    ASSERT_EQ(connections.size(), 2u);
    asking_ = connections[0];
    proving_ = connections[1];
  }
  // Each on a connection of its own, which stays open.
  void Repeat(const std::string& bytes, int times) {
    for (int i = 0; i < times; ++i) {
      fds_.push_back(ConnectTo(PortOf(members_[0])));
      EXPECT_GE(fds_.back(), 0);
      EXPECT_EQ(send(fds_.back(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    }
  }
  // What it was answered, until that has a first message of the handshake's form, or the connection is cut.
  static std::string Answer(int fd) {
    std::string answer;
    char bytes[512];
    while (answer.find("MH") == std::string::npos) {
      const ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
      if (got <= 0) break;
      answer.append(bytes, static_cast<size_t>(got));
    }
    return answer;
  }
  ~RecordedHandshake() override {
    for (const int fd : fds_) close(fd);
  }
  size_t Connections() {
    FabricTransportGauges gauges;
    a_->OnLoop([&] { gauges = a_->transport->Gauges(); });
    return gauges.connections;
  }

  std::string asking_;
  std::string proving_;
  std::vector<int> fds_;
};

TEST_F(RecordedHandshake, IsRefusedByTheSameNodeAndByALaterOne) {
  Record();
  const uint64_t refused = a_->Counters().peers_refused;
  Repeat(proving_, 20);
  EXPECT_TRUE(a_->WaitForStatus([&](const PeerStatus& status, const TransportCounters& c) {
    return c.peers_refused == refused + 20 && status.connected;
  }));
  EXPECT_EQ(a_->history.size(), 1u);
  // It remembers nothing of it, but has another challenge.
  b_->Stop();
  a_->Stop();
  a_ = std::make_unique<TestNode>(MakeConfig(members_, 1, 2));
  a_->Start();
  Repeat(proving_, 300);
  EXPECT_TRUE(a_->WaitForStatus([&](const PeerStatus& status, const TransportCounters& c) {
    return c.peers_refused >= 300 && !status.connected;
  }));
  EXPECT_EQ(Connections(), 0u);
  EXPECT_TRUE(a_->history.empty());
  EXPECT_TRUE(a_->received.empty());
}

TEST_F(RecordedHandshake, OfWhoAsksForAChallengeGetsOneAndNothingMore) {
  Record();
  const uint64_t refused = a_->Counters().peers_refused;
  Repeat(asking_ + std::string(4000, '\xFF'), 50);
  for (const int fd : fds_) EXPECT_NE(Answer(fd).find("MH"), std::string::npos);
  EXPECT_EQ(Connections(), 1u);
  EXPECT_EQ(a_->Counters().peers_refused, refused);
  b_->Send(1, "as ever");
  EXPECT_TRUE(a_->WaitFor([&] { return a_->received.size() == 2; }));
}

// Whoever can make hellos holds the key, but need not be a node that is sound.
TEST_F(RecordedHandshake, ThatIsNeverFinishedKeepsNobodyAway) {
  Record();
  b_->Stop();
  ASSERT_TRUE(a_->WaitForDown(2));
  const FabricTransportConfig config = MakeConfig(members_, 1);
  const size_t at = asking_.find("MH");
  uint64_t challenge = 0;
  uint64_t nonce = 1000;
  const auto say_hello = [&] {
    HandshakeFacts facts{.version = kProtocolVersion,
                         .cluster = config.cluster,
                         .connector = {NodeId(2), Incarnation(1)},
                         .acceptor = {NodeId(1), Incarnation()},
                         .connector_nonce = ++nonce,
                         .acceptor_nonce = challenge};
    Hello hello{
        .version = kProtocolVersion, .cluster_low = config.cluster.low, .from = facts.connector, .nonce = nonce};
    const HandshakeMac mac = ComputeMac(config.keys[0], HandshakeStep::kHello, facts, {});
    std::copy_n(mac.begin(), hello.mac.size(), hello.mac.begin());
    const auto bytes = EncodeHello(hello);
    std::string request = asking_;
    request.replace(at, bytes.size(), reinterpret_cast<const char*>(bytes.data()), bytes.size());
    Repeat(request, 1);
    return Answer(fds_.back());
  };
  const std::string refusal = say_hello();
  const auto parsed = ParseRefusal(std::as_bytes(std::span(refusal)).subspan(refusal.find("MH")));
  ASSERT_TRUE(parsed.has_value());
  ASSERT_EQ(parsed->reason, RefusalReason::kChallenge);
  challenge = parsed->challenge;
  for (int i = 0; i < 20; ++i) {
    const std::string accepted = say_hello();
    const size_t found = accepted.find("MH");
    ASSERT_NE(found, std::string::npos);
    EXPECT_TRUE(ParseAccept(kProtocolVersion, std::as_bytes(std::span(accepted)).subspan(found)).has_value()) << i;
  }
  EXPECT_LE(Connections(), 5u);
  const auto before = std::chrono::steady_clock::now();
  FabricTransportConfig b = MakeConfig(members_, 2, 2);
  b_ = std::make_unique<TestNode>(std::move(b));
  b_->Start();
  ASSERT_TRUE(a_->WaitForPeer(2, 2));
  // Sooner than the handshakes that were there ended by themselves.
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(1500));
}

// --- Too much -----------------------------------------------------------------------------------------------------------

// Whoever floods holds the key: it is heard, and the others as well.
TEST(HostilePeer, AFloodOfOnePeerKeepsNoOtherFromBeingHeard) {
  const auto members = MakeMembers(3);
  TestNode one(MakeConfig(members, 1));
  TestNode two(MakeConfig(members, 2));
  TestNode three(MakeConfig(members, 3));
  std::atomic<uint64_t> from_two = 0;
  one.on_delivery = [&](const Delivery& delivery) {
    if (delivery.from.node == NodeId(2)) {
      ++from_two;
    } else {
      one.transport->Send(NodeId(3), Channel::kPages, delivery.message, {});
    }
  };
  one.Start();
  two.Start();
  three.Start();
  for (const uint64_t node : {2u, 3u}) ASSERT_TRUE(one.WaitForPeer(node));
  ASSERT_TRUE(three.WaitForPeer(1));
  ASSERT_TRUE(two.WaitForPeer(1));
  std::atomic<bool> ending = false;
  std::thread flood([&] {
    const std::vector<PageBuffer> pages(64, MakePage(1));
    while (!ending) {
      two.OnLoop([&] {
        for (int i = 0; i < 50; ++i) two.transport->Send(NodeId(1), Channel::kPages, {}, pages);
      });
    }
  });
  for (uint64_t i = 1; i <= 200 || from_two <= 100; ++i) {
    three.Send(1, "are you there?");
    ASSERT_TRUE(three.WaitFor([&] { return three.received.size() == i; }, 5)) << i;
  }
  ending = true;
  flood.join();
  EXPECT_GT(from_two, 100u);
  EXPECT_EQ(three.history.size(), 2u);
}

}  // namespace
}  // namespace mangrove
