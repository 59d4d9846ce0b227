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
  kCurrent,  // A disk that counts has it, or the node's own had nothing.
  kAway,     // A disk that is away, or catches up, has all that the node's had: nothing is lost if that one comes back.
  kOlder,    // Those that are left fell behind before: what was flushed since then is lost.
  kNone,     // No other disk keeps it, or all that do are given up, or had nothing to begin with.
};

// `holders`: the disks that keep the page.
inline CopiesLeft CopiesWithout(NodeId node, const std::vector<NodeId>& holders, const View& view) {
  const auto own = view.behind.find(node);
  if (own == view.behind.end() && !view.members.contains(node)) return CopiesLeft::kCurrent;  // It was never here.
  CopiesLeft left = CopiesLeft::kNone;
  for (NodeId holder : holders) {
    if (holder == node || view.lost.contains(holder)) continue;
    const auto behind = view.behind.find(holder);
    if (behind == view.behind.end()) {
      // Of one that was never here nothing is known.
      if (view.members.contains(holder)) return CopiesLeft::kCurrent;
      continue;
    }
    if (behind->second == kBlankDisk) continue;
    const bool has_all = own != view.behind.end() && behind->second >= own->second;
    left = std::min(left, has_all ? CopiesLeft::kAway : CopiesLeft::kOlder);
  }
  return left;
}

}  // namespace mangrove
