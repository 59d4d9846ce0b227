// What a fileset's metadata pages have in common. docs/FILESYSTEM.md says what each kind holds, byte by byte.
//
// All integers are little-endian. Each page begins with
//   0  magic 4, which is its kind   4  version 2   6  how often it was changed 2   8  checksum 8
// The checksum is XXH3-64 of what is behind the header, seeded with the page's number and the bytes before the checksum (as one integer, rotated
// left by 24 bits, exclusive-or the number): a page in another's place is noticed.

#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "fs/pages.h"

namespace mangrove::fs {

enum class PageKind : uint32_t {
  kFileset = 0x5346474D,       // "MGFS"
  kGroup = 0x5247474D,         // "MGGR": which pages of a group are used
  kInode = 0x4E49474D,         // "MGIN"
  kTree = 0x5254474D,          // "MGTR": a node of a tree that has outgrown its inode
  kPlace = 0x4C50474D,         // "MGPL": what belongs to one node
  kFilesetList = 0x534C474D,   // "MGLS": of the list of filesets (fs/super_root.h)
  kFilesetEntry = 0x4546474D,  // "MGFE"
};
std::string ToString(PageKind kind);

constexpr uint16_t kFormatVersion = 1;
constexpr size_t kHeaderBytes = 16;

// Makes `page`, of kMetadataBytes, an empty one of this kind: zeros behind the header.
void InitializePage(std::span<char> page, PageKind kind);
// Counts a change of what was `before`, and puts the checksum in.
void SealChanged(std::span<char> page, std::span<const char> before, uint64_t number);
// Puts the checksum in.
void SealPage(std::span<char> page, uint64_t number);
// Of a sound page. While it is the same nobody has changed the page: changes that undo each other count too.
uint64_t StateOf(std::span<const char> page);
// EIO says what is wrong with it; ESTALE: it is a sound page, and no inode any more. CheckKind looks at its magic number alone: for a page that is being changed.
absl::Status CheckPage(std::span<const char> page, uint64_t number, PageKind kind);
absl::Status CheckKind(std::span<const char> page, uint64_t number, PageKind kind);

}  // namespace mangrove::fs
