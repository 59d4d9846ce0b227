// RocksDB as the store uses it: blocking calls, our types, our errors.
//
// Three column families: "default" holds the stamp, "pages" the pages (page_record.h), "records" the small records
// (sealed_value.h). One log for all, so that a batch is applied whole.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"

namespace mangrove::store {

// The defaults are measured, see docs/STORE.md.
struct RocksTuning {
  size_t block_cache_bytes = size_t{8} << 20;
  // Of page data not yet in its file; there are up to three such buffers.
  size_t write_buffer_bytes = size_t{8} << 20;
  // Page data in files of its own, where compaction neither rewrites nor reads it.
  bool blob_files = true;
  // Zeros are written ahead of the log, see log_file.h.
  bool prewrite_log = true;
  // The log that is replayed at a start, at most.
  size_t log_bytes = size_t{64} << 20;
};

struct RocksSizes {
  uint64_t pages = 0;  // An estimate: a page written again counts twice until the store has merged the two.
  uint64_t bytes = 0;
};

// Thread-safe.
class RocksDb {
 public:
  using Records = std::vector<std::pair<std::string, std::string>>;

  // Creates the database if there is none. FailedPrecondition: another process has it open, or it is no store of ours.
  // DataLoss: it is corrupt, so that not everything that was committed can be there. A commit that was being written
  // when the machine died is dropped.
  static absl::StatusOr<std::unique_ptr<RocksDb>> Open(const std::string& path, const RocksTuning& tuning);
  ~RocksDb();

  // Applies the batches in their order, as one atomic write, and returns when it is durable.
  absl::Status Write(std::span<const StoreBatch* const> batches);

  absl::StatusOr<StoredPage> ReadPage(PageId page, bool with_data) const;
  absl::StatusOr<Records> ReadRecords(std::string_view prefix) const;
  RocksSizes Sizes() const;

  // Empty: there is none.
  absl::StatusOr<std::optional<std::string>> ReadStamp() const;
  absl::Status WriteStamp(std::string_view stamp);
  // True if there are neither pages nor records.
  absl::StatusOr<bool> Empty() const;

 private:
  struct Handles;
  explicit RocksDb(std::unique_ptr<Handles> handles);

  std::unique_ptr<Handles> handles_;
};

}  // namespace mangrove::store
