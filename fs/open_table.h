// Which inodes a node has open, for others to see: counters in pages of the fileset's region, a few for each node's place.
//
// A counter is for all inodes of a hash, so it may say "open" of one that is not: then that one is freed later. Only its own node changes a
// table; it goes with the node, as what the node had open does.
//
// The pages are ordinary ones. What a node takes along when it is lost is afterwards as old as the disks; but a node is lost by a view that it
// is not in. So each page says in which view it was written, and in which life of its node:
//
//   O1  A page of the present view, and of a node that is in it, has every inode that the node has published.
//   O2  Before a node publishes anything, its table is of its present life, durably.
//
// So a page of another life, however old it is, says that its node has nothing open; one of this life and of an earlier view says nothing,
// and whoever finds it takes the inode for open, until the node has written it anew (Renew). The same goes for one that cannot be read.
//
//   0 epoch of the view 8   8 incarnation of the node, 0: it does not use the fileset 8   16 counters, 4 each
//
// Owned by the loop.

#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/node_operations.h"
#include "fs/attributes.h"
#include "fs/pages.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {
class PageEngine;
}  // namespace mangrove

namespace mangrove::fs {

class OpenTable {
 public:
  static constexpr uint64_t kPages = 4;
  // In the zone of what describes the fileset, behind the places; they have storage since it was made.
  static constexpr PageSpan PagesOf(uint64_t place) { return {4096 + place * kPages, kPages}; }

  // `region`: the fileset's pages. All outlive it.
  OpenTable(PageEngine* engine, Clock* clock, PageRange region, NodeId self)
      : engine_(engine), clock_(clock), region_(region), self_(self) {}

  Task<absl::Status> Publish(InodeNumber inode, bool open);
  // Pages of an earlier view become pages of this one.
  Task<absl::Status> Renew();
  // Nothing is open, and others need not wait for this node to say so. REQUIRES: nothing is published.
  Task<absl::Status> Retire();
  // Whether the node of that place may have published it.
  Task<absl::StatusOr<bool>> IsPublished(uint64_t place, InodeNumber inode);

 private:
  PageId Own(uint64_t page) const { return region_.first + (PagesOf(self_.value % kNodePlaces).first + page); }
  // This node's, as the view has it; 0: it is not there.
  Incarnation OwnLife() const;
  // Whether the view has a node in that place; of this life, unless that is 0.
  bool IsThere(uint64_t place, Incarnation life) const;
  Task<absl::Status> Make(Incarnation life);
  Task<absl::Status> Hold(uint64_t page);
  void Write(uint64_t page, Incarnation life);

  PageEngine* const engine_;
  Clock* const clock_;
  const PageRange region_;
  const NodeId self_;
  Incarnation life_;                        // Of which there is a table: O2. 0: there is none.
  std::array<Epoch, kPages> written_in_{};  // All of the page.
  std::map<uint64_t, uint32_t> counters_;   // Those that are not 0.
};

}  // namespace mangrove::fs
