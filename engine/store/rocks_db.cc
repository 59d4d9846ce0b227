#include "engine/store/rocks_db.h"

#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/store/little_endian.h"
#include "engine/store/page_entry.h"
#include "engine/store/rocks_open.h"
#include "engine/store/sealed_value.h"
#include "engine/store/store_directory.h"
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

rocksdb::Status AddPut(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const PageEntry& entry) {
  CHECK(entry.page.value < kSpacePages);
  const PageKey key = EncodePageKey(entry.page);
  const IndexValue value = EncodeIndexValue(entry);
  return out.Put(rocks.pages(), ToSlice(View(key)), Slice(value.data(), value.size()));
}

rocksdb::Status AddRecord(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const StoreBatch::Record& record) {
  if (!record.value.has_value()) return out.Delete(rocks.records(), record.key);
  return out.Put(rocks.records(), record.key, EncodeRecordValue(record.key, *record.value));
}

// Where each page is put last. Puts before that need not be applied: the changes take effect at once.
using LastPuts = absl::flat_hash_map<PageId, const PageEntry*>;

LastPuts FindLastPuts(std::span<const IndexChange* const> changes) {
  LastPuts last;
  for (const IndexChange* change : changes) {
    for (const PageEntry& entry : change->put_pages) last[entry.page] = &entry;
  }
  return last;
}

rocksdb::Status AddChange(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const IndexChange& change,
                          const LastPuts& last_puts) {
  rocksdb::Status status;
  for (const PageRange& range : change.delete_pages) {
    if (status.ok()) status = AddDelete(out, rocks, range);
  }
  for (const PageEntry& entry : change.put_pages) {
    if (status.ok() && last_puts.at(entry.page) == &entry) status = AddPut(out, rocks, entry);
  }
  for (const StoreBatch::Record& record : change.records) {
    if (status.ok()) status = AddRecord(out, rocks, record);
  }
  return status;
}

rocksdb::WriteOptions WithoutLog() {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  return options;
}

// Values of the family "default" are records of 8-byte integers.
template <size_t n>
std::string EncodeIntegers(std::string_view key, const std::array<uint64_t, n>& integers) {
  std::string bytes(n * sizeof(uint64_t), '\0');
  for (size_t i = 0; i < n; ++i) PutLittleEndian<uint64_t>(integers[i], bytes.data() + i * sizeof(uint64_t));
  return EncodeRecordValue(key, bytes);
}

template <size_t n>
absl::StatusOr<std::array<uint64_t, n>> DecodeIntegers(std::string_view key, std::string_view value) {
  const auto bytes = DecodeRecordValue(key, value);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() != n * sizeof(uint64_t)) return CorruptRecord(key, "length");
  std::array<uint64_t, n> integers;
  for (size_t i = 0; i < n; ++i) integers[i] = GetLittleEndian<uint64_t>(bytes->data() + i * sizeof(uint64_t));
  return integers;
}

// Reads of what is durable.
rocksdb::ReadOptions FromTables() {
  rocksdb::ReadOptions options;
  options.read_tier = rocksdb::kPersistedTier;
  return options;
}

std::string SegmentKey(uint64_t segment) { return absl::StrFormat("%s%012d", kSegmentPrefix, segment); }

rocksdb::Status AddSegments(rocksdb::WriteBatch& out, const OpenedRocks& rocks, const IndexUpdate& update) {
  rocksdb::Status status;
  for (const SealedSegment& sealed : update.sealed) {
    const std::string key = SegmentKey(sealed.segment);
    if (status.ok()) status = out.Put(rocks.meta(), key, EncodeIntegers<2>(key, {sealed.segment, sealed.blocks}));
  }
  for (const uint64_t segment : update.emptied) {
    if (status.ok()) status = out.Delete(rocks.meta(), SegmentKey(segment));
  }
  const LogPosition& to = update.position;
  if (!status.ok()) return status;
  return out.Put(rocks.meta(), ToSlice(kAppliedKey),
                 EncodeIntegers<3>(kAppliedKey, {to.number, to.end.segment, to.end.block}));
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
  LivePages live;  // Outlives the database, which counts.
  std::atomic<bool> unflushed{false};
  std::unique_ptr<OpenedRocks> rocks;

  // What was found of `page`.
  absl::StatusOr<PageEntry> EntryOf(PageId page, const rocksdb::Status& status, const Slice& value) const {
    if (status.IsNotFound()) return absl::NotFoundError(absl::StrCat("page ", ToString(page), " is not stored"));
    // Corrupt or unreadable is the same to the reader: this copy of the page is not to be had.
    if (!status.ok()) {
      return absl::DataLossError(absl::StrCat(
          "page ", ToString(page), ": the stored record cannot be read: ", Translate(status, path).message()));
    }
    return DecodeIndexValue(page, std::string_view(value.data(), value.size()));
  }
};

RocksDb::RocksDb(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {}
RocksDb::~RocksDb() = default;

absl::StatusOr<std::unique_ptr<RocksDb>> RocksDb::Open(const std::string& path, const RocksTuning& tuning,
                                                       std::function<void()> on_tables) {
  auto handles = std::make_unique<Handles>();
  handles->path = path;
  handles->live.on_change = std::move(on_tables);
  auto opened = OpenRocks(path, tuning, &handles->live);
  if (!opened.ok()) return opened.status();
  handles->rocks = *std::move(opened);
  return std::unique_ptr<RocksDb>(new RocksDb(std::move(handles)));
}

absl::Status RocksDb::Apply(const IndexUpdate& update) {
  const OpenedRocks& rocks = *handles_->rocks;
  const LastPuts last_puts = FindLastPuts(update.changes);
  constexpr size_t kPerPageBytes = kPageKeyBytes + kIndexValueBytes + 8;
  rocksdb::WriteBatch merged(last_puts.size() * kPerPageBytes);
  rocksdb::Status status;
  for (const IndexChange* change : update.changes) {
    if (status.ok()) status = AddChange(merged, rocks, *change, last_puts);
  }
  if (status.ok()) status = AddSegments(merged, rocks, update);
  if (status.ok()) status = rocks.db->Write(WithoutLog(), &merged);
  handles_->unflushed = true;  // Afterwards: a flush that began meanwhile may have been without it.
  return Translate(status, absl::StrCat("store ", handles_->path, ": commit"));
}

absl::StatusOr<LogPosition> RocksDb::DurablePosition() const {
  const OpenedRocks& rocks = *handles_->rocks;
  std::string value;
  const rocksdb::Status status = rocks.db->Get(FromTables(), rocks.meta(), ToSlice(kAppliedKey), &value);
  if (status.IsNotFound()) return LogPosition{};
  if (!status.ok()) return Translate(status, absl::StrCat("store ", handles_->path, ": place in the log"));
  const auto integers = DecodeIntegers<3>(kAppliedKey, value);
  if (!integers.ok()) return WithAdvice(integers.status(), handles_->path);
  const auto& [number, segment, block] = *integers;
  return LogPosition{.number = number, .end = {segment, block}};
}

absl::StatusOr<std::vector<SealedSegment>> RocksDb::Segments() const {
  const OpenedRocks& rocks = *handles_->rocks;
  std::vector<SealedSegment> segments;
  const std::unique_ptr<rocksdb::Iterator> it(rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta()));
  for (it->Seek(ToSlice(kSegmentPrefix)); it->Valid() && it->key().starts_with(ToSlice(kSegmentPrefix)); it->Next()) {
    const std::string key = it->key().ToString();
    const auto integers = DecodeIntegers<2>(key, it->value().ToStringView());
    if (!integers.ok()) return WithAdvice(integers.status(), handles_->path);
    segments.push_back({(*integers)[0], (*integers)[1]});
  }
  if (!it->status().ok()) return WithAdvice(CorruptRecord(kSegmentPrefix, it->status().ToString()), handles_->path);
  return segments;
}

absl::StatusOr<bool> RocksDb::IsDurablyGone(uint64_t segment) const {
  const OpenedRocks& rocks = *handles_->rocks;
  std::string value;
  const rocksdb::Status status = rocks.db->Get(FromTables(), rocks.meta(), SegmentKey(segment), &value);
  if (status.ok()) return false;
  if (status.IsNotFound()) return true;
  return Translate(status, absl::StrCat("store ", handles_->path, ": segments of the log"));
}

absl::Status RocksDb::CheckBackground() const {
  uint64_t errors = 0;
  handles_->rocks->db->GetIntProperty(rocksdb::DB::Properties::kBackgroundErrors, &errors);
  if (errors == 0) return absl::OkStatus();
  const rocksdb::Status first = handles_->rocks->background_error->first();
  if (!first.ok()) return Translate(first, absl::StrCat("store ", handles_->path, ": writing tables"));
  return absl::InternalError(
      absl::StrCat("store ", handles_->path, ": tables could not be written, see what rocksdb says in this log"));
}

absl::Status RocksDb::StartFlush() {
  // One more would make the next change wait until it is done.
  uint64_t waiting = 0;
  handles_->rocks->db->GetIntProperty(handles_->rocks->meta(), rocksdb::DB::Properties::kNumImmutableMemTable,
                                      &waiting);
  if (waiting > 0) return absl::OkStatus();
  handles_->unflushed = false;
  rocksdb::FlushOptions options;
  options.wait = false;
  // Otherwise it would wait until there is room for one more.
  options.allow_write_stall = true;
  const rocksdb::Status status = handles_->rocks->db->Flush(options, handles_->rocks->families);
  if (status.IsTryAgain()) {  // There are so many tables that they have to be merged first.
    handles_->unflushed = true;
    return absl::OkStatus();
  }
  return Translate(status, absl::StrCat("store ", handles_->path, ": writing of tables"));
}

bool RocksDb::HasUnflushed() const { return handles_->unflushed; }

absl::Status RocksDb::Flush() {
  handles_->unflushed = false;
  return Translate(handles_->rocks->db->Flush(rocksdb::FlushOptions(), handles_->rocks->families),
                   absl::StrCat("store ", handles_->path, ": writing of tables"));
}

absl::StatusOr<PageEntry> RocksDb::Find(PageId page) const {
  const OpenedRocks& rocks = *handles_->rocks;
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      rocks.db->Get(rocksdb::ReadOptions(), rocks.pages(), ToSlice(View(EncodePageKey(page))), &value);
  return handles_->EntryOf(page, status, value);
}

std::vector<absl::StatusOr<PageEntry>> RocksDb::FindAll(PageRange range) const {
  const OpenedRocks& rocks = *handles_->rocks;
  std::vector<PageKey> keys;
  keys.reserve(range.count);
  std::vector<Slice> slices;
  for (uint64_t i = 0; i < range.count; ++i) {
    keys.push_back(EncodePageKey(range.first + i));
    slices.push_back(ToSlice(View(keys.back())));
  }
  std::vector<rocksdb::PinnableSlice> values(range.count);
  std::vector<rocksdb::Status> statuses(range.count);
  rocks.db->MultiGet(rocksdb::ReadOptions(), rocks.pages(), range.count, slices.data(), values.data(), statuses.data(),
                     /*sorted_input=*/true);
  std::vector<absl::StatusOr<PageEntry>> entries;
  entries.reserve(range.count);
  for (uint64_t i = 0; i < range.count; ++i) {
    entries.push_back(handles_->EntryOf(range.first + i, statuses[i], values[i]));
    // An error may be that of another page, in a table that both were looked for in.
    if (!entries.back().ok() && !absl::IsNotFound(entries.back().status())) entries.back() = Find(range.first + i);
  }
  return entries;
}

absl::StatusOr<PageList> RocksDb::ListPages(PageRange range, size_t most) const {
  const OpenedRocks& rocks = *handles_->rocks;
  const PageKey end = EncodePageKey(range.end());
  const Slice upper_bound = ToSlice(View(end));
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper_bound;
  options.fill_cache = false;  // The cache is for those that read single pages.
  const std::unique_ptr<rocksdb::Iterator> it(rocks.db->NewIterator(options, rocks.pages()));
  PageList list;
  PageId rest = range.first;
  for (it->Seek(ToSlice(View(EncodePageKey(range.first)))); it->Valid(); it->Next()) {
    const std::optional<PageId> page = DecodePageKey(it->key().ToStringView());
    if (!page.has_value()) continue;  // Not ours; no read finds it either.
    if (list.pages.size() == most) {
      list.next = *page;
      return list;
    }
    const auto entry = DecodeIndexValue(*page, it->value().ToStringView());
    list.pages.push_back(entry.ok() ? HeaderOf(*entry) : StoredPage{.page = *page});
    rest = *page + 1;
  }
  if (it->status().ok() || rest == range.end()) return list;
  if (list.pages.empty()) {
    return absl::DataLossError(
        absl::StrCat("pages from ", ToString(range.first),
                     " on: the stored records cannot be read: ", Translate(it->status(), handles_->path).message()));
  }
  list.next = rest;
  return list;
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
    if (rocks.db->GetIntProperty(family, rocksdb::DB::Properties::kTotalSstFilesSize, &value)) sizes.bytes += value;
    if (rocks.db->GetIntProperty(family, rocksdb::DB::Properties::kCurSizeAllMemTables, &value)) {
      sizes.memory_bytes += value;
    }
  }
  sizes.bytes += sizes.memory_bytes;
  return sizes;
}

const LivePages& RocksDb::live_pages() const { return handles_->live; }

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
