// All integers unsigned and little-endian. In this order:
//   8  bytes of all of it, these included; what follows behind them in the last page is zero
//   4  nodes, each: 8 number, 8 incarnation; what follows names them by their place, from 0 on
//   64 settled, 64 fresh: a bit for each page
//   4  extents, each: 16 first page (low half first), 8 pages, 8 config, 4 replicas, 4 volatile (0 or 1)
//   4  runs of pages that are alike, sorted, each: 4 first, 4 pages, 4 clean (0 or 1), 4 owner + 1 (0: nobody), 4 sharers,
//      then 4 for each of these, sorted as nodes are

#include "engine/segment_state.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/byte_stream.h"

namespace mangrove {
namespace {

void PutBits(const std::bitset<kSegmentPages>& bits, ByteWriter& out) {
  for (size_t i = 0; i < kSegmentPages; i += 8) {
    uint8_t byte = 0;
    for (size_t bit = 0; bit < 8; ++bit) byte = static_cast<uint8_t>(byte | (bits[i + bit] ? 1u << bit : 0u));
    out.Put(byte);
  }
}

std::bitset<kSegmentPages> GetBits(ByteReader& in) {
  std::bitset<kSegmentPages> bits;
  for (size_t i = 0; i < kSegmentPages; i += 8) {
    const auto byte = in.Get<uint8_t>();
    for (size_t bit = 0; bit < 8; ++bit) bits[i + bit] = (byte >> bit & 1) != 0;
  }
  return bits;
}

bool IsLike(const SegmentState::Page& a, const SegmentState::Page& b) {
  return a.clean == b.clean && a.owner == b.owner && a.sharers == b.sharers;
}

std::vector<NodeInstance> NodesOf(const SegmentState& state) {
  std::vector<NodeInstance> nodes;
  for (const SegmentState::Page& page : state.pages) {
    if (page.owner.node.value != 0) nodes.push_back(page.owner);
    nodes.insert(nodes.end(), page.sharers.begin(), page.sharers.end());
  }
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

std::vector<PageBuffer> Split(const std::string& bytes) {
  std::vector<PageBuffer> parts;
  for (size_t at = 0; at < bytes.size(); at += kPageBytes) {
    auto page = std::make_shared<PageBytes>();
    page->bytes.fill(std::byte{0});
    std::memcpy(page->bytes.data(), bytes.data() + at, std::min<size_t>(kPageBytes, bytes.size() - at));
    parts.push_back(std::move(page));
  }
  return parts;
}

// One run; false: it makes no sense.
bool ReadRun(ByteReader& in, const std::vector<NodeInstance>& nodes, SegmentState* state) {
  SegmentState::Page page;
  const uint32_t first = in.Get<uint32_t>();
  const uint32_t count = in.Get<uint32_t>();
  const uint32_t clean = in.Get<uint32_t>();
  const uint32_t owner = in.Get<uint32_t>();
  const uint32_t sharers = in.Get<uint32_t>();
  const uint32_t after = state->pages.empty() ? 0 : state->pages.back().index + 1u;
  const bool sound = first >= after && count >= 1 && first < kSegmentPages && count <= kSegmentPages - first &&
                     clean <= 1 && owner <= nodes.size() && sharers <= nodes.size();
  if (!sound) return false;
  page.clean = clean == 1;
  if (owner > 0) page.owner = nodes[owner - 1];
  for (uint32_t i = 0; i < sharers; ++i) {
    const uint32_t sharer = in.Get<uint32_t>();
    if (sharer >= nodes.size() || nodes[sharer] == page.owner) return false;
    if (!page.sharers.empty() && !(page.sharers.back().node < nodes[sharer].node)) return false;
    page.sharers.push_back(nodes[sharer]);
  }
  for (uint32_t i = first; i < first + count; ++i) {
    page.index = static_cast<uint16_t>(i);
    state->pages.push_back(page);
  }
  return true;
}

bool ReadAll(ByteReader& in, SegmentState* state) {
  std::vector<NodeInstance> nodes;
  for (uint32_t left = in.Get<uint32_t>(); left > 0 && in.good(); --left) {
    const auto node = in.Get<uint64_t>();
    const auto incarnation = in.Get<uint64_t>();
    nodes.push_back({NodeId(node), Incarnation(incarnation)});
    if (node == 0 || (nodes.size() > 1 && !(nodes[nodes.size() - 2] < nodes.back()))) return false;
  }
  state->settled = GetBits(in);
  state->fresh = GetBits(in);
  for (uint32_t left = in.Get<uint32_t>(); left > 0 && in.good(); --left) {
    const auto low = in.Get<uint64_t>();
    const auto high = in.Get<uint64_t>();
    HomeExtent extent;
    extent.range = {PageId(absl::MakeUint128(high, low)), in.Get<uint64_t>()};
    extent.config = ConfigNumber(in.Get<uint64_t>());
    extent.replicas = in.Get<uint32_t>();
    const auto is_volatile = in.Get<uint32_t>();
    extent.is_volatile = is_volatile == 1;
    const bool fits = extent.range.count > 0 && extent.range.first < kFirstDirectoryPage &&
                      extent.range.count <= kFirstDirectoryPage.value - extent.range.first.value;
    if (is_volatile > 1 || !fits) return false;
    state->extents.push_back(extent);
  }
  for (uint32_t left = in.Get<uint32_t>(); left > 0 && in.good(); --left) {
    if (!ReadRun(in, nodes, state)) return false;
  }
  return in.good() && in.left() == 0;
}

}  // namespace

std::vector<PageBuffer> EncodeSegmentState(const SegmentState& state) {
  const std::vector<NodeInstance> nodes = NodesOf(state);
  const auto place = [&](NodeInstance node) {
    return static_cast<uint32_t>(std::lower_bound(nodes.begin(), nodes.end(), node) - nodes.begin());
  };
  ByteWriter out;
  out.Put(static_cast<uint32_t>(nodes.size()));
  for (const NodeInstance& node : nodes) {
    out.Put(node.node.value);
    out.Put(node.incarnation.value);
  }
  PutBits(state.settled, out);
  PutBits(state.fresh, out);
  out.Put(static_cast<uint32_t>(state.extents.size()));
  for (const HomeExtent& extent : state.extents) {
    out.Put(absl::Uint128Low64(extent.range.first.value));
    out.Put(absl::Uint128High64(extent.range.first.value));
    out.Put(extent.range.count);
    out.Put(extent.config.value);
    out.Put(extent.replicas);
    out.Put(uint32_t{extent.is_volatile});
  }
  ByteWriter runs;
  uint32_t count = 0;
  for (size_t i = 0; i < state.pages.size(); ++count) {
    const SegmentState::Page& page = state.pages[i];
    size_t end = i + 1;
    while (end < state.pages.size() && state.pages[end].index == page.index + (end - i) &&
           IsLike(page, state.pages[end])) {
      ++end;
    }
    runs.Put(uint32_t{page.index});
    runs.Put(static_cast<uint32_t>(end - i));
    runs.Put(uint32_t{page.clean});
    runs.Put(page.owner.node.value == 0 ? 0 : place(page.owner) + 1);
    runs.Put(static_cast<uint32_t>(page.sharers.size()));
    for (const NodeInstance& sharer : page.sharers) runs.Put(place(sharer));
    i = end;
  }
  out.Put(count);
  const std::string body = out.out() + runs.out();
  ByteWriter all;
  all.Put(uint64_t{body.size() + sizeof(uint64_t)});
  return Split(all.out() + body);
}

absl::StatusOr<SegmentState> DecodeSegmentState(const std::vector<PageBuffer>& parts) {
  std::string bytes;
  for (const PageBuffer& part : parts) {
    bytes.append(reinterpret_cast<const char*>(part->bytes.data()), part->bytes.size());
  }
  const uint64_t size = bytes.size() < sizeof(uint64_t) ? 0 : ByteReader(bytes).Get<uint64_t>();
  if (size < sizeof(uint64_t) || size > bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the state of a segment of ", size, " bytes in ", parts.size(), " pages"));
  }
  ByteReader in(std::string_view(bytes).substr(sizeof(uint64_t), size - sizeof(uint64_t)));
  SegmentState state;
  if (!ReadAll(in, &state)) return absl::InvalidArgumentError("what is no state of a segment");
  return state;
}

}  // namespace mangrove
