#include "net/channel_switch.h"

#include "net/check.h"

namespace mangrove {

void ChannelSwitch::Set(Channel channel, TransportEvents* events) {
  const auto number = static_cast<size_t>(channel);
  CHECK(number < kChannels);
  events_[number] = events;
}

void ChannelSwitch::OnDelivery(const Delivery& delivery) {
  const auto number = static_cast<size_t>(delivery.channel);
  if (number >= kChannels || events_[number] == nullptr) {
    ++messages_dropped_;
    return;
  }
  events_[number]->OnDelivery(delivery);
}

void ChannelSwitch::OnPeerUp(NodeInstance peer) {
  for (TransportEvents* events : events_) {
    if (events != nullptr) events->OnPeerUp(peer);
  }
}

void ChannelSwitch::OnPeerDown(NodeInstance peer, const absl::Status& reason) {
  for (TransportEvents* events : events_) {
    if (events != nullptr) events->OnPeerDown(peer, reason);
  }
}

void ChannelSwitch::OnExpelled(NodeInstance by) {
  for (TransportEvents* events : events_) {
    if (events != nullptr) events->OnExpelled(by);
  }
}

}  // namespace mangrove
