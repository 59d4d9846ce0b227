#include "engine/peer_room.h"

#include <algorithm>

namespace mangrove {

std::optional<NodeResources> PeerRoom::Find(NodeId node, TimeNs now) const {
  const auto it = peers_.find(node);
  if (it == peers_.end() || it->second.until <= now) return std::nullopt;
  return it->second.resources;
}

NodeId PeerRoom::MostRoom(TimeNs now) const {
  NodeId best;
  NodeResources most;
  for (const auto& [node, peer] : peers_) {
    const NodeResources& r = peer.resources;
    if (peer.until <= now || now < peer.distrusted_until || r.free_pages == 0) continue;
    if (r.free_pages < most.free_pages || (r.free_pages == most.free_pages && r.load >= most.load)) continue;
    best = node;
    most = r;
  }
  return best;
}

void PeerRoom::Promise(NodeId node) {
  const auto it = peers_.find(node);
  if (it != peers_.end() && it->second.resources.free_pages > 0) --it->second.resources.free_pages;
}

void PeerRoom::Distrust(NodeId node, TimeNs now) {
  const auto it = peers_.find(node);
  if (it == peers_.end() || now < it->second.distrusted_until) return;
  it->second.distrust = std::clamp(2 * it->second.distrust, kDistrust, kMostDistrust);
  it->second.distrusted_until = now + it->second.distrust;
}

void PeerRoom::Trust(NodeId node) {
  const auto it = peers_.find(node);
  if (it != peers_.end()) it->second.distrust = 0;
}

}  // namespace mangrove
