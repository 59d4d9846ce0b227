// The pages of the table of regions, byte by byte as docs/REGION_TABLE.md says.
//
// A page of zeros (never written) is an empty header, or a free slot. Decoding is total: anything else that is not
// exactly as described gives DataLoss, which says what is wrong.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "directory/version.h"
#include "engine/mangrove.h"
#include "net/page_buffer.h"

namespace mangrove {

// Page 0 of the table.
struct RegionTableHeader {
  uint32_t slots = 0;                       // Slots from this one on were never used.
  PageId next_free = kFirstReservablePage;  // Addresses from this page on were never handed out.
  friend bool operator==(const RegionTableHeader&, const RegionTableHeader&) = default;
};

// Allocated pages of a region, alike in everything that may be asked of them.
struct RegionRun {
  uint64_t offset = 0;  // In pages from the region's first.
  uint64_t count = 0;
  ConfigNumber config;  // The newest of its extents.
  uint32_t replicas = 0;
  bool is_volatile = false;
  bool keep_in_ram = false;
  CoherenceProtocol protocol = CoherenceProtocol::kInvalidate;
  std::array<std::byte, 16> user{};

  uint64_t end() const { return offset + count; }
  friend bool operator==(const RegionRun&, const RegionRun&) = default;
};

// Page 1 + i of the table: slot i.
struct RegionDescriptor {
  bool used = false;  // Else nothing below counts.
  std::string name;
  PageRange pages;
  uid_t owner = 0;
  gid_t group = 0;
  uint16_t mode = 0;
  ConfigNumber next_config{1};  // Numbers from this one on were never used in the region.
  bool unclean = false;         // An allocation did not come to its end: there may be extents that are in no run.
  WithoutQuorum without_quorum = WithoutQuorum::kRefuse;
  std::vector<RegionRun> runs;  // By offset; they do not overlap.
  friend bool operator==(const RegionDescriptor&, const RegionDescriptor&) = default;
};

constexpr uint32_t kRegionSlots = static_cast<uint32_t>(kRegionTablePages.count) - 1;
constexpr PageId kRegionHeaderPage = kRegionTablePages.first;
constexpr PageId RegionSlotPage(uint32_t slot) { return kRegionHeaderPage + 1 + slot; }
// What one page holds.
constexpr size_t kMaxRegionRuns = 78;
constexpr size_t kMaxRegionNameBytes = 255;
// Of a region: 2^46 bytes.
constexpr uint64_t kMaxRegionPages = uint64_t{1} << (46 - kPageShift);
constexpr uint16_t kRegionModeBits = 0666;

using TablePageOut = std::span<std::byte, kPageBytes>;
using TablePageIn = std::span<const std::byte, kPageBytes>;

// 1 to 255 bytes of UTF-8 without '/' and NUL; or InvalidArgument.
absl::Status CheckRegionName(const std::string& name);

void EncodeRegionHeader(const RegionTableHeader& header, TablePageOut out);
absl::StatusOr<RegionTableHeader> DecodeRegionHeader(TablePageIn page);
// REQUIRES: at most kMaxRegionRuns runs, a good name.
void EncodeRegionDescriptor(uint32_t slot, const RegionDescriptor& region, TablePageOut out);
absl::StatusOr<RegionDescriptor> DecodeRegionDescriptor(uint32_t slot, TablePageIn page);

}  // namespace mangrove
