// From one transport to the parts of a node that share it: each hears what came on its channel, and all hear of peers.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "net/transport.h"

namespace mangrove {

// Owned by the loop.
class ChannelSwitch final : public TransportEvents {
 public:
  // Who hears `channel`; nobody, if `events` is null. `events` must outlive the transport that calls this object. Called
  // before that transport starts: who comes later has missed the peers that are up (T4).
  void Set(Channel channel, TransportEvents* events);

  // TransportEvents. A delivery on a channel that nobody hears is dropped: what a peer sends must not stop a node.
  void OnDelivery(const Delivery& delivery) override;
  // To everybody, in the order of the channels' numbers.
  void OnPeerUp(NodeInstance peer) override;
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override;
  void OnExpelled(NodeInstance by) override;

  uint64_t messages_dropped() const { return messages_dropped_; }

 private:
  std::array<TransportEvents*, kChannels> events_{};  // By the channel's number.
  uint64_t messages_dropped_ = 0;
};

}  // namespace mangrove
