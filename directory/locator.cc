#include "directory/locator.h"

#include <algorithm>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/inlined_vector.h"

namespace mangrove {
namespace {

// The finalizer of MurmurHash3 (public domain, Austin Appleby): every bit of the result depends on every bit of `x`.
uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  x ^= x >> 33;
  return x;
}

uint64_t HashOf(PageId page) {
  const absl::uint128 segment = page.value >> kSegmentShift;
  return Mix(Mix(absl::Uint128High64(segment)) ^ absl::Uint128Low64(segment));
}

// The levels of groups that there can be.
constexpr int kGroupLevels = (64 - 1) / kGroupBits;

// The number of the node's group at the level, 1 being the lowest.
uint64_t GroupOf(NodeId node, int level) { return node.value >> (level * kGroupBits); }

struct Weighed {
  uint64_t weight;
  NodeId id;
  bool operator<(const Weighed& other) const { return weight != other.weight ? weight > other.weight : id < other.id; }
};

// The nodes in the order in which they are to keep the page: one of each group of the `level`, then another one of each that has
// more, and so on, each time the highest weights first; which of a group's comes first, the groups within it say. Without one node
// there is one other in its place, as without groups. `sorted`: the highest weights first.
std::vector<Weighed> InOrder(std::vector<Weighed> sorted, int level) {
  if (level == 0 || sorted.size() < 2) return sorted;
  absl::btree_map<uint64_t, std::vector<Weighed>> groups;
  for (const Weighed& node : sorted) groups[GroupOf(node.id, level)].push_back(node);
  for (auto& [group, nodes] : groups) nodes = InOrder(std::move(nodes), level - 1);
  std::vector<Weighed> order;
  for (size_t round = 0; order.size() < sorted.size(); ++round) {
    const auto begin = static_cast<ptrdiff_t>(order.size());
    for (const auto& [group, nodes] : groups) {
      if (round < nodes.size()) order.push_back(nodes[round]);
    }
    std::sort(order.begin() + begin, order.end());
  }
  return order;
}

}  // namespace

Locator::Locator(const std::set<NodeId>& nodes) {
  nodes_.reserve(nodes.size());
  // Far from the small numbers that ids are, whose mixtures would be those of segments.
  for (NodeId node : nodes) nodes_.push_back({node, Mix(node.value ^ 0x9e3779b97f4a7c15ULL)});
  const auto differ_at = [&](int level) { return GroupOf(*nodes.begin(), level) != GroupOf(*nodes.rbegin(), level); };
  while (!nodes.empty() && group_levels_ < kGroupLevels && differ_at(group_levels_ + 1)) ++group_levels_;
}

NodeId Locator::Primary(PageId page) const {
  const uint64_t hash = HashOf(page);
  Weighed best{0, {}};
  for (const Node& node : nodes_) {
    const Weighed weighed{Mix(hash ^ node.hash), node.id};
    if (best.id.value == 0 || weighed < best) best = weighed;
  }
  return best.id;
}

std::vector<NodeId> Locator::CoreHolders(PageId page, uint32_t replicas) const {
  const size_t count = std::min<size_t>(std::max<uint32_t>(replicas, 1), nodes_.size());
  if (group_levels_ > 0) return OfDifferentGroups(page, count);
  const uint64_t hash = HashOf(page);
  absl::InlinedVector<Weighed, 16> all;
  for (const Node& node : nodes_) all.push_back({Mix(hash ^ node.hash), node.id});
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(count), all.end());
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = all[i].id;
  return holders;
}

std::vector<NodeId> Locator::OfDifferentGroups(PageId page, size_t count) const {
  const uint64_t hash = HashOf(page);
  std::vector<Weighed> all;
  for (const Node& node : nodes_) all.push_back({Mix(hash ^ node.hash), node.id});
  std::sort(all.begin(), all.end());
  const std::vector<Weighed> order = InOrder(std::move(all), group_levels_);
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = order[i].id;
  return holders;
}

}  // namespace mangrove
