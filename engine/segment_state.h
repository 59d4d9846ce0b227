// What a responsible node knows of a segment, as it tells the node that takes the segment over.

#pragma once

#include <bitset>
#include <vector>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/home_segment.h"
#include "net/ids.h"
#include "net/page_buffer.h"

namespace mangrove {

struct SegmentState {
  bool has_givers = false;  // Some node has given pages of it away (engine/given_away.h). Said beside the parts.
  // A page that somebody has. None of it is under way.
  struct Page {
    uint16_t index = 0;  // In the segment.
    bool clean = false;  // As HomeEntry's.
    NodeInstance owner;  // Node 0: nobody.
    std::vector<NodeInstance> sharers;
  };

  std::vector<Page> pages;  // Sorted.
  std::bitset<kSegmentPages> settled;
  std::bitset<kSegmentPages> fresh;
  std::vector<HomeExtent> extents;
};

// At least one page of bytes; at most kMaxSegmentStateParts for up to 64 sharers of each page.
std::vector<PageBuffer> EncodeSegmentState(const SegmentState& state);
constexpr size_t kMaxSegmentStateParts = 64;
// InvalidArgument: it is not what EncodeSegmentState makes, or against I2 or I3 of the responsible node's machine.
absl::StatusOr<SegmentState> DecodeSegmentState(const std::vector<PageBuffer>& parts);

}  // namespace mangrove
