// What a responsible node knows of a segment beside its pages' entries.

#pragma once

#include <bitset>
#include <map>
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

struct HomeSegment {
  // Members that have not said yet what they hold of it; until then nothing of it is served.
  std::map<NodeId, Registration> joining;
  // Every earlier grant was in an older epoch.
  Epoch since;
  std::vector<HomeExtent> extents;  // Those that were asked for, and are allocated.
  // Pages without an entry whose core holders are known to have their newest version.
  std::bitset<kSegmentPages> settled;
  // Pages that no disk has, since they were allocated and never stored. Of one with an entry it says so until it is opened.
  std::bitset<kSegmentPages> fresh;

  bool IsServed() const { return joining.empty(); }
  const HomeExtent* Find(PageId page) const {
    for (const HomeExtent& extent : extents) {
      if (extent.range.Contains(page)) return &extent;
    }
    return nullptr;
  }
};

}  // namespace mangrove
