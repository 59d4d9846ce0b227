// A set of pages, as ranges.

#pragma once

#include <map>

#include "absl/numeric/int128.h"
#include "directory/address.h"

namespace mangrove {

class RangeSet {
 public:
  // Adds the pages of `range`, or takes them out.
  void Set(PageRange range, bool in);
  bool Contains(PageId page) const;

 private:
  std::map<absl::uint128, PageRange> ranges_;  // By first page; they do not overlap.
};

}  // namespace mangrove
