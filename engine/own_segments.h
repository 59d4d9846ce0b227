// The segments that a node is responsible for, as runs.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/numeric/int128.h"
#include "directory/address.h"

namespace mangrove {

class OwnSegments {
 public:
  struct Run {
    PageRange range;  // Whole segments.
    uint32_t term = 0;
    // Nobody was responsible before, so nobody holds anything. Otherwise the segments are joined one by one.
    bool virgin = false;
  };

  // Replaces what is known of the range.
  void Add(const Run& run);
  void Remove(PageRange range);
  // The run that holds the page.
  const Run* Find(PageId page) const;
  // The first run that ends behind the page, or null.
  const Run* FirstFrom(PageId page) const;
  // Is every segment of the range in it?
  bool Covers(PageRange range) const;
  // Runs that overlap [first, end), in order.
  void ForEach(PageId first, PageId end, absl::FunctionRef<void(const Run&)> each) const;

 private:
  std::map<absl::uint128, Run> runs_;  // By first page; they do not overlap.
};

}  // namespace mangrove
