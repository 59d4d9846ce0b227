#include "engine/store/rocks_db.h"

#include <rocksdb/write_batch.h>

#include <array>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/store/little_endian.h"
#include "engine/store/page_record.h"
#include "engine/store/rocks_open.h"
#include "engine/store/sealed_value.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

using rocksdb::Slice;

// Of so few pages each is deleted by itself: reads have to consider every range that was deleted.
constexpr uint64_t kPagesDeletedSingly = 8;

Slice ToSlice(std::string_view view) { return Slice(view.data(), view.size()); }

rocksdb::Status AddDelete(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const PageRange& range) {
  CHECK(range.first.value + range.count <= kSpacePages);
  if (range.count > kPagesDeletedSingly) {
    return out.DeleteRange(rocks.pages(), ToSlice(View(EncodePageKey(range.first))),
                           ToSlice(View(EncodePageKey(range.end()))));
  }
  for (uint64_t i = 0; i < range.count; ++i) {
    const auto status = out.Delete(rocks.pages(), ToSlice(View(EncodePageKey(range.first + i))));
    if (!status.ok()) return status;
  }
  return rocksdb::Status::OK();
}

rocksdb::Status AddPut(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const StoredPage& page) {
  CHECK(page.page.value < kSpacePages);
  const PageKey key = EncodePageKey(page.page);
  const PageHeader header = EncodePageHeader(page);
  const Slice key_part = ToSlice(View(key));
  const std::array<Slice, 2> value_parts = {
      Slice(header.data(), header.size()),
      Slice(reinterpret_cast<const char*>(page.data->bytes.data()), page.data->bytes.size())};
  return out.Put(rocks.pages(), rocksdb::SliceParts(&key_part, 1), rocksdb::SliceParts(value_parts.data(), 2));
}

rocksdb::Status AddRecord(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const StoreBatch::Record& record) {
  if (!record.value.has_value()) return out.Delete(rocks.records(), record.key);
  return out.Put(rocks.records(), record.key, EncodeRecordValue(record.key, *record.value));
}

// Where each page is put last. Puts before that need not be applied: the batches take effect at once.
using LastPuts = absl::flat_hash_map<PageId, const StoredPage*>;

LastPuts FindLastPuts(std::span<const StoreBatch* const> batches) {
  LastPuts last;
  for (const StoreBatch* batch : batches) {
    for (const StoredPage& page : batch->put_pages) last[page.page] = &page;
  }
  return last;
}

rocksdb::Status AddBatch(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const StoreBatch& batch,
                         const LastPuts& last_puts) {
  rocksdb::Status status;
  for (const PageRange& range : batch.delete_pages) {
    if (status.ok()) status = AddDelete(out, rocks, range);
  }
  for (const StoredPage& page : batch.put_pages) {
    if (status.ok() && last_puts.at(page.page) == &page) status = AddPut(out, rocks, page);
  }
  for (const StoreBatch::Record& record : batch.records) {
    if (status.ok()) status = AddRecord(out, rocks, record);
  }
  return status;
}

size_t BytesOf(std::span<const StoreBatch* const> batches, size_t puts) {
  constexpr size_t kPerEntryBytes = 64;
  size_t bytes = puts * (kPageRecordBytes + kPerEntryBytes);
  for (const StoreBatch* batch : batches) {
    bytes += batch->delete_pages.size() * kPerEntryBytes;
    for (const StoreBatch::Record& record : batch->records) {
      bytes += record.key.size() + (record.value ? record.value->size() : 0) + kPerEntryBytes;
    }
  }
  return bytes;
}

rocksdb::WriteOptions WithoutLog() {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  return options;
}

std::string EncodeNumber(uint64_t number) {
  std::string bytes(sizeof(number), '\0');
  PutLittleEndian<uint64_t>(number, bytes.data());
  return EncodeRecordValue(kAppliedKey, bytes);
}

// The first key after all that begin with `prefix`; empty if there is none.
std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

}  // namespace

struct RocksDb::Handles {
  std::string path;
  std::unique_ptr<OpenedRocks> rocks;
};

RocksDb::RocksDb(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {}
RocksDb::~RocksDb() = default;

absl::StatusOr<std::unique_ptr<RocksDb>> RocksDb::Open(const std::string& path, const RocksTuning& tuning) {
  auto opened = OpenRocks(path, tuning);
  if (!opened.ok()) return opened.status();
  auto handles = std::make_unique<Handles>();
  handles->path = path;
  handles->rocks = *std::move(opened);
  return std::unique_ptr<RocksDb>(new RocksDb(std::move(handles)));
}

absl::Status RocksDb::Apply(uint64_t number, std::span<const StoreBatch* const> batches) {
  const OpenedRocks& rocks = *handles_->rocks;
  const LastPuts last_puts = FindLastPuts(batches);
  rocksdb::WriteBatch merged(BytesOf(batches, last_puts.size()));
  rocksdb::Status status;
  for (const StoreBatch* batch : batches) {
    if (status.ok()) status = AddBatch(merged, rocks, *batch, last_puts);
  }
  if (status.ok()) status = merged.Put(rocks.meta(), ToSlice(kAppliedKey), EncodeNumber(number));
  if (status.ok()) status = rocks.db->Write(WithoutLog(), &merged);
  return Translate(status, absl::StrCat("store ", handles_->path, ": commit"));
}

absl::StatusOr<uint64_t> RocksDb::DurableGroup() const {
  const OpenedRocks& rocks = *handles_->rocks;
  rocksdb::ReadOptions options;
  options.read_tier = rocksdb::kPersistedTier;
  std::string value;
  const rocksdb::Status status = rocks.db->Get(options, rocks.meta(), ToSlice(kAppliedKey), &value);
  if (status.IsNotFound()) return 0;
  if (!status.ok()) return Translate(status, absl::StrCat("store ", handles_->path, ": place in the log"));
  const auto number = DecodeRecordValue(kAppliedKey, value);
  if (!number.ok()) return WithAdvice(number.status(), handles_->path);
  if (number->size() != sizeof(uint64_t)) return WithAdvice(CorruptRecord(kAppliedKey, "length"), handles_->path);
  return GetLittleEndian<uint64_t>(number->data());
}

absl::Status RocksDb::CheckBackground() const {
  uint64_t errors = 0;
  handles_->rocks->db->GetIntProperty(rocksdb::DB::Properties::kBackgroundErrors, &errors);
  if (errors == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("store ", handles_->path, ": tables could not be written, see the file LOG there"));
}

absl::Status RocksDb::StartFlush() {
  // One more would make the next change wait until it is done.
  uint64_t waiting = 0;
  handles_->rocks->db->GetIntProperty(handles_->rocks->meta(), rocksdb::DB::Properties::kNumImmutableMemTable,
                                      &waiting);
  if (waiting > 0) return absl::OkStatus();
  rocksdb::FlushOptions options;
  options.wait = false;
  // Otherwise it would wait until there is room for one more.
  options.allow_write_stall = true;
  return Translate(handles_->rocks->db->Flush(options, handles_->rocks->families),
                   absl::StrCat("store ", handles_->path, ": writing of tables"));
}

absl::Status RocksDb::Flush() {
  rocksdb::FlushOptions options;
  options.allow_write_stall = true;
  return Translate(handles_->rocks->db->Flush(options, handles_->rocks->families),
                   absl::StrCat("store ", handles_->path, ": writing of tables"));
}

absl::StatusOr<StoredPage> RocksDb::ReadPage(PageId page, bool with_data) const {
  const OpenedRocks& rocks = *handles_->rocks;
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      rocks.db->Get(rocksdb::ReadOptions(), rocks.pages(), ToSlice(View(EncodePageKey(page))), &value);
  if (status.IsNotFound()) return absl::NotFoundError(absl::StrCat("page ", ToString(page), " is not stored"));
  // Corrupt or unreadable is the same to the reader: this copy of the page is not to be had.
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat(
        "page ", ToString(page), ": the stored record cannot be read: ", Translate(status, handles_->path).message()));
  }
  return DecodePageRecord(page, std::string_view(value.data(), value.size()), with_data);
}

absl::StatusOr<RocksDb::Records> RocksDb::ReadRecords(std::string_view prefix) const {
  const OpenedRocks& rocks = *handles_->rocks;
  const std::string end = PrefixEnd(prefix);
  const Slice upper_bound = ToSlice(end);
  rocksdb::ReadOptions options;
  if (!end.empty()) options.iterate_upper_bound = &upper_bound;
  const std::unique_ptr<rocksdb::Iterator> it(rocks.db->NewIterator(options, rocks.records()));
  Records records;
  for (it->Seek(ToSlice(prefix)); it->Valid(); it->Next()) {
    const std::string_view key(it->key().data(), it->key().size());
    auto value = DecodeRecordValue(key, std::string_view(it->value().data(), it->value().size()));
    if (!value.ok()) return WithAdvice(value.status(), handles_->path);
    records.emplace_back(std::string(key), *std::move(value));
  }
  if (!it->status().ok()) return WithAdvice(CorruptRecord(prefix, it->status().ToString()), handles_->path);
  return records;
}

RocksSizes RocksDb::Sizes() const {
  const OpenedRocks& rocks = *handles_->rocks;
  RocksSizes sizes;
  uint64_t value = 0;
  if (rocks.db->GetIntProperty(rocks.pages(), rocksdb::DB::Properties::kEstimateNumKeys, &value)) sizes.pages = value;
  for (rocksdb::ColumnFamilyHandle* family : rocks.families) {
    for (const std::string& property :
         {rocksdb::DB::Properties::kTotalSstFilesSize, rocksdb::DB::Properties::kTotalBlobFileSize}) {
      if (rocks.db->GetIntProperty(family, property, &value)) sizes.bytes += value;
    }
    if (rocks.db->GetIntProperty(family, rocksdb::DB::Properties::kCurSizeAllMemTables, &value)) {
      sizes.memory_bytes += value;
    }
  }
  sizes.bytes += sizes.memory_bytes;
  return sizes;
}

absl::StatusOr<std::optional<std::string>> RocksDb::ReadStamp() const {
  const OpenedRocks& rocks = *handles_->rocks;
  std::string value;
  const rocksdb::Status status = rocks.db->Get(rocksdb::ReadOptions(), rocks.meta(), ToSlice(kStampKey), &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return Translate(status, absl::StrCat("store ", handles_->path, ": stamp"));
  return value;
}

absl::Status RocksDb::WriteStamp(std::string_view stamp) {
  const OpenedRocks& rocks = *handles_->rocks;
  const rocksdb::Status status = rocks.db->Put(WithoutLog(), rocks.meta(), ToSlice(kStampKey), ToSlice(stamp));
  if (!status.ok()) return Translate(status, absl::StrCat("store ", handles_->path, ": stamp"));
  return Flush();
}

absl::StatusOr<bool> RocksDb::Empty() const {
  const OpenedRocks& rocks = *handles_->rocks;
  for (rocksdb::ColumnFamilyHandle* family : rocks.families) {
    const std::unique_ptr<rocksdb::Iterator> it(rocks.db->NewIterator(rocksdb::ReadOptions(), family));
    it->SeekToFirst();
    if (it->Valid()) return false;
    if (!it->status().ok()) return Translate(it->status(), absl::StrCat("store ", handles_->path, ": scan"));
  }
  return true;
}

}  // namespace mangrove::store
