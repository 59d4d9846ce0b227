// What is on disk, byte by byte (docs/STORE.md), and that no bytes at all can do harm.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include "engine/store/page_entry.h"
#include "engine/store/sealed_value.h"
#include "engine/store/unapplied_index.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove::store {
namespace {

constexpr PageId kPage{absl::MakeUint128(0x0102030405060708, 0x090a0b0c0d0e0f10)};

PageEntry EntryOf(PageId page) {
  return {.page = page,
          .version = Version{Epoch(0x1112131415161718), 0x2122232425262728},
          .config = ConfigNumber(0x3132333435363738),
          .handle = RecoveryHandle{.high = 0x4142434445464748, .low = 0x5152535455565758},
          .data_sum = 0x6162636465666768,
          .place = {0x7172737475, 0x767778}};
}

std::string ValueOf(const PageEntry& entry) {
  const IndexValue value = EncodeIndexValue(entry);
  return {value.data(), value.size()};
}

TEST(PageEntry, KeysHaveTheOrderOfPages) {
  const PageKey key = EncodePageKey(kPage);
  for (size_t i = 0; i < kPageKeyBytes; ++i) EXPECT_EQ(key[i], static_cast<char>(i + 1));
  std::vector<PageId> pages = {PageId(0),
                               PageId(1),
                               PageId(255),
                               PageId(256),
                               PageId(absl::MakeUint128(0, ~uint64_t{0})),
                               PageId(absl::MakeUint128(1, 0)),
                               PageId(kSpacePages - 1),
                               PageId(kSpacePages)};
  for (size_t i = 0; i + 1 < pages.size(); ++i) {
    EXPECT_LT(View(EncodePageKey(pages[i])), View(EncodePageKey(pages[i + 1])));
  }
}

const std::string kFields(
    "\x18\x17\x16\x15\x14\x13\x12\x11\x28\x27\x26\x25\x24\x23\x22\x21"
    "\x38\x37\x36\x35\x34\x33\x32\x31\x48\x47\x46\x45\x44\x43\x42\x41"
    "\x58\x57\x56\x55\x54\x53\x52\x51\x68\x67\x66\x65\x64\x63\x62\x61");

TEST(PageEntry, BytesOfAnIndexValueAreWhereTheFormatSays) {
  const std::string value = ValueOf(EntryOf(kPage));
  ASSERT_EQ(value.size(), 64u);
  EXPECT_EQ(value.substr(0, 56), kFields + "\x78\x77\x76\x75\x74\x73\x72\x71");
  EXPECT_EQ(SegmentOf(value), 0x7172737475u);
  EXPECT_EQ(SegmentOf(value.substr(1)), 0u);
}

TEST(PageEntry, BytesOfALogEntryAreWhereTheFormatSays) {
  std::string bytes(kLogEntryBytes, '\0');
  EncodeLogEntry(EntryOf(kPage), bytes.data());
  EXPECT_EQ(bytes, "\x10\x0f\x0e\x0d\x0c\x0b\x0a\x09\x08\x07\x06\x05\x04\x03\x02\x01" + kFields);
  PageEntry decoded = DecodeLogEntry(bytes.data());
  decoded.place = EntryOf(kPage).place;
  EXPECT_EQ(decoded, EntryOf(kPage));
}

TEST(PageEntry, WhatIsEncodedIsDecoded) {
  const auto decoded = DecodeIndexValue(kPage, ValueOf(EntryOf(kPage)));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, EntryOf(kPage));
}

TEST(PageEntry, EveryFlippedBitIsDataLossByThePagesAddress) {
  const std::string sound = ValueOf(EntryOf(kPage));
  for (size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    std::string damaged = sound;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    const auto decoded = DecodeIndexValue(kPage, damaged);
    ASSERT_TRUE(absl::IsDataLoss(decoded.status())) << bit;
    ASSERT_NE(decoded.status().message().find(ToString(kPage)), absl::string_view::npos) << decoded.status();
  }
}

TEST(PageEntry, EveryOtherLengthIsDataLoss) {
  const std::string sound = ValueOf(EntryOf(kPage));
  for (size_t size = 0; size < sound.size(); ++size) {
    ASSERT_TRUE(absl::IsDataLoss(DecodeIndexValue(kPage, sound.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexValue(kPage, sound + "x").status()));
}

TEST(PageEntry, EntryOfAnotherPageIsDataLoss) {
  const auto decoded = DecodeIndexValue(kPage + 1, ValueOf(EntryOf(kPage)));
  ASSERT_TRUE(absl::IsDataLoss(decoded.status()));
  EXPECT_NE(decoded.status().message().find(ToString(kPage + 1)), absl::string_view::npos) << decoded.status();
}

TEST(PageEntry, RandomBytesAreDataLoss) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2'000; ++round) {
    std::string bytes(round % 2 == 0 ? kIndexValueBytes : random() % 100, '\0');
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random()); });
    ASSERT_TRUE(absl::IsDataLoss(DecodeIndexValue(kPage, bytes).status()));
  }
}

TEST(SealedValue, RecordIsDecodedUnderItsOwnKeyOnly) {
  for (const std::string& value : {std::string(), std::string("value"), std::string(1'000, '\0')}) {
    const std::string stored = EncodeRecordValue("key", value);
    EXPECT_EQ(*DecodeRecordValue("key", stored), value);
    const auto moved = DecodeRecordValue("kex", stored);
    EXPECT_TRUE(absl::IsDataLoss(moved.status()));
    EXPECT_NE(moved.status().message().find("kex"), absl::string_view::npos) << moved.status();
    for (size_t size = 0; size < stored.size(); ++size) {
      EXPECT_TRUE(absl::IsDataLoss(DecodeRecordValue("key", stored.substr(0, size)).status())) << size;
    }
    for (size_t bit = 0; bit < 8 * stored.size(); ++bit) {
      std::string damaged = stored;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      EXPECT_TRUE(absl::IsDataLoss(DecodeRecordValue("key", damaged).status())) << bit;
    }
  }
}

TEST(SealedValue, StampIsDecodedWholeOrNotAtAll) {
  const StoreStamp stamp{kStoreFormat, ClusterId{1, 2}, NodeId(3), 4};
  const std::string stored = EncodeStamp(stamp);
  ASSERT_EQ(stored.size(), 48u);
  EXPECT_EQ(*DecodeStamp(stored), stamp);
  for (size_t bit = 0; bit < 8 * stored.size(); ++bit) {
    std::string damaged = stored;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    const auto decoded = DecodeStamp(damaged);
    if (bit / 32 == 1) {
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_NE(decoded->format, kStoreFormat) << "which is refused";
    } else {
      EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << bit;
    }
  }
  for (size_t size = 0; size < stored.size(); ++size) EXPECT_FALSE(DecodeStamp(stored.substr(0, size)).ok());
}

// Against the plainest model: all batches that are there, searched one by one.
TEST(UnappliedIndex, NamesTheLastBatchThatChangesAKey) {
  std::mt19937_64 random(7);
  UnappliedIndex index;
  std::map<uint64_t, StoreBatch> there;
  uint64_t last = 0;
  for (int step = 0; step < 3'000; ++step) {
    if (there.size() < 8 && random() % 2 == 0) {
      StoreBatch batch;
      if (random() % 2 == 0) batch.put_pages.push_back(StoredPage{.page = PageId(random() % 10)});
      if (random() % 3 == 0) batch.delete_pages.push_back({PageId(random() % 10), random() % 4});
      if (random() % 2 == 0) batch.records.push_back({std::string(1 + random() % 3, 'a'), std::nullopt});
      index.Add(++last, batch);
      there.emplace(last, std::move(batch));
    } else if (!there.empty()) {
      index.Remove(there.begin()->first, there.begin()->second);
      there.erase(there.begin());
    }
    for (uint64_t page = 0; page < 14; ++page) {
      uint64_t expected = 0;
      for (const auto& [number, batch] : there) {
        for (const auto& put : batch.put_pages) expected = put.page == PageId(page) ? number : expected;
        for (const auto& range : batch.delete_pages) expected = range.Contains(PageId(page)) ? number : expected;
      }
      ASSERT_EQ(index.LastChangeOf(PageId(page)), expected);
    }
    uint64_t last_of_pages = 0;
    for (const auto& [number, batch] : there) {
      if (!batch.put_pages.empty() || !batch.delete_pages.empty()) last_of_pages = number;
    }
    ASSERT_EQ(index.LastChangeOfAnyPage(), last_of_pages);
    for (const std::string prefix : {"", "a", "aa", "aaa", "aaaa", "b"}) {
      uint64_t expected = 0;
      for (const auto& [number, batch] : there) {
        for (const auto& record : batch.records) expected = record.key.starts_with(prefix) ? number : expected;
      }
      ASSERT_EQ(index.LastChangeOfRecords(prefix), expected);
    }
  }
}

}  // namespace
}  // namespace mangrove::store
