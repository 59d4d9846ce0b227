// What the store knows of a page without its data: what it is, and where in the log its data stands. Integers are little
// endian, keys excepted.
//
// Key in the index, 16 bytes: the page's number, big endian, so that keys have the order of pages and a range of pages is
// a range of keys.
//
// Value in the index, 64 bytes:
//   offset  bytes  what
//        0      8  version: epoch
//        8      8  version: counter
//       16      8  configuration number
//       24      8  recovery handle, high
//       32      8  recovery handle, low
//       40      8  XXH3-64 of the data
//       48      8  place: number of the segment * 2^24 + block in it
//       56      8  XXH3-64 of the bytes 0 to 55, seeded with the XXH3-64 of the key
//
// In the log, 64 bytes: the page's number (the low 8 bytes first), then the bytes 0 to 47 as above.
//
// The entry's checksum covers the key and the data's checksum: neither an entry under another key nor data of another write
// passes.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/page_store.h"

namespace mangrove::store {

constexpr size_t kBlockBytes = 4096;
static_assert(kBlockBytes == kPageBytes);

// A block of a segment; segments have ascending numbers and are never used again under the same one.
struct PagePlace {
  static constexpr uint64_t kMaxBlocks = uint64_t{1} << 24;
  uint64_t segment = 0;
  uint64_t block = 0;
  friend constexpr bool operator==(const PagePlace&, const PagePlace&) = default;
};

struct PageEntry {
  PageId page;
  Version version;
  ConfigNumber config;
  RecoveryHandle handle;
  uint64_t data_sum = 0;
  PagePlace place;
  friend constexpr bool operator==(const PageEntry&, const PageEntry&) = default;
};

constexpr size_t kPageKeyBytes = 16;
constexpr size_t kIndexValueBytes = 64;
constexpr size_t kLogEntryBytes = 64;

using PageKey = std::array<char, kPageKeyBytes>;
using IndexValue = std::array<char, kIndexValueBytes>;

PageKey EncodePageKey(PageId page);
// Empty: it is no key of a page.
std::optional<PageId> DecodePageKey(std::string_view key);
inline std::string_view View(const PageKey& key) { return {key.data(), key.size()}; }

// XXH3-64. REQUIRES: `data` points to kPageBytes.
uint64_t DataSum(const void* data);

IndexValue EncodeIndexValue(const PageEntry& entry);
// Total: the entry, or DataLoss that names the page's address and what is wrong.
absl::StatusOr<PageEntry> DecodeIndexValue(PageId page, std::string_view value);
// The segment of a value, which is not verified; 0 if it is none.
uint64_t SegmentOf(std::string_view value);

// Writes kLogEntryBytes; the place is not among them.
void EncodeLogEntry(const PageEntry& entry, char* out);
// REQUIRES: kLogEntryBytes, whose checksum was right.
PageEntry DecodeLogEntry(const char* in);

// The page without its data.
StoredPage HeaderOf(const PageEntry& entry);
// DataLoss that names the page's address.
absl::Status CorruptPage(PageId page, std::string_view what);

}  // namespace mangrove::store
