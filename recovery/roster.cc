#include "recovery/roster.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "net/check.h"

namespace mangrove {
namespace {

constexpr size_t kMostRemoved = 16;

}  // namespace

std::set<NodeId> Roster::anchors() const {
  std::set<NodeId> anchors;
  for (const auto& [node, record] : nodes) {
    if (record.votes > 0 && !record.is_removed) anchors.insert(node);
  }
  return anchors;
}

const NodeRecord* Roster::Find(NodeId node) const {
  const auto found = nodes.find(node);
  return found == nodes.end() || found->second.is_removed ? nullptr : &found->second;
}

NodeId Roster::FindName(std::string_view name) const {
  for (const auto& [node, record] : nodes) {
    if (record.name == name && !record.is_removed) return node;
  }
  return NodeId();
}

std::vector<NodeId> Roster::peers() const {
  std::vector<NodeId> peers;
  std::set<std::string_view> addresses;
  std::vector<std::pair<uint64_t, NodeId>> removed;
  for (const auto& [node, record] : nodes) {
    if (record.is_removed) {
      removed.emplace_back(record.changed, node);
    } else {
      peers.push_back(node);
      addresses.insert(record.address);
    }
  }
  std::sort(removed.rbegin(), removed.rend());
  if (removed.size() > kMostRemoved) removed.resize(kMostRemoved);
  for (const auto& [changed, node] : removed) {
    if (addresses.insert(nodes.at(node).address).second) peers.push_back(node);
  }
  return peers;
}

std::string Roster::NameOf(NodeId node) const {
  const auto found = nodes.find(node);
  return found == nodes.end() ? ToString(node) : found->second.name;
}

bool Roster::Apply(const RosterPart& part, NodeId self) {
  if (part.after > version || part.version <= version) return false;
  for (const auto& [node, record] : part.nodes) nodes[node] = record;
  version = part.version;
  if (part.is_last) {
    std::erase_if(nodes, [&](const auto& node) { return node.second.changed < part.oldest && node.first != self; });
  }
  return true;
}

std::optional<RosterPart> Roster::Since(uint64_t known) const {
  if (known >= version) return std::nullopt;
  // What is left of a configuration, this node for one, is in no log.
  std::map<NodeId, NodeRecord> told = nodes;
  std::erase_if(told, [](const auto& node) { return node.second.changed == 0; });
  return PartSince(told, known);
}

RosterPart PartSince(const std::map<NodeId, NodeRecord>& nodes, uint64_t known) {
  std::vector<std::pair<NodeId, NodeRecord>> changed;
  uint64_t oldest = UINT64_MAX;
  for (const auto& [node, record] : nodes) {
    oldest = std::min(oldest, record.changed);
    if (record.changed > known) changed.emplace_back(node, record);
  }
  CHECK(!changed.empty());
  std::sort(changed.begin(), changed.end(),
            [](const auto& a, const auto& b) { return a.second.changed < b.second.changed; });
  RosterPart part{.after = known, .version = known, .is_last = false, .oldest = oldest, .nodes = {}};
  size_t bytes = 0;
  for (auto& [node, record] : changed) {
    bytes += record.name.size() + record.address.size() + 100;
    if (part.nodes.size() == RosterPart::kMostNodes) return part;
    if (bytes > RosterPart::kMostBytes && !part.nodes.empty()) return part;
    part.version = record.changed;
    record.last = Incarnation();
    record.left = Epoch();
    part.nodes.emplace_back(node, std::move(record));
  }
  part.is_last = true;
  return part;
}

}  // namespace mangrove
