#include "engine/store/log_group.h"

#include <xxhash.h>

#include <cstring>
#include <utility>

#include "absl/numeric/int128.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

constexpr char kMagic[4] = {'M', 'G', 'L', 'G'};
constexpr uint16_t kFormat = 2;
constexpr size_t kNumberAt = 8;
constexpr size_t kEntryBytesAt = 16;
constexpr size_t kPagesAt = 20;
constexpr size_t kEntrySumAt = 24;
constexpr size_t kHeaderSumAt = 32;
constexpr size_t kHeaderBytes = 40;

constexpr char kBatch = 'B';
constexpr char kDelete = 'D';
constexpr char kPut = 'P';
constexpr char kRecordPut = 'R';
constexpr char kRecordDelete = 'X';

constexpr uint64_t BlocksOf(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

size_t EntryBytes(const StoreBatch& batch) {
  size_t bytes = 1;
  bytes += batch.delete_pages.size() * (1 + sizeof(absl::uint128) + sizeof(uint64_t));
  bytes += batch.put_pages.size() * (1 + kLogEntryBytes);
  for (const StoreBatch::Record& record : batch.records) {
    bytes += 1 + sizeof(uint32_t) + record.key.size();
    if (record.value.has_value()) bytes += sizeof(uint32_t) + record.value->size();
  }
  return bytes;
}

size_t EntryBytes(std::span<const StoreBatch* const> batches) {
  size_t bytes = 0;
  for (const StoreBatch* batch : batches) bytes += EntryBytes(*batch);
  return bytes;
}

size_t PagesOf(std::span<const StoreBatch* const> batches) {
  size_t pages = 0;
  for (const StoreBatch* batch : batches) pages += batch->put_pages.size();
  return pages;
}

class Writer {
 public:
  explicit Writer(char* out) : out_(out) {}
  char* at() const { return out_; }

  template <typename T>
  void Put(T value) {
    PutLittleEndian<T>(value, out_);
    out_ += sizeof(T);
  }
  void PutKind(char kind) { *out_++ = kind; }
  void PutEntry(const PageEntry& entry) {
    EncodeLogEntry(entry, out_);
    out_ += kLogEntryBytes;
  }
  void PutBytes(std::string_view bytes) {
    std::memcpy(out_, bytes.data(), bytes.size());
    out_ += bytes.size();
  }

 private:
  char* out_;
};

void PutRecord(const StoreBatch::Record& record, Writer& entries) {
  entries.PutKind(record.value.has_value() ? kRecordPut : kRecordDelete);
  entries.Put(static_cast<uint32_t>(record.key.size()));
  if (record.value.has_value()) entries.Put(static_cast<uint32_t>(record.value->size()));
  entries.PutBytes(record.key);
  if (record.value.has_value()) entries.PutBytes(*record.value);
}

// `data_at`: where the data of the batch's first page stands; moved on to that of the next batch.
IndexChange PutBatch(const StoreBatch& batch, Writer& entries, Writer& data, PagePlace& data_at) {
  IndexChange change{.delete_pages = batch.delete_pages, .records = batch.records};
  entries.PutKind(kBatch);
  for (const PageRange& range : batch.delete_pages) {
    entries.PutKind(kDelete);
    entries.Put<absl::uint128>(range.first.value);
    entries.Put<uint64_t>(range.count);
  }
  change.put_pages.reserve(batch.put_pages.size());
  for (const StoredPage& page : batch.put_pages) {
    CHECK(page.data != nullptr);
    change.put_pages.push_back({.page = page.page,
                                .version = page.version,
                                .config = page.config,
                                .handle = page.handle,
                                .data_sum = DataSum(page.data->bytes.data()),
                                .place = data_at});
    ++data_at.block;
    entries.PutKind(kPut);
    entries.PutEntry(change.put_pages.back());
    data.PutBytes({reinterpret_cast<const char*>(page.data->bytes.data()), kPageBytes});
  }
  for (const StoreBatch::Record& record : batch.records) PutRecord(record, entries);
  return change;
}

// Takes from the front. Once anything is wrong, `ok` is false and everything taken empty.
class Reader {
 public:
  explicit Reader(std::string_view entries) : entries_(entries) {}
  bool ok() const { return ok_; }
  bool AtEnd() const { return entries_.empty(); }

  std::string_view Take(size_t bytes) {
    if (!ok_ || entries_.size() < bytes) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = entries_.substr(0, bytes);
    entries_.remove_prefix(bytes);
    return taken;
  }
  template <typename T>
  T TakeInteger() {
    const std::string_view bytes = Take(sizeof(T));
    return bytes.empty() ? T{} : GetLittleEndian<T>(bytes.data());
  }
  void Fail() { ok_ = false; }

 private:
  std::string_view entries_;
  bool ok_ = true;
};

void TakeDelete(Reader& in, IndexChange& change) {
  const auto first = in.TakeInteger<absl::uint128>();
  const auto count = in.TakeInteger<uint64_t>();
  if (first > kSpacePages || count > kSpacePages - first) return in.Fail();
  if (in.ok()) change.delete_pages.push_back({PageId(first), count});
}

void TakePut(Reader& in, PagePlace& data_at, IndexChange& change) {
  const std::string_view bytes = in.Take(kLogEntryBytes);
  if (!in.ok()) return;
  PageEntry entry = DecodeLogEntry(bytes.data());
  if (entry.page.value >= kSpacePages || data_at.block >= PagePlace::kMaxBlocks) return in.Fail();
  entry.place = data_at;
  ++data_at.block;
  change.put_pages.push_back(entry);
}

void TakeRecord(Reader& in, bool put, IndexChange& change) {
  const auto key_bytes = in.TakeInteger<uint32_t>();
  const auto value_bytes = put ? in.TakeInteger<uint32_t>() : 0;
  StoreBatch::Record record;
  record.key = in.Take(key_bytes);
  if (put) record.value.emplace(in.Take(value_bytes));
  if (in.ok()) change.records.push_back(std::move(record));
}

void TakeEntry(Reader& in, PagePlace& data_at, std::vector<IndexChange>& changes) {
  const auto kind = static_cast<char>(in.TakeInteger<uint8_t>());
  if (kind == kBatch) {
    changes.emplace_back();
    return;
  }
  if (changes.empty()) return in.Fail();
  switch (kind) {
    case kDelete: return TakeDelete(in, changes.back());
    case kPut: return TakePut(in, data_at, changes.back());
    case kRecordPut: return TakeRecord(in, /*put=*/true, changes.back());
    case kRecordDelete: return TakeRecord(in, /*put=*/false, changes.back());
    default: return in.Fail();
  }
}

}  // namespace

uint64_t EncodedGroupBlocks(std::span<const StoreBatch* const> batches) {
  return BlocksOf(kHeaderBytes + EntryBytes(batches)) + PagesOf(batches);
}

std::vector<IndexChange> EncodeGroup(uint64_t number, uint64_t salt, PagePlace place,
                                     std::span<const StoreBatch* const> batches, std::span<char> out) {
  const size_t entry_bytes = EntryBytes(batches);
  const size_t pages = PagesOf(batches);
  const uint64_t entry_blocks = BlocksOf(kHeaderBytes + entry_bytes);
  CHECK(out.size() == (entry_blocks + pages) * kBlockBytes);
  CHECK(entry_bytes <= UINT32_MAX && pages <= UINT32_MAX);
  char* const data_begin = out.data() + entry_blocks * kBlockBytes;
  Writer entries(out.data() + kHeaderBytes);
  Writer data(data_begin);
  PagePlace data_at{place.segment, place.block + entry_blocks};
  std::vector<IndexChange> changes;
  changes.reserve(batches.size());
  for (const StoreBatch* batch : batches) changes.push_back(PutBatch(*batch, entries, data, data_at));
  CHECK(entries.at() == out.data() + kHeaderBytes + entry_bytes && data.at() == out.data() + out.size());
  std::memset(entries.at(), 0, static_cast<size_t>(data_begin - entries.at()));

  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  Writer first(out.data() + sizeof(kMagic));
  first.Put<uint16_t>(kFormat);
  first.Put<uint16_t>(0);
  first.Put<uint64_t>(number);
  first.Put(static_cast<uint32_t>(entry_bytes));
  first.Put(static_cast<uint32_t>(pages));
  first.Put<uint64_t>(XXH3_64bits_withSeed(out.data() + kHeaderBytes, entry_bytes, salt));
  first.Put<uint64_t>(XXH3_64bits_withSeed(out.data(), kHeaderSumAt, salt));
  return changes;
}

std::optional<GroupHeader> DecodeGroupHeader(std::string_view block, uint64_t salt) {
  const char* in = block.data();
  if (block.size() < kHeaderBytes || std::memcmp(in, kMagic, sizeof(kMagic)) != 0) return std::nullopt;
  if (XXH3_64bits_withSeed(in, kHeaderSumAt, salt) != GetLittleEndian<uint64_t>(in + kHeaderSumAt)) return std::nullopt;
  if (GetLittleEndian<uint16_t>(in + sizeof(kMagic)) != kFormat) return std::nullopt;
  return GroupHeader{.number = GetLittleEndian<uint64_t>(in + kNumberAt),
                     .entry_blocks = BlocksOf(kHeaderBytes + GetLittleEndian<uint32_t>(in + kEntryBytesAt)),
                     .pages = GetLittleEndian<uint32_t>(in + kPagesAt)};
}

std::optional<std::vector<IndexChange>> DecodeGroupEntries(std::string_view bytes, uint64_t salt, PagePlace place) {
  const auto header = DecodeGroupHeader(bytes, salt);
  if (!header.has_value() || header->entry_blocks * kBlockBytes != bytes.size()) return std::nullopt;
  const std::string_view entries = bytes.substr(kHeaderBytes, GetLittleEndian<uint32_t>(bytes.data() + kEntryBytesAt));
  const uint64_t sum = XXH3_64bits_withSeed(entries.data(), entries.size(), salt);
  if (sum != GetLittleEndian<uint64_t>(bytes.data() + kEntrySumAt)) return std::nullopt;
  const uint64_t data_begin = place.block + header->entry_blocks;
  PagePlace data_at{place.segment, data_begin};
  std::vector<IndexChange> changes;
  Reader in(entries);
  while (in.ok() && !in.AtEnd()) TakeEntry(in, data_at, changes);
  if (!in.ok() || data_at.block != data_begin + header->pages) return std::nullopt;
  return changes;
}

}  // namespace mangrove::store
