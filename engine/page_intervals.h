// A set of pages, as intervals that may be as long as the space. Pure.

#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/numeric/int128.h"
#include "directory/address.h"
#include "directory/directory_page.h"

namespace mangrove {

class PageIntervals {
 public:
  void Add(PageInterval interval);
  bool Contains(PageId page) const;
  bool Contains(PageInterval interval) const;  // All of it. An empty one: yes.
  // The first page from there on that is not in the set; kSpaceEnd: there is none.
  PageId NextOutside(PageId from) const;
  // What of it is not in the set, in the order of addresses.
  std::vector<PageInterval> Outside(PageInterval interval) const;
  std::vector<PageInterval> All() const;  // In the order of addresses.
  // How many pages of it are in the set.
  uint64_t CountIn(PageRange range) const;

 private:
  std::map<absl::uint128, PageId> ends_;  // By first page; between two of them is a page that is not in the set.
};

}  // namespace mangrove
