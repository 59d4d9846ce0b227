// What a crash did to the log, found out before RocksDB replays it.
//
// RocksDB cannot tell a commit that was being written when the machine died from one that the disk has damaged since: by
// its options it either refuses both, or drops both and with the damaged one all that follow. But the store has one write
// on its way at a time, and nobody was told about that one. So:
//
//  L1  Bytes behind the last whole record that hold no beginning of a further record are the unfinished write: cut off.
//  L2  Such bytes with the beginning of a sound record anywhere behind them, in this log or a later one, are damage:
//      commits that were acknowledged cannot be read, and the store is not opened.
//  L3  Zeros to the end of a log are space that was not used.
//
// The last write before a crash, damaged afterwards, looks like an unfinished one: the one case that L1 gets wrong.
//
// Format of the log (RocksDB's, since LevelDB): blocks of 32 KiB; in these, records of {CRC-32C of type and payload,
// masked, 4 bytes; length of the payload, 2 bytes; type, 1 byte; payload}, all little endian; types 1: whole, 2: first,
// 3: middle, 4: last part. Less than 7 bytes left in a block are zeros.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mangrove::store {

struct LogScan {
  // Behind the last whole record.
  uint64_t sound_end = 0;
  // There are bytes behind it, not only zeros.
  bool garbage = false;
  // Where sound records begin again behind garbage or zeros.
  std::optional<uint64_t> resumes_at;
  // Whether there is a whole record.
  bool any = false;
};

// INTERNAL: the file cannot be read.
absl::StatusOr<LogScan> ScanLog(const std::string& file);

// Cuts unfinished writes off the logs in the directory `path` (L1); those of a store that is not there are none.
// DataLoss that names the file and the offset for L2.
absl::Status RepairLogs(const std::string& path);

// For tests: CRC-32C, not masked.
uint32_t Crc32c(std::string_view bytes);

}  // namespace mangrove::store
