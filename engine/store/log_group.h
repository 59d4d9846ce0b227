// A group of commits as the log keeps it: written with one write and one sync, there whole or not at all.
//
// Blocks of 4096 bytes; integers are little endian:
//   offset  bytes  what
//        0      4  magic "MGLG"
//        4      2  format version, 1
//        6      2  files that the log has
//        8      8  number of the group: 1, 2, 3 … in the life of a store
//       16      4  bytes of the entries
//       20      4  pages
//       24      8  checksum of the entries
//       32      8  checksum of the bytes 0 to 31
//       40         entries, then zeros to the end of the block
//                  the pages' data, a block each, in the order of their entries
//
// Entries, each begun by one byte:
//   'B'  a batch begins; what follows belongs to it
//   'D'  pages are deleted: number of the first, 16 bytes (the low 8 first); how many, 8
//   'P'  a page is put: its header as in page_record.h, 88 bytes, with the checksum of the data
//   'R'  a record is put: bytes of the key, 4; bytes of the value, 4; key; value
//   'X'  a record is deleted: bytes of the key, 4; key
//
// Checksums are XXH3-64 with the store's salt as their seed. The salt is random and leaves the store in no answer, so
// that no page can be made that passes for the beginning of a group.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/page_store.h"

namespace mangrove::store {

constexpr size_t kLogBlockBytes = 4096;

// What EncodeGroup writes: a number of whole blocks.
size_t EncodedGroupBytes(std::span<const StoreBatch* const> batches);

struct LogGroupHeader {
  uint64_t number = 0;
  uint16_t files = 0;
  uint64_t bytes = 0;  // Of the whole group, from its first block on.
};

// REQUIRES: out.size() and header.bytes are EncodedGroupBytes(batches); pages have their data.
void EncodeGroup(const LogGroupHeader& header, uint64_t salt, std::span<const StoreBatch* const> batches,
                 std::span<char> out);

// Total. Empty: no group begins with `block`.
std::optional<LogGroupHeader> DecodeGroupHeader(std::string_view block, uint64_t salt);

// Total. Empty: `bytes` are not one whole group with every checksum right.
std::optional<std::vector<StoreBatch>> DecodeGroup(std::string_view bytes, uint64_t salt);

}  // namespace mangrove::store
