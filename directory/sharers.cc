#include "directory/sharers.h"

#include <algorithm>

namespace mangrove {

Sharers::Sharers(std::vector<NodeInstance> nodes) {
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  if (!nodes.empty()) set_ = new Set{.nodes = std::move(nodes)};
}

bool Sharers::Contains(NodeInstance node) const { return std::binary_search(begin(), end(), node); }

bool operator==(const Sharers& a, const Sharers& b) {
  return a.IsSame(b) || std::equal(a.begin(), a.end(), b.begin(), b.end());
}

Sharers SharerTable::Change(const Sharers& sharers, NodeInstance node, bool with) {
  for (const Made& made : made_) {
    if (made.node == node && made.with == with && made.from.IsSame(sharers)) return made.to;
  }
  if (sharers.Contains(node) == with) return sharers;
  std::vector<NodeInstance> nodes(sharers.begin(), sharers.end());
  with ? nodes.push_back(node) : void(std::erase(nodes, node));
  Sharers changed(std::move(nodes));
  if (!changed.empty()) {
    if (sets_.size() >= sweep_at_) Sweep();
    changed = *sets_.insert(std::move(changed)).first;
  }
  made_[next_made_++ % made_.size()] = {sharers, node, with, changed};
  return changed;
}

// Sets that only this table has are of use to nobody. Looked for when there are twice as many as were in use.
void SharerTable::Sweep() {
  made_ = {};
  absl::erase_if(sets_, [](const Sharers& sharers) { return !sharers.IsShared(); });
  sweep_at_ = std::max<size_t>(64, 2 * sets_.size());
}

}  // namespace mangrove
