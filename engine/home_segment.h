// What a responsible node knows of a segment beside its pages' entries.

#pragma once

#include <bitset>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "directory/address.h"
#include "directory/messages.h"
#include "net/runtime/clock.h"

namespace mangrove {

// What another node says in one round, until it is whole: asked for again when it has not come.
struct Registration {
  RequestId round;
  TimeNs ask_at = 0;
  DurationNs wait = 0;
  std::map<PageId, Message> parts;
};

// An extent as one of its core holders describes it.
struct HomeExtent {
  PageRange range;
  ConfigNumber config;
  uint32_t replicas = 0;
  bool is_volatile = false;
};

// Who asks for a segment's pages more than all others together, if there is such a node: the majority vote of Boyer and Moore.
struct SegmentUse {
  NodeId user;
  uint32_t lead = 0;
  uint64_t group = 0;  // GroupOf; the same of its nodes together.
  uint32_t group_lead = 0;
  uint64_t turn = 0;    // In which it was counted last: what comes together counts once.
  TimeNs offer_at = 0;  // Not before.
  DurationNs wait = 0;  // After the last offer.
  NodeId offered_to;    // Last.
  TimeNs offered_until = 0;
};

// A segment that another node is about to take.
struct SegmentLeaving {
  NodeInstance to;
  RequestId request;    // Its question, which is answered when no transaction is left; 0: it was.
  ConfigNumber number;  // Of the hand-over.
  std::vector<PageBuffer>
      parts;            // What it was told. From then on the segment is only served again when it is known to stay.
  uint64_t rounds = 0;  // Of claims, that this node had answered when it told.
  TimeNs until = 0;     // Nothing was told: it stays then. Otherwise: look into the directory then.
  bool looking = false;
  uint64_t at_rest =
      0;  // So many of its pages, from the first on, were when they were looked at, and have begun nothing since.

  bool IsGiven() const { return !parts.empty(); }
};

struct HomeSegment {
  // Members that have not said yet what they hold of it; until then nothing of it is served.
  std::map<NodeId, Registration> joining;
  // Members that have given pages of it away, and do not know them to be on the disks (engine/given_away.h, W1).
  std::set<NodeId> givers;
  // Every earlier grant was in an older epoch.
  Epoch since;
  std::vector<HomeExtent> extents;  // Those that were asked for, and are allocated.
  // Pages without an entry whose core holders are known to have their newest version.
  std::bitset<kSegmentPages> settled;
  // Pages that no disk has, since they were allocated and never stored. Of one with an entry it says so until it is opened.
  std::bitset<kSegmentPages> fresh;
  SegmentUse use;
  std::unique_ptr<SegmentLeaving> leaving;

  bool IsServed() const { return joining.empty() && leaving == nullptr; }
  const HomeExtent* Find(PageId page) const {
    for (const HomeExtent& extent : extents) {
      if (extent.range.Contains(page)) return &extent;
    }
    return nullptr;
  }
};

}  // namespace mangrove
