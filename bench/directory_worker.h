// A process that embeds a node, and asks its engine who is responsible for which segment.

#pragma once

#include "bench/worker.h"
#include "engine/node_config.h"

namespace mangrove::bench {

// For Worker. Segment n is the 2n-th of those that can be reserved: no two are neighbours, so each is a run of its own.
//   start           the node, until it is ready
//   root            the number of the node that orders the requests for the directory's root
//   touch(count)    becomes responsible for the segments up to `count`
//   lookup(n, node, warmups)  finds out who is responsible for segment n; ns. Before, it reads two pages that the directory
//                   does not name, and exchanges something with the node so many times: so that the directory alone is cold
//   depth(n)        levels of the directory down to it
//   sent            messages that this node has sent
//   warm(count)     has the whole directory here first; ns per segment, of those up to `count` in random order
//   map(count)      the same in a std::map of as many entries
Verbs MakeDirectoryVerbs(const NodeConfig& config);

}  // namespace mangrove::bench
