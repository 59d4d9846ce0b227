#include "directory/locator.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
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

struct Weighed {
  uint64_t weight;
  NodeId id;
  bool operator<(const Weighed& other) const { return weight != other.weight ? weight > other.weight : id < other.id; }
};

}  // namespace

Locator::Locator(const std::set<NodeId>& nodes) {
  nodes_.reserve(nodes.size());
  // Far from the small numbers that ids are, whose mixtures would be those of segments.
  for (NodeId node : nodes) nodes_.push_back({node, Mix(node.value ^ 0x9e3779b97f4a7c15ULL)});
  has_groups_ = !nodes.empty() && GroupOf(*nodes.begin()) != GroupOf(*nodes.rbegin());
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
  if (has_groups_) return OfDifferentGroups(page, count);
  const uint64_t hash = HashOf(page);
  absl::InlinedVector<Weighed, 16> all;
  for (const Node& node : nodes_) all.push_back({Mix(hash ^ node.hash), node.id});
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(count), all.end());
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = all[i].id;
  return holders;
}

// Those with the highest weights of which each is of a group that none before is of; when each group has had one, the next round
// begins. Without one node there is one other in its place, as without groups.
std::vector<NodeId> Locator::OfDifferentGroups(PageId page, size_t count) const {
  const uint64_t hash = HashOf(page);
  std::vector<Weighed> left;
  for (const Node& node : nodes_) left.push_back({Mix(hash ^ node.hash), node.id});
  std::sort(left.begin(), left.end());
  std::vector<NodeId> holders;
  while (holders.size() < count) {
    absl::flat_hash_set<uint64_t> groups;
    std::vector<Weighed> next_round;
    for (const Weighed& node : left) {
      if (holders.size() < count && groups.insert(GroupOf(node.id)).second) {
        holders.push_back(node.id);
      } else {
        next_round.push_back(node);
      }
    }
    left = std::move(next_round);
  }
  return holders;
}

}  // namespace mangrove
