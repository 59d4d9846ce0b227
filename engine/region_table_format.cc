#include "engine/region_table_format.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "absl/numeric/int128.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/store/little_endian.h"
#include "net/check.h"

namespace mangrove {

namespace {

constexpr char kHeaderMagic[] = "MGRTABLE";
constexpr char kDescriptorMagic[] = "MGREGION";
constexpr size_t kMagicBytes = 8;
constexpr uint16_t kFormat = 1;

// Where the fields are.
constexpr size_t kMagicAt = 0;
constexpr size_t kFormatAt = 8;
constexpr size_t kChecksumAt = kPageBytes - 8;

constexpr size_t kSlotsAt = 12;
constexpr size_t kNextFreeAt = 16;

constexpr size_t kStateAt = 10;
constexpr size_t kNameLengthAt = 11;
constexpr size_t kModeAt = 12;
constexpr size_t kRunCountAt = 14;
constexpr size_t kFirstPageAt = 16;
constexpr size_t kPageCountAt = 32;
constexpr size_t kNextConfigAt = 40;
constexpr size_t kOwnerAt = 48;
constexpr size_t kGroupAt = 52;
constexpr size_t kNameAt = 56;
constexpr size_t kFlagsAt = kNameAt + kMaxRegionNameBytes;
constexpr size_t kRunsAt = 312;
static_assert(kFlagsAt + 1 == kRunsAt);

// In a run.
constexpr size_t kRunBytes = 48;
constexpr size_t kRunCountInRunAt = 8;
constexpr size_t kRunConfigAt = 16;
constexpr size_t kRunReplicasAt = 24;
constexpr size_t kRunFlagsAt = 28;
constexpr size_t kRunProtocolAt = 29;
constexpr size_t kRunUserAt = 32;
static_assert(kRunsAt + kMaxRegionRuns * kRunBytes <= kChecksumAt);
static_assert(kRunsAt + (kMaxRegionRuns + 1) * kRunBytes > kChecksumAt);

constexpr uint8_t kRunVolatile = 1;
constexpr uint8_t kRunKeepInRam = 2;
constexpr uint8_t kUnclean = 1;
constexpr uint8_t kReadWithoutQuorum = 2;

// Writes and reads integers at places of a page.
class Writer {
 public:
  explicit Writer(std::byte* start) : start_(reinterpret_cast<char*>(start)) {}
  template <typename T>
  void Put(size_t at, T value) {
    store::PutLittleEndian(value, start_ + at);
  }
  void PutPage(size_t at, PageId page) {
    Put(at, absl::Uint128Low64(page.value));
    Put(at + 8, absl::Uint128High64(page.value));
  }
  void PutBytes(size_t at, const void* bytes, size_t count) { std::memcpy(start_ + at, bytes, count); }

 private:
  char* const start_;
};

class Reader {
 public:
  explicit Reader(const std::byte* start) : start_(reinterpret_cast<const char*>(start)) {}
  template <typename T>
  T Get(size_t at) const {
    return store::GetLittleEndian<T>(start_ + at);
  }
  PageId GetPage(size_t at) const { return PageId(absl::MakeUint128(Get<uint64_t>(at + 8), Get<uint64_t>(at))); }
  const char* At(size_t at) const { return start_ + at; }

 private:
  const char* const start_;
};

// Seeded with the page's number, so that a page in another's place is noticed.
uint64_t ChecksumOf(PageId page, const std::byte* bytes) {
  return XXH64(bytes, kChecksumAt, absl::Uint128Low64(page.value));
}

Writer Begin(TablePageOut out, const char* magic) {
  std::fill(out.begin(), out.end(), std::byte{0});
  Writer writer(out.data());
  writer.PutBytes(kMagicAt, magic, kMagicBytes);
  writer.Put(kFormatAt, kFormat);
  return writer;
}

void End(PageId page, TablePageOut out) { Writer(out.data()).Put(kChecksumAt, ChecksumOf(page, out.data())); }

bool IsZero(TablePageIn page) {
  return std::all_of(page.begin(), page.end(), [](std::byte b) { return b == std::byte{0}; });
}

// "slot 3 of the region table (0x...) is corrupt: ..."
class Complaint {
 public:
  Complaint(std::string what, PageId page) : prefix_(absl::StrCat(what, " (", ToString(page), ") is corrupt: ")) {}
  template <typename... Parts>
  absl::Status operator()(const Parts&... parts) const {
    return absl::DataLossError(absl::StrCat(prefix_, parts...));
  }

 private:
  const std::string prefix_;
};

Complaint HeaderIs() { return Complaint("the header of the region table", kRegionHeaderPage); }
Complaint SlotIs(uint32_t slot) {
  return Complaint(absl::StrCat("slot ", slot, " of the region table"), RegionSlotPage(slot));
}

absl::Status CheckFrame(PageId page, TablePageIn bytes, const char* magic, const Complaint& bad) {
  const Reader in(bytes.data());
  if (std::memcmp(in.At(kMagicAt), magic, kMagicBytes) != 0) return bad("it does not begin as it should");
  if (in.Get<uint64_t>(kChecksumAt) != ChecksumOf(page, bytes.data())) return bad("its checksum is wrong");
  if (in.Get<uint16_t>(kFormatAt) != kFormat) {
    return bad("it is of format ", in.Get<uint16_t>(kFormatAt), ", this program knows ", kFormat);
  }
  return absl::OkStatus();
}

void EncodeRun(const RegionRun& run, std::byte* out) {
  Writer writer(out);
  writer.Put(0, run.offset);
  writer.Put(kRunCountInRunAt, run.count);
  writer.Put(kRunConfigAt, run.config.value);
  writer.Put(kRunReplicasAt, run.replicas);
  writer.Put(kRunFlagsAt,
             static_cast<uint8_t>((run.is_volatile ? kRunVolatile : 0) | (run.keep_in_ram ? kRunKeepInRam : 0)));
  writer.Put(kRunProtocolAt, static_cast<uint8_t>(run.protocol));
  writer.PutBytes(kRunUserAt, run.user.data(), run.user.size());
}

absl::StatusOr<RegionRun> DecodeRun(const std::byte* bytes, const RegionDescriptor& region, const Complaint& bad) {
  const Reader in(bytes);
  RegionRun run;
  run.offset = in.Get<uint64_t>(0);
  run.count = in.Get<uint64_t>(kRunCountInRunAt);
  run.config = ConfigNumber(in.Get<uint64_t>(kRunConfigAt));
  run.replicas = in.Get<uint32_t>(kRunReplicasAt);
  const auto flags = in.Get<uint8_t>(kRunFlagsAt);
  run.is_volatile = (flags & kRunVolatile) != 0;
  run.keep_in_ram = (flags & kRunKeepInRam) != 0;
  const auto protocol = in.Get<uint8_t>(kRunProtocolAt);
  run.protocol = static_cast<CoherenceProtocol>(protocol);
  std::memcpy(run.user.data(), in.At(kRunUserAt), run.user.size());

  const uint64_t earliest = region.runs.empty() ? 0 : region.runs.back().end();
  const uint64_t pages = region.pages.count;
  if (run.count == 0 || run.offset < earliest || run.offset >= pages || run.count > pages - run.offset) {
    return bad("run ", region.runs.size(), " is of ", run.count, " pages from ", run.offset, " on, after ", earliest,
               " and of ", pages);
  }
  if (run.config.value == 0 || run.config >= region.next_config) {
    return bad("run ", region.runs.size(), " has configuration ", run.config.value, ", the next is ",
               region.next_config.value);
  }
  if ((flags & ~(kRunVolatile | kRunKeepInRam)) != 0 ||
      protocol > static_cast<uint8_t>(CoherenceProtocol::kMigratory)) {
    return bad("run ", region.runs.size(), " has unknown flags ", int{flags}, " or protocol ", int{protocol});
  }
  return run;
}

absl::Status CheckIdentity(const RegionDescriptor& region, const Complaint& bad) {
  if (const absl::Status s = CheckRegionName(region.name); !s.ok()) return bad(std::string(s.message()));
  const PageId first = region.pages.first;
  const uint64_t count = region.pages.count;
  if (first < kFirstReservablePage || kReservableEnd <= first.value || count == 0 || count > kMaxRegionPages ||
      count > kReservableEnd - first.value || SegmentStart(first) != first) {
    return bad("its range ", ToString(region.pages), " cannot be");
  }
  if ((region.mode & ~kRegionModeBits) != 0) return bad("its mode is ", region.mode);
  if (region.next_config.value == 0) return bad("its next configuration number is 0");
  return absl::OkStatus();
}

// The length of the UTF-8 character at the start of `text`; 0 if there is none.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&text](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xC2 && first <= 0xDF ? 2 : first >= 0xE0 && first <= 0xEF ? 3 : 4;
  if (first < 0xC2 || first > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Too long for what it says, a half of a UTF-16 pair, or past the last character.
  const unsigned second = byte(1);
  const bool bad = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                   (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return bad ? 0 : length;
}

}  // namespace

absl::Status CheckRegionName(const std::string& name) {
  const auto bad = [&name](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("bad region name \"", absl::Utf8SafeCEscape(name), "\": ", why...));
  };
  if (name.empty()) return bad("it is empty");
  if (name.size() > kMaxRegionNameBytes) return bad(name.size(), " bytes, more than ", kMaxRegionNameBytes);
  for (size_t at = 0; at < name.size();) {
    if (name[at] == '/' || name[at] == '\0') return bad("it has a ", name[at] == '/' ? "'/'" : "NUL", " at byte ", at);
    const size_t length = CharacterLength(std::string_view(name).substr(at));
    if (length == 0) return bad("it is not UTF-8 at byte ", at);
    at += length;
  }
  return absl::OkStatus();
}

void EncodeRegionHeader(const RegionTableHeader& header, TablePageOut out) {
  CHECK(header.slots <= kRegionSlots);
  Writer writer = Begin(out, kHeaderMagic);
  writer.Put(kSlotsAt, header.slots);
  writer.PutPage(kNextFreeAt, header.next_free);
  End(kRegionHeaderPage, out);
}

absl::StatusOr<RegionTableHeader> DecodeRegionHeader(TablePageIn page) {
  if (IsZero(page)) return RegionTableHeader{};
  const Complaint bad = HeaderIs();
  if (const absl::Status s = CheckFrame(kRegionHeaderPage, page, kHeaderMagic, bad); !s.ok()) return s;
  const Reader in(page.data());
  RegionTableHeader header;
  header.slots = in.Get<uint32_t>(kSlotsAt);
  header.next_free = in.GetPage(kNextFreeAt);
  if (header.slots > kRegionSlots) return bad(header.slots, " slots are in use, there are ", kRegionSlots);
  if (header.next_free < kFirstReservablePage || kReservableEnd < header.next_free.value) {
    return bad("the next free page cannot be ", ToString(header.next_free));
  }
  return header;
}

void EncodeRegionDescriptor(uint32_t slot, const RegionDescriptor& region, TablePageOut out) {
  CHECK(slot < kRegionSlots && region.runs.size() <= kMaxRegionRuns && region.name.size() <= kMaxRegionNameBytes);
  Writer writer = Begin(out, kDescriptorMagic);
  if (region.used) {
    writer.Put(kStateAt, uint8_t{1});
    writer.Put(kNameLengthAt, static_cast<uint8_t>(region.name.size()));
    writer.Put(kModeAt, region.mode);
    writer.Put(kRunCountAt, static_cast<uint16_t>(region.runs.size()));
    writer.PutPage(kFirstPageAt, region.pages.first);
    writer.Put(kPageCountAt, region.pages.count);
    writer.Put(kNextConfigAt, region.next_config.value);
    writer.Put(kOwnerAt, uint32_t{region.owner});
    writer.Put(kGroupAt, uint32_t{region.group});
    writer.PutBytes(kNameAt, region.name.data(), region.name.size());
    const bool reads = region.without_quorum == WithoutQuorum::kRead;
    writer.Put(kFlagsAt, static_cast<uint8_t>((region.unclean ? kUnclean : 0) | (reads ? kReadWithoutQuorum : 0)));
    std::byte* next = out.data() + kRunsAt;
    for (const RegionRun& run : region.runs) {
      EncodeRun(run, next);
      next += kRunBytes;
    }
  }
  End(RegionSlotPage(slot), out);
}

absl::StatusOr<RegionDescriptor> DecodeRegionDescriptor(uint32_t slot, TablePageIn page) {
  if (IsZero(page)) return RegionDescriptor{};
  const Complaint bad = SlotIs(slot);
  if (const absl::Status s = CheckFrame(RegionSlotPage(slot), page, kDescriptorMagic, bad); !s.ok()) return s;
  const Reader in(page.data());
  const auto state = in.Get<uint8_t>(kStateAt);
  if (state == 0) return RegionDescriptor{};
  if (state != 1) return bad("its state is ", int{state});
  RegionDescriptor region;
  region.used = true;
  region.name.assign(in.At(kNameAt), in.Get<uint8_t>(kNameLengthAt));
  region.mode = in.Get<uint16_t>(kModeAt);
  region.pages = {in.GetPage(kFirstPageAt), in.Get<uint64_t>(kPageCountAt)};
  region.next_config = ConfigNumber(in.Get<uint64_t>(kNextConfigAt));
  region.owner = in.Get<uint32_t>(kOwnerAt);
  region.group = in.Get<uint32_t>(kGroupAt);
  const auto flags = in.Get<uint8_t>(kFlagsAt);
  if ((flags & ~(kUnclean | kReadWithoutQuorum)) != 0) return bad("it has unknown flags ", int{flags});
  region.unclean = (flags & kUnclean) != 0;
  if ((flags & kReadWithoutQuorum) != 0) region.without_quorum = WithoutQuorum::kRead;
  if (const absl::Status s = CheckIdentity(region, bad); !s.ok()) return s;
  const auto runs = in.Get<uint16_t>(kRunCountAt);
  if (runs > kMaxRegionRuns) return bad("it has ", runs, " runs, more than ", kMaxRegionRuns);
  for (size_t i = 0; i < runs; ++i) {
    absl::StatusOr<RegionRun> run = DecodeRun(page.data() + kRunsAt + i * kRunBytes, region, bad);
    if (!run.ok()) return run.status();
    region.runs.push_back(*run);
  }
  return region;
}

}  // namespace mangrove
