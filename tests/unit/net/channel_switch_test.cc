#include "net/channel_switch.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace mangrove {
namespace {

constexpr NodeInstance kPeer = {NodeId(2), Incarnation(3)};

// Writes what it hears, under its name, into a log that it shares with others.
class Listener final : public TransportEvents {
 public:
  Listener(std::string name, std::vector<std::string>* log) : name_(std::move(name)), log_(log) {}
  void OnDelivery(const Delivery& delivery) override {
    log_->push_back(absl::StrCat(name_, " got ", delivery.message.size(), " from ", ToString(delivery.from)));
  }
  void OnPeerUp(NodeInstance peer) override { log_->push_back(absl::StrCat(name_, " up ", ToString(peer))); }
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override {
    log_->push_back(absl::StrCat(name_, " down ", ToString(peer), " ", reason.message()));
  }

 private:
  const std::string name_;
  std::vector<std::string>* const log_;
};

class ChannelSwitchTest : public testing::Test {
 protected:
  void Deliver(Channel channel, size_t bytes) {
    const std::vector<std::byte> message(bytes);
    channels_.OnDelivery({.from = kPeer, .channel = channel, .message = message});
  }

  const std::string peer_ = ToString(kPeer);
  std::vector<std::string> log_;
  Listener pages_{"pages", &log_};
  Listener membership_{"membership", &log_};
  ChannelSwitch channels_;
};

TEST_F(ChannelSwitchTest, ADeliveryGoesToItsChannelAlone) {
  channels_.Set(Channel::kPages, &pages_);
  channels_.Set(Channel::kMembership, &membership_);
  Deliver(Channel::kPages, 10);
  Deliver(Channel::kMembership, 20);
  EXPECT_EQ(log_, (std::vector<std::string>{"pages got 10 from " + peer_, "membership got 20 from " + peer_}));
  EXPECT_EQ(channels_.messages_dropped(), 0u);
}

TEST_F(ChannelSwitchTest, NewsOfPeersGoToAllInTheOrderOfTheirNumbers) {
  channels_.Set(Channel::kMembership, &membership_);
  channels_.Set(Channel::kPages, &pages_);
  channels_.OnPeerUp(kPeer);
  channels_.OnPeerDown(kPeer, absl::UnavailableError("cut"));
  EXPECT_EQ(log_, (std::vector<std::string>{"pages up " + peer_, "membership up " + peer_,
                                            "pages down " + peer_ + " cut", "membership down " + peer_ + " cut"}));
}

TEST_F(ChannelSwitchTest, WhatNobodyHearsIsDroppedAndCounted) {
  channels_.Set(Channel::kPages, &pages_);
  Deliver(Channel::kMembership, 10);
  Deliver(static_cast<Channel>(kChannels), 10);
  Deliver(static_cast<Channel>(UINT8_MAX), 10);
  channels_.OnPeerUp(kPeer);
  EXPECT_EQ(log_, std::vector<std::string>{"pages up " + peer_});
  EXPECT_EQ(channels_.messages_dropped(), 3u);

  channels_.Set(Channel::kPages, nullptr);
  Deliver(Channel::kPages, 10);
  channels_.OnPeerDown(kPeer, absl::UnavailableError("cut"));
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_EQ(channels_.messages_dropped(), 4u);
}

}  // namespace
}  // namespace mangrove
