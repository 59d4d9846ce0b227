#include "engine/peer_room.h"

#include <algorithm>
#include <bit>
#include <tuple>

namespace mangrove {
namespace {

// Through how many groups within each other a way between the two leads: 1 within a group, 2 to another group of the same group of groups.
int LevelsApart(NodeId a, NodeId b) {
  return (static_cast<int>(std::bit_width(a.value ^ b.value)) + kGroupBits - 1) / kGroupBits;
}

}  // namespace

std::optional<NodeResources> PeerRoom::Find(NodeId node, TimeNs now) const {
  const auto it = peers_.find(node);
  if (it == peers_.end() || it->second.until <= now) return std::nullopt;
  return it->second.resources;
}

NodeId PeerRoom::MostRoomNear(NodeId self, TimeNs now) const {
  NodeId best;
  auto order = std::tuple(false, 0, uint64_t{0}, uint32_t{0});
  for (const auto& [node, peer] : peers_) {
    const NodeResources& its = peer.resources;
    if (peer.until <= now || now < peer.distrusted_until || its.free_pages == 0) continue;
    const bool is_enough = its.free_pages >= kEnough;
    const auto own = std::tuple(is_enough, is_enough ? -LevelsApart(self, node) : 0, its.free_pages, ~its.load);
    if (best.value != 0 && own <= order) continue;
    best = node;
    order = own;
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
