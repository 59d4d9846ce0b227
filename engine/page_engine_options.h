// What the engine is told at its making, what it counts, and what it says of a page.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "directory/address.h"
#include "directory/directory_tree.h"
#include "directory/planted_bugs.h"
#include "directory/version.h"
#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove {

struct PageEngineOptions {
  NodeInstance self;
  std::vector<NodeId> members;                     // Of the cluster, this one included; until SetMembers.
  uint32_t system_replicas = 2;                    // Core holders of the pages that exist from the start.
  uint64_t cache_pages = 65536;                    // Frames of the RAM cache.
  uint64_t read_ahead_pages = 512;                 // On their way ahead of who reads in order, at most; 0: none.
  DurationNs hold = 100 * kMicrosecond;            // See CacheContext::hold.
  DurationNs resend_after = 20 * kMillisecond;     // Without an answer, a message is sent again.
  DurationNs holder_timeout = 300 * kMillisecond;  // A core holder that has not answered by then is asked anew.
  uint64_t home_entries = 65536;  // Of the pages that this node is responsible for; past it read copies are called in.
  // A segment goes to the node that has asked for its pages so many times more than all others lately, the responsible one
  // included; 0: never. It stays there for a while.
  uint32_t move_after = 32;
  DurationNs move_stay = kSecond;
  bool evict_to_peers = true;  // Pages that do not fit go to other nodes that have room, and theirs come here.
  uint32_t replicas = 2;       // Core holders of most pages.
  uint64_t least_free_bytes =
      0;                       // Of a disk, for it to take more pages: what was written already may still come there.
  bool keep_headroom = false;  // Beside these, what comes here if another disk is lost for ever (engine/disk_watch.h).
  uint64_t repair_bytes_per_second = 0;  // Of pages that are copied to this disk since it lacks them; 0: not limited.
  DirectoryLimits directory_limits = {};
  const PlantedBugs* bugs = &kNoPlantedBugs;
};

struct PageEngineCounters {
  uint64_t read_requests = 0;  // Pages asked for.
  uint64_t write_requests = 0;
  uint64_t pages_received = 0;  // From other nodes or disk.
  uint64_t pages_given = 0;     // To other nodes.
  uint64_t invalidations = 0;   // Copies given up.
  uint64_t evictions = 0;
  uint64_t pages_offered = 0;    // Since there was no room for them.
  uint64_t pages_moved_out = 0;  // Evicted to another node.
  uint64_t pages_taken_in = 0;   // The same, of another node.
  uint64_t pages_flushed = 0;
  uint64_t messages_taken = 0;  // From other nodes, about pages.
  uint64_t stale_messages = 0;  // Ignored by R1 and H1.
  uint64_t bad_messages = 0;    // Not understood, or against the protocol.
  uint64_t resends = 0;
  uint64_t segments_taken = 0;  // This node has become responsible for, instead of another.
};

// What `page show` prints.
struct PageSummary {
  PageId page;
  NodeId responsible;
  std::string cache_state;  // Of this node.
  Version version;
  // Of a page that is here: of its allocation, and on how many disks it is kept; 0: it is volatile.
  ConfigNumber config;
  uint32_t replicas = 0;
  bool dirty = false;
  bool home_known = false;  // This node is responsible and has an entry.
  std::string home_state;
  NodeInstance owner;
  std::vector<NodeInstance> sharers;
};

}  // namespace mangrove
