#include "engine/store/rocks_db.h"

#include <rocksdb/write_batch.h>

#include <array>

#include "absl/strings/str_cat.h"
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

rocksdb::Status AddBatch(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const StoreBatch& batch) {
  rocksdb::Status status;
  for (const PageRange& range : batch.delete_pages) {
    if (status.ok()) status = AddDelete(out, rocks, range);
  }
  for (const StoredPage& page : batch.put_pages) {
    if (status.ok()) status = AddPut(out, rocks, page);
  }
  for (const StoreBatch::Record& record : batch.records) {
    if (status.ok()) status = AddRecord(out, rocks, record);
  }
  return status;
}

size_t BytesOf(std::span<const StoreBatch* const> batches) {
  constexpr size_t kPerEntryBytes = 64;
  size_t bytes = 0;
  for (const StoreBatch* batch : batches) {
    bytes +=
        batch->put_pages.size() * (kPageRecordBytes + kPerEntryBytes) + batch->delete_pages.size() * kPerEntryBytes;
    for (const StoreBatch::Record& record : batch->records) {
      bytes += record.key.size() + (record.value ? record.value->size() : 0) + kPerEntryBytes;
    }
  }
  return bytes;
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

absl::Status RocksDb::Write(std::span<const StoreBatch* const> batches) {
  const OpenedRocks& rocks = *handles_->rocks;
  rocksdb::WriteBatch merged(BytesOf(batches));
  rocksdb::Status status;
  for (const StoreBatch* batch : batches) {
    if (status.ok()) status = AddBatch(merged, rocks, *batch);
  }
  if (status.ok()) {
    rocksdb::WriteOptions options;
    options.sync = true;
    status = rocks.db->Write(options, &merged);
  }
  return Translate(status, absl::StrCat("store ", handles_->path, ": commit"));
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
         {rocksdb::DB::Properties::kTotalSstFilesSize, rocksdb::DB::Properties::kTotalBlobFileSize,
          rocksdb::DB::Properties::kCurSizeAllMemTables}) {
      if (rocks.db->GetIntProperty(family, property, &value)) sizes.bytes += value;
    }
  }
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
  rocksdb::WriteOptions options;
  options.sync = true;
  return Translate(rocks.db->Put(options, rocks.meta(), ToSlice(kStampKey), ToSlice(stamp)),
                   absl::StrCat("store ", handles_->path, ": stamp"));
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
