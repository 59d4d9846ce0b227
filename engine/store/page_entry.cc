#include "engine/store/page_entry.h"

#include <xxhash.h>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

constexpr size_t kCounterAt = 8;
constexpr size_t kConfigAt = 16;
constexpr size_t kHandleHighAt = 24;
constexpr size_t kHandleLowAt = 32;
constexpr size_t kDataSumAt = 40;
constexpr size_t kPlaceAt = 48;
constexpr size_t kSumAt = 56;

constexpr size_t kPageNumberBytes = 16;

void PutFields(const PageEntry& entry, char* out) {
  PutLittleEndian<uint64_t>(entry.version.epoch.value, out);
  PutLittleEndian<uint64_t>(entry.version.counter, out + kCounterAt);
  PutLittleEndian<uint64_t>(entry.config.value, out + kConfigAt);
  PutLittleEndian<uint64_t>(entry.handle.high, out + kHandleHighAt);
  PutLittleEndian<uint64_t>(entry.handle.low, out + kHandleLowAt);
  PutLittleEndian<uint64_t>(entry.data_sum, out + kDataSumAt);
}

PageEntry GetFields(PageId page, const char* in) {
  PageEntry entry;
  entry.page = page;
  entry.version = Version{Epoch(GetLittleEndian<uint64_t>(in)), GetLittleEndian<uint64_t>(in + kCounterAt)};
  entry.config = ConfigNumber(GetLittleEndian<uint64_t>(in + kConfigAt));
  entry.handle.high = GetLittleEndian<uint64_t>(in + kHandleHighAt);
  entry.handle.low = GetLittleEndian<uint64_t>(in + kHandleLowAt);
  entry.data_sum = GetLittleEndian<uint64_t>(in + kDataSumAt);
  return entry;
}

uint64_t SumOf(PageId page, const char* value) {
  const PageKey key = EncodePageKey(page);
  return XXH3_64bits_withSeed(value, kSumAt, XXH3_64bits(key.data(), key.size()));
}

}  // namespace

PageKey EncodePageKey(PageId page) {
  PageKey key;
  for (size_t i = 0; i < kPageKeyBytes; ++i) {
    key[kPageKeyBytes - 1 - i] = static_cast<char>(static_cast<uint8_t>(page.value >> (8 * i)));
  }
  return key;
}

std::optional<PageId> DecodePageKey(std::string_view key) {
  if (key.size() != kPageKeyBytes) return std::nullopt;
  absl::uint128 number = 0;
  for (const char byte : key) number = number << 8 | static_cast<uint8_t>(byte);
  return PageId(number);
}

uint64_t DataSum(const void* data) { return XXH3_64bits(data, kPageBytes); }

IndexValue EncodeIndexValue(const PageEntry& entry) {
  CHECK(entry.place.block < PagePlace::kMaxBlocks);
  IndexValue value;
  PutFields(entry, value.data());
  PutLittleEndian<uint64_t>(entry.place.segment * PagePlace::kMaxBlocks + entry.place.block, value.data() + kPlaceAt);
  PutLittleEndian<uint64_t>(SumOf(entry.page, value.data()), value.data() + kSumAt);
  return value;
}

absl::StatusOr<PageEntry> DecodeIndexValue(PageId page, std::string_view value) {
  if (value.size() != kIndexValueBytes) {
    return CorruptPage(page, absl::StrCat(value.size(), " bytes, not ", kIndexValueBytes));
  }
  if (SumOf(page, value.data()) != GetLittleEndian<uint64_t>(value.data() + kSumAt)) {
    return CorruptPage(page, "checksum of the entry");
  }
  PageEntry entry = GetFields(page, value.data());
  const auto place = GetLittleEndian<uint64_t>(value.data() + kPlaceAt);
  entry.place = {place / PagePlace::kMaxBlocks, place % PagePlace::kMaxBlocks};
  return entry;
}

uint64_t SegmentOf(std::string_view value) {
  if (value.size() != kIndexValueBytes) return 0;
  return GetLittleEndian<uint64_t>(value.data() + kPlaceAt) / PagePlace::kMaxBlocks;
}

void EncodeLogEntry(const PageEntry& entry, char* out) {
  PutLittleEndian<absl::uint128>(entry.page.value, out);
  PutFields(entry, out + kPageNumberBytes);
}

PageEntry DecodeLogEntry(const char* in) {
  return GetFields(PageId(GetLittleEndian<absl::uint128>(in)), in + kPageNumberBytes);
}

StoredPage HeaderOf(const PageEntry& entry) {
  return {.page = entry.page, .version = entry.version, .config = entry.config, .handle = entry.handle};
}

absl::Status CorruptPage(PageId page, std::string_view what) {
  return absl::DataLossError(absl::StrCat(
      "page ", ToString(page), ": the stored record is corrupt: ", absl::string_view(what.data(), what.size())));
}

}  // namespace mangrove::store
