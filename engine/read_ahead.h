// Recognises who goes through memory in order, and says what to bring before it is asked for.
//
// An access is what had to be asked for, or waited for; what is here already is used without a word. A stream is a row of
// accesses of which each begins one stride behind the one before, or behind pages that were brought ahead. From the third
// access on it is read ahead, twice as far each time, up to a bound; and in pieces that are worth a message.

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "directory/address.h"

namespace mangrove {

class ReadAhead {
 public:
  // At most so many pages are asked for ahead of an access.
  explicit ReadAhead(uint64_t max_pages) : max_pages_(max_pages) {}
  uint64_t max_pages() const { return max_pages_; }

  // Ranges to bring now, in the order in which they will be wanted (the pages of one that lies before the access,
  // backwards), of `budget` pages at most; none as long as there is no order. They can lie anywhere: the caller drops what
  // is not of the same region.
  std::vector<PageRange> OnAccess(PageRange range, uint64_t budget);

 private:
  struct Stream {
    PageRange last;  // Of its accesses.
    // In pages, from the beginning of one to that of the next; backwards, as memmove may copy, it is negative. 0: there was
    // one access only.
    int64_t stride = 0;
    uint64_t hits = 0;    // How often the next one came as expected.
    uint64_t ahead = 0;   // Steps behind `last` that were asked for.
    uint64_t window = 0;  // Steps.
    uint64_t used = 0;    // When, in accesses.
  };

  static constexpr size_t kStreams = 8;
  // Beyond this two accesses have nothing to do with each other.
  static constexpr int64_t kMaxStride = 1024;
  static constexpr uint64_t kMaxRanges = 32;

  bool Continue(Stream& stream, PageRange range);
  std::vector<PageRange> Extend(Stream& stream, uint64_t budget) const;

  const uint64_t max_pages_;
  uint64_t accesses_ = 0;
  std::array<Stream, kStreams> streams_;
};

}  // namespace mangrove
