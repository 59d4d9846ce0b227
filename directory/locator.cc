#include "directory/locator.h"

#include <algorithm>
#include <set>

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

}  // namespace

HashLocator::HashLocator(std::vector<NodeId> nodes) : nodes_(std::move(nodes)) {
  CHECK(!nodes_.empty());
  std::sort(nodes_.begin(), nodes_.end());
  CHECK(std::adjacent_find(nodes_.begin(), nodes_.end()) == nodes_.end());
}

size_t HashLocator::Place(PageId page) const {
  const absl::uint128 segment = page.value >> kSegmentShift;
  return Mix(Mix(absl::Uint128High64(segment)) ^ absl::Uint128Low64(segment)) % nodes_.size();
}

NodeId HashLocator::Primary(PageId page) const { return nodes_[Place(page)]; }

std::vector<NodeId> HashLocator::CoreHolders(PageId page, uint32_t replicas) const {
  const size_t place = Place(page);
  const size_t count = std::min<size_t>(std::max<uint32_t>(replicas, 1), nodes_.size());
  std::vector<NodeId> holders(count);
  for (size_t i = 0; i < count; ++i) holders[i] = nodes_[(place + i) % nodes_.size()];
  return holders;
}

std::vector<NodeId> HashLocator::CoreHolders(const PageRange& range, uint32_t replicas) const {
  std::set<NodeId> found;
  for (PageId page = SegmentStart(range.first); page < range.end(); page = page + kSegmentPages) {
    for (NodeId node : CoreHolders(page, replicas)) found.insert(node);
    if (found.size() == nodes_.size()) break;
  }
  return {found.begin(), found.end()};
}

}  // namespace mangrove
