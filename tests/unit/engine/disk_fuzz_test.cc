// Whatever a disk gives back for what was written, or a person writes into a configuration, is refused, or is what can be written.
// Covers: G15

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/core_holder.h"
#include "engine/node_config.h"
#include "engine/region_table_format.h"
#include "engine/store/log_group.h"
#include "engine/store/page_entry.h"
#include "engine/store/sealed_value.h"
#include "engine/transactions/log_format.h"
#include "tests/fuzz.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

template <typename Integer>
void PutAt(std::string& bytes, size_t at, Integer value) {
  if (at + sizeof(value) <= bytes.size()) std::memcpy(bytes.data() + at, &value, sizeof(value));
}

std::string DiskText(const PageBytes& page) { return std::string(fuzz::AsText(page.bytes)); }

PageBytes DiskPageFrom(std::string_view bytes) {
  PageBytes page{};
  std::memcpy(page.bytes.data(), bytes.data(), std::min(bytes.size(), kPageBytes));
  return page;
}

// --- The store --------------------------------------------------------------------------------------------------------

constexpr uint64_t kSalt = 42;
constexpr store::PagePlace kPlace{3, 8};

bool IsGroup(std::string_view bytes) {
  const auto header = store::DecodeGroupHeader(bytes, kSalt);
  if (!header) return false;
  EXPECT_GE(header->entry_blocks, 1u);
  const auto changes = store::DecodeGroupEntries(bytes, kSalt, kPlace);
  if (!changes) return false;
  uint64_t pages = 0;
  std::vector<StoreBatch> batches;
  for (const store::IndexChange& change : *changes) {
    StoreBatch& batch = batches.emplace_back();
    batch.delete_pages = change.delete_pages;
    batch.records = change.records;
    for (const store::PageEntry& entry : change.put_pages) {
      EXPECT_EQ(entry.place.block, kPlace.block + header->entry_blocks + pages);
      batch.put_pages.push_back({entry.page, entry.version, entry.config, entry.handle, NewPage()});
      ++pages;
    }
  }
  EXPECT_EQ(pages, header->pages);
  std::vector<const StoreBatch*> pointers;
  for (const StoreBatch& batch : batches) pointers.push_back(&batch);
  std::vector<char> again(store::EncodedGroupBlocks(pointers) * store::kBlockBytes);
  store::EncodeGroup(header->number, kSalt, kPlace, pointers, again);
  const std::string_view head(again.data(), header->entry_blocks * store::kBlockBytes);
  const auto same = store::DecodeGroupEntries(head, kSalt, kPlace);
  EXPECT_TRUE(same && same->size() == changes->size());
  return true;
}

// The sums of entries and header, and a length that the block has room for.
void RepairGroup(std::string& bytes) {
  bytes.resize(std::max<size_t>(bytes.size() / store::kBlockBytes, 1) * store::kBlockBytes);
  uint32_t entry_bytes = 0;
  std::memcpy(&entry_bytes, bytes.data() + 16, sizeof(entry_bytes));
  if (entry_bytes > bytes.size() - 40) PutAt(bytes, 16, entry_bytes = static_cast<uint32_t>(bytes.size() - 40));
  PutAt(bytes, 24, uint64_t{XXH3_64bits_withSeed(bytes.data() + 40, entry_bytes, kSalt)});
  PutAt(bytes, 32, uint64_t{XXH3_64bits_withSeed(bytes.data(), 32, kSalt)});
}

std::string GroupText(const std::vector<StoreBatch>& batches) {
  std::vector<const StoreBatch*> pointers;
  for (const StoreBatch& batch : batches) pointers.push_back(&batch);
  std::vector<char> bytes(store::EncodedGroupBlocks(pointers) * store::kBlockBytes);
  store::EncodeGroup(7, kSalt, kPlace, pointers, bytes);
  const auto header = store::DecodeGroupHeader({bytes.data(), bytes.size()}, kSalt);
  return {bytes.data(), header->entry_blocks * store::kBlockBytes};
}

TEST(DiskFuzz, AGroupOfTheStoresLogIsRefusedOrCanBeWritten) {
  StoreBatch one;
  one.delete_pages.push_back({PageId(9), 4});
  one.put_pages.push_back({PageId(absl::MakeUint128(1, 2)), {Epoch(3), 4}, ConfigNumber(5), {6, 7}, NewPage()});
  one.records = {{"key", "value"}, {"gone", std::nullopt}, {"empty", ""}};
  StoreBatch two;
  two.records = {{"other", std::string(100, 'x')}};
  fuzz::Run({.name = "group",
             .corpus = {GroupText({one, two}), GroupText({two}), GroupText({StoreBatch()})},
             .take = IsGroup,
             .repair = RepairGroup,
             .mutations = 40'000,
             .interesting_bytes = 400});
}

bool IsIndexValue(std::string_view value) {
  const auto entry = store::DecodeIndexValue(PageId(77), value);
  store::SegmentOf(value);
  if (!entry.ok()) return false;
  const store::IndexValue again = store::EncodeIndexValue(*entry);
  EXPECT_EQ(std::string_view(again.data(), again.size()), value);
  return true;
}

bool IsRecordValue(std::string_view stored) {
  const auto value = store::DecodeRecordValue("key", stored);
  if (!value.ok()) return false;
  EXPECT_EQ(store::EncodeRecordValue("key", *value), stored);
  return true;
}

bool IsStamp(std::string_view stored) {
  const auto stamp = store::DecodeStamp(stored);
  if (!stamp.ok()) return false;
  if (stamp->format == store::kStoreFormat) {
    EXPECT_EQ(store::EncodeStamp(*stamp), stored);
  }
  return true;
}

TEST(DiskFuzz, SealedValuesAreRefusedOrAreWhatIsWritten) {
  const store::PageEntry entry{
      .page = PageId(77), .version = {Epoch(1), 2}, .config = ConfigNumber(3), .place = {4, 5}};
  const store::IndexValue value = store::EncodeIndexValue(entry);
  const store::PageKey key = store::EncodePageKey(PageId(77));
  const uint64_t seed = XXH3_64bits(key.data(), key.size());
  const auto repair_value = [seed](std::string& bytes) {
    bytes.resize(store::kIndexValueBytes);
    PutAt(bytes, 56, uint64_t{XXH3_64bits_withSeed(bytes.data(), 56, seed)});
  };
  const auto repair_record = [](std::string& bytes) {
    if (bytes.size() < 9) return;
    PutAt(bytes, 1, uint64_t{XXH3_64bits_withSeed(bytes.data() + 9, bytes.size() - 9, XXH3_64bits("key", 3))});
  };
  const auto repair_stamp = [](std::string& bytes) {
    bytes.resize(48);
    PutAt(bytes, 40, uint64_t{XXH3_64bits(bytes.data(), 40)});
  };
  fuzz::RunAll({{.name = "index value",
                 .corpus = {std::string(value.data(), value.size())},
                 .take = IsIndexValue,
                 .repair = repair_value},
                {.name = "record",
                 .corpus = {store::EncodeRecordValue("key", "a value")},
                 .take = IsRecordValue,
                 .repair = repair_record},
                {.name = "stamp",
                 .corpus = {store::EncodeStamp({.cluster = {1, 2}, .node = NodeId(3), .log_salt = 4})},
                 .take = IsStamp,
                 .repair = repair_stamp}});
}

// --- Records of a core holder -----------------------------------------------------------------------------------------

const PageId kFirst = kFirstReservablePage + 7;

bool IsExtent(std::string_view value) {
  const auto extent = DecodeExtent(ExtentKey(kFirst), value);
  if (!extent.ok()) {
    EXPECT_EQ(extent.status().code(), absl::StatusCode::kDataLoss);
    return false;
  }
  EXPECT_EQ(EncodeExtent(*extent), value);
  return true;
}

bool IsLost(std::string_view value) {
  const auto lost = DecodeLost(LostKey(kFirst), value);
  if (!lost.ok()) {
    EXPECT_EQ(lost.status().code(), absl::StatusCode::kDataLoss);
    return false;
  }
  EXPECT_EQ(EncodeLost(lost->first, lost->second), value);
  return true;
}

TEST(DiskFuzz, RecordsOfExtentsAndOfLostPagesAreRefusedOrAreWhatIsWritten) {
  const Extent extent{.range = {kFirst, 12}, .config = ConfigNumber(3), .replicas = 2, .learned = true};
  fuzz::RunAll({{.name = "extent", .corpus = {EncodeExtent(extent)}, .take = IsExtent},
                {.name = "lost", .corpus = {EncodeLost(kFirst, {Epoch(4), 5})}, .take = IsLost}});
}

// --- Logs of transactions ---------------------------------------------------------------------------------------------

uint32_t SumOf(const char* bytes, size_t size) { return static_cast<uint32_t>(XXH3_64bits(bytes, size)); }

void RepairSealedPage(std::string& bytes) {
  bytes.resize(kPageBytes);
  PutAt(bytes, kPageBytes - 4, SumOf(bytes.data(), kPageBytes - 4));
}

bool IsLogHeader(std::string_view bytes) {
  const auto header = DecodeLogHeader(DiskPageFrom(bytes));
  if (!header.ok()) {
    EXPECT_EQ(header.status().code(), absl::StatusCode::kDataLoss);
    return false;
  }
  if (header->generation == 0) return true;
  PageBytes page;
  EncodeLogHeader(*header, page);
  EXPECT_EQ(*DecodeLogHeader(page), *header);
  return true;
}

bool IsReplayState(std::string_view bytes) {
  const auto state = DecodeReplayState(DiskPageFrom(bytes));
  if (!state.ok()) {
    EXPECT_EQ(state.status().code(), absl::StatusCode::kDataLoss);
    return false;
  }
  for (const NodeId node : state->logs)
    EXPECT_NE(node.value, 0u);  // The log of nobody would be the replay page itself.
  PageBytes page;
  EncodeReplayState(*state, page);
  EXPECT_EQ(*DecodeReplayState(page), *state);
  return true;
}

LogRecord SomeRecord(size_t bytes) {
  LogRecord record{.owner = {NodeId(7), Incarnation(3)}, .transaction = 5, .pages = {}};
  record.pages.push_back({.page = kFirst, .config = ConfigNumber(4), .sequence = 6, .changes = {{16, "x"}, {0, "y"}}});
  record.pages.push_back(
      {.page = kFirst + 1, .config = ConfigNumber(4), .sequence = 9, .changes = {{8, std::string(bytes, 'z')}}});
  return record;
}

bool IsRecord(std::string_view bytes) {
  std::string_view left = bytes;
  const auto record = TakeRecord(left);
  if (!record) return false;
  EXPECT_EQ(EncodeRecord(*record), bytes.substr(0, bytes.size() - left.size()));
  return true;
}

void RepairRecord(std::string& bytes) {
  if (bytes.size() < 8) return;
  PutAt(bytes, 0, static_cast<uint32_t>(bytes.size() - 8));
  PutAt(bytes, 4, SumOf(bytes.data() + 8, bytes.size() - 8));
}

// The pages of a log, one after the other.
constexpr LogHeader kHeader{.owner = {NodeId(7), Incarnation(3)}, .generation = 2, .ring_pages = 8, .tail = 0};

bool IsStream(std::string_view bytes) {
  LogStream stream(kHeader);
  for (size_t at = 0; at < bytes.size(); at += kPageBytes) {
    const PageBytes page = DiskPageFrom(bytes.substr(at));
    if (const auto log_page = DecodeLogPage(page)) {
      PageBytes again;
      EncodeLogPage(*log_page, again);
      const auto same = DecodeLogPage(again);
      EXPECT_TRUE(same && same->payload == log_page->payload && same->number == log_page->number);
    }
    const auto added = stream.Add(page);
    if (!added.ok()) {
      EXPECT_EQ(added.status().code(), absl::StatusCode::kDataLoss);
      return false;
    }
    if (!*added) break;
  }
  for (const LogRecord& record : stream.records()) {
    std::string encoded = EncodeRecord(record);
    std::string_view left = encoded;
    EXPECT_TRUE(TakeRecord(left) == record);
  }
  return !stream.records().empty();
}

void RepairStream(std::string& bytes) {
  bytes.resize((bytes.size() + kPageBytes - 1) / kPageBytes * kPageBytes);
  for (size_t at = 0; at < bytes.size(); at += kPageBytes) {
    uint16_t used = 0;
    std::memcpy(&used, bytes.data() + at + 6, sizeof(used));
    if (used > kLogPayloadBytes) PutAt(bytes, at + 6, used = kLogPayloadBytes);
    PutAt(bytes, at + kLogPageHeaderBytes - 4, uint32_t{0});
    PutAt(bytes, at + kLogPageHeaderBytes - 4, SumOf(bytes.data() + at, kLogPageHeaderBytes + used));
  }
}

std::string SomeStream() {
  const std::string records = EncodeRecord(SomeRecord(4000)) + EncodeRecord(SomeRecord(10));
  std::string stream;
  for (uint64_t number = 0; number * kLogPayloadBytes < records.size(); ++number) {
    PageBytes page;
    EncodeLogPage({.generation = 2,
                   .number = number,
                   .first_record = number == 0 ? uint16_t{0} : kNoRecord,
                   .payload = records.substr(number * kLogPayloadBytes, kLogPayloadBytes)},
                  page);
    stream += DiskText(page);
  }
  return stream;
}

TEST(DiskFuzz, LogsOfTransactionsAreRefusedOrCanBeWritten) {
  PageBytes header;
  EncodeLogHeader(kHeader, header);
  PageBytes state;
  EncodeReplayState({.done = Epoch(4), .logs = {NodeId(1), NodeId(2)}}, state);
  fuzz::RunAll({{.name = "header",
                 .corpus = {DiskText(header), DiskText(PageBytes{})},
                 .take = IsLogHeader,
                 .repair = RepairSealedPage,
                 .interesting_bytes = 56},
                {.name = "replay page",
                 .corpus = {DiskText(state), DiskText(PageBytes{})},
                 .take = IsReplayState,
                 .repair = RepairSealedPage,
                 .interesting_bytes = 48},
                {.name = "record",
                 .corpus = {EncodeRecord(SomeRecord(10)), EncodeRecord(LogRecord())},
                 .take = IsRecord,
                 .repair = RepairRecord},
                {.name = "stream",
                 .corpus = {SomeStream()},
                 .take = IsStream,
                 .repair = RepairStream,
                 .interesting_bytes = 160}});
}

// --- The table of regions ---------------------------------------------------------------------------------------------

constexpr uint32_t kSlot = 7;

void RepairTablePage(std::string& bytes, PageId page) {
  bytes.resize(kPageBytes);
  PutAt(bytes, kPageBytes - 8, uint64_t{XXH64(bytes.data(), kPageBytes - 8, absl::Uint128Low64(page.value))});
}

bool IsTableHeader(std::string_view bytes) {
  const auto header = DecodeRegionHeader(DiskPageFrom(bytes).bytes);
  if (!header.ok()) return false;
  PageBytes page;
  EncodeRegionHeader(*header, page.bytes);
  EXPECT_EQ(*DecodeRegionHeader(page.bytes), *header);
  return true;
}

bool IsDescriptor(std::string_view bytes) {
  const auto region = DecodeRegionDescriptor(kSlot, DiskPageFrom(bytes).bytes);
  if (!region.ok()) return false;
  if (!region->used) return true;
  EXPECT_TRUE(CheckRegionName(region->name).ok());
  PageBytes page;
  EncodeRegionDescriptor(kSlot, *region, page.bytes);
  EXPECT_EQ(*DecodeRegionDescriptor(kSlot, page.bytes), *region);
  return true;
}

TEST(DiskFuzz, PagesOfTheTableOfRegionsAreRefusedOrCanBeWritten) {
  PageBytes header;
  EncodeRegionHeader({.slots = 9, .next_free = kFirst}, header.bytes);
  RegionDescriptor region{
      .used = true, .name = "table", .pages = {kFirstReservablePage, 300}, .owner = 1001, .mode = 0640};
  region.next_config = ConfigNumber(9);
  region.runs = {{.offset = 3, .count = 5, .config = ConfigNumber(4), .replicas = 2},
                 {.offset = 8, .count = 0x100, .config = ConfigNumber(8), .replicas = 3, .is_volatile = true}};
  PageBytes descriptor;
  EncodeRegionDescriptor(kSlot, region, descriptor.bytes);
  fuzz::RunAll({{.name = "header",
                 .corpus = {DiskText(header)},
                 .take = IsTableHeader,
                 .repair = [](std::string& bytes) { RepairTablePage(bytes, kRegionHeaderPage); },
                 .interesting_bytes = 64},
                {.name = "descriptor",
                 .corpus = {DiskText(descriptor)},
                 .take = IsDescriptor,
                 .repair = [](std::string& bytes) { RepairTablePage(bytes, RegionSlotPage(kSlot)); },
                 .interesting_bytes = 420}});
}

// --- What people write ------------------------------------------------------------------------------------------------

constexpr char kConfig[] = R"([node]
name = "node-1"
data_dir = "var/data"
socket = "var/sock"
cache_size_mib = 64
spin_us = 0

[cluster]
name = "demo"
key_file = "var/key"
security = "encrypted"
replicas = 3
found_before = 17

[[members]]
id = 1
name = "node-1"
address = "127.0.0.1:7101"
votes = 2

[[members]]
id = 2
name = "node-2"
address = "[::1]:7102"
)";

bool IsConfig(std::string_view text) {
  const auto config = ParseNodeConfig(std::string(text), "x.toml");
  if (!config.ok()) {
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << config.status();
    EXPECT_EQ(config.status().message().find("x.toml"), 0u) << config.status();
    return false;
  }
  const std::string written = FormatNodeConfig(*config);
  const auto again = ParseNodeConfig(written, "x.toml");
  EXPECT_TRUE(again.ok()) << again.status() << "\n" << written;
  if (again.ok()) {
    EXPECT_EQ(FormatNodeConfig(*again), written);
  }
  return true;
}

TEST(DiskFuzz, AConfigurationIsRefusedByItsNameOrCanBeWritten) {
  fuzz::Run({.name = "configuration",
             .corpus = {kConfig,
                        "[node]\nname = 'a'\ndata_dir = 'd'\n[cluster]\nname = 'c'\nkey_file = 'k'\n"
                        "[[members]]\nid = 1\nname = 'a'\naddress = 'h:1'\n"},
             .take = IsConfig,
             .mutations = 10'000});
}

TEST(DiskFuzz, AFileOfKeysIsRefusedOrHasKeys) {
  const store_test::TemporaryDirectory directory;
  const std::string path = directory / "key";
  std::ofstream(path).flush();
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  const auto take = [&path](std::string_view text) {
    std::ofstream(path, std::ios::trunc) << text;
    const auto keys = LoadClusterKeys(path);
    if (!keys.ok()) return false;
    EXPECT_GE(keys->size(), 1u);
    return true;
  };
  const std::string key(64, 'a');
  fuzz::Run(
      {.name = "keys", .corpus = {key + "\n", key + "\n\n" + std::string(64, '7')}, .take = take, .mutations = 300});
}

}  // namespace
}  // namespace mangrove
