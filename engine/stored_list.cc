// All integers unsigned and little-endian; zeros behind the last entry.
//   4  entries, each
//     of extents:   16 first page (low half first), 8 pages, 8 config, 4 replicas, 1 flags: 1 volatile, 2 learned
//     of versions:  three numbers of as many bytes as each needs, 7 bits in a byte, low ones first, the highest bit set in all but
//                   the last: how far the page is behind the entry's before (the first one's: its number), times 2, and 1 more if it
//                   is unreadable; the epoch and the counter, less those of the entry before, modulo 2^64

#include "engine/stored_list.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr size_t kExtentBytes = 37;
constexpr size_t kLeastVersionBytes = 3;
constexpr size_t kHeadBytes = 4;
static_assert(kHeadBytes + kExtentsPerList * kExtentBytes <= kPageBytes);
static_assert(kHeadBytes + kVersionsPerList * kLeastVersionBytes <= kPageBytes);

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("bad list of what is stored: ", parts...));
}

void PutPage(PageId page, std::byte* out) {
  StoreLittle(out, absl::Uint128Low64(page.value));
  StoreLittle(out + 8, absl::Uint128High64(page.value));
}

PageId GetPage(const std::byte* in) {
  return PageId(absl::MakeUint128(LoadLittle<uint64_t>(in + 8), LoadLittle<uint64_t>(in)));
}

constexpr uint8_t kVolatileFlag = 1;
constexpr uint8_t kLearnedFlag = 2;

void Put(const StoredExtent& extent, std::byte* out) {
  PutPage(extent.range.first, out);
  StoreLittle(out + 16, extent.range.count);
  StoreLittle(out + 24, extent.config.value);
  StoreLittle(out + 32, extent.replicas);
  StoreLittle(out + 36,
              static_cast<uint8_t>((extent.is_volatile ? kVolatileFlag : 0) | (extent.is_learned ? kLearnedFlag : 0)));
}

// False, and nothing is put, where it does not fit.
bool PutNumber(absl::uint128 number, PageBytes& page, size_t& at) {
  size_t bytes = 1;
  for (absl::uint128 rest = number >> 7; rest != 0; rest >>= 7) ++bytes;
  if (kPageBytes - at < bytes) return false;
  for (; bytes > 1; --bytes, number >>= 7)
    page.bytes[at++] = static_cast<std::byte>(0x80 | absl::Uint128Low64(number & 0x7f));
  page.bytes[at++] = static_cast<std::byte>(absl::Uint128Low64(number));
  return true;
}

bool Put(const StoredVersion& version, const StoredVersion& before, PageBytes& page, size_t& at) {
  const absl::uint128 behind = version.page.value - before.page.value;
  return PutNumber(2 * behind + (version.is_unreadable ? 1 : 0), page, at) &&
         PutNumber(version.version.epoch.value - before.version.epoch.value, page, at) &&
         PutNumber(version.version.counter - before.version.counter, page, at);
}

// Nothing: it does not end within the page, or has more than `most_bits`.
std::optional<absl::uint128> GetNumber(const PageBytes& page, size_t& at, int most_bits) {
  absl::uint128 number = 0;
  for (int shift = 0; at < kPageBytes && shift < most_bits; shift += 7) {
    const auto byte = static_cast<uint8_t>(page.bytes[at++]);
    const absl::uint128 bits = byte & 0x7f;
    if ((bits << shift) >> shift != bits) return std::nullopt;
    number |= bits << shift;
    if ((byte & 0x80) != 0) continue;
    if (byte == 0 && shift > 0) return std::nullopt;  // It needs fewer.
    return most_bits < 128 && number >> most_bits != 0 ? std::nullopt : std::optional(number);
  }
  return std::nullopt;
}

std::optional<StoredVersion> GetVersion(const PageBytes& page, size_t& at, const StoredVersion& before) {
  const auto behind = GetNumber(page, at, 128);
  const auto epoch = behind ? GetNumber(page, at, 64) : std::nullopt;
  const auto counter = epoch ? GetNumber(page, at, 64) : std::nullopt;
  if (!counter) return std::nullopt;
  return StoredVersion{.page = PageId(before.page.value + (*behind >> 1)),
                       .version = {Epoch(before.version.epoch.value + absl::Uint128Low64(*epoch)),
                                   before.version.counter + absl::Uint128Low64(*counter)},
                       .is_unreadable = (*behind & 1) != 0};
}

absl::StatusOr<size_t> CountOf(const PageBytes& bytes, size_t most) {
  const auto count = LoadLittle<uint32_t>(bytes.bytes.data());
  if (count > most) return Bad(count, " entries, expected at most ", most);
  return count;
}

absl::Status CheckRest(const PageBytes& bytes, size_t end) {
  const auto rest = bytes.bytes.begin() + static_cast<ptrdiff_t>(end);
  if (std::all_of(rest, bytes.bytes.end(), [](std::byte byte) { return byte == std::byte{}; })) return absl::OkStatus();
  return Bad("something behind the last entry");
}

}  // namespace

PageBuffer EncodeStoredList(const std::vector<StoredExtent>& extents) {
  CHECK(extents.size() <= kExtentsPerList);
  auto page = std::make_shared<PageBytes>();
  StoreLittle(page->bytes.data(), static_cast<uint32_t>(extents.size()));
  for (size_t i = 0; i < extents.size(); ++i) Put(extents[i], page->bytes.data() + kHeadBytes + i * kExtentBytes);
  return page;
}

EncodedVersions EncodeVersionList(const std::vector<StoredVersion>& versions) {
  auto page = std::make_shared<PageBytes>();
  size_t count = 0;
  StoredVersion before;
  for (size_t end = kHeadBytes; count < versions.size(); ++count) {
    const size_t begin = end;
    if (Put(versions[count], before, *page, end)) {
      before = versions[count];
      continue;
    }
    std::fill(page->bytes.begin() + static_cast<ptrdiff_t>(begin), page->bytes.end(), std::byte{});
    break;
  }
  StoreLittle(page->bytes.data(), static_cast<uint32_t>(count));
  return {.page = std::move(page), .count = count};
}

absl::StatusOr<std::vector<StoredExtent>> DecodeExtentList(const PageBytes& bytes, PageId from) {
  const absl::StatusOr<size_t> count = CountOf(bytes, kExtentsPerList);
  if (!count.ok()) return count.status();
  if (absl::Status rest = CheckRest(bytes, kHeadBytes + *count * kExtentBytes); !rest.ok()) return rest;
  std::vector<StoredExtent> extents(*count);
  for (size_t i = 0; i < extents.size(); ++i) {
    const std::byte* const in = bytes.bytes.data() + kHeadBytes + i * kExtentBytes;
    StoredExtent& extent = extents[i];
    extent.range = {GetPage(in), LoadLittle<uint64_t>(in + 16)};
    extent.config = ConfigNumber(LoadLittle<uint64_t>(in + 24));
    extent.replicas = LoadLittle<uint32_t>(in + 32);
    const auto flags = LoadLittle<uint8_t>(in + 36);
    extent.is_volatile = (flags & kVolatileFlag) != 0;
    extent.is_learned = (flags & kLearnedFlag) != 0;
    const PageRange range = extent.range;
    const bool is_range = range.count > 0 && range.first.value > 0 && range.first.value < kSpacePages &&
                          range.count <= kSpacePages - range.first.value;
    if (!is_range || extent.config.value == 0 || flags > (kVolatileFlag | kLearnedFlag))
      return Bad("entry ", i, " is no extent");
    if (range.first < (i == 0 ? from : extents[i - 1].range.end())) return Bad("extent ", i, " is out of order");
  }
  return extents;
}

absl::StatusOr<std::vector<StoredVersion>> DecodeVersionList(const PageBytes& bytes, PageId from) {
  const absl::StatusOr<size_t> count = CountOf(bytes, kVersionsPerList);
  if (!count.ok()) return count.status();
  std::vector<StoredVersion> versions;
  size_t at = kHeadBytes;
  for (StoredVersion before; versions.size() < *count; before = versions.back()) {
    const std::optional<StoredVersion> version = GetVersion(bytes, at, before);
    const bool is_page = version && version->page.value > 0 && version->page.value < kSpacePages;
    if (!is_page) return Bad("entry ", versions.size(), " is no page");
    const PageId least = versions.empty() ? from : before.page + 1;
    if (version->page < least) return Bad("page ", versions.size(), " is out of order");
    versions.push_back(*version);
  }
  if (absl::Status rest = CheckRest(bytes, at); !rest.ok()) return rest;
  return versions;
}

}  // namespace mangrove
