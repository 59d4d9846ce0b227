// Lists of what a disk has, as they are sent: what comes back, and what is refused.

#include "engine/stored_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <tuple>

#include "net/little_endian.h"

namespace mangrove {
namespace {

using absl::StatusCode;

// Where things are: a count of 4 bytes, then the entries.
constexpr size_t kHead = 4;
constexpr size_t kExtent = 37;
constexpr PageId kFirst{1000};
constexpr PageId kLastPage{kSpacePages - 1};

auto Fields(const StoredExtent& e) {
  return std::tuple(e.range.first.value, e.range.count, e.config.value, e.replicas, e.is_volatile);
}

std::vector<StoredExtent> Extents(size_t count) {
  std::vector<StoredExtent> extents;
  for (size_t i = 0; i < count; ++i) {
    extents.push_back({.range = {kFirst + 10 * i, i % 2 == 0 ? 10u : 3u},
                       .config = ConfigNumber(1 + i),
                       .replicas = static_cast<uint32_t>(i % 4),
                       .is_volatile = i % 3 == 0});
  }
  return extents;
}

std::vector<StoredVersion> Versions(size_t count) {
  std::vector<StoredVersion> versions;
  for (size_t i = 0; i < count; ++i) {
    versions.push_back({.page = kFirst + 2 * i + i % 2, .version = {Epoch(i), 7 * i}, .is_unreadable = i % 3 == 1});
  }
  return versions;
}

void ExpectComesBack(const std::vector<StoredExtent>& extents, PageId from) {
  const auto decoded = DecodeExtentList(*EncodeStoredList(extents), from);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->size(), extents.size());
  for (size_t i = 0; i < extents.size(); ++i) EXPECT_EQ(Fields((*decoded)[i]), Fields(extents[i])) << i;
}

void ExpectComesBack(const std::vector<StoredVersion>& versions, PageId from) {
  const EncodedVersions encoded = EncodeVersionList(versions);
  EXPECT_EQ(encoded.count, versions.size());
  const auto decoded = DecodeVersionList(*encoded.page, from);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, versions);
}

template <typename T>
void Set(PageBytes& page, size_t offset, T value) {
  StoreLittle(page.bytes.data() + offset, value);
}

void SetPage(PageBytes& page, size_t offset, PageId id) {
  Set<uint64_t>(page, offset, absl::Uint128Low64(id.value));
  Set<uint64_t>(page, offset + 8, absl::Uint128High64(id.value));
}

constexpr size_t ExtentAt(size_t i) { return kHead + i * kExtent; }
// Of three pages, what the second entry of Versions begins with: it is three pages behind, and unreadable.
constexpr size_t kSecondVersion = kHead + 4;
constexpr uint8_t kThreeBehind = 2 * 3 + 1;

// `change` makes of a good list of three entries one that is refused.
template <typename Change>
void ExpectExtentsRefused(Change change, PageId from = kFirst) {
  PageBytes page = *EncodeStoredList(Extents(3));
  change(page);
  EXPECT_EQ(DecodeExtentList(page, from).status().code(), StatusCode::kInvalidArgument);
}

template <typename Change>
void ExpectVersionsRefused(Change change, PageId from = kFirst) {
  PageBytes page = *EncodeVersionList(Versions(3)).page;
  change(page);
  EXPECT_EQ(DecodeVersionList(page, from).status().code(), StatusCode::kInvalidArgument);
}

// --- What comes back --------------------------------------------------------------------------------------------------

TEST(StoredList, ExtentsComeBackAsTheyWere) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, kExtentsPerList - 1, kExtentsPerList}) {
    SCOPED_TRACE(count);
    ExpectComesBack(Extents(count), PageId{});
    ExpectComesBack(Extents(count), kFirst);
  }
}

TEST(StoredList, VersionsComeBackAsTheyWere) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{1000}}) {
    SCOPED_TRACE(count);
    ExpectComesBack(Versions(count), PageId{});
    ExpectComesBack(Versions(count), kFirst);
  }
}

TEST(StoredList, GreatestNumbersComeBack) {
  const StoredExtent longest{.range = {PageId(1), UINT64_MAX},
                             .config = ConfigNumber(UINT64_MAX),
                             .replicas = UINT32_MAX,
                             .is_volatile = true};
  const StoredExtent last{.range = {kLastPage, 1}, .config = ConfigNumber(1), .replicas = 0};
  ExpectComesBack(std::vector<StoredExtent>{longest, last}, PageId(1));
  ExpectComesBack(std::vector<StoredExtent>{last}, kLastPage);
  const StoredVersion first{.page = PageId(1), .version = Version{}};
  const StoredVersion unknown{.page = PageId(absl::MakeUint128(1, 0)), .version = kUnknownVersion};
  const StoredVersion greatest{.page = kLastPage, .version = kUnknownVersion, .is_unreadable = true};
  ExpectComesBack(std::vector<StoredVersion>{first, unknown, greatest}, PageId(1));
}

TEST(StoredList, ExtentsSideBySideAreInOrder) {
  ExpectComesBack(std::vector<StoredExtent>{{.range = {kFirst, 5}, .config = ConfigNumber(3)},
                                            {.range = {kFirst + 5, 1}, .config = ConfigNumber(2)},
                                            {.range = {kFirst + 6, 9}, .config = ConfigNumber(3)}},
                  kFirst);
}

TEST(StoredList, NoVersionIsNewerThanTheUnknownOne) {
  EXPECT_LE((Version{Epoch(UINT64_MAX), UINT64_MAX}), kUnknownVersion);
}

// --- What is refused --------------------------------------------------------------------------------------------------

TEST(StoredList, MoreThanFitAreRefused) {
  for (const size_t count : {kExtentsPerList + 1, size_t{UINT32_MAX}}) {
    ExpectExtentsRefused([count](PageBytes& page) { Set(page, 0, static_cast<uint32_t>(count)); });
  }
  for (const size_t count : {kVersionsPerList + 1, size_t{UINT32_MAX}}) {
    ExpectVersionsRefused([count](PageBytes& page) { Set(page, 0, static_cast<uint32_t>(count)); });
  }
}

TEST(StoredList, ACountBeyondTheEntriesIsRefused) {
  ExpectExtentsRefused([](PageBytes& page) { Set(page, 0, uint32_t{4}); });
  ExpectVersionsRefused([](PageBytes& page) { Set(page, 0, uint32_t{4}); });
}

TEST(StoredList, EntriesBehindTheLastOneAreRefused) {
  ExpectExtentsRefused([](PageBytes& page) { Set(page, 0, uint32_t{2}); });
  ExpectVersionsRefused([](PageBytes& page) { Set(page, 0, uint32_t{2}); });
  ExpectExtentsRefused([](PageBytes& page) { Set(page, 0, uint32_t{0}); });
  ExpectVersionsRefused([](PageBytes& page) { Set(page, 0, uint32_t{0}); });
}

TEST(StoredList, AnyByteBehindTheLastEntryIsRefused) {
  for (const size_t at : {ExtentAt(3), ExtentAt(3) + 1, kPageBytes - 2, kPageBytes - 1}) {
    ExpectExtentsRefused([at](PageBytes& page) { Set(page, at, uint8_t{1}); });
  }
  for (const size_t at : {kPageBytes - 2, kPageBytes - 1}) {
    ExpectVersionsRefused([at](PageBytes& page) { Set(page, at, uint8_t{128}); });
  }
  PageBytes full = *EncodeStoredList(Extents(kExtentsPerList));
  Set(full, kPageBytes - 1, uint8_t{1});
  EXPECT_EQ(DecodeExtentList(full, kFirst).status().code(), StatusCode::kInvalidArgument);
}

TEST(StoredList, EntriesOutOfOrderAreRefused) {
  ExpectExtentsRefused([](PageBytes& page) {
    SetPage(page, ExtentAt(2), kFirst + 5000);
    SetPage(page, ExtentAt(1), kFirst + 9000);
  });
}

TEST(StoredList, TheSamePageTwiceIsRefused) {
  ExpectExtentsRefused([](PageBytes& page) { SetPage(page, ExtentAt(1), kFirst); });
  ExpectVersionsRefused([](PageBytes& page) {
    ASSERT_EQ(static_cast<uint8_t>(page.bytes[kSecondVersion]), kThreeBehind);
    Set<uint8_t>(page, kSecondVersion, 1);
  });
}

TEST(StoredList, ExtentsThatOverlapAreRefused) {
  ExpectExtentsRefused([](PageBytes& page) { SetPage(page, ExtentAt(1), kFirst + 9); });
  ExpectExtentsRefused([](PageBytes& page) { Set<uint64_t>(page, ExtentAt(0) + 16, 11); });
  ExpectExtentsRefused([](PageBytes& page) { Set<uint64_t>(page, ExtentAt(0) + 16, UINT64_MAX); });
}

TEST(StoredList, PageZeroIsRefused) {
  ExpectExtentsRefused([](PageBytes& page) { SetPage(page, ExtentAt(0), PageId{}); }, PageId{});
  ExpectVersionsRefused([](PageBytes& page) { page = *EncodeVersionList({{.page = PageId{}}}).page; }, PageId{});
}

TEST(StoredList, PagesBeyondTheSpaceAreRefused) {
  for (const PageId page : {PageId(kSpacePages), PageId(kSpacePages + 1), PageId(absl::Uint128Max())}) {
    ExpectExtentsRefused([page](PageBytes& bytes) { SetPage(bytes, ExtentAt(2), page); });
    ExpectVersionsRefused([page](PageBytes& bytes) { bytes = *EncodeVersionList({{.page = page}}).page; });
  }
  ExpectExtentsRefused([](PageBytes& page) {  // Its second page is.
    SetPage(page, ExtentAt(2), kLastPage);
    Set<uint64_t>(page, ExtentAt(2) + 16, 2);
  });
  ExpectExtentsRefused([](PageBytes& page) {
    SetPage(page, ExtentAt(2), kLastPage);
    Set<uint64_t>(page, ExtentAt(2) + 16, UINT64_MAX);
  });
}

TEST(StoredList, AnExtentOfNoPagesIsRefused) {
  for (size_t i = 0; i < 3; ++i) {
    ExpectExtentsRefused([i](PageBytes& page) { Set<uint64_t>(page, ExtentAt(i) + 16, 0); });
  }
}

TEST(StoredList, ConfigurationZeroIsRefused) {
  for (size_t i = 0; i < 3; ++i) {
    ExpectExtentsRefused([i](PageBytes& page) { Set<uint64_t>(page, ExtentAt(i) + 24, 0); });
  }
}

TEST(StoredList, UnknownFlagsAreRefused) {
  for (const int flag : {4, 5, 128, 255}) {
    const auto value = static_cast<uint8_t>(flag);
    ExpectExtentsRefused([value](PageBytes& page) { Set(page, ExtentAt(2) + 36, value); });
  }
}

TEST(StoredList, NumbersThatDoNotEndOrAreLongerThanTheyNeedBeAreRefused) {
  ExpectVersionsRefused([](PageBytes& page) {  // To the end of the page, and for longer than a number has bits.
    for (size_t at = kSecondVersion; at < kPageBytes; ++at) Set<uint8_t>(page, at, 0xff);
  });
  ExpectVersionsRefused([](PageBytes& page) {
    Set<uint32_t>(page, 0, 1);
    Set<uint8_t>(page, kHead + 2, 0x80);  // An epoch of 0, in two bytes.
    Set<uint16_t>(page, kHead + 3, 0);
  });
}

TEST(StoredList, AsManyVersionsComeBackAsFit) {
  const std::vector<StoredVersion> all = Versions(3 * kVersionsPerList);
  const EncodedVersions encoded = EncodeVersionList(all);
  ASSERT_TRUE(1000 < encoded.count && encoded.count <= kVersionsPerList) << encoded.count;
  const auto some = DecodeVersionList(*encoded.page, kFirst);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_EQ(*some, std::vector(all.begin(), all.begin() + static_cast<ptrdiff_t>(encoded.count)));
}

TEST(StoredList, WhatAnExtentIsComesBack) {
  for (const bool is_volatile : {false, true}) {
    for (const bool is_learned : {false, true}) {
      const StoredExtent extent{.range = {kFirst, 5},
                                .config = ConfigNumber(3),
                                .replicas = 2,
                                .is_volatile = is_volatile,
                                .is_learned = is_learned};
      const auto read = DecodeExtentList(*EncodeStoredList(std::vector<StoredExtent>{extent}), kFirst);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(read->front().is_volatile, is_volatile);
      EXPECT_EQ(read->front().is_learned, is_learned);
    }
  }
}

TEST(StoredList, EntriesBeforeWhereItIsToBeginAreRefused) {
  for (const PageId from : {kFirst + 1, kFirst + 10, PageId(kSpacePages)}) {
    ExpectExtentsRefused([](PageBytes&) {}, from);
    ExpectVersionsRefused([](PageBytes&) {}, from);
  }
}

TEST(StoredList, AnEmptyListBeginsAnywhere) {
  for (const PageId from : {PageId{}, PageId(1), kLastPage, PageId(kSpacePages)}) {
    EXPECT_TRUE(DecodeExtentList(PageBytes{}, from)->empty());
    EXPECT_TRUE(DecodeVersionList(PageBytes{}, from)->empty());
  }
}

// --- Anything ---------------------------------------------------------------------------------------------------------

// What is accepted says what the bytes say: it is encoded to the same.
int CountAccepted(const PageBytes& page, PageId from) {
  int accepted = 0;
  if (const auto extents = DecodeExtentList(page, from); extents.ok()) {
    ++accepted;
    EXPECT_LE(extents->size(), kExtentsPerList);
    EXPECT_EQ(EncodeStoredList(*extents)->bytes, page.bytes);
  } else {
    EXPECT_EQ(extents.status().code(), StatusCode::kInvalidArgument);
  }
  if (const auto versions = DecodeVersionList(page, from); versions.ok()) {
    ++accepted;
    EXPECT_LE(versions->size(), kVersionsPerList);
    EXPECT_EQ(EncodeVersionList(*versions).page->bytes, page.bytes);
  } else {
    EXPECT_EQ(versions.status().code(), StatusCode::kInvalidArgument);
  }
  return accepted;
}

TEST(StoredList, RandomBytesAreRefusedOrSayWhatTheySay) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 3000; ++round) {
    PageBytes page{};
    const size_t filled = random() % (kPageBytes + 1);
    for (size_t i = 0; i < filled; ++i) page.bytes[i] = static_cast<std::byte>(random());
    if (random() % 4 != 0) Set(page, 0, static_cast<uint32_t>(random() % (kVersionsPerList + 2)));
    CountAccepted(page, PageId(random() % 2000));
  }
}

TEST(StoredList, AListWithWrongBytesIsRefusedOrSaysWhatTheySay) {
  std::mt19937_64 random(6);
  int accepted = 0;
  constexpr int kRounds = 20'000;
  for (int round = 0; round < kRounds; ++round) {
    const bool of_extents = random() % 2 == 0;
    const size_t count = random() % 4;
    PageBytes page = of_extents ? *EncodeStoredList(Extents(count)) : *EncodeVersionList(Versions(count)).page;
    for (uint64_t wrong = 1 + random() % 3; wrong > 0; --wrong) {
      page.bytes[random() % (kHead + (count + 1) * kExtent)] ^= static_cast<std::byte>(1 << random() % 8);
    }
    accepted += CountAccepted(page, random() % 2 == 0 ? PageId{} : kFirst);
  }
  EXPECT_GT(accepted, kRounds / 100);
  EXPECT_LT(accepted, kRounds * 9 / 10);
}

}  // namespace
}  // namespace mangrove
