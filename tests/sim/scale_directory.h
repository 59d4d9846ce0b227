// What the directory costs in clusters of many nodes: one real page engine for each node, all in one view, over a network where each
// message takes kHop and nothing else takes any time. They have no disks, since the RAM directory has none.
//
// Each node but a few is responsible for kSegmentsOfANode segments, and has appointed itself, one by one. Two nodes at a time have every
// other segment of a stretch of the space, so no two neighbours are alike and each segment is an entry of its own: the
// largest directory that so many segments can have. The nodes that have none look segments up that are chosen by chance.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove::sim {

constexpr uint64_t kSegmentsOfANode = 1'000;
constexpr int kLookups = 1'000;  // Of each node that looks up.
constexpr DurationNs kHop = kMillisecond;

// Means of some lookups.
struct LookupCost {
  int lookups = 0;
  double pages = 0;     // Of the directory, that were not there.
  double messages = 0;  // Of all nodes, those included that nobody waits for.
  double hops = 0;      // One after the other, until it was known.
};

struct DirectoryScaleResult {
  uint64_t segments = 0;
  int levels = 0;
  LookupCost first;  // By a node that has nothing of the directory.
  LookupCost leaf;   // Those where the leaf alone was not there.
  LookupCost all;    // The first kLookups of each.
  // Messages a second that a node sends which does nothing: it says what room it has, to each other one.
  double idle_sends = 0;
  // Allocated for one page engine, in bytes.
  size_t idle_bytes = 0;         // That has only heard of the view.
  size_t responsible_bytes = 0;  // That is responsible for kSegmentsOfANode segments.
  size_t asking_bytes = 0;       // That has looked kLookups segments up.
};

// REQUIRES: at least 8 nodes.
DirectoryScaleResult RunDirectoryScale(const std::vector<NodeId>& nodes, uint64_t seed);

}  // namespace mangrove::sim
