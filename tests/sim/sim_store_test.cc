#include "tests/sim/sim_store.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace mangrove::sim {
namespace {

class SimStoreTest : public testing::Test {
 protected:
  SimStoreTest() : world_(5), disk_(world_.Fork("disk")) { Open(); }

  void Open() {
    ++life_;
    store_ = std::make_unique<SimStore>(&world_, 0, life_, SimStoreOptions{}, &disk_, [this] { ++poisoned_; });
  }
  void Crash() {
    store_->Crash();
    world_.DropEventsOf(0);
    store_.reset();
  }
  void Run() {
    while (world_.Step()) {
    }
  }
  static StoreBatch Put(uint64_t page, uint64_t counter) {
    StoreBatch batch;
    auto data = std::make_shared<PageBytes>();
    data->bytes[0] = static_cast<std::byte>(counter);
    batch.put_pages.push_back({PageId(page), Version{Epoch(1), counter}, ConfigNumber(1), {}, data});
    return batch;
  }
  absl::StatusOr<StoredPage> Read(uint64_t page, bool with_data = true) {
    absl::StatusOr<StoredPage> result = absl::UnknownError("not called");
    store_->ReadPage(PageId(page), with_data, [&](absl::StatusOr<StoredPage> r) { result = std::move(r); });
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnknown) << "called inside the call";
    Run();
    return result;
  }
  absl::StatusOr<PageList> List(PageRange range, size_t most) {
    absl::StatusOr<PageList> result = absl::UnknownError("not called");
    store_->ListPages(range, most, PageStore::Listed::kAll, [&](absl::StatusOr<PageList> r) { result = std::move(r); });
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnknown) << "called inside the call";
    Run();
    return result;
  }
  absl::Status Commit(StoreBatch batch) {
    absl::Status result = absl::UnknownError("not called");
    store_->Commit(std::move(batch), [&](absl::Status s) { result = std::move(s); });
    EXPECT_EQ(result.code(), absl::StatusCode::kUnknown) << "called inside the call";
    Run();
    return result;
  }

  SimWorld world_;
  SimDisk disk_;
  uint64_t life_ = 0;
  int poisoned_ = 0;
  std::unique_ptr<SimStore> store_;
};

TEST_F(SimStoreTest, WhatIsDoneSurvivesACrash) {
  ASSERT_TRUE(Commit(Put(1, 3)).ok());
  Crash();
  Open();
  const absl::StatusOr<StoredPage> read = Read(1);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->version.counter, 3u);
  EXPECT_EQ(read->data->bytes[0], std::byte{3});
  EXPECT_EQ(Read(1, /*with_data=*/false)->data, nullptr);
  EXPECT_TRUE(absl::IsNotFound(Read(2).status()));
}

TEST_F(SimStoreTest, ACrashKeepsAPrefixOfWhatWasNotSynced) {
  std::array<int, 11> survived{};
  for (int round = 0; round < 400; ++round) {
    for (uint64_t i = 1; i <= 10; ++i) store_->Commit(Put(i, i + static_cast<uint64_t>(round)), [](absl::Status) {});
    Crash();
    size_t count = 0;
    while (count < 10 && disk_.DurableVersion(PageId(count + 1)).has_value()) ++count;
    for (size_t i = count; i < 10; ++i) EXPECT_FALSE(disk_.DurableVersion(PageId(i + 1)).has_value()) << "S2";
    ++survived[count];
    disk_.Wipe();
    Open();
  }
  for (const int times : survived) EXPECT_GT(times, 5);
}

TEST_F(SimStoreTest, AReadSeesEveryBatchCommittedBefore) {
  for (uint64_t i = 1; i <= 20; ++i) {
    store_->Commit(Put(1, 2 * i - 1), [](absl::Status) {});
    store_->Commit(Put(1, 2 * i), [](absl::Status) {});
    uint64_t seen = 0;
    store_->ReadPage(PageId(1), true, [&seen](absl::StatusOr<StoredPage> r) { seen = r->version.counter; });
    Run();
    EXPECT_EQ(seen, 2 * i);
  }
  StoreBatch drop;
  drop.delete_pages.push_back({PageId(1), 1});
  store_->Commit(std::move(drop), [](absl::Status) {});
  EXPECT_TRUE(absl::IsNotFound(Read(1).status()));
}

TEST_F(SimStoreTest, AListHasThePagesOfItsRangeInOrderAndSaysWhereTheRestBegins) {
  const PageRange everything{PageId(1), ~uint64_t{0}};
  EXPECT_TRUE(List(everything, 10)->pages.empty());
  EXPECT_EQ(List(everything, 10)->next, PageId(0));
  for (const uint64_t page : {30, 10, 50, 20, 40}) ASSERT_TRUE(Commit(Put(page, page)).ok());
  for (size_t most = 1; most <= 6; ++most) {
    const PageList list = *List(everything, most);
    ASSERT_EQ(list.pages.size(), std::min<size_t>(most, 5));
    EXPECT_EQ(list.next, PageId(most < 5 ? 10 * (most + 1) : 0));
    for (size_t i = 0; i < list.pages.size(); ++i) {
      EXPECT_EQ(list.pages[i].page, PageId(10 * (i + 1)));
      EXPECT_EQ(list.pages[i].version.counter, 10 * (i + 1));
      EXPECT_EQ(list.pages[i].data, nullptr);
    }
  }
  const PageList part = *List({PageId(20), 20}, 2);
  ASSERT_EQ(part.pages.size(), 2u);
  EXPECT_EQ(part.pages[0].page, PageId(20));
  EXPECT_EQ(part.next, PageId(0)) << "40 is behind the range";
  StoreBatch last = Put(1, 1);
  last.put_pages[0].page = PageId(kSpacePages - 1);
  ASSERT_TRUE(Commit(std::move(last)).ok());
  EXPECT_EQ(List({PageId(kSpacePages - 1), 1}, 2)->pages.size(), 1u);
}

// Commits are on their way while pages are listed, and crashes end them.
TEST_F(SimStoreTest, AListSeesEveryBatchCommittedBefore) {
  constexpr uint64_t kPages = 60;
  SimRandom random = world_.Fork("test");
  std::map<uint64_t, uint64_t> model;
  for (uint64_t round = 1; round <= 3'000; ++round) {
    StoreBatch batch = Put(1 + random.Below(kPages), round);
    if (random.PerMille(300)) {
      const PageRange gone{PageId(1 + random.Below(kPages)), random.Below(20)};
      std::erase_if(model, [&](const auto& page) { return gone.Contains(PageId(page.first)); });
      batch.delete_pages.push_back(gone);
    }
    model[absl::Uint128Low64(batch.put_pages[0].page.value)] = round;
    store_->Commit(std::move(batch), [](const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; });
    if (random.PerMille(700)) {
      world_.Step();
      continue;
    }
    const PageRange range{PageId(1 + random.Below(kPages)), random.Below(kPages)};
    const size_t most = 1 + random.Below(kPages);
    const PageList list = *List(range, most);
    auto expected = model.lower_bound(absl::Uint128Low64(range.first.value));
    for (const StoredPage& page : list.pages) {
      ASSERT_NE(expected, model.end());
      ASSERT_EQ(page.page, PageId(expected->first));
      ASSERT_EQ(page.version.counter, expected->second);
      ++expected;
    }
    const bool ends = expected == model.end() || !range.Contains(PageId(expected->first));
    ASSERT_EQ(list.next, PageId(ends ? 0 : expected->first));
    ASSERT_TRUE(ends || list.pages.size() == most);
    if (!random.PerMille(100)) continue;
    Crash();
    Open();
  }
}

TEST_F(SimStoreTest, CommitsThatWaitAreSyncedTogether) {
  std::vector<TimeNs> done;
  for (uint64_t i = 0; i < 50; ++i) {
    store_->Commit(Put(i, 1), [&](absl::Status s) {
      EXPECT_TRUE(s.ok());
      done.push_back(world_.now());
    });
  }
  Run();
  ASSERT_EQ(done.size(), 50u);
  EXPECT_LT(done[0], done[1]) << "the first began its sync alone";
  EXPECT_EQ(done[1], done[49]);
}

TEST_F(SimStoreTest, RecordsComeInOrderAndCanBeDeleted) {
  StoreBatch batch;
  batch.records = {{"a/2", "two"}, {"a/1", "one"}, {"b", "other"}, {"a/3", "three"}};
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  StoreBatch change;
  change.records = {{"a/2", std::nullopt}, {"a/1", "uno"}};
  store_->Commit(std::move(change), [](absl::Status) {});
  std::vector<std::pair<std::string, std::string>> found;
  store_->ReadRecords("a/", [&](auto records) { found = *records; });
  Run();
  EXPECT_EQ(found, (std::vector<std::pair<std::string, std::string>>{{"a/1", "uno"}, {"a/3", "three"}}));
}

TEST_F(SimStoreTest, AFullDiskFailsTheBatchAndNothingElse) {
  disk_.SetFull(true);
  EXPECT_TRUE(absl::IsResourceExhausted(Commit(Put(1, 1))));
  EXPECT_TRUE(absl::IsNotFound(Read(1).status()));
  EXPECT_EQ(store_->Usage().free_bytes, 0u);
  disk_.SetFull(false);
  EXPECT_TRUE(Commit(Put(1, 2)).ok());
  EXPECT_EQ(poisoned_, 0);
}

TEST_F(SimStoreTest, AFailedWritePoisonsTheStore) {
  ASSERT_TRUE(Commit(Put(1, 1)).ok());
  disk_.FailNextCommit();
  EXPECT_TRUE(absl::IsInternal(Commit(Put(1, 2))));
  EXPECT_TRUE(absl::IsInternal(Commit(Put(1, 3))));
  EXPECT_TRUE(absl::IsInternal(Read(1).status()));
  EXPECT_TRUE(absl::IsInternal(List({PageId(1), 10}, 10).status()));
  EXPECT_EQ(poisoned_, 1);
  Crash();
  Open();
  EXPECT_EQ(Read(1)->version.counter, 1u);
}

TEST_F(SimStoreTest, ADamagedPageIsReadAsDataLossUntilItIsWrittenAgain) {
  ASSERT_TRUE(Commit(Put(1, 1)).ok());
  ASSERT_EQ(disk_.CorruptOne([](const StoredPage&) { return true; }), PageId(1));
  EXPECT_TRUE(absl::IsDataLoss(Read(1).status()));
  ASSERT_TRUE(Commit(Put(1, 2)).ok());
  EXPECT_TRUE(Read(1).ok());
}

TEST_F(SimStoreTest, APageWithADamagedHeaderIsListedAsOlderThanAnyOther) {
  int damaged_headers = 0;
  for (uint64_t round = 1; round <= 50; ++round) {
    ASSERT_TRUE(Commit(Put(1, round)).ok());
    ASSERT_EQ(disk_.CorruptOne([](const StoredPage&) { return true; }), PageId(1));
    const PageList list = *List({PageId(1), 1}, 1);
    ASSERT_EQ(list.pages.size(), 1u);
    EXPECT_EQ(list.pages[0].page, PageId(1));
    const absl::StatusOr<StoredPage> header = Read(1, /*with_data=*/false);
    EXPECT_EQ(list.pages[0].version, header.ok() ? header->version : Version{});
    if (!header.ok()) ++damaged_headers;
  }
  EXPECT_GT(damaged_headers, 5);
  EXPECT_LT(damaged_headers, 45);
}

}  // namespace
}  // namespace mangrove::sim
