#include "engine/transactions/log_format.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/byte_stream.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kHeaderMagic = 0x676f6c2e6e78746dULL;  // "mtxn.log"
constexpr uint64_t kReplayMagic = 0x6c70722e6e78746dULL;  // "mtxn.rpl"
constexpr uint32_t kPageMagic = 0x67706c6d;               // "mlpg"
constexpr uint32_t kTrailerMagic = 0x7271736d;            // "msqr"
constexpr size_t kRecordHeaderBytes = 8;
// Of a record: what fits into the largest ring.
constexpr uint32_t kMostRecordBytes = kMostLogPages * kPageBytes;

uint32_t Sum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(XXH3_64bits(bytes.data(), bytes.size()));
}
uint32_t Sum(std::string_view text) { return Sum(std::as_bytes(std::span(text.data(), text.size()))); }

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

void PutPage(PageId page, ByteWriter& out) {
  out.Put(absl::Uint128Low64(page.value));
  out.Put(absl::Uint128High64(page.value));
}

PageId GetPage(ByteReader& in) {
  const auto low = in.Get<uint64_t>();
  const auto high = in.Get<uint64_t>();
  return PageId(absl::MakeUint128(high, low));
}

// `fields`, zeros, and at the end of the page a checksum of all before it.
constexpr size_t kSumAt = kPageBytes - sizeof(uint32_t);

void SealPage(std::string_view fields, PageBytes& page) {
  CHECK(fields.size() <= kSumAt);
  page.bytes.fill(std::byte{0});
  std::memcpy(page.bytes.data(), fields.data(), fields.size());
  StoreLittle(page.bytes.data() + kSumAt, Sum(std::span(page.bytes).first(kSumAt)));
}

absl::Status CheckSealed(const PageBytes& page, uint64_t magic, const char* what) {
  const auto found = LoadLittle<uint64_t>(page.bytes.data());
  if (found != magic) {
    return absl::DataLossError(absl::StrCat(what, " begins with ", absl::Hex(found), ", not ", absl::Hex(magic)));
  }
  const auto version = LoadLittle<uint32_t>(page.bytes.data() + 8);
  if (version != kVersion) {
    return absl::DataLossError(absl::StrCat(what, " is of format ", version, "; expected ", kVersion));
  }
  if (LoadLittle<uint32_t>(page.bytes.data() + kSumAt) != Sum(std::span(page.bytes).first(kSumAt))) {
    return absl::DataLossError(absl::StrCat(what, " does not fit its checksum"));
  }
  return absl::OkStatus();
}

std::string_view AsText(const PageBytes& page) {
  return {reinterpret_cast<const char*>(page.bytes.data()), page.bytes.size()};
}

}  // namespace

// --- Header and replay page -------------------------------------------------------------------------------------------

void EncodeLogHeader(const LogHeader& header, PageBytes& page) {
  ByteWriter w;
  w.Put(kHeaderMagic);
  w.Put(uint32_t{kVersion});
  w.Put(header.ring_pages);
  w.Put(header.owner.node.value);
  w.Put(header.owner.incarnation.value);
  w.Put(header.generation);
  w.Put(header.tail);
  SealPage(w.out(), page);
}

absl::StatusOr<LogHeader> DecodeLogHeader(const PageBytes& page) {
  if (IsZero(page.bytes)) return LogHeader{};
  if (absl::Status s = CheckSealed(page, kHeaderMagic, "the header of a log"); !s.ok()) return s;
  ByteReader r(AsText(page).substr(12));
  LogHeader header;
  header.ring_pages = r.Get<uint32_t>();
  header.owner.node = NodeId(r.Get<uint64_t>());
  header.owner.incarnation = Incarnation(r.Get<uint64_t>());
  header.generation = r.Get<uint64_t>();
  header.tail = r.Get<uint64_t>();
  if (header.ring_pages + 1 < kLeastLogPages || header.ring_pages >= kMostLogPages || header.generation == 0) {
    return absl::DataLossError(absl::StrCat("the header of a log says ", header.ring_pages, " pages, generation ",
                                            header.generation, "; expected ", kLeastLogPages - 1, " to ",
                                            kMostLogPages - 1, " pages, and a generation from 1 on"));
  }
  return header;
}

void EncodeReplayState(const ReplayState& state, PageBytes& page) {
  CHECK(state.logs.size() <= kMostLogs);
  ByteWriter w;
  w.Put(kReplayMagic);
  w.Put(uint32_t{kVersion});
  w.Put(static_cast<uint32_t>(state.logs.size()));
  w.Put(state.done.value);
  for (const NodeId node : state.logs) w.Put(node.value);
  SealPage(w.out(), page);
}

absl::StatusOr<ReplayState> DecodeReplayState(const PageBytes& page) {
  if (IsZero(page.bytes)) return ReplayState{};
  if (absl::Status s = CheckSealed(page, kReplayMagic, "the replay page"); !s.ok()) return s;
  ByteReader r(AsText(page).substr(12));
  const auto logs = r.Get<uint32_t>();
  if (logs > kMostLogs) {
    return absl::DataLossError(absl::StrCat("the replay page names ", logs, " logs; expected at most ", kMostLogs));
  }
  ReplayState state;
  state.done = Epoch(r.Get<uint64_t>());
  for (uint32_t i = 0; i < logs; ++i) {
    state.logs.push_back(NodeId(r.Get<uint64_t>()));
    if (state.logs.back().value == 0) return absl::DataLossError("the replay page names the log of node 0");
  }
  return state;
}

// --- Pages of the stream ----------------------------------------------------------------------------------------------

void EncodeLogPage(const LogPage& log_page, PageBytes& page) {
  CHECK(log_page.payload.size() <= kLogPayloadBytes);
  ByteWriter w;
  w.Put(kPageMagic);
  w.Put(kVersion);
  w.Put(static_cast<uint16_t>(log_page.payload.size()));
  w.Put(log_page.generation);
  w.Put(log_page.number);
  w.Put(log_page.first_record);
  w.Put(uint16_t{0});
  w.Put(uint32_t{0});  // The checksum.
  CHECK(w.out().size() == kLogPageHeaderBytes);
  w.Bytes(log_page.payload);
  page.bytes.fill(std::byte{0});
  std::memcpy(page.bytes.data(), w.out().data(), w.out().size());
  StoreLittle(page.bytes.data() + kLogPageHeaderBytes - 4, Sum(w.out()));
}

std::optional<LogPage> DecodeLogPage(const PageBytes& page) {
  ByteReader r(AsText(page));
  if (r.Get<uint32_t>() != kPageMagic || r.Get<uint16_t>() != kVersion) return std::nullopt;
  const auto used = r.Get<uint16_t>();
  if (used > kLogPayloadBytes) return std::nullopt;
  LogPage log_page;
  log_page.generation = r.Get<uint64_t>();
  log_page.number = r.Get<uint64_t>();
  log_page.first_record = r.Get<uint16_t>();
  r.Get<uint16_t>();
  const auto sum = r.Get<uint32_t>();
  std::string summed(AsText(page).substr(0, kLogPageHeaderBytes + used));
  std::memset(summed.data() + kLogPageHeaderBytes - 4, 0, 4);
  if (Sum(summed) != sum) return std::nullopt;
  if (log_page.first_record != kNoRecord && log_page.first_record >= used) return std::nullopt;
  log_page.payload = r.Bytes(used);
  return log_page;
}

// --- Records ----------------------------------------------------------------------------------------------------------

std::string EncodeRecord(const LogRecord& record) {
  ByteWriter w;
  w.Put(uint64_t{0});  // Length and checksum.
  w.Put(record.owner.node.value);
  w.Put(record.owner.incarnation.value);
  w.Put(record.transaction);
  w.Put(static_cast<uint32_t>(record.pages.size()));
  for (const PageChange& page : record.pages) {
    PutPage(page.page, w);
    w.Put(page.config.value);
    w.Put(page.sequence);
    w.Put(static_cast<uint32_t>(page.changes.size()));
    for (const ByteChange& change : page.changes) {
      w.Put(change.offset);
      w.Put(static_cast<uint16_t>(change.bytes.size()));
      w.Bytes(change.bytes);
    }
  }
  std::string& out = w.out();
  auto* const at = reinterpret_cast<std::byte*>(out.data());
  StoreLittle(at, static_cast<uint32_t>(out.size() - kRecordHeaderBytes));
  StoreLittle(at + 4, Sum(std::string_view(out).substr(kRecordHeaderBytes)));
  return std::move(out);
}

std::optional<LogRecord> TakeRecord(std::string_view& bytes) {
  ByteReader header(bytes);
  const auto length = header.Get<uint32_t>();
  const auto sum = header.Get<uint32_t>();
  if (!header.good() || length == 0 || length > kMostRecordBytes || length > header.left()) return std::nullopt;
  const std::string_view body = bytes.substr(kRecordHeaderBytes, length);
  if (Sum(body) != sum) return std::nullopt;
  ByteReader r(body);
  LogRecord record;
  record.owner.node = NodeId(r.Get<uint64_t>());
  record.owner.incarnation = Incarnation(r.Get<uint64_t>());
  record.transaction = r.Get<uint64_t>();
  const auto pages = r.Get<uint32_t>();
  for (uint32_t i = 0; i < pages && r.good(); ++i) {
    PageChange& page = record.pages.emplace_back();
    page.page = GetPage(r);
    page.config = ConfigNumber(r.Get<uint64_t>());
    page.sequence = r.Get<uint64_t>();
    const auto changes = r.Get<uint32_t>();
    for (uint32_t j = 0; j < changes && r.good(); ++j) {
      const auto offset = r.Get<uint16_t>();
      const auto size = r.Get<uint16_t>();
      page.changes.push_back({offset, std::string(r.Bytes(size))});
      if (offset + size_t{size} > kTransactionBytes) return std::nullopt;
    }
  }
  if (!r.good() || r.left() > 0) return std::nullopt;
  bytes.remove_prefix(kRecordHeaderBytes + length);
  return record;
}

namespace {

// Of what is left behind the last whole record.
bool IsCutShort(std::string_view bytes) {
  ByteReader header(bytes);
  const auto length = header.Get<uint32_t>();
  header.Get<uint32_t>();
  return !header.good() || (length > 0 && length <= kMostRecordBytes && length > header.left());
}

}  // namespace

absl::StatusOr<bool> LogStream::Add(const PageBytes& page) {
  std::optional<LogPage> log_page = DecodeLogPage(page);
  if (!log_page && !IsZero(page.bytes)) {
    return absl::DataLossError(absl::StrCat("page ", next_, " of the log does not fit its checksum"));
  }
  if (!log_page || log_page->generation != header_.generation || log_page->number != next_) return false;  // L1
  ++next_;
  const bool goes_on = log_page->payload.size() == kLogPayloadBytes;
  if (!aligned_) {
    if (log_page->first_record == kNoRecord) return goes_on;
    log_page->payload.erase(0, log_page->first_record);
    aligned_ = true;
  }
  bytes_ += log_page->payload;
  std::string_view left = bytes_;
  while (std::optional<LogRecord> record = TakeRecord(left)) records_.push_back(*std::move(record));
  bytes_.erase(0, bytes_.size() - left.size());
  if (!IsCutShort(bytes_)) {
    return absl::DataLossError(
        absl::StrCat("a record that ends in page ", next_ - 1, " of the log does not fit its checksum"));
  }
  return goes_on;  // L2
}

// --- In a page that transactions change -------------------------------------------------------------------------------

std::string EncodeTrailer(uint64_t sequence) {
  ByteWriter w;
  w.Put(sequence);
  w.Put(kTrailerMagic);
  w.Put(Sum(w.out()));
  return std::move(w.out());
}

absl::StatusOr<uint64_t> SequenceOf(PageId page, const PageBytes& content) {
  const std::string_view trailer = AsText(content).substr(kTransactionBytes);
  if (IsZero(std::as_bytes(std::span(trailer.data(), trailer.size())))) return 0;
  const auto sequence = LoadLittle<uint64_t>(content.bytes.data() + kTransactionBytes);
  if (trailer == EncodeTrailer(sequence)) return sequence;
  return absl::DataLossError(absl::StrCat("the last ", kTrailerBytes, " bytes of page ", ToString(page),
                                          " are not what transactions left there: something else wrote over them"));
}

}  // namespace mangrove
