// The global address space: 2^128 bytes in pages of 4 KiB, the same on every node and independent of any host's
// addresses.

#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/status/statusor.h"
#include "net/page_buffer.h"

namespace mangrove {

// A byte's place in the global address space.
struct GlobalAddress {
  absl::uint128 value = 0;

  constexpr GlobalAddress() = default;
  constexpr explicit GlobalAddress(absl::uint128 v) : value(v) {}

  friend constexpr bool operator==(GlobalAddress a, GlobalAddress b) { return a.value == b.value; }
  friend constexpr bool operator<(GlobalAddress a, GlobalAddress b) { return a.value < b.value; }
  friend constexpr bool operator<=(GlobalAddress a, GlobalAddress b) { return a.value <= b.value; }
  friend constexpr bool operator>(GlobalAddress a, GlobalAddress b) { return b < a; }
  friend constexpr bool operator>=(GlobalAddress a, GlobalAddress b) { return b <= a; }
  // Wraps around at 2^128 as unsigned integers do; callers check ranges before.
  friend constexpr GlobalAddress operator+(GlobalAddress a, uint64_t bytes) { return GlobalAddress(a.value + bytes); }
};

// The number of a page: its address divided by kPageBytes. Page 0 is never valid.
struct PageId {
  absl::uint128 value = 0;

  constexpr PageId() = default;
  constexpr explicit PageId(absl::uint128 v) : value(v) {}

  friend constexpr bool operator==(PageId a, PageId b) { return a.value == b.value; }
  friend constexpr bool operator!=(PageId a, PageId b) { return !(a == b); }
  friend constexpr bool operator<(PageId a, PageId b) { return a.value < b.value; }
  friend constexpr bool operator<=(PageId a, PageId b) { return a.value <= b.value; }
  friend constexpr PageId operator+(PageId a, uint64_t pages) { return PageId(a.value + pages); }
  // Pages from `b` to `a`. REQUIRES: b <= a, and less than 2^64 apart.
  friend constexpr uint64_t operator-(PageId a, PageId b) { return static_cast<uint64_t>(a.value - b.value); }
  template <typename H>
  friend H AbslHashValue(H h, PageId p) {
    return H::combine(std::move(h), absl::Uint128High64(p.value), absl::Uint128Low64(p.value));
  }
};

// `count` pages from `first` on.
struct PageRange {
  PageId first;
  uint64_t count = 0;

  constexpr PageId end() const { return first + count; }
  constexpr bool Contains(PageId page) const { return first <= page && page < end(); }
  constexpr bool Contains(const PageRange& other) const { return first <= other.first && other.end() <= end(); }
  constexpr bool Overlaps(const PageRange& other) const { return first < other.end() && other.first < end(); }
  friend constexpr bool operator==(const PageRange&, const PageRange&) = default;
};

// A segment, the unit of responsibility: 2 MiB, aligned.
constexpr int kSegmentShift = 9;
constexpr uint64_t kSegmentPages = uint64_t{1} << kSegmentShift;

constexpr int kPageShift = 12;
static_assert(kPageBytes == size_t{1} << kPageShift);

constexpr PageId PageOf(GlobalAddress address) { return PageId(address.value >> kPageShift); }
constexpr GlobalAddress AddressOf(PageId page) { return GlobalAddress(page.value << kPageShift); }
constexpr PageId SegmentStart(PageId page) { return PageId(page.value >> kSegmentShift << kSegmentShift); }

// The number of valid pages of the space, page 0 included: 2^116.
constexpr absl::uint128 kSpacePages = absl::uint128(1) << 116;

// "0x" and 32 hexadecimal digits in two groups, split by '_': 0x0000000000000000_0000000000200000.
std::string ToString(GlobalAddress address);
std::string ToString(PageId page);  // Its address.
std::string ToString(const PageRange& range);

// Accepts what ToString prints, and any hexadecimal number with "0x" or decimal number below 2^128. Underscores are
// skipped. InvalidArgument names the text and what was expected.
absl::StatusOr<GlobalAddress> ParseGlobalAddress(std::string_view text);

// The upper half of the space is the directory's: the pages of the RAM directory beside its root. Their addresses say who
// made them: bit 115 of the page's number, 40 bits of the node, 24 of its incarnation, a count of 32.
constexpr PageId kFirstDirectoryPage{absl::uint128(1) << 115};

// Addresses that every cluster has from its first start.
constexpr PageId kSuperRootPage{1};
constexpr PageId kRamDirectoryRootPage{2};
constexpr PageId kDiskDirectoryRootPage{3};
// The table of regions, see engine/region_table.h.
constexpr PageRange kRegionTablePages{PageId(kSegmentPages), 8 * kSegmentPages};
// The first page that `reserve` hands out.
constexpr PageId kFirstReservablePage{absl::uint128(1) << 20};
// The pages of transactions' logs (engine/transactions/log_format.h), below the directory's.
constexpr PageId kFirstTransactionPage{absl::uint128(1) << 114};
// The number of the first page behind those that are reserved.
constexpr absl::uint128 kReservableEnd = kFirstTransactionPage.value;

// A page of the RAM directory: never on a disk, and never older than it was.
constexpr bool IsRamDirectoryPage(PageId page) { return page == kRamDirectoryRootPage || kFirstDirectoryPage <= page; }
// REQUIRES: each of the numbers fits.
constexpr PageId RamDirectoryPage(uint64_t node, uint64_t incarnation, uint64_t count) {
  return PageId(kFirstDirectoryPage.value | absl::uint128(node) << 56 | absl::uint128(incarnation) << 32 | count);
}
// Of a page from kFirstDirectoryPage on: the node that made it, and the low bits of its incarnation.
constexpr uint64_t NodeOfDirectoryPage(PageId page) {
  return absl::Uint128Low64(page.value >> 56) & ((uint64_t{1} << 40) - 1);
}
constexpr uint64_t IncarnationOfDirectoryPage(PageId page) {
  return absl::Uint128Low64(page.value >> 32) & ((uint64_t{1} << 24) - 1);
}

}  // namespace mangrove
