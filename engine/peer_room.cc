#include "engine/peer_room.h"

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
    if (peer.until <= now || r.free_pages == 0) continue;
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

void PeerRoom::Distrust(NodeId node) {
  const auto it = peers_.find(node);
  if (it != peers_.end()) it->second.resources.free_pages = 0;
}

}  // namespace mangrove
