// Which pages a store says that it has: ListPages, and S3 to S5 of engine/page_store.h for it.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store/rocks_store.h"
#include "tests/unit/engine/store_test_support.h"
#include "tests/unit/engine/store_vandal.h"

namespace mangrove {
namespace {

using store_test::ExpectSame;
using store_test::FlipByte;
using store_test::KeyOf;
using store_test::MakePage;
using store_test::SmallBuffers;
using store_test::TemporaryDirectory;
using store_test::Vandal;
using store_test::WaitingStore;

using Model = std::map<PageId, uint64_t>;  // The pages that there are, and the counters of their versions.

constexpr PageId kListed{absl::MakeUint128(1, 42)};
constexpr PageRange kHuge{PageId(absl::MakeUint128(0, uint64_t{1} << 63)), uint64_t{1} << 63 | 1'000'000};
constexpr PageId kNone{0};

StoredPage HeaderOf(PageId page, uint64_t counter) {
  StoredPage header = MakePage(page, counter);
  header.data = nullptr;
  return header;
}

StoreBatch BatchOfPages(const std::vector<PageId>& puts, uint64_t counter) {
  StoreBatch batch;
  for (const PageId page : puts) batch.put_pages.push_back(MakePage(page, counter));
  return batch;
}

std::vector<PageId> PagesOf(const PageList& list) {
  std::vector<PageId> pages;
  for (const StoredPage& page : list.pages) pages.push_back(page.page);
  return pages;
}

// A list of the range, part by part.
std::vector<StoredPage> ListAll(WaitingStore& s, PageRange range, size_t most) {
  std::vector<StoredPage> all;
  while (true) {
    absl::StatusOr<PageList> list = s.List(range, most);
    EXPECT_TRUE(list.ok()) << list.status();
    if (!list.ok()) return all;
    EXPECT_LE(list->pages.size(), most);
    std::move(list->pages.begin(), list->pages.end(), std::back_inserter(all));
    if (list->next == kNone) return all;
    EXPECT_FALSE(list->pages.empty());
    EXPECT_TRUE(range.Contains(list->next) && !(list->next <= all.back().page)) << ToString(list->next);
    range = {list->next, range.end() - list->next};
  }
}

void ExpectModel(WaitingStore& s, const Model& model, PageRange range, size_t most) {
  const std::vector<StoredPage> found = ListAll(s, range, most);
  const auto end = model.lower_bound(range.end());
  auto expected = model.lower_bound(range.first);
  ASSERT_EQ(found.size(), static_cast<size_t>(std::distance(expected, end))) << ToString(range);
  for (const StoredPage& page : found) {
    ExpectSame(page, HeaderOf(expected->first, expected->second));
    ++expected;
  }
}

TEST(StoreList, AnEmptyStoreHasNone) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const auto list = s.List(kHuge, 10);
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_TRUE(list->pages.empty());
  EXPECT_EQ(list->next, kNone);
}

// Neighbours, and pages whose numbers differ in one byte alone.
TEST(StoreList, PagesComeInTheOrderOfTheirAddressesWithoutData) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  Model model;
  for (const uint64_t number : {1, 2, 3}) model[kListed + number] = 100 + number;
  for (int byte = 0; byte < 7; ++byte) {
    for (const uint64_t value : {1, 0x7f, 0x80, 0xff}) model[PageId(kListed.value + (value << (8 * byte)))] = value;
  }
  std::vector<std::pair<PageId, uint64_t>> shuffled(model.begin(), model.end());
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937_64(3));
  for (const auto& [page, counter] : shuffled) ASSERT_TRUE(s.Put(page, counter).ok());
  ExpectModel(s, model, {kListed, ~uint64_t{0}}, 1'000);
}

TEST(StoreList, ThereIsARestExactlyIfMoreWasNotListed) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  Model model;
  for (uint64_t i = 0; i < 10; ++i) model[kListed + i * i] = i;
  for (const auto& [page, counter] : model) ASSERT_TRUE(s.Put(page, counter).ok());
  for (size_t most = 1; most <= 12; ++most) {
    const auto list = s.List({kListed, 1'000}, most);
    ASSERT_TRUE(list.ok()) << list.status();
    EXPECT_EQ(list->pages.size(), std::min<size_t>(most, 10));
    EXPECT_EQ(list->next, most < 10 ? kListed + most * most : kNone) << most;
    ExpectModel(s, model, {kListed, 1'000}, most);
  }
  const auto up_to_the_last = s.List({kListed, 81}, 9);
  ASSERT_TRUE(up_to_the_last.ok()) << up_to_the_last.status();
  EXPECT_EQ(up_to_the_last->next, kNone) << "the tenth is behind the range";
}

TEST(StoreList, OnlyPagesOfTheRange) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Commit(BatchOfPages({kListed + 9, kListed + 10, kListed + 19, kListed + 20}, 1)).ok());
  const auto list = [&s](PageRange range) { return PagesOf(*s.List(range, 10)); };
  EXPECT_EQ(list({kListed + 10, 10}), (std::vector{kListed + 10, kListed + 19}));
  EXPECT_EQ(list({kListed + 9, 12}), (std::vector{kListed + 9, kListed + 10, kListed + 19, kListed + 20}));
  EXPECT_EQ(list({kListed + 11, 8}), std::vector<PageId>{});
  EXPECT_EQ(list({kListed + 10, 1}), std::vector{kListed + 10});
  EXPECT_EQ(list({kListed + 10, 0}), std::vector<PageId>{});
}

TEST(StoreList, BothEndsOfTheSpaceAndHugeRanges) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const PageId last(kSpacePages - 1);
  const PageId border(absl::MakeUint128(1, 0));
  ASSERT_TRUE(
      s.Commit(BatchOfPages({PageId(1), PageId(2), PageId(border.value - 1), border, PageId(last.value - 1), last}, 1))
          .ok());
  const auto list = [&s](PageRange range) { return PagesOf(*s.List(range, 10)); };
  EXPECT_EQ(list({PageId(1), 1}), std::vector{PageId(1)});
  EXPECT_EQ(list({PageId(0), uint64_t{1} << 60}), (std::vector{PageId(1), PageId(2)}));
  EXPECT_EQ(list(kHuge), (std::vector{PageId(border.value - 1), border}));
  constexpr uint64_t kMany = uint64_t{1} << 60;
  EXPECT_EQ(list({PageId(kSpacePages - kMany), kMany}), (std::vector{PageId(last.value - 1), last}));
  EXPECT_EQ(list({PageId(kSpacePages - ~uint64_t{0}), ~uint64_t{0} - 1}), std::vector{PageId(last.value - 1)});
  EXPECT_EQ(list({last, 1}), std::vector{last});
  EXPECT_EQ(list({PageId(kSpacePages), 0}), std::vector<PageId>{});
  const auto part = s.List({PageId(kSpacePages - kMany), kMany}, 1);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->next, last);
}

TEST(StoreList, SeesWhatWasCommittedBeforeIt) {  // S3
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const auto commit = [&s](StoreBatch batch) {
    s.store->Commit(std::move(batch), [](const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; });
  };
  for (uint64_t round = 1; round <= 100; ++round) {
    commit(BatchOfPages({kListed, kListed + 5, kListed + 100}, round));
    ExpectModel(s, {{kListed, round}, {kListed + 5, round}, {kListed + 100, round}}, kHuge, 10);
    StoreBatch batch = BatchOfPages({kListed + 50, kListed + 100}, round + 1);
    batch.delete_pages.push_back({kListed + 0, round % 2 == 0 ? uint64_t{1} : uint64_t{60}});
    batch.delete_pages.push_back({kListed + 100, 1});
    batch.delete_pages.push_back({kListed + 5, 1});
    commit(std::move(batch));
    ExpectModel(s, {{kListed + 50, round + 1}, {kListed + 100, round + 1}}, kHuge, 10);
    StoreBatch all_gone;
    all_gone.delete_pages.push_back({kListed, 1'000});
    commit(std::move(all_gone));
    ExpectModel(s, {}, kHuge, 10);
  }
  EXPECT_GT(s.store->statistics().reads_deferred, 0u);
}

// What one list knew of, those that wait for nothing know of as well; of later changes they may have some.
TEST(StoreList, OneThatWaitsForNothingIsNoOlderThanTheLastThatWaited) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  for (uint64_t round = 1; round <= 300; ++round) {
    s.store->Commit(BatchOfPages({kListed, kListed + 1}, 2 * round), [](const absl::Status&) {});
    if (round % 3 == 0) {
      ASSERT_EQ(s.List(kHuge, 10)->pages.size(), 2u);
    }
    s.store->Commit(BatchOfPages({kListed, kListed + 1}, 2 * round + 1), [](const absl::Status&) {});
    const auto list = s.List(kHuge, 10, PageStore::Listed::kNoWait);
    ASSERT_TRUE(list.ok()) << list.status();
    if (round < 3) continue;
    ASSERT_EQ(list->pages.size(), 2u);
    EXPECT_EQ(list->pages[0].version, list->pages[1].version) << "a batch is applied whole";
    EXPECT_GE(list->pages[0].version.counter, 2 * (round - round % 3));
    EXPECT_LE(list->pages[0].version.counter, 2 * round + 1);
  }
}

// Pages that nothing is on its way to are read while what was written to others has not been applied yet.
TEST(StoreList, ReadsOfOtherPagesSeeWhatWasThere) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Commit(BatchOfPages({kListed, kListed + 1, kListed + 2}, 1)).ok());
  for (uint64_t round = 2; round <= 300; ++round) {
    s.store->Commit(BatchOfPages({kListed}, round), [](const absl::Status&) {});
    if (round % 2 == 0) {
      ASSERT_TRUE(s.Commit(BatchOfPages({kListed + 1}, round)).ok());
    }
    const auto of = [&](PageId page) { return s.Read(page, /*with_data=*/false)->version.counter; };
    EXPECT_EQ(of(kListed + 2), 1u);
    EXPECT_EQ(of(kListed + 1), round - round % 2);
    EXPECT_EQ(of(kListed), round);
  }
}

TEST(StoreList, IsTheSameAfterCloseAndOpen) {
  TemporaryDirectory directory;
  Model model;
  for (uint64_t i = 0; i < 3'000; ++i) model[kListed + i * 3] = i;
  {
    WaitingStore s(directory.path(), SmallBuffers);
    for (const auto& [page, counter] : model) {
      s.store->Commit(BatchOfPages({page}, counter), [](const absl::Status&) {});
    }
    ExpectModel(s, model, kHuge, 256);
    StoreBatch deletion;
    deletion.delete_pages.push_back({kListed + 3'000, 3'000});
    ASSERT_TRUE(s.Commit(std::move(deletion)).ok());
    model.erase(model.lower_bound(kListed + 3'000), model.lower_bound(kListed + 6'000));
    ExpectModel(s, model, kHuge, 256);
  }
  WaitingStore s(directory.path(), SmallBuffers);
  ExpectModel(s, model, kHuge, 256);
  ExpectModel(s, model, kHuge, model.size());
}

// Pages in three places of the space, changed by commits that are on their way or not.
TEST(StoreList, IsWhatThePlainestModelSays) {
  TemporaryDirectory directory;
  std::mt19937_64 random(19);
  Model model;
  constexpr uint64_t kSpread = 150;
  const PageId places[] = {PageId(1), PageId(absl::MakeUint128(1, 0) - kSpread / 2), PageId(kSpacePages - kSpread)};
  std::unique_ptr<WaitingStore> s;
  for (uint64_t round = 1; round <= 4'000; ++round) {
    if (round % 1'000 == 1) {
      s.reset();
      s = std::make_unique<WaitingStore>(directory.path(), SmallBuffers);
    }
    const PageId place = places[random() % 3];
    StoreBatch batch;
    if (random() % 6 == 0) {
      const uint64_t first = random() % kSpread;
      const PageRange range{place + first, random() % std::min<uint64_t>(30, kSpread - first)};
      model.erase(model.lower_bound(range.first), model.lower_bound(range.end()));
      batch.delete_pages.push_back(range);
    }
    for (uint64_t puts = random() % 4; puts > 0; --puts) {
      const PageId page = place + random() % kSpread;
      batch.put_pages.push_back(MakePage(page, round));
      model[page] = round;
    }
    s->store->Commit(std::move(batch), [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
    if (random() % 4 != 0) continue;
    const PageId looked_at = places[random() % 3];
    const uint64_t first = random() % kSpread;
    const PageRange range{looked_at + first, random() % (kSpread - first + 1)};
    ASSERT_NO_FATAL_FAILURE(ExpectModel(*s, model, range, 1 + random() % 40)) << round;
    ASSERT_NO_FATAL_FAILURE(ExpectModel(*s, model, random() % 2 == 0 ? PageRange{PageId(1), ~uint64_t{0}} : kHuge, 100))
        << round;
  }
}

TEST(StoreList, ACorruptRecordIsListedAsOlderThanAnyOther) {  // S4
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    ASSERT_TRUE(s.Commit(BatchOfPages({kListed, kListed + 1, kListed + 2, kListed + 3}, 1)).ok());
  }
  {
    const auto [file, offset] = store_test::FileAndOffsetOf(directory.path(), kListed);
    FlipByte(file, offset + 1234);
    Vandal vandal(directory.path());
    std::string damaged = vandal.Get(1, KeyOf(kListed + 1));
    damaged[3] ^= 1;
    vandal.Put(1, KeyOf(kListed + 1), damaged);
    vandal.Put(1, KeyOf(kListed + 2), "short");
    vandal.Put(1, absl::StrCat(KeyOf(kListed + 2), "long"), damaged);
  }
  WaitingStore s(directory.path());
  auto list = s.List(kHuge, 10);
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->pages.size(), 4u);
  ExpectSame(list->pages[0], HeaderOf(kListed, 1));
  ExpectSame(list->pages[1], StoredPage{.page = kListed + 1});
  ExpectSame(list->pages[2], StoredPage{.page = kListed + 2});
  ExpectSame(list->pages[3], HeaderOf(kListed + 3, 1));
  EXPECT_EQ(s.store->statistics().corrupt, 2u);
  ASSERT_TRUE(s.Put(kListed + 1, 7).ok()) << "a sound copy from elsewhere replaces it";
  list = s.List({kListed + 1, 1}, 10);
  ExpectSame(list->pages.at(0), HeaderOf(kListed + 1, 7));
}

// Of a table that is damaged, everything before the damage is listed, and the page named from which on it is not.
TEST(StoreList, ADamagedTableIsDataLossFromAPageOn) {  // S4
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 2'000;
  {
    WaitingStore s(directory.path());
    StoreBatch batch;
    for (uint64_t i = 0; i < kPages; ++i) batch.put_pages.push_back(MakePage(kListed + i, i));
    ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  }
  std::filesystem::path table;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    if (entry.path().extension() != ".sst") continue;
    if (table.empty() || entry.file_size() > std::filesystem::file_size(table)) table = entry.path();
  }
  ASSERT_FALSE(table.empty());
  FlipByte(table, std::filesystem::file_size(table) / 2);
  for (const size_t most : {size_t{64}, size_t{10'000}}) {
    WaitingStore s(directory.path());
    PageRange range{kListed, kPages};
    uint64_t listed = 0;
    auto list = s.List(range, most);
    for (; list.ok() && list->next != kNone; list = s.List(range, most)) {
      for (const StoredPage& page : list->pages) ExpectSame(page, HeaderOf(kListed + listed, listed)), ++listed;
      range = {list->next, range.end() - list->next};
    }
    ASSERT_TRUE(absl::IsDataLoss(list.status())) << list.status();
    EXPECT_EQ(range.first, kListed + listed);
    EXPECT_NE(std::string(list.status().message()).find(ToString(range.first)), std::string::npos) << list.status();
    EXPECT_GT(listed, kPages / 4);
    EXPECT_LT(listed, kPages);
    EXPECT_EQ(s.store->statistics().corrupt, 1u);
    EXPECT_TRUE(s.Read(kListed + (listed - 1)).ok());
    EXPECT_TRUE(absl::IsDataLoss(s.Read(kListed + listed).status())) << "the first that is not listed is not to be had";
    const PageList before = *s.List({kListed, listed}, most);
    EXPECT_EQ(before.next, listed > most ? kListed + most : kNone) << "the damage is behind the range";
  }
}

}  // namespace
}  // namespace mangrove
