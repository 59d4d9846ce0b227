// Which disks keep a page, and which of them count, in a view.
//
//  D1  A page's holders follow from its address and the view's `disks` and their weights; while pages move, those that are to keep it
//      from the view's `next_disks` and theirs as well. All of these that are in the view store it: a flush is acknowledged when, within one view, each of
//      them has done it, and one that counts is current. That a range is allocated, or is not any more, each of the disks is told.
//  D2  A disk is current if it is one of the view's `disks`, in the view, and not behind. It has everything of its pages that was
//      ever acknowledged: current disks are asked for what there is. Of pages that it is only to keep after the move, nobody asks it.
//  D3  What a holder that is not in the view has, and no current disk, was never acknowledged, and is void: that disk is behind, and
//      takes over what the current ones have when it is back. So is what a disk has of pages that it does not keep.
//  D4  A disk that is behind, or is to keep pages that it does not keep, learns what it lacks (engine/catch_up.h): a later view makes it
//      current, and, when all have what they are to keep, ends the move.
//
// So any one current disk will do for all that was acknowledged; where none is there, what only disks have waits for one.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/locator.h"
#include "directory/planted_bugs.h"
#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove {

class Disks {
 public:
  void Follow(const View& view, const PlantedBugs& bugs = kNoPlantedBugs);

  bool IsCurrent(NodeId node) const;
  // Is it one of those that keep pages, or are to?
  bool IsDisk(NodeId node) const;
  // Those that keep the page and count, the first first, whoever is there.
  std::vector<NodeId> Holders(PageId page, uint32_t replicas) const { return now_.CoreHolders(page, replicas); }
  // Of these, those that are current.
  std::vector<NodeId> Current(PageId page, uint32_t replicas) const;
  // In the view: those that store it.
  std::vector<NodeId> Storing(PageId page, uint32_t replicas) const;
  // In the view: those that are told of extents.
  std::vector<NodeId> StoringExtents() const;
  // Every disk that keeps pages, in the order in which this page asks for them.
  std::vector<NodeId> All(PageId page) const { return now_.CoreHolders(page, static_cast<uint32_t>(now_.size())); }
  size_t count() const { return now_.size(); }

  // The node keeps the page; or is to keep it; or does not, and is to.
  bool Keeps(NodeId node, PageId page, uint32_t replicas) const;
  bool Stores(NodeId node, PageId page, uint32_t replicas) const;
  bool Gains(NodeId node, PageId page, uint32_t replicas) const;
  // Has nothing of the node's disk counted so far: it is behind, or keeps nothing?
  bool LearnsAll(NodeId node) const;
  // The page is among those that the node lacks, or may lack.
  bool Learns(NodeId node, PageId page, uint32_t replicas) const;

  // Unavailable names who has all of the page, as far as it is known.
  absl::Status Check(PageId page, uint32_t replicas) const;
  absl::Status Check(PageRange range, uint32_t replicas) const;
  // A current disk, which knows of every extent.
  absl::StatusOr<NodeId> WhoKnows(PageId page) const;
  // Whether there may be a current one soon: one of the page's holders is catching up.
  bool MayGet(PageId page, uint32_t replicas) const;

 private:
  bool IsHere(NodeId node) const { return view_.members.contains(node); }

  View view_;
  DiskWeights now_weights_;
  Locator now_;
  Locator next_;        // Of nobody: pages do not move.
  size_t missing_ = 0;  // Of the disks that keep pages: not current.
};

}  // namespace mangrove
