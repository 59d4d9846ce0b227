#include "engine/store/page_record.h"

#include <xxhash.h>

#include <cstring>
#include <memory>
#include <string>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

constexpr char kMagic[4] = {'M', 'G', 'P', 'R'};
constexpr uint16_t kFormat = 1;

constexpr size_t kFormatAt = 4;
constexpr size_t kHeaderBytesAt = 6;
constexpr size_t kDataBytesAt = 8;
constexpr size_t kPageAt = 16;
constexpr size_t kEpochAt = 32;
constexpr size_t kCounterAt = 40;
constexpr size_t kConfigAt = 48;
constexpr size_t kHandleHighAt = 56;
constexpr size_t kHandleLowAt = 64;
constexpr size_t kDataSumAt = 72;
constexpr size_t kHeaderSumAt = 80;

absl::Status Corrupt(PageId page, std::string_view what) {
  return absl::DataLossError(absl::StrCat(
      "page ", ToString(page), ": the stored record is corrupt: ", absl::string_view(what.data(), what.size())));
}

// Fixed fields and the header's checksum. An empty answer: nothing is wrong.
std::string HeaderFault(PageId page, std::string_view value) {
  if (value.size() != kPageRecordBytes) return absl::StrCat(value.size(), " bytes, not ", kPageRecordBytes);
  const char* in = value.data();
  if (std::memcmp(in, kMagic, sizeof(kMagic)) != 0) return "no magic number";
  const uint64_t sum = XXH3_64bits(in, kHeaderSumAt);
  if (sum != GetLittleEndian<uint64_t>(in + kHeaderSumAt)) return "checksum of the header";
  const auto format = GetLittleEndian<uint16_t>(in + kFormatAt);
  if (format != kFormat) return absl::StrCat("format ", format, ", this program reads ", kFormat);
  if (GetLittleEndian<uint16_t>(in + kHeaderBytesAt) != kPageHeaderBytes) return "length of the header";
  if (GetLittleEndian<uint32_t>(in + kDataBytesAt) != kPageBytes) return "length of the data";
  const PageId stored(GetLittleEndian<absl::uint128>(in + kPageAt));
  if (stored != page) return absl::StrCat("it is that of page ", ToString(stored));
  return "";
}

}  // namespace

PageKey EncodePageKey(PageId page) {
  PageKey key;
  for (size_t i = 0; i < kPageKeyBytes; ++i) {
    key[kPageKeyBytes - 1 - i] = static_cast<char>(static_cast<uint8_t>(page.value >> (8 * i)));
  }
  return key;
}

PageHeader EncodePageHeader(const StoredPage& page) {
  CHECK(page.data != nullptr);
  PageHeader header{};
  char* out = header.data();
  std::memcpy(out, kMagic, sizeof(kMagic));
  PutLittleEndian<uint16_t>(kFormat, out + kFormatAt);
  PutLittleEndian<uint16_t>(kPageHeaderBytes, out + kHeaderBytesAt);
  PutLittleEndian<uint32_t>(kPageBytes, out + kDataBytesAt);
  PutLittleEndian<absl::uint128>(page.page.value, out + kPageAt);
  PutLittleEndian<uint64_t>(page.version.epoch.value, out + kEpochAt);
  PutLittleEndian<uint64_t>(page.version.counter, out + kCounterAt);
  PutLittleEndian<uint64_t>(page.config.value, out + kConfigAt);
  PutLittleEndian<uint64_t>(page.handle.high, out + kHandleHighAt);
  PutLittleEndian<uint64_t>(page.handle.low, out + kHandleLowAt);
  PutLittleEndian<uint64_t>(XXH3_64bits(page.data->bytes.data(), kPageBytes), out + kDataSumAt);
  PutLittleEndian<uint64_t>(XXH3_64bits(out, kHeaderSumAt), out + kHeaderSumAt);
  return header;
}

absl::StatusOr<StoredPage> DecodePageRecord(PageId page, std::string_view value, bool with_data) {
  const std::string fault = HeaderFault(page, value);
  if (!fault.empty()) return Corrupt(page, fault);
  const char* in = value.data();
  StoredPage stored;
  stored.page = page;
  stored.version = Version{Epoch(GetLittleEndian<uint64_t>(in + kEpochAt)), GetLittleEndian<uint64_t>(in + kCounterAt)};
  stored.config = ConfigNumber(GetLittleEndian<uint64_t>(in + kConfigAt));
  stored.handle.high = GetLittleEndian<uint64_t>(in + kHandleHighAt);
  stored.handle.low = GetLittleEndian<uint64_t>(in + kHandleLowAt);
  if (!with_data) return stored;
  const char* data = in + kPageHeaderBytes;
  if (XXH3_64bits(data, kPageBytes) != GetLittleEndian<uint64_t>(in + kDataSumAt)) {
    return Corrupt(page, "checksum of the data");
  }
  auto copy = std::make_shared<PageBytes>();
  std::memcpy(copy->bytes.data(), data, kPageBytes);
  stored.data = std::move(copy);
  return stored;
}

}  // namespace mangrove::store
