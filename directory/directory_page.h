// A page of the RAM directory, byte by byte as docs/DIRECTORY.md says: pure functions.
//
// Reading is total: whatever the bytes are, nothing outside the page is read. Parse says what is wrong with a page;
// DirectoryPageView, for lookups, looks only at what it comes across, and may find anything in a page that Parse refuses.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/page_access.h"
#include "net/ids.h"
#include "net/page_buffer.h"

namespace mangrove {

// Pages from `first` up to, not including, `end`. Unlike a PageRange it can be the whole space.
struct PageInterval {
  PageId first;
  PageId end;

  constexpr bool Contains(PageId page) const { return first <= page && page < end; }
  constexpr bool empty() const { return end <= first; }
  friend constexpr bool operator==(const PageInterval&, const PageInterval&) = default;
};

constexpr PageId kSpaceEnd{kSpacePages};
constexpr PageInterval kWholeSpace{PageId(0), kSpaceEnd};

constexpr PageInterval IntervalOf(const PageRange& range) { return {range.first, range.end()}; }
constexpr PageInterval Intersect(const PageInterval& a, const PageInterval& b) {
  return {a.first < b.first ? b.first : a.first, a.end < b.end ? a.end : b.end};
}

// Who is responsible for a run of whole segments.
struct DirectoryEntry {
  PageRange range;
  NodeId responsible;
  uint32_t term = 0;  // At least 1; grows by one whenever another node gets a segment.
  friend constexpr bool operator==(const DirectoryEntry&, const DirectoryEntry&) = default;
};

// A floor: whoever is appointed uses transaction numbers and grant epochs above it.
struct DirectoryOrder {
  uint64_t txn = 0;
  uint64_t epoch = 0;
  friend constexpr bool operator==(const DirectoryOrder&, const DirectoryOrder&) = default;
};
constexpr DirectoryOrder Merge(const DirectoryOrder& a, const DirectoryOrder& b) {
  return {.txn = a.txn < b.txn ? b.txn : a.txn, .epoch = a.epoch < b.epoch ? b.epoch : a.epoch};
}

// A page of the level below, whose interval begins at `start` and ends where the next child's begins.
struct DirectoryChild {
  PageId start;
  PageRef ref;
  friend constexpr bool operator==(const DirectoryChild&, const DirectoryChild&) = default;
};

struct DirectoryPage {
  uint8_t level = 0;                     // 0: a leaf.
  PageInterval keys = kWholeSpace;       // What the page is about: its low key, and its high key behind it.
  PageRef right;                         // Page 0: none known.
  DirectoryOrder order;                  // Of a leaf.
  std::vector<DirectoryEntry> runs;      // Of a leaf: sorted, without overlap, neighbours that are alike merged.
  std::vector<DirectoryChild> children;  // Of an interior page: sorted, the first starts at the low key.
  friend bool operator==(const DirectoryPage&, const DirectoryPage&) = default;
};

constexpr size_t kDirectoryHeaderBytes = 96;
constexpr size_t kDirectoryRunBytes = 32;
constexpr size_t kDirectoryChildBytes = 40;
constexpr size_t kMaxDirectoryRuns = (kPageBytes - kDirectoryHeaderBytes) / kDirectoryRunBytes;
constexpr size_t kMaxDirectoryChildren = (kPageBytes - kDirectoryHeaderBytes) / kDirectoryChildBytes;
constexpr uint8_t kMaxDirectoryLevel = 30;
// Of one run.
constexpr uint64_t kMaxRunPages = uint64_t{UINT32_MAX} * kSegmentPages;

// REQUIRES: a page as Parse accepts it.
PageBuffer SerializeDirectoryPage(const DirectoryPage& page);
// DataLoss names what is wrong.
absl::StatusOr<DirectoryPage> ParseDirectoryPage(const PageBytes& bytes);

// The bytes of a page, searched in place. Owns nothing: the bytes must outlive it.
class DirectoryPageView {
 public:
  // Nothing if the bytes are no directory page at first sight. What comes in from elsewhere is parsed once.
  static std::optional<DirectoryPageView> Of(const PageBytes& bytes);

  uint8_t level() const { return level_; }
  size_t size() const { return size_; }  // Runs or children.
  PageInterval keys() const;
  PageRef right() const;
  DirectoryOrder order() const;

  // REQUIRES: of a leaf, or an interior page; i < size().
  DirectoryEntry run(size_t i) const;
  DirectoryChild child(size_t i) const;
  // How many runs, or children, begin at `page` or before it. Binary search.
  size_t CountUpTo(PageId page) const;

 private:
  explicit DirectoryPageView(const std::byte* bytes);
  const std::byte* At(size_t i) const { return bytes_ + kDirectoryHeaderBytes + i * stride_; }

  const std::byte* bytes_;
  size_t stride_;
  size_t size_;
  uint8_t level_;
};

std::string ToString(const PageRef& ref);
std::string ToString(const PageInterval& interval);
std::string ToString(const DirectoryEntry& entry);

}  // namespace mangrove
