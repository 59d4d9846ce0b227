// Which inodes a node has open, for others to see: counters in pages of the fileset's region, a few for each node's place.
//
// A counter is for all inodes of a hash, so it may say "open" of one that is not: then that one is freed later. Only its own node changes a
// table; it goes with the node, as what the node had open does.
//
//   O1  While an inode is published its counter is not 0, or the table cannot be read; who cannot read it takes the inode for open, as long
//       as the node is there.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/node_operations.h"
#include "fs/attributes.h"
#include "fs/pages.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {
class PageEngine;
}  // namespace mangrove

namespace mangrove::fs {

// NodeOperations::Allocate, of pages of this filesystem's.
using AllocatePages = std::function<Task<absl::Status>(PageRange pages, AllocateOptions options, TimeNs deadline)>;

class OpenTable {
 public:
  // `region`: the fileset's pages. All outlive it.
  OpenTable(PageEngine* engine, AllocatePages allocate, Clock* clock, PageRange region, uint64_t place)
      : engine_(engine), allocate_(std::move(allocate)), clock_(clock), region_(region), place_(place) {}

  // An empty table of this place, whatever was there.
  Task<absl::Status> Make();
  Task<absl::Status> Publish(InodeNumber inode, bool open);
  // Whether the node of that place has published it.
  Task<absl::StatusOr<bool>> IsPublished(uint64_t place, InodeNumber inode);

 private:
  PageRange PagesOf(uint64_t place) const;
  Task<absl::Status> Write();
  bool IsThere(uint64_t place) const;

  PageEngine* const engine_;
  const AllocatePages allocate_;
  Clock* const clock_;
  const PageRange region_;
  const uint64_t place_;
  std::map<uint64_t, uint32_t> counters_;  // Those that are not 0.
};

}  // namespace mangrove::fs
