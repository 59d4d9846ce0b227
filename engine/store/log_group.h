// A group of commits as the log keeps it: written with one write and one sync, there whole or not at all. The pages' data
// stays where it is written; the rest tells the index of it.
//
// Blocks of 4096 bytes; integers are little endian:
//   offset  bytes  what
//        0      4  magic "MGLG"
//        4      2  format version, 2
//        6      2  reserved, 0
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
//   'P'  a page is put: its entry as in page_entry.h, 64 bytes, with the checksum of the data
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
#include "engine/store/page_entry.h"

namespace mangrove::store {

// What a batch changes in the index.
struct IndexChange {
  std::vector<PageRange> delete_pages;  // Before put_pages.
  std::vector<PageEntry> put_pages;
  std::vector<StoreBatch::Record> records;
};

struct GroupHeader {
  uint64_t number = 0;
  uint64_t entry_blocks = 0;  // From the group's first block on.
  uint64_t pages = 0;         // A block each, after these.
  uint64_t blocks() const { return entry_blocks + pages; }
};

// Of the group that EncodeGroup writes.
uint64_t EncodedGroupBlocks(std::span<const StoreBatch* const> batches);

// Writes the group that is to stand at `place`. Returns what it changes, a part for each batch. REQUIRES: out.size() is
// that of EncodedGroupBlocks(batches); pages have their data.
std::vector<IndexChange> EncodeGroup(uint64_t number, uint64_t salt, PagePlace place,
                                     std::span<const StoreBatch* const> batches, std::span<char> out);

// Total. Empty: no group begins with `block`.
std::optional<GroupHeader> DecodeGroupHeader(std::string_view block, uint64_t salt);

// What the group at `place` changes. Total. Empty: `bytes` are not the whole entry_blocks of one, or their checksums are
// not right. The pages' data is not looked at.
std::optional<std::vector<IndexChange>> DecodeGroupEntries(std::string_view bytes, uint64_t salt, PagePlace place);

}  // namespace mangrove::store
