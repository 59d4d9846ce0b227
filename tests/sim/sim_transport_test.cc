#include "tests/sim/sim_transport.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace mangrove::sim {
namespace {

// Keeps what it is told, and checks T1 and T4 at each delivery.
class Listener : public TransportEvents {
 public:
  void OnDelivery(const Delivery& delivery) override {
    EXPECT_EQ(newest_[delivery.from.node], delivery.from.incarnation) << "T4";
    messages.emplace_back(reinterpret_cast<const char*>(delivery.message.data()), delivery.message.size());
    for (const std::byte* page : delivery.pages) first_bytes.push_back(page[0]);
    epochs.push_back(delivery.epoch);
    channels.push_back(delivery.channel);
  }
  void OnPeerUp(NodeInstance peer) override {
    EXPECT_GE(peer.incarnation, newest_[peer.node]) << "T4";
    newest_[peer.node] = peer.incarnation;
    ++ups;
  }
  void OnPeerDown(NodeInstance /*peer*/, const absl::Status& /*reason*/) override { ++downs; }
  void OnExpelled(NodeInstance by) override { expelled_by.push_back(by); }

  std::vector<std::string> messages;
  std::vector<std::byte> first_bytes;
  std::vector<Epoch> epochs;
  std::vector<Channel> channels;
  int ups = 0;
  int downs = 0;
  std::vector<NodeInstance> expelled_by;

 private:
  std::map<NodeId, Incarnation> newest_;
};

class SimTransportTest : public testing::Test {
 protected:
  SimTransportTest() : world_(11), network_(&world_, 3) {
    for (int slot = 0; slot < 3; ++slot) Start(slot);
    Run(2 * kSecond);  // A connection takes up to one.
  }

  void Start(int slot) {
    listeners_[slot] = std::make_unique<Listener>();
    transports_[slot] = network_.Attach(slot, {NodeOfSlot(slot), Incarnation(++lives_[slot])});
    ASSERT_TRUE(transports_[slot]->Start(listeners_[slot].get()).ok());
  }
  void Crash(int slot) {
    network_.Detach(slot);
    world_.DropEventsOf(slot);
    transports_[slot].reset();
  }
  void Send(int from, int to, const std::string& text, Channel channel = Channel::kPages) {
    transports_[from]->Send(NodeOfSlot(to), channel, std::as_bytes(std::span(text)), {});
  }
  void Run(DurationNs time) { world_.RunUntil(world_.now() + time); }

  SimWorld world_;
  SimNetwork network_;
  std::map<int, uint64_t> lives_;
  std::map<int, std::unique_ptr<Listener>> listeners_;
  std::map<int, std::unique_ptr<SimTransport>> transports_;
};

TEST_F(SimTransportTest, PeersComeUpAndMessagesArriveWholeInCalmWeather) {
  for (int slot = 0; slot < 3; ++slot) EXPECT_EQ(listeners_[slot]->ups, 2);
  auto page = std::make_shared<PageBytes>();
  page->bytes[0] = std::byte{7};
  const std::string text = "with a page";
  transports_[0]->SetEpoch(Epoch(4));
  transports_[0]->Send(NodeOfSlot(1), Channel::kPages, std::as_bytes(std::span(text)), {{page}});
  page->bytes[0] = std::byte{8};  // Copied at the send.
  for (int i = 0; i < 100; ++i) Send(0, 1, std::to_string(i));
  Run(kSecond);
  ASSERT_EQ(listeners_[1]->messages.size(), 101u);
  EXPECT_EQ(listeners_[1]->messages[0], text);
  EXPECT_EQ(listeners_[1]->messages[100], "99");
  EXPECT_EQ(listeners_[1]->first_bytes, std::vector<std::byte>{std::byte{7}});
  EXPECT_EQ(listeners_[1]->epochs[0], Epoch(4));
  EXPECT_EQ(transports_[1]->Counters().messages_received, 101u);
  EXPECT_EQ(transports_[0]->Counters().pages_sent, 1u);
}

TEST_F(SimTransportTest, AMessageComesOnTheChannelThatItWasSentOn) {
  const std::vector<Channel> sent = {Channel::kMembership, Channel::kPages, Channel::kMembership};
  for (const Channel channel : sent) Send(0, 1, "text", channel);
  Run(kSecond);
  EXPECT_EQ(listeners_[1]->channels, sent);
}

TEST_F(SimTransportTest, StormsLoseDoubleAndReorder) {
  Weather weather;
  weather.lose_per_mille = 200;
  weather.double_per_mille = 200;
  weather.overtake_per_mille = 300;
  network_.SetWeather(weather);
  for (int i = 0; i < 1000; ++i) Send(0, 1, std::to_string(i));
  Run(kSecond);
  const std::vector<std::string>& got = listeners_[1]->messages;
  const std::set<std::string> distinct(got.begin(), got.end());
  EXPECT_LT(distinct.size(), 950u);
  EXPECT_GT(distinct.size(), 700u);
  EXPECT_GT(got.size(), distinct.size());
  int reordered = 0;
  for (size_t i = 1; i < got.size(); ++i) reordered += std::stoi(got[i]) < std::stoi(got[i - 1]);
  EXPECT_GT(reordered, 50);
}

TEST_F(SimTransportTest, AOneWayCutStopsOneDirection) {
  network_.Cut(0, 1);
  Send(0, 1, "lost");
  Send(1, 0, "arrives");
  Run(10 * kMillisecond);
  EXPECT_TRUE(listeners_[1]->messages.empty());
  EXPECT_EQ(listeners_[0]->messages.size(), 1u);
  network_.Heal(0, 1);
  Run(5 * kSecond);
  Send(0, 1, "again");
  Run(kSecond);
  EXPECT_EQ(listeners_[1]->messages, std::vector<std::string>{"again"});
}

TEST_F(SimTransportTest, NothingReachesAnotherIncarnationThanTheOneConnectedAtTheSend) {
  Weather slow;
  slow.min_delay = slow.max_delay = 100 * kMillisecond;
  network_.SetWeather(slow);
  Send(0, 1, "to the first life");
  Send(1, 0, "from the first life");
  Crash(1);
  Start(1);
  Run(5 * kSecond);
  EXPECT_TRUE(listeners_[1]->messages.empty());
  // What the dead sent may arrive, but only before its successor is up; the listener checks that.
  EXPECT_LE(listeners_[0]->messages.size(), 1u);
  Send(0, 1, "to the second life");
  Run(kSecond);
  EXPECT_EQ(listeners_[1]->messages, std::vector<std::string>{"to the second life"});
}

TEST_F(SimTransportTest, NewsOfACrashAreAHintAndANewLifeIsCertain) {
  int heard = 0;
  constexpr int kCrashes = 60;
  for (int i = 0; i < kCrashes; ++i) {
    const int before = listeners_[0]->downs;
    Crash(1);
    Run(10 * kSecond);
    heard += listeners_[0]->downs > before;
    const int ups = listeners_[0]->ups;
    Start(1);
    Run(2 * kSecond);
    EXPECT_EQ(listeners_[0]->ups, ups + 1);
  }
  EXPECT_GT(heard, kCrashes / 2);
  EXPECT_LT(heard, kCrashes);
}

TEST_F(SimTransportTest, AFalseAlarmEndsInANewConnection) {
  const int ups = listeners_[0]->ups;
  network_.FalseAlarm(0, 1);
  Run(kMillisecond / 10);
  EXPECT_EQ(listeners_[0]->downs, 1);
  EXPECT_FALSE(transports_[0]->Peers()[0].connected);
  Send(0, 1, "dropped");
  EXPECT_EQ(transports_[0]->Counters().messages_dropped, 1u);
  Run(2 * kSecond);
  EXPECT_EQ(listeners_[0]->ups, ups + 1);
  Send(0, 1, "arrives");
  Run(kSecond);
  EXPECT_EQ(listeners_[1]->messages, std::vector<std::string>{"arrives"});
}

TEST_F(SimTransportTest, WhoIsExpelledIsNotHeardAndIsToldAndItsNextLifeIsLetIn) {
  const int ups = listeners_[0]->ups;
  Send(1, 0, "on its way");
  transports_[0]->Expel({NodeOfSlot(1), Incarnation(1)});
  Run(3 * kSecond);
  Send(1, 0, "too late");
  Run(kSecond);
  EXPECT_TRUE(listeners_[0]->messages.empty());
  EXPECT_EQ(listeners_[0]->ups, ups);
  ASSERT_FALSE(listeners_[1]->expelled_by.empty());
  EXPECT_EQ(listeners_[1]->expelled_by[0], (NodeInstance{NodeOfSlot(0), Incarnation(1)}));
  EXPECT_EQ(transports_[0]->LevelOf(NodeOfSlot(1), Subsystem::kPages), 0);
  Crash(1);
  Start(1);
  Run(2 * kSecond);
  EXPECT_EQ(listeners_[0]->ups, ups + 1);
  Send(1, 0, "of the next");
  Run(kSecond);
  EXPECT_EQ(listeners_[0]->messages, std::vector<std::string>{"of the next"});
}

}  // namespace
}  // namespace mangrove::sim
