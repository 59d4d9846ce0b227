#include "directory/locator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/inlined_vector.h"
#include "net/check.h"

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

// --- Logarithms, in integers --------------------------------------------------------------------------------------------

constexpr int kFractionBits = 38;
constexpr uint64_t kOne = uint64_t{1} << kFractionBits;
constexpr int kTableBits = 8;
constexpr size_t kTableSize = size_t{1} << kTableBits;

// Bit by bit: the logarithm of a square is twice as large. `x`: 1 to 2, with 31 bits behind the point.
constexpr uint64_t LogOf(uint64_t x) {
  uint64_t log = 0;
  for (int bit = kFractionBits - 1; bit >= 0; --bit) {
    x = (x * x) >> 31;
    if (x < (uint64_t{2} << 31)) continue;
    x >>= 1;
    log |= uint64_t{1} << bit;
  }
  return log;
}

// The logarithms to the base 2 of 1, 1 + 1/256 and so on, to 2.
constexpr std::array<uint64_t, kTableSize + 1> LogTable() {
  std::array<uint64_t, kTableSize + 1> table{};
  for (size_t i = 0; i < kTableSize; ++i) table[i] = LogOf((uint64_t{1} << 31) + (uint64_t{i} << (31 - kTableBits)));
  table[kTableSize] = kOne;
  return table;
}
constexpr std::array<uint64_t, kTableSize + 1> kLogs = LogTable();

// 64 - log2(hash), to within 3 millionths, with kFractionBits behind the point: at most 2^44. A greater hash never has more.
uint64_t LogBelow(uint64_t hash) {
  if (hash == 0) return 64 * kOne;
  const int zeros = std::countl_zero(hash);
  const uint64_t behind = (hash << zeros) << 1;  // The point, in front of 64 bits.
  const size_t at = behind >> (64 - kTableBits);
  const uint64_t between = (behind << kTableBits) >> 32;
  const uint64_t log = kLogs[at] + (((kLogs[at + 1] - kLogs[at]) * between) >> 32);
  return static_cast<uint64_t>(zeros + 1) * kOne - log;
}

// Of 1 to Locator::kFullWeight. With a score of at most 2^44 the product fits.
constexpr uint64_t kCommonMultiple = 720'720;
static_assert([] {
  for (uint64_t weight = 1; weight <= Locator::kFullWeight; ++weight) {
    if (kCommonMultiple % weight != 0) return false;
  }
  return kCommonMultiple < (uint64_t{1} << 20);
}());

// --- Groups ---------------------------------------------------------------------------------------------------------------

// The levels of groups that there can be.
constexpr int kGroupLevels = (64 - 1) / kGroupBits;

// The number of the node's group at the level, 1 being the lowest.
uint64_t GroupOf(NodeId node, int level) { return node.value >> (level * kGroupBits); }

}  // namespace

// The best first. The hash decides where the scores are the same, so that the order of nodes of one weight is that of their hashes.
struct Locator::Scored {
  uint64_t score;  // Lower is better.
  uint64_t hash;   // Higher is better.
  NodeId id;
  bool operator<(const Scored& other) const {
    if (score != other.score) return score < other.score;
    return hash != other.hash ? hash > other.hash : id < other.id;
  }
};

// The nodes in the order in which they are to keep the page: one of each group of the `level`, then another one of each that has
// more, and so on, each time the best first; which of a group's comes first, the groups within it say. Without one node
// there is one other in its place, as without groups. `sorted`: the best first.
std::vector<Locator::Scored> Locator::InOrder(std::vector<Scored> sorted, int level) {
  if (level == 0 || sorted.size() < 2) return sorted;
  absl::btree_map<uint64_t, std::vector<Scored>> groups;
  for (const Scored& node : sorted) groups[GroupOf(node.id, level)].push_back(node);
  for (auto& [group, nodes] : groups) nodes = InOrder(std::move(nodes), level - 1);
  std::vector<Scored> order;
  for (size_t round = 0; order.size() < sorted.size(); ++round) {
    const auto begin = static_cast<ptrdiff_t>(order.size());
    for (const auto& [group, nodes] : groups) {
      if (round < nodes.size()) order.push_back(nodes[round]);
    }
    std::sort(order.begin() + begin, order.end());
  }
  return order;
}

Locator::Locator(const std::set<NodeId>& nodes, const std::map<NodeId, uint8_t>& weights) {
  const auto weight_of = [&weights](NodeId node) {
    const auto found = weights.find(node);
    const uint8_t weight = found == weights.end() ? kFullWeight : found->second;
    CHECK(weight >= 1 && weight <= kFullWeight);
    return weight;
  };
  const bool are_same = std::all_of(nodes.begin(), nodes.end(),
                                    [&](NodeId node) { return weight_of(node) == weight_of(*nodes.begin()); });
  nodes_.reserve(nodes.size());
  // Far from the small numbers that ids are, whose mixtures would be those of segments.
  for (NodeId node : nodes) {
    const uint64_t reach = are_same ? 0 : kCommonMultiple / weight_of(node);
    nodes_.push_back({node, Mix(node.value ^ 0x9e3779b97f4a7c15ULL), reach});
  }
  const auto differ_at = [&](int level) { return GroupOf(*nodes.begin(), level) != GroupOf(*nodes.rbegin(), level); };
  while (!nodes.empty() && group_levels_ < kGroupLevels && differ_at(group_levels_ + 1)) ++group_levels_;
}

Locator::Scored Locator::ScoreOf(const Node& node, uint64_t page_hash) const {
  const uint64_t hash = Mix(page_hash ^ node.hash);
  return {node.reach == 0 ? 0 : LogBelow(hash) * node.reach, hash, node.id};
}

NodeId Locator::Primary(PageId page) const {
  const uint64_t hash = HashOf(page);
  Scored best{0, 0, {}};
  for (const Node& node : nodes_) {
    const Scored scored = ScoreOf(node, hash);
    if (best.id.value == 0 || scored < best) best = scored;
  }
  return best.id;
}

std::vector<NodeId> Locator::CoreHolders(PageId page, uint32_t replicas) const {
  const size_t count = std::min<size_t>(std::max<uint32_t>(replicas, 1), nodes_.size());
  if (group_levels_ > 0) return OfDifferentGroups(page, count);
  const uint64_t hash = HashOf(page);
  absl::InlinedVector<Scored, 16> all;
  for (const Node& node : nodes_) all.push_back(ScoreOf(node, hash));
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(count), all.end());
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = all[i].id;
  return holders;
}

std::vector<NodeId> Locator::OfDifferentGroups(PageId page, size_t count) const {
  const uint64_t hash = HashOf(page);
  std::vector<Scored> all;
  for (const Node& node : nodes_) all.push_back(ScoreOf(node, hash));
  std::sort(all.begin(), all.end());
  const std::vector<Scored> order = InOrder(std::move(all), group_levels_);
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = order[i].id;
  return holders;
}

}  // namespace mangrove
