#include "engine/range_set.h"

#include <algorithm>
#include <iterator>

namespace mangrove {

bool RangeSet::Contains(PageId page) const {
  const auto after = ranges_.upper_bound(page.value);
  return after != ranges_.begin() && std::prev(after)->second.Contains(page);
}

void RangeSet::Set(PageRange range, bool in) {
  const auto put = [this](PageId first, PageId end) {
    if (first < end) ranges_[first.value] = {first, end - first};
  };
  // What there is of the range goes; what of it lies outside stays.
  auto it = ranges_.upper_bound(range.first.value);
  if (it != ranges_.begin()) --it;
  while (it != ranges_.end() && it->second.first < range.end()) {
    const PageRange old = it->second;
    if (!old.Overlaps(range)) {
      ++it;
      continue;
    }
    it = ranges_.erase(it);
    put(old.first, std::min(old.end(), range.first));
    put(std::max(old.first, range.end()), old.end());
  }
  if (in) put(range.first, range.end());
}

}  // namespace mangrove
