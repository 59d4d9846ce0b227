// RocksDB as the store uses it: blocking calls, our types, our errors.
//
// Three column families: "default" holds the stamp and how far the log is applied, "pages" the pages (page_record.h),
// "records" the small records (sealed_value.h). What is applied is in memory, and durable later, in the order of the
// groups and over all families at once: its log is ours (commit_log.h), not RocksDB's.

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
  // Of the log: so much is replayed after a crash, more only while tables cannot be written as fast as the log.
  size_t log_bytes = size_t{64} << 20;
};

struct RocksSizes {
  uint64_t pages = 0;  // An estimate: a page written again counts twice until the store has merged the two.
  uint64_t bytes = 0;
  uint64_t memory_bytes = 0;  // Of these, what is not in files yet.
};

// Thread-safe.
class RocksDb {
 public:
  using Records = std::vector<std::pair<std::string, std::string>>;

  // Creates the database if there is none. FailedPrecondition: another process has it open, or it is no store of ours.
  // DataLoss: it is corrupt, so that not everything that was committed can be there.
  static absl::StatusOr<std::unique_ptr<RocksDb>> Open(const std::string& path, const RocksTuning& tuning);
  ~RocksDb();

  // Applies the batches in their order, as one atomic change, which is that of group `number` of the log.
  absl::Status Apply(uint64_t number, std::span<const StoreBatch* const> batches);

  // The last group that is applied durably; 0: none.
  absl::StatusOr<uint64_t> DurableGroup() const;
  // INTERNAL: tables could not be written, and will not be.
  absl::Status CheckBackground() const;
  // Begins to make durable what is applied, unless that is going on. Does not wait.
  absl::Status StartFlush();
  // Makes durable what is applied.
  absl::Status Flush();

  absl::StatusOr<StoredPage> ReadPage(PageId page, bool with_data) const;
  absl::StatusOr<Records> ReadRecords(std::string_view prefix) const;
  RocksSizes Sizes() const;

  // Empty: there is none.
  absl::StatusOr<std::optional<std::string>> ReadStamp() const;
  // Durable when it returns OK.
  absl::Status WriteStamp(std::string_view stamp);
  // True if there are neither pages nor records.
  absl::StatusOr<bool> Empty() const;

 private:
  struct Handles;
  explicit RocksDb(std::unique_ptr<Handles> handles);

  std::unique_ptr<Handles> handles_;
};

}  // namespace mangrove::store
