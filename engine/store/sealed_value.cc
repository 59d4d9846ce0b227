#include "engine/store/sealed_value.h"

#include <xxhash.h>

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/store/little_endian.h"

namespace mangrove::store {
namespace {

constexpr uint8_t kRecordFormat = 1;
constexpr size_t kRecordSumAt = 1;
constexpr size_t kRecordPrefixBytes = 9;

constexpr char kStampMagic[4] = {'M', 'G', 'S', 'T'};
constexpr size_t kStampHeadBytes = 8;
constexpr size_t kStampSumAt = 40;
constexpr size_t kStampBytes = 48;

uint64_t RecordSum(std::string_view key, std::string_view value) {
  return XXH3_64bits_withSeed(value.data(), value.size(), XXH3_64bits(key.data(), key.size()));
}

std::string ClusterName(const ClusterId& cluster) { return absl::StrFormat("%016x%016x", cluster.high, cluster.low); }

std::string Describe(const StoreStamp& stamp) {
  return absl::StrCat(ToString(stamp.node), " of cluster ", ClusterName(stamp.cluster));
}

}  // namespace

std::string EncodeRecordValue(std::string_view key, std::string_view value) {
  std::string stored(kRecordPrefixBytes, '\0');
  stored[0] = static_cast<char>(kRecordFormat);
  PutLittleEndian<uint64_t>(RecordSum(key, value), stored.data() + kRecordSumAt);
  stored.append(value);
  return stored;
}

absl::StatusOr<std::string> DecodeRecordValue(std::string_view key, std::string_view stored) {
  if (stored.size() < kRecordPrefixBytes) return CorruptRecord(key, "truncated");
  const auto format = static_cast<uint8_t>(stored[0]);
  if (format != kRecordFormat) return CorruptRecord(key, absl::StrCat("format ", format));
  const std::string_view value = stored.substr(kRecordPrefixBytes);
  if (RecordSum(key, value) != GetLittleEndian<uint64_t>(stored.data() + kRecordSumAt)) {
    return CorruptRecord(key, "checksum");
  }
  return std::string(value);
}

absl::Status CorruptRecord(std::string_view key, std::string_view what) {
  return absl::DataLossError(
      absl::StrCat("record \"", absl::CHexEscape(absl::string_view(key.data(), key.size())),
                   "\": what is stored is corrupt: ", absl::string_view(what.data(), what.size())));
}

std::string EncodeStamp(const StoreStamp& stamp) {
  std::string stored(kStampBytes, '\0');
  char* out = stored.data();
  std::memcpy(out, kStampMagic, sizeof(kStampMagic));
  PutLittleEndian<uint32_t>(stamp.format, out + 4);
  PutLittleEndian<uint64_t>(stamp.cluster.high, out + 8);
  PutLittleEndian<uint64_t>(stamp.cluster.low, out + 16);
  PutLittleEndian<uint64_t>(stamp.node.value, out + 24);
  PutLittleEndian<uint64_t>(stamp.log_salt, out + 32);
  PutLittleEndian<uint64_t>(XXH3_64bits(out, kStampSumAt), out + kStampSumAt);
  return stored;
}

absl::StatusOr<StoreStamp> DecodeStamp(std::string_view stored) {
  const char* in = stored.data();
  StoreStamp stamp;
  if (stored.size() < kStampHeadBytes || std::memcmp(in, kStampMagic, sizeof(kStampMagic)) != 0) {
    return CorruptRecord(kStampKey, "length or magic number");
  }
  stamp.format = GetLittleEndian<uint32_t>(in + 4);
  // What follows is known of one's own format only.
  if (stamp.format != kStoreFormat) return stamp;
  if (stored.size() != kStampBytes || XXH3_64bits(in, kStampSumAt) != GetLittleEndian<uint64_t>(in + kStampSumAt)) {
    return CorruptRecord(kStampKey, "length or checksum");
  }
  stamp.cluster.high = GetLittleEndian<uint64_t>(in + 8);
  stamp.cluster.low = GetLittleEndian<uint64_t>(in + 16);
  stamp.node = NodeId(GetLittleEndian<uint64_t>(in + 24));
  stamp.log_salt = GetLittleEndian<uint64_t>(in + 32);
  return stamp;
}

absl::Status CheckStamp(std::string_view path, const StoreStamp& found, const StoreStamp& wanted) {
  const absl::string_view where(path.data(), path.size());
  if (found.format != wanted.format) {
    return absl::FailedPreconditionError(absl::StrCat("store ", where, " has format ", found.format,
                                                      "; this program reads and writes format ", wanted.format));
  }
  if (found.cluster == wanted.cluster && found.node == wanted.node) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("store ", where, " belongs to ", Describe(found), ", not to ",
                                                    Describe(wanted),
                                                    "; give this node the path of its own store, or an empty one"));
}

}  // namespace mangrove::store
