#include "engine/store/rocks_open.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "engine/store/rocks_counting.h"
#include "engine/store/rocks_log.h"
#include "engine/store/store_directory.h"

namespace mangrove::store {
namespace {

using rocksdb::ColumnFamilyDescriptor;
using rocksdb::ColumnFamilyOptions;
using rocksdb::DBOptions;

DBOptions MakeDbOptions() {
  DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  // The log is ours. Tables that are written then are those of all families up to the same group.
  options.atomic_flush = true;
  // A failed write poisons the store, so nothing is to be resumed.
  options.max_bgerror_resume_count = 0;

  // Flushed files reach the disk as they are written, not in one burst that delays the log's syncs.
  options.bytes_per_sync = uint64_t{1} << 20;
  // The store says when.
  options.avoid_flush_during_shutdown = true;
  options.avoid_unnecessary_blocking_io = true;

  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log = std::make_shared<RocksLog>();
  options.max_manifest_file_size = uint64_t{16} << 20;
  return options;
}

rocksdb::BlockBasedTableOptions MakeTableOptions(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // Indexes and filters are in the cache's bound, a part at a time.
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  return table;
}

ColumnFamilyOptions MakeFamilyOptions(const std::shared_ptr<rocksdb::Cache>& cache, size_t write_buffer_bytes) {
  ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = write_buffer_bytes;
  options.max_write_buffer_number = 2;
  options.level_compaction_dynamic_level_bytes = true;
  options.target_file_size_base = uint64_t{8} << 20;
  options.max_bytes_for_level_base = uint64_t{32} << 20;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(MakeTableOptions(cache)));
  return options;
}

// Garbage in the log is seen when tables are merged (live_pages.h), so they are merged early; they are small beside it.
ColumnFamilyOptions MakePagesOptions(const std::shared_ptr<rocksdb::Cache>& cache, const RocksTuning& tuning) {
  ColumnFamilyOptions options = MakeFamilyOptions(cache, tuning.write_buffer_bytes);
  options.level0_file_num_compaction_trigger = 2;
  options.level0_slowdown_writes_trigger = 6;
  options.level0_stop_writes_trigger = 8;
  options.max_bytes_for_level_base = uint64_t{8} << 20;
  options.table_properties_collector_factories.push_back(MakePageCounter());
  // Until the tables that are there are counted.
  options.disable_auto_compactions = true;
  return options;
}

std::vector<ColumnFamilyDescriptor> MakeFamilies(const RocksTuning& tuning) {
  const auto cache = rocksdb::NewLRUCache(tuning.block_cache_bytes);
  const size_t small_buffer_bytes = size_t{2} << 20;
  return {ColumnFamilyDescriptor(rocksdb::kDefaultColumnFamilyName, MakeFamilyOptions(cache, small_buffer_bytes)),
          ColumnFamilyDescriptor(kPagesFamily, MakePagesOptions(cache, tuning)),
          ColumnFamilyDescriptor(kRecordsFamily, MakeFamilyOptions(cache, small_buffer_bytes))};
}

rocksdb::Status CountTables(const OpenedRocks& opened, LivePages* live) {
  rocksdb::TablePropertiesCollection tables;
  const rocksdb::Status status = opened.db->GetPropertiesOfAllTables(opened.pages(), &tables);
  if (!status.ok()) return status;
  live->Clear();
  for (const auto& [file, properties] : tables) {
    const auto counts = CountsOf(*properties);
    if (counts.has_value()) live->Add(*counts);
    if (counts.has_value() || properties->num_entries == 0) continue;
    spdlog::warn("store: {} was written by another program: no space is taken back before the start after it is merged",
                 file);
    live->SetUnknown();
  }
  return opened.db->EnableAutoCompaction({opened.pages()});
}

}  // namespace

void BackgroundError::OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* status) {
  const std::lock_guard lock(mutex_);
  if (first_.ok()) first_ = *status;
}

rocksdb::Status BackgroundError::first() const {
  const std::lock_guard lock(mutex_);
  return first_;
}

OpenedRocks::~OpenedRocks() {
  if (db == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* family : families) db->DestroyColumnFamilyHandle(family);
  const rocksdb::Status status = db->Close();
  // Everything that was acknowledged is in the log.
  if (!status.ok()) spdlog::warn("store {}: close: {}", db->GetName(), status.ToString());
}

absl::StatusOr<std::unique_ptr<OpenedRocks>> OpenRocks(const std::string& path, const RocksTuning& tuning,
                                                       LivePages* live) {
  auto opened = std::make_unique<OpenedRocks>();
  DBOptions options = MakeDbOptions();
  options.listeners.push_back(MakeCountListener(kPagesFamily, live));
  options.listeners.push_back(opened->background_error);
  rocksdb::DB* db = nullptr;
  auto status = rocksdb::DB::Open(options, path, MakeFamilies(tuning), &opened->families, &db);
  opened->db.reset(db);
  if (status.ok()) status = CountTables(*opened, live);
  if (status.ok()) return opened;
  const absl::Status error = Translate(status, absl::StrCat("store ", path, ": open"));
  return absl::IsDataLoss(error) ? WithAdvice(error, path) : error;
}

absl::Status Translate(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(absl::string_view(what.data(), what.size()), ": ", status.ToString());
  if (status.IsNotFound()) return absl::NotFoundError(text);
  if (status.IsCorruption()) return absl::DataLossError(text);
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(text);
  if (status.IsInvalidArgument()) return absl::FailedPreconditionError(text);
  // RocksDB has no code for this one.
  if (status.IsIOError() && text.find("lock ") != std::string::npos) {
    return absl::FailedPreconditionError(absl::StrCat(text, "; another process has it open: stop that one first"));
  }
  return absl::InternalError(text);
}

}  // namespace mangrove::store
