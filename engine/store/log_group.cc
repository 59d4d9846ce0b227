#include "engine/store/log_group.h"

#include <xxhash.h>

#include <cstring>
#include <utility>

#include "absl/numeric/int128.h"
#include "engine/store/little_endian.h"
#include "engine/store/page_record.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

constexpr char kMagic[4] = {'M', 'G', 'L', 'G'};
constexpr uint16_t kFormat = 1;
constexpr size_t kFilesAt = 6;
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

constexpr uint64_t RoundUp(uint64_t bytes) { return (bytes + kLogBlockBytes - 1) / kLogBlockBytes * kLogBlockBytes; }

size_t EntryBytes(const StoreBatch& batch) {
  size_t bytes = 1;
  bytes += batch.delete_pages.size() * (1 + sizeof(absl::uint128) + sizeof(uint64_t));
  bytes += batch.put_pages.size() * (1 + kPageHeaderBytes);
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

void PutBatch(const StoreBatch& batch, Writer& entries, Writer& data) {
  entries.PutKind(kBatch);
  for (const PageRange& range : batch.delete_pages) {
    entries.PutKind(kDelete);
    entries.Put<absl::uint128>(range.first.value);
    entries.Put<uint64_t>(range.count);
  }
  for (const StoredPage& page : batch.put_pages) {
    const PageHeader header = EncodePageHeader(page);
    entries.PutKind(kPut);
    entries.PutBytes({header.data(), header.size()});
    data.PutBytes({reinterpret_cast<const char*>(page.data->bytes.data()), kPageBytes});
  }
  for (const StoreBatch::Record& record : batch.records) PutRecord(record, entries);
}

// Takes from the front of the entries and of the data. Once anything is wrong, `ok` is false and everything taken empty.
class Reader {
 public:
  Reader(std::string_view entries, std::string_view data) : entries_(entries), data_(data) {}
  bool ok() const { return ok_; }
  bool AtEnd() const { return entries_.empty(); }
  bool DataAtEnd() const { return data_.empty(); }

  std::string_view Take(size_t bytes) { return TakeFrom(entries_, bytes); }
  template <typename T>
  T TakeInteger() {
    const std::string_view bytes = Take(sizeof(T));
    return bytes.empty() ? T{} : GetLittleEndian<T>(bytes.data());
  }
  std::string_view TakeData() { return TakeFrom(data_, kPageBytes); }
  void Fail() { ok_ = false; }

 private:
  std::string_view TakeFrom(std::string_view& from, size_t bytes) {
    if (!ok_ || from.size() < bytes) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = from.substr(0, bytes);
    from.remove_prefix(bytes);
    return taken;
  }

  std::string_view entries_;
  std::string_view data_;
  bool ok_ = true;
};

void TakeDelete(Reader& in, StoreBatch& batch) {
  const auto first = in.TakeInteger<absl::uint128>();
  const auto count = in.TakeInteger<uint64_t>();
  if (first > kSpacePages || count > kSpacePages - first) return in.Fail();
  if (in.ok()) batch.delete_pages.push_back({PageId(first), count});
}

void TakePut(Reader& in, StoreBatch& batch) {
  const std::string_view header = in.Take(kPageHeaderBytes);
  const std::string_view data = in.TakeData();
  if (!in.ok()) return;
  auto page = DecodePageRecord(header, data);
  if (!page.ok() || page->page.value >= kSpacePages) return in.Fail();
  batch.put_pages.push_back(*std::move(page));
}

void TakeRecord(Reader& in, bool put, StoreBatch& batch) {
  const auto key_bytes = in.TakeInteger<uint32_t>();
  const auto value_bytes = put ? in.TakeInteger<uint32_t>() : 0;
  StoreBatch::Record record;
  record.key = in.Take(key_bytes);
  if (put) record.value.emplace(in.Take(value_bytes));
  if (in.ok()) batch.records.push_back(std::move(record));
}

void TakeEntry(Reader& in, std::vector<StoreBatch>& batches) {
  const auto kind = static_cast<char>(in.TakeInteger<uint8_t>());
  if (kind == kBatch) {
    batches.emplace_back();
    return;
  }
  if (batches.empty()) return in.Fail();
  switch (kind) {
    case kDelete: return TakeDelete(in, batches.back());
    case kPut: return TakePut(in, batches.back());
    case kRecordPut: return TakeRecord(in, /*put=*/true, batches.back());
    case kRecordDelete: return TakeRecord(in, /*put=*/false, batches.back());
    default: return in.Fail();
  }
}

}  // namespace

size_t EncodedGroupBytes(std::span<const StoreBatch* const> batches) {
  return RoundUp(kHeaderBytes + EntryBytes(batches)) + PagesOf(batches) * kPageBytes;
}

void EncodeGroup(const LogGroupHeader& header, uint64_t salt, std::span<const StoreBatch* const> batches,
                 std::span<char> out) {
  static_assert(kPageBytes == kLogBlockBytes);
  const size_t entry_bytes = EntryBytes(batches);
  const size_t pages = PagesOf(batches);
  CHECK(out.size() == EncodedGroupBytes(batches) && header.bytes == out.size());
  CHECK(entry_bytes <= UINT32_MAX && pages <= UINT32_MAX);
  char* const data_begin = out.data() + RoundUp(kHeaderBytes + entry_bytes);
  Writer entries(out.data() + kHeaderBytes);
  Writer data(data_begin);
  for (const StoreBatch* batch : batches) PutBatch(*batch, entries, data);
  CHECK(entries.at() == out.data() + kHeaderBytes + entry_bytes && data.at() == out.data() + out.size());
  std::memset(entries.at(), 0, static_cast<size_t>(data_begin - entries.at()));

  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  Writer first(out.data() + sizeof(kMagic));
  first.Put<uint16_t>(kFormat);
  first.Put<uint16_t>(header.files);
  first.Put<uint64_t>(header.number);
  first.Put(static_cast<uint32_t>(entry_bytes));
  first.Put(static_cast<uint32_t>(pages));
  first.Put<uint64_t>(XXH3_64bits_withSeed(out.data() + kHeaderBytes, entry_bytes, salt));
  first.Put<uint64_t>(XXH3_64bits_withSeed(out.data(), kHeaderSumAt, salt));
}

std::optional<LogGroupHeader> DecodeGroupHeader(std::string_view block, uint64_t salt) {
  const char* in = block.data();
  if (block.size() < kHeaderBytes || std::memcmp(in, kMagic, sizeof(kMagic)) != 0) return std::nullopt;
  if (XXH3_64bits_withSeed(in, kHeaderSumAt, salt) != GetLittleEndian<uint64_t>(in + kHeaderSumAt)) return std::nullopt;
  if (GetLittleEndian<uint16_t>(in + sizeof(kMagic)) != kFormat) return std::nullopt;
  const uint64_t entry_bytes = GetLittleEndian<uint32_t>(in + kEntryBytesAt);
  const uint64_t pages = GetLittleEndian<uint32_t>(in + kPagesAt);
  return LogGroupHeader{.number = GetLittleEndian<uint64_t>(in + kNumberAt),
                        .files = GetLittleEndian<uint16_t>(in + kFilesAt),
                        .bytes = RoundUp(kHeaderBytes + entry_bytes) + pages * kPageBytes};
}

std::optional<std::vector<StoreBatch>> DecodeGroup(std::string_view bytes, uint64_t salt) {
  const auto header = DecodeGroupHeader(bytes, salt);
  if (!header.has_value() || header->bytes != bytes.size()) return std::nullopt;
  const uint64_t entry_bytes = GetLittleEndian<uint32_t>(bytes.data() + kEntryBytesAt);
  const std::string_view entries = bytes.substr(kHeaderBytes, entry_bytes);
  const uint64_t sum = XXH3_64bits_withSeed(entries.data(), entries.size(), salt);
  if (sum != GetLittleEndian<uint64_t>(bytes.data() + kEntrySumAt)) return std::nullopt;
  std::vector<StoreBatch> batches;
  Reader in(entries, bytes.substr(RoundUp(kHeaderBytes + entry_bytes)));
  while (in.ok() && !in.AtEnd()) TakeEntry(in, batches);
  if (!in.ok() || !in.DataAtEnd()) return std::nullopt;
  return batches;
}

}  // namespace mangrove::store
