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
std::string HeaderFault(std::string_view header) {
  const char* in = header.data();
  if (std::memcmp(in, kMagic, sizeof(kMagic)) != 0) return "no magic number";
  const uint64_t sum = XXH3_64bits(in, kHeaderSumAt);
  if (sum != GetLittleEndian<uint64_t>(in + kHeaderSumAt)) return "checksum of the header";
  const auto format = GetLittleEndian<uint16_t>(in + kFormatAt);
  if (format != kFormat) return absl::StrCat("format ", format, ", this program reads ", kFormat);
  if (GetLittleEndian<uint16_t>(in + kHeaderBytesAt) != kPageHeaderBytes) return "length of the header";
  if (GetLittleEndian<uint32_t>(in + kDataBytesAt) != kPageBytes) return "length of the data";
  return "";
}

PageId PageIn(std::string_view header) { return PageId(GetLittleEndian<absl::uint128>(header.data() + kPageAt)); }

// A sound header without its data.
StoredPage DecodeHeader(std::string_view header) {
  const char* in = header.data();
  StoredPage stored;
  stored.page = PageIn(header);
  stored.version = Version{Epoch(GetLittleEndian<uint64_t>(in + kEpochAt)), GetLittleEndian<uint64_t>(in + kCounterAt)};
  stored.config = ConfigNumber(GetLittleEndian<uint64_t>(in + kConfigAt));
  stored.handle.high = GetLittleEndian<uint64_t>(in + kHandleHighAt);
  stored.handle.low = GetLittleEndian<uint64_t>(in + kHandleLowAt);
  return stored;
}

absl::StatusOr<StoredPage> AddData(StoredPage stored, std::string_view header, std::string_view data) {
  if (XXH3_64bits(data.data(), kPageBytes) != GetLittleEndian<uint64_t>(header.data() + kDataSumAt)) {
    return Corrupt(stored.page, "checksum of the data");
  }
  auto copy = NewPage();
  std::memcpy(copy->bytes.data(), data.data(), kPageBytes);
  stored.data = std::move(copy);
  return stored;
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
  if (value.size() != kPageRecordBytes)
    return Corrupt(page, absl::StrCat(value.size(), " bytes, not ", kPageRecordBytes));
  const std::string_view header = value.substr(0, kPageHeaderBytes);
  if (const std::string fault = HeaderFault(header); !fault.empty()) return Corrupt(page, fault);
  if (PageIn(header) != page) return Corrupt(page, absl::StrCat("it is that of page ", ToString(PageIn(header))));
  StoredPage stored = DecodeHeader(header);
  if (!with_data) return stored;
  return AddData(std::move(stored), header, value.substr(kPageHeaderBytes));
}

absl::StatusOr<StoredPage> DecodePageRecord(std::string_view header, std::string_view data) {
  if (header.size() != kPageHeaderBytes || data.size() != kPageBytes) {
    return absl::DataLossError(absl::StrCat("a page's record of ", header.size(), " and ", data.size(), " bytes"));
  }
  if (const std::string fault = HeaderFault(header); !fault.empty()) {
    return absl::DataLossError(absl::StrCat("a page's record is corrupt: ", fault));
  }
  return AddData(DecodeHeader(header), header, data);
}

}  // namespace mangrove::store
