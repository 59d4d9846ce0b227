// Pages that are to be looked at, by the tick at which they are. Adding costs no more than a place in a vector.
//
// An entry is never taken out before its time: whoever looks asks the page whether there is still something to do.

#pragma once

#include <map>
#include <utility>
#include <vector>

#include "directory/address.h"
#include "net/runtime/clock.h"

namespace mangrove {

class TickQueue {
 public:
  explicit TickQueue(DurationNs tick) : tick_(tick) {}

  // Returns the tick, the first that is not before `at`.
  TimeNs Add(TimeNs at, PageId page) {
    const TimeNs tick = TickOf(at);
    pages_[tick].push_back(page);
    return tick;
  }
  TimeNs TickOf(TimeNs at) const { return (at + tick_ - 1) / tick_ * tick_; }
  bool empty() const { return pages_.empty(); }

  // Calls look(page, tick) for the pages of all ticks up to `now`, in the order in which they were added to each.
  template <typename Look>
  void PopDue(TimeNs now, Look look) {
    while (!pages_.empty() && pages_.begin()->first <= now) {
      const auto due = pages_.extract(pages_.begin());
      for (PageId page : due.mapped()) look(page, due.key());
    }
  }

 private:
  const DurationNs tick_;
  std::map<TimeNs, std::vector<PageId>> pages_;
};

}  // namespace mangrove
