// What is left of a page if the disk of a node that is not there is given up.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove {

// The better first.
enum class CopiesLeft : uint8_t {
  kCurrent,  // A disk that counts has it.
  kAway,     // A disk that is away, or catches up, has all that the node's had: nothing is lost if that one comes back.
  kOlder,    // Those that are left fell behind before: what was flushed since then is lost.
  kUnknown,  // No disk that counts has it, and of the node's own, or of one that is left, nothing is known: either may have it.
  kNone,  // No other disk keeps it, or all that do are given up, or had nothing to begin with.
};

// It has never been in a view, as far as the anchors know. Their log may have been founded anew since, and its disk is what it was.
inline bool IsDiskUnknown(NodeId node, const View& view) {
  return !view.behind.contains(node) && !view.members.contains(node);
}

// `holders`: the disks that keep the page.
inline CopiesLeft CopiesWithout(NodeId node, const std::vector<NodeId>& holders, const View& view) {
  const auto own = view.behind.find(node);
  const bool is_unknown = IsDiskUnknown(node, view);
  CopiesLeft left = is_unknown ? CopiesLeft::kUnknown : CopiesLeft::kNone;
  for (NodeId holder : holders) {
    if (holder == node || view.lost.contains(holder)) continue;
    const auto behind = view.behind.find(holder);
    if (behind == view.behind.end()) {
      if (view.members.contains(holder)) return CopiesLeft::kCurrent;
      left = std::min(left, CopiesLeft::kUnknown);
      continue;
    }
    if (is_unknown || behind->second == kBlankDisk) continue;
    const bool has_all = own != view.behind.end() && behind->second >= own->second;
    left = std::min(left, has_all ? CopiesLeft::kAway : CopiesLeft::kOlder);
  }
  return left;
}

}  // namespace mangrove
