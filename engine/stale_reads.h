// Which regions are read while this node has no lease, and since when: what it serves of them may be old.
//
//  Q1  While it lasts, the regions are those that were named when it began.
//
// Owned by the loop.

#pragma once

#include <optional>

#include "directory/address.h"
#include "engine/range_set.h"
#include "net/runtime/clock.h"

namespace mangrove {

class StaleReads {
 public:
  // From the next time on.
  void Set(PageRange region, bool serves) { regions_.Set(region, serves); }

  void Begin(TimeNs now) {
    served_ = regions_;
    since_ = now;
  }
  void End() {
    served_ = {};
    since_.reset();
  }
  bool Serve(PageId page) const { return since_ && served_.Contains(page); }
  // Null: the node serves as ever, or was never there.
  std::optional<TimeNs> since() const { return since_; }

 private:
  RangeSet regions_;
  RangeSet served_;
  std::optional<TimeNs> since_;
};

}  // namespace mangrove
