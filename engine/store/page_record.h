// What the store keeps for a page: the key and the value, byte by byte. Integers in the value are little endian.
//
// Key, 16 bytes: the page's number, big endian, so that keys have the order of pages and a range of pages is a range
// of keys.
//
// Value, 4184 bytes:
//   offset  bytes  what
//        0      4  magic "MGPR"
//        4      2  format version, 1
//        6      2  bytes of the header, 88
//        8      4  bytes of the data, 4096
//       12      4  reserved, 0
//       16     16  page number (the low 8 bytes first)
//       32      8  version: epoch
//       40      8  version: counter
//       48      8  configuration number
//       56      8  recovery handle, high
//       64      8  recovery handle, low
//       72      8  XXH3-64 of the data
//       80      8  XXH3-64 of the bytes 0 to 79
//       88   4096  data
//
// The header has a checksum of its own, so that it is verified without touching the data; it covers the data's checksum,
// so that a header and data of two different writes never pass for one.

#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/page_store.h"

namespace mangrove::store {

constexpr size_t kPageKeyBytes = 16;
constexpr size_t kPageHeaderBytes = 88;
constexpr size_t kPageRecordBytes = kPageHeaderBytes + kPageBytes;

using PageKey = std::array<char, kPageKeyBytes>;
using PageHeader = std::array<char, kPageHeaderBytes>;

PageKey EncodePageKey(PageId page);
inline std::string_view View(const PageKey& key) { return {key.data(), key.size()}; }

// The header of `page`'s record; its data follows as it is. REQUIRES: page.data is there.
PageHeader EncodePageHeader(const StoredPage& page);

// The record of `page`. Total: whatever the bytes are, the answer is what EncodePageHeader was given, or DataLoss that
// names the page's address and what is wrong. `with_data` false: the data is neither verified nor copied.
absl::StatusOr<StoredPage> DecodePageRecord(PageId page, std::string_view value, bool with_data);
// The same of a header and data that stand apart; the page is the one that the header names.
absl::StatusOr<StoredPage> DecodePageRecord(std::string_view header, std::string_view data);

}  // namespace mangrove::store
