#include "tests/sim/sim_store.h"

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

}  // namespace
}  // namespace mangrove::sim
