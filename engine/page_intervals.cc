#include "engine/page_intervals.h"

#include <algorithm>
#include <iterator>

namespace mangrove {

void PageIntervals::Add(PageInterval interval) {
  if (interval.empty()) return;
  // What it overlaps, or touches, becomes one with it.
  auto it = ends_.upper_bound(interval.first.value);
  if (it != ends_.begin() && interval.first <= std::prev(it)->second) --it;
  while (it != ends_.end() && it->first <= interval.end.value) {
    interval.first = std::min(interval.first, PageId(it->first));
    interval.end = std::max(interval.end, it->second);
    it = ends_.erase(it);
  }
  ends_[interval.first.value] = interval.end;
}

bool PageIntervals::Contains(PageId page) const { return page < NextOutside(page); }

bool PageIntervals::Contains(PageInterval interval) const {
  return interval.empty() || interval.end <= NextOutside(interval.first);
}

PageId PageIntervals::NextOutside(PageId from) const {
  const auto after = ends_.upper_bound(from.value);
  if (after == ends_.begin()) return from;
  return std::max(from, std::prev(after)->second);
}

std::vector<PageInterval> PageIntervals::Outside(PageInterval interval) const {
  std::vector<PageInterval> outside;
  for (PageId first = NextOutside(interval.first); first < interval.end;) {
    const auto next = ends_.upper_bound(first.value);
    const PageId end = next == ends_.end() ? interval.end : std::min(interval.end, PageId(next->first));
    outside.push_back({first, end});
    first = NextOutside(end);
  }
  return outside;
}

std::vector<PageInterval> PageIntervals::All() const {
  std::vector<PageInterval> all;
  for (const auto& [first, end] : ends_) all.push_back({PageId(first), end});
  return all;
}

uint64_t PageIntervals::CountIn(PageRange range) const {
  uint64_t outside = 0;
  for (const PageInterval& part : Outside(IntervalOf(range))) outside += part.end - part.first;
  return range.count - outside;
}

}  // namespace mangrove
