#include "engine/region_table_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/region_table_runs.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;
using Bytes = std::array<std::byte, kPageBytes>;

constexpr uint32_t kSlot = 7;

RegionDescriptor Example() {
  RegionDescriptor region;
  region.used = true;
  region.name = "table";
  region.pages = {PageId(absl::MakeUint128(0x0001020304050607, 0x1112131415161800)), 0x2122};
  region.owner = 1001;
  region.group = 101;
  region.mode = 0640;
  region.next_config = ConfigNumber(9);
  region.unclean = true;
  region.without_quorum = WithoutQuorum::kRead;
  RegionRun run{.offset = 3, .count = 5, .config = ConfigNumber(4), .replicas = 2};
  region.runs.push_back(run);
  run = {
      .offset = 8, .count = 0x100, .config = ConfigNumber(8), .replicas = 3, .is_volatile = true, .keep_in_ram = true};
  run.user[0] = std::byte{0xaa};
  run.user[15] = std::byte{0xbb};
  region.runs.push_back(run);
  return region;
}

Bytes Encoded(const RegionDescriptor& region, uint32_t slot = kSlot) {
  Bytes page;
  EncodeRegionDescriptor(slot, region, page);
  return page;
}

// With a checksum that fits.
void Reseal(Bytes& page, PageId id) {
  const uint64_t sum = XXH64(page.data(), kPageBytes - 8, absl::Uint128Low64(id.value));
  std::memcpy(page.data() + kPageBytes - 8, &sum, sizeof(sum));
}

void ExpectBad(const absl::Status& status, const std::string& text) {
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

TEST(RegionTableFormat, HeaderIsReadBack) {
  const RegionTableHeader header{.slots = 4095, .next_free = PageId(kReservableEnd)};
  Bytes page;
  EncodeRegionHeader(header, page);
  EXPECT_EQ(*DecodeRegionHeader(page), header);
}

TEST(RegionTableFormat, DescriptorIsReadBack) {
  EXPECT_EQ(*DecodeRegionDescriptor(kSlot, Encoded(Example())), Example());
}

TEST(RegionTableFormat, LargestDescriptorIsReadBack) {
  RegionDescriptor region = Example();
  region.name = std::string(kMaxRegionNameBytes, 'n');
  region.pages.count = kMaxRegionPages;
  region.runs.clear();
  for (uint64_t i = 0; i < kMaxRegionRuns; ++i) {
    RegionRun run{.offset = i * 10, .count = i % 10 + 1, .config = ConfigNumber(i % 8 + 1), .replicas = 0xffffffff};
    run.user.fill(std::byte{0xff});
    region.runs.push_back(run);
  }
  EXPECT_EQ(*DecodeRegionDescriptor(kSlot, Encoded(region)), region);
}

TEST(RegionTableFormat, PageOfZerosIsAnEmptyHeaderAndAFreeSlot) {
  const Bytes zeros{};
  EXPECT_EQ(*DecodeRegionHeader(zeros), RegionTableHeader{});
  EXPECT_EQ(*DecodeRegionDescriptor(0, zeros), RegionDescriptor{});
  EXPECT_EQ(*DecodeRegionDescriptor(kSlot, Encoded(RegionDescriptor{})), RegionDescriptor{});
}

// The places that docs/REGION_TABLE.md promises.
TEST(RegionTableFormat, BytesAreWhereTheDocumentSays) {
  const Bytes page = Encoded(Example());
  const auto bytes = [&page](size_t at, size_t count) {
    std::vector<int> found;
    for (size_t i = at; i < at + count; ++i) found.push_back(static_cast<int>(page[i]));
    return found;
  };
  using V = std::vector<int>;
  EXPECT_EQ(bytes(0, 16), (V{'M', 'G', 'R', 'E', 'G', 'I', 'O', 'N', 1, 0, 1, 5, 0xa0, 1, 2, 0}));
  EXPECT_EQ(bytes(16, 16), (V{0, 0x18, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 7, 6, 5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(bytes(32, 16), (V{0x22, 0x21, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(bytes(48, 14), (V{0xe9, 3, 0, 0, 101, 0, 0, 0, 't', 'a', 'b', 'l', 'e', 0}));
  EXPECT_EQ(bytes(311, 1), (V{3}));
  EXPECT_EQ(bytes(360, 24), (V{8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(bytes(384, 24), (V{3, 0, 0, 0, 3, 0, 0, 0, 0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbb}));

  Bytes header;
  EncodeRegionHeader({.slots = 0x102, .next_free = PageId(absl::MakeUint128(1, 2))}, header);
  EXPECT_EQ(std::memcmp(header.data(), "MGRTABLE\1\0\0\0\2\1\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0", 33), 0);
  Bytes resealed = header;
  Reseal(resealed, kRegionHeaderPage);
  EXPECT_EQ(resealed, header);
}

TEST(RegionTableFormat, EveryFlippedBitIsNoticed) {
  for (size_t at = 0; at < kPageBytes; ++at) {
    Bytes page = Encoded(Example());
    page[at] ^= std::byte(1 << at % 8);
    ExpectBad(DecodeRegionDescriptor(kSlot, page).status(), "slot 7 of the region table (");
  }
}

TEST(RegionTableFormat, PageOfAnotherSlotIsNoticed) {
  ExpectBad(DecodeRegionDescriptor(kSlot + 1, Encoded(Example())).status(), "slot 8 of the region table");
}

TEST(RegionTableFormat, OtherFormatIsNamed) {
  Bytes page = Encoded(Example());
  page[8] = std::byte{2};
  Reseal(page, RegionSlotPage(kSlot));
  ExpectBad(DecodeRegionDescriptor(kSlot, page).status(), "it is of format 2, this program knows 1");
}

TEST(RegionTableFormat, NonsenseUnderAGoodChecksumIsNamed) {
  const std::vector<std::pair<std::function<void(RegionDescriptor&)>, std::string>> cases = {
      {[](auto& r) { r.name = "a/b"; }, "bad region name"},
      {[](auto& r) { r.name.clear(); }, "bad region name"},
      {[](auto& r) { r.pages.first = PageId(512); }, "its range"},
      {[](auto& r) { r.pages.first = r.pages.first + 1; }, "its range"},
      {[](auto& r) { r.pages.first = PageId(kReservableEnd); }, "its range"},
      {[](auto& r) { r.pages.count = 0; }, "its range"},
      {[](auto& r) { r.pages.count = kMaxRegionPages + 1; }, "its range"},
      {[](auto& r) { r.mode = 0700; }, "its mode"},
      {[](auto& r) { r.next_config = ConfigNumber(0); }, "its next configuration number is 0"},
      {[](auto& r) { r.next_config = ConfigNumber(8); }, "run 1 has configuration 8"},
      {[](auto& r) { r.runs[0].config = ConfigNumber(0); }, "run 0 has configuration 0"},
      {[](auto& r) { r.runs[0].count = 0; }, "run 0 is of 0 pages"},
      {[](auto& r) { r.runs[0].count = 6; }, "run 1 is of 256 pages from 8 on, after 9"},
      {[](auto& r) { std::swap(r.runs[0], r.runs[1]); }, "run 1 is of"},
      {[](auto& r) { r.runs[1].offset = UINT64_MAX; }, "run 1 is of"},
      {[](auto& r) { r.runs[1].count = UINT64_MAX; }, "run 1 is of"},
      {[](auto& r) { r.runs[1].protocol = static_cast<CoherenceProtocol>(2); }, "protocol 2"},
  };
  for (const auto& [change, text] : cases) {
    RegionDescriptor region = Example();
    change(region);
    ExpectBad(DecodeRegionDescriptor(kSlot, Encoded(region)).status(), text);
  }
  Bytes header;
  EncodeRegionHeader({.slots = 0, .next_free = PageId(5)}, header);
  ExpectBad(DecodeRegionHeader(header).status(), "the next free page cannot be");
  EncodeRegionHeader({.slots = 0, .next_free = PageId(kReservableEnd + 1)}, header);
  ExpectBad(DecodeRegionHeader(header).status(), "the next free page cannot be");
}

TEST(RegionTableFormat, MutatedPagesUnderAGoodChecksumAreReadOrRefused) {
  std::mt19937_64 random(5);
  const Bytes good = Encoded(Example());
  for (int round = 0; round < 50'000; ++round) {
    Bytes page = good;
    for (uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
      page[random() % (random() % 2 ? 420 : 64)] = static_cast<std::byte>(random());
    }
    Reseal(page, RegionSlotPage(kSlot));
    const auto region = DecodeRegionDescriptor(kSlot, page);
    if (!region.ok()) {
      ASSERT_EQ(region.status().code(), StatusCode::kDataLoss);
    } else {
      ASSERT_EQ(*DecodeRegionDescriptor(kSlot, Encoded(*region)), *region);
    }
  }
}

// --- Runs -------------------------------------------------------------------------------------------------------------

TEST(RegionTableRuns, AgreeWithAListOfPages) {
  constexpr uint64_t kPages = 24;
  std::mt19937_64 random(11);
  RegionRuns runs;
  std::array<int, kPages> pages{};  // 0: not allocated, else 1 + keep_in_ram.
  for (int round = 0; round < 20'000; ++round) {
    const uint64_t offset = random() % kPages;
    const uint64_t count = 1 + random() % (kPages - offset);
    const auto first = pages.begin() + static_cast<std::ptrdiff_t>(offset);
    const auto last = first + static_cast<std::ptrdiff_t>(count);
    const auto hole = std::find(first, last, 0);
    const auto allocated = std::find_if(first, last, [](int p) { return p != 0; });
    EXPECT_EQ(FirstHole(runs, offset, count),
              hole == last ? std::nullopt : std::optional<uint64_t>(hole - pages.begin()));
    EXPECT_EQ(FirstAllocated(runs, offset, count),
              allocated == last ? std::nullopt : std::optional<uint64_t>(allocated - pages.begin()));
    if (random() % 3 == 0) {
      CutRuns(runs, offset, count);
      std::fill(first, last, 0);
    } else if (allocated == last) {
      const bool keep = random() % 2 == 0;
      InsertRun(runs, {.offset = offset, .count = count, .config = ConfigNumber(1), .keep_in_ram = keep});
      std::fill(first, last, keep ? 2 : 1);
    } else {
      const bool keep = random() % 2 == 0;
      ChangeRuns(runs, offset, count, [keep](RegionRun& run) { run.keep_in_ram = keep; });
      std::replace_if(
          first, last, [](int p) { return p != 0; }, keep ? 2 : 1);
    }
    uint64_t joined = 0;
    for (uint64_t i = 0; i < kPages; ++i) {
      const RegionRun* const run = FindRun(runs, i);
      ASSERT_EQ(run == nullptr ? 0 : run->keep_in_ram ? 2 : 1, pages[i]);
      if (pages[i] != 0 && (i == 0 || pages[i - 1] != pages[i])) ++joined;
    }
    ASSERT_LE(joined, runs.size());
    ASSERT_TRUE(
        std::is_sorted(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; }));
  }
}

TEST(RegionTableRuns, NeighboursOfEqualAttributesJoinUnderTheNewerConfiguration) {
  RegionRuns runs;
  InsertRun(runs, {.offset = 4, .count = 4, .config = ConfigNumber(7), .replicas = 2});
  InsertRun(runs, {.offset = 0, .count = 4, .config = ConfigNumber(3), .replicas = 2});
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0], (RegionRun{.offset = 0, .count = 8, .config = ConfigNumber(7), .replicas = 2}));
  InsertRun(runs, {.offset = 8, .count = 1, .config = ConfigNumber(8), .replicas = 3});
  EXPECT_EQ(runs.size(), 2u);
}

// --- On how many disks ------------------------------------------------------------------------------------------------

RegionRun RunOn(uint64_t offset, uint64_t count, uint32_t replicas, bool is_volatile = false) {
  return {
      .offset = offset, .count = count, .config = ConfigNumber(1), .replicas = replicas, .is_volatile = is_volatile};
}

TEST(RegionTableRuns, ThePagesOnFewestDisksSayOnHowManyEachIsAtLeast) {
  const RegionRuns runs = {RunOn(0, 4, 3), RunOn(4, 2, 2), RunOn(6, 4, 4)};
  EXPECT_EQ(LeastReplicas(runs, 0, 4, 5), 3u);
  EXPECT_EQ(LeastReplicas(runs, 0, 5, 5), 2u);
  EXPECT_EQ(LeastReplicas(runs, 0, 10, 5), 2u);
  EXPECT_EQ(LeastReplicas(runs, 5, 3, 5), 2u);
  EXPECT_EQ(LeastReplicas(runs, 6, 4, 5), 4u);
  EXPECT_EQ(LeastReplicas(runs, 9, 1, 5), 4u);
}

TEST(RegionTableRuns, PagesThatNoRunSaysAnythingOfMayBeOnOneDisk) {
  const RegionRuns runs = {RunOn(2, 2, 3), RunOn(6, 2, 3)};
  EXPECT_EQ(LeastReplicas({}, 0, 4, 5), 1u);
  EXPECT_EQ(LeastReplicas(runs, 0, 1, 5), 1u);
  EXPECT_EQ(LeastReplicas(runs, 1, 2, 5), 1u);
  EXPECT_EQ(LeastReplicas(runs, 2, 6, 5), 1u);
  EXPECT_EQ(LeastReplicas(runs, 7, 2, 5), 1u);
  EXPECT_EQ(LeastReplicas(runs, 2, 2, 5), 3u);
}

TEST(RegionTableRuns, VolatilePagesAreOnTheDisksOfAllMembers) {
  const RegionRuns runs = {RunOn(0, 4, 1, /*is_volatile=*/true), RunOn(4, 4, 2)};
  EXPECT_EQ(LeastReplicas(runs, 0, 4, 5), 5u);
  EXPECT_EQ(LeastReplicas(runs, 0, 4, 1), 1u);
  EXPECT_EQ(LeastReplicas(runs, 0, 5, 5), 2u);
  EXPECT_EQ(LeastReplicas(runs, 4, 4, 5), 2u);
}

TEST(RegionTableRuns, EachPageIsOnOneDiskAtLeast) {
  EXPECT_EQ(LeastReplicas({RunOn(0, 4, 0)}, 0, 4, 5), 1u);
  EXPECT_EQ(LeastReplicas({RunOn(0, 4, 2, /*is_volatile=*/true)}, 0, 4, 0), 1u);
}

}  // namespace
}  // namespace mangrove
