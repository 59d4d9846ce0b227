#include "recovery/view_history.h"

#include <algorithm>
#include <map>

#include "net/check.h"

namespace mangrove {

std::vector<ViewPart::Node> NodesOf(const View& view) {
  std::map<NodeId, ViewPart::Node> nodes;
  const auto named = [&](NodeId id) -> ViewPart::Node& {
    ViewPart::Node& node = nodes[id];
    node.node = id;
    return node;
  };
  for (const auto& [node, incarnation] : view.members) named(node).incarnation = incarnation;
  for (const auto& [node, since] : view.behind) named(node).behind = since;
  for (NodeId node : view.disks) named(node).is_disk = true;
  for (NodeId node : view.next_disks) named(node).is_next_disk = true;
  for (NodeId node : view.moved) named(node).has_moved = true;
  for (NodeId node : view.draining) named(node).is_draining = true;
  for (NodeId node : view.lost) named(node).is_lost = true;
  for (const auto& [node, weight] : view.weights) named(node).weight = weight;
  for (const auto& [node, weight] : view.next_weights) named(node).next_weight = weight;
  std::vector<ViewPart::Node> list;
  list.reserve(nodes.size());
  for (const auto& [id, node] : nodes) list.push_back(node);
  return list;
}

void AddNodes(const std::vector<ViewPart::Node>& nodes, View& view) {
  for (const ViewPart::Node& node : nodes) {
    if (node.incarnation.value != 0) view.members[node.node] = node.incarnation;
    if (node.behind.value != 0) view.behind[node.node] = node.behind;
    if (node.is_disk) view.disks.insert(node.node);
    if (node.is_next_disk) view.next_disks.insert(node.node);
    if (node.has_moved) view.moved.insert(node.node);
    if (node.is_draining) view.draining.insert(node.node);
    if (node.is_lost) view.lost.insert(node.node);
    if (node.weight != 0) view.weights[node.node] = node.weight;
    if (node.next_weight != 0) view.next_weights[node.node] = node.next_weight;
  }
}

void ViewHistory::Apply(const ViewChange& change) {
  CHECK(view_.IsNext(change.epoch));
  view_.Apply(change);
  changes_.push_back(change);
  if (changes_.size() > kMostChanges) changes_.pop_front();
}

void ViewHistory::Reset(View view) {
  view_ = std::move(view);
  changes_.clear();
}

std::vector<RecoveryMessage> ViewHistory::Since(Epoch known) const {
  if (known >= view_.epoch) return {};
  // The first view may be of any epoch.
  const bool is_known = known.value != 0 && !changes_.empty() && changes_.front().epoch.value <= known.value + 1;
  if (!is_known) return Parts();
  std::vector<RecoveryMessage> messages;
  for (const ViewChange& change : changes_) {
    if (change.epoch > known) messages.emplace_back(change);
  }
  return messages;
}

std::vector<RecoveryMessage> ViewHistory::Parts() const {
  std::vector<RecoveryMessage> parts;
  ViewPart part;
  part.epoch = view_.epoch;
  part.root = view_.root;
  part.move = view_.move;
  const std::vector<ViewPart::Node> nodes = NodesOf(view_);
  size_t next = 0;
  do {
    const size_t end = std::min(nodes.size(), next + ViewPart::kMostNodes);
    part.first = static_cast<uint32_t>(next);
    part.nodes = {nodes.data() + next, nodes.data() + end};
    part.is_last = end == nodes.size();
    parts.emplace_back(part);
    next = end;
  } while (!part.is_last);
  return parts;
}

}  // namespace mangrove
