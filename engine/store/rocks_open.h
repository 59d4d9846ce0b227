// Opening RocksDB: its options, and its errors in our words. Includes RocksDB's headers; for rocks_db.cc only.

#pragma once

#include <rocksdb/db.h>
#include <rocksdb/listener.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/store/live_pages.h"
#include "engine/store/rocks_db.h"

namespace mangrove::store {

// Keeps the first error of what RocksDB does by itself. Thread-safe.
class BackgroundError final : public rocksdb::EventListener {
 public:
  // Before RocksDB counts the error.
  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* status) override;
  rocksdb::Status first() const;

 private:
  mutable std::mutex mutex_;
  rocksdb::Status first_;  // Guarded by mutex_.
};

// An open database. Closes it.
struct OpenedRocks {
  OpenedRocks() = default;
  OpenedRocks(const OpenedRocks&) = delete;
  OpenedRocks& operator=(const OpenedRocks&) = delete;
  ~OpenedRocks();

  const std::shared_ptr<BackgroundError> background_error = std::make_shared<BackgroundError>();
  std::unique_ptr<rocksdb::DB> db;
  // In the order of their names below.
  std::vector<rocksdb::ColumnFamilyHandle*> families;

  rocksdb::ColumnFamilyHandle* meta() const { return families[0]; }
  rocksdb::ColumnFamilyHandle* pages() const { return families[1]; }
  rocksdb::ColumnFamilyHandle* records() const { return families[2]; }
};

constexpr const char* kPagesFamily = "pages";
constexpr const char* kRecordsFamily = "records";

// Counts in `live` what the tables refer to, from the start on and as long as it is open.
absl::StatusOr<std::unique_ptr<OpenedRocks>> OpenRocks(const std::string& path, const RocksTuning& tuning,
                                                       LivePages* live);

// The only place where RocksDB's errors become ours. `what` was being done, to what: "store /x: commit".
absl::Status Translate(const rocksdb::Status& status, std::string_view what);

}  // namespace mangrove::store
