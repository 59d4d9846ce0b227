// All integers unsigned and little-endian; zeros behind the last entry.
//   4  entries, each
//     of extents:   16 first page (low half first), 8 pages, 8 config, 4 replicas, 1 flags: 1 volatile, 2 learned
//     of versions:  16 page (low half first), 8 epoch, 8 counter, 1 unreadable (0 or 1)

#include "engine/stored_list.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr size_t kExtentBytes = 37;
constexpr size_t kVersionBytes = 33;
constexpr size_t kHeadBytes = 4;
static_assert(kHeadBytes + kExtentsPerList * kExtentBytes <= kPageBytes);
static_assert(kHeadBytes + kVersionsPerList * kVersionBytes <= kPageBytes);

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

void Put(const StoredVersion& version, std::byte* out) {
  PutPage(version.page, out);
  StoreLittle(out + 16, version.version.epoch.value);
  StoreLittle(out + 24, version.version.counter);
  StoreLittle(out + 32, static_cast<uint8_t>(version.is_unreadable ? 1 : 0));
}

template <size_t kEntryBytes, typename Entry>
PageBuffer Encode(const std::vector<Entry>& entries) {
  CHECK(kHeadBytes + entries.size() * kEntryBytes <= kPageBytes);
  auto page = std::make_shared<PageBytes>();
  StoreLittle(page->bytes.data(), static_cast<uint32_t>(entries.size()));
  for (size_t i = 0; i < entries.size(); ++i) Put(entries[i], page->bytes.data() + kHeadBytes + i * kEntryBytes);
  return page;
}

// Where the entries begin; each is kEntryBytes.
template <size_t kEntryBytes>
absl::StatusOr<std::pair<const std::byte*, size_t>> Entries(const PageBytes& bytes, size_t most) {
  const auto count = LoadLittle<uint32_t>(bytes.bytes.data());
  if (count > most) return Bad(count, " entries, expected at most ", most);
  const auto behind = bytes.bytes.begin() + static_cast<ptrdiff_t>(kHeadBytes + count * kEntryBytes);
  if (std::any_of(behind, bytes.bytes.end(), [](std::byte byte) { return byte != std::byte{}; })) {
    return Bad("something behind the last entry");
  }
  return std::pair(bytes.bytes.data() + kHeadBytes, size_t{count});
}

}  // namespace

PageBuffer EncodeStoredList(const std::vector<StoredExtent>& extents) { return Encode<kExtentBytes>(extents); }
PageBuffer EncodeStoredList(const std::vector<StoredVersion>& versions) { return Encode<kVersionBytes>(versions); }

absl::StatusOr<std::vector<StoredExtent>> DecodeExtentList(const PageBytes& bytes, PageId from) {
  const auto entries = Entries<kExtentBytes>(bytes, kExtentsPerList);
  if (!entries.ok()) return entries.status();
  std::vector<StoredExtent> extents(entries->second);
  for (size_t i = 0; i < extents.size(); ++i) {
    const std::byte* const in = entries->first + i * kExtentBytes;
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
  const auto entries = Entries<kVersionBytes>(bytes, kVersionsPerList);
  if (!entries.ok()) return entries.status();
  std::vector<StoredVersion> versions(entries->second);
  for (size_t i = 0; i < versions.size(); ++i) {
    const std::byte* const in = entries->first + i * kVersionBytes;
    StoredVersion& version = versions[i];
    version.page = GetPage(in);
    version.version = {Epoch(LoadLittle<uint64_t>(in + 16)), LoadLittle<uint64_t>(in + 24)};
    const auto is_unreadable = LoadLittle<uint8_t>(in + 32);
    version.is_unreadable = is_unreadable == 1;
    const bool is_page = version.page.value > 0 && version.page.value < kSpacePages;
    if (!is_page || is_unreadable > 1) return Bad("entry ", i, " is no page");
    if (version.page < (i == 0 ? from : versions[i - 1].page + 1)) return Bad("page ", i, " is out of order");
  }
  return versions;
}

}  // namespace mangrove
