#include "fs/format.h"

#include <xxhash.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kVersionAt = 4;
constexpr size_t kChangesAt = 6;
constexpr size_t kChecksumAt = 8;

// Of a fileset's pages. Groups and nodes of trees of version 1 have other places for what they hold: such a fileset is refused, and above all
// not repaired. The super root's pages are as they were.
constexpr uint16_t kFilesetVersion = kFormatVersion + 1;

uint16_t VersionOf(PageKind kind) {
  const bool is_of_super_root = kind == PageKind::kFilesetList || kind == PageKind::kFilesetEntry;
  return is_of_super_root ? kFormatVersion : kFilesetVersion;
}

uint64_t ChecksumOf(std::span<const char> page, uint64_t number) {
  const uint64_t head = GetLittle<uint64_t>(page, 0);
  return XXH3_64bits_withSeed(page.data() + kHeaderBytes, page.size() - kHeaderBytes, number ^ std::rotl(head, 24));
}

std::string ShouldBe(uint64_t number, PageKind kind) {
  return absl::StrCat("page ", number, " of the fileset should be ", ToString(kind));
}

}  // namespace

std::string ToString(PageKind kind) {
  switch (kind) {
    case PageKind::kFileset: return "a fileset's first page";
    case PageKind::kGroup: return "a group's page";
    case PageKind::kInode: return "an inode";
    case PageKind::kTree: return "a node of a tree";
    case PageKind::kPlace: return "a node's place";
    case PageKind::kFilesetList: return "the list of filesets";
    case PageKind::kFilesetEntry: return "a fileset's entry";
  }
  return absl::StrCat("kind ", static_cast<uint32_t>(kind));
}

void InitializePage(std::span<char> page, PageKind kind) {
  std::memset(page.data(), 0, page.size());
  PutLittle(page, 0, static_cast<uint32_t>(kind));
  PutLittle(page, kVersionAt, VersionOf(kind));
}

void SealPage(std::span<char> page, uint64_t number) { PutLittle(page, kChecksumAt, ChecksumOf(page, number)); }

void SealChanged(std::span<char> page, std::span<const char> before, uint64_t number) {
  PutLittle(page, kChangesAt, static_cast<uint16_t>(GetLittle<uint16_t>(before, kChangesAt) + 1));
  SealPage(page, number);
}

uint64_t StateOf(std::span<const char> page) { return GetLittle<uint64_t>(page, kChecksumAt); }

// Who asks for an inode may have kept its number for long.
absl::Status CheckKind(std::span<const char> page, uint64_t number, PageKind kind) {
  const auto magic = GetLittle<uint32_t>(page, 0);
  if (magic == static_cast<uint32_t>(kind)) return absl::OkStatus();
  return PosixError(kind == PageKind::kInode ? ESTALE : EIO,
                    absl::StrCat(ShouldBe(number, kind), "; its magic number is ", absl::Hex(magic, absl::kZeroPad8)));
}

absl::Status CheckPage(std::span<const char> page, uint64_t number, PageKind kind) {
  if (GetLittle<uint64_t>(page, kChecksumAt) != ChecksumOf(page, number)) {
    return PosixError(EIO, absl::StrCat(ShouldBe(number, kind), "; its checksum is wrong"));
  }
  const auto version = GetLittle<uint16_t>(page, kVersionAt);
  if (version != VersionOf(kind)) {
    return PosixError(EIO, absl::StrCat(ShouldBe(number, kind), "; its format is ", version, ", this program knows ",
                                        VersionOf(kind)));
  }
  return CheckKind(page, number, kind);
}

}  // namespace mangrove::fs
