// Small values with a checksum: the store's own stamp, and the records that its users keep.
//
// Integers are little endian. Value of a record:
//   offset  bytes  what
//        0      1  format version, 1
//        1      8  XXH3-64 of the user's value, seeded with the XXH3-64 of the key
//        9         the user's value
//
// The stamp, 48 bytes, under the key "mangrove.stamp"; it says whose store this is:
//   offset  bytes  what
//        0      4  magic "MGST"
//        4      4  format version of the whole store, 3
//        8     16  cluster: high 8 bytes, then low 8 bytes
//       24      8  node
//       32      8  salt of the log (log_group.h)
//       40      8  XXH3-64 of the bytes 0 to 39
//
// Under "mangrove.applied", as a record, 24 bytes: up to where the log is applied: number of the last group, and segment
// and block behind it. Under "mangrove.segment/" and the segment's number in 12 digits, as a record, 16 bytes: the number,
// and the blocks of its groups; of each segment behind which there is another, and that something may refer to.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/ids.h"

namespace mangrove::store {

std::string EncodeRecordValue(std::string_view key, std::string_view value);
// Total: the user's value, or DataLoss that names the key.
absl::StatusOr<std::string> DecodeRecordValue(std::string_view key, std::string_view stored);
// DataLoss that names the key.
absl::Status CorruptRecord(std::string_view key, std::string_view what);

// The format of everything in a store. A store of another one is not opened.
constexpr uint32_t kStoreFormat = 4;
constexpr std::string_view kStampKey = "mangrove.stamp";
constexpr std::string_view kAppliedKey = "mangrove.applied";
constexpr std::string_view kSegmentPrefix = "mangrove.segment/";

struct StoreStamp {
  uint32_t format = kStoreFormat;
  ClusterId cluster;
  NodeId node;
  uint64_t log_salt = 0;
  friend constexpr bool operator==(const StoreStamp&, const StoreStamp&) = default;
};

std::string EncodeStamp(const StoreStamp& stamp);
// Total: the stamp, or DataLoss. Of another format, the format alone.
absl::StatusOr<StoreStamp> DecodeStamp(std::string_view stored);
// FailedPrecondition that names both sides if a store with the stamp `found` is not to be opened as `wanted`, whose salt
// does not matter.
absl::Status CheckStamp(std::string_view path, const StoreStamp& found, const StoreStamp& wanted);

}  // namespace mangrove::store
