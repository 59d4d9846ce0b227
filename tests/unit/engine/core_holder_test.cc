// What a core holder does with pages: K1 to K4.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/unit/engine/core_holder_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

// --- K1: what it acknowledged is durable ------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K1StoreIsAnsweredWhenItIsDurable) {
  PutTen();
  const uint64_t store = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(store));
  store_.FinishCommit();
  ASSERT_TRUE(Answered(store));
  EXPECT_EQ(answers_[store].kind, MessageKind::kStored);
  EXPECT_EQ(answers_[store].code, StatusCode::kOk);
  EXPECT_EQ(answers_[store].version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).config, ConfigNumber(5));
}

TEST_F(CoreHolderTest, K1StoreThatComesTwiceIsAnsweredWhenTheFirstIsDurable) {
  PutTen();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(second));
  EXPECT_EQ(store_.commits.size(), 1u);
  store_.FinishCommit();
  EXPECT_TRUE(Answered(first));
  EXPECT_TRUE(Answered(second));
}

TEST_F(CoreHolderTest, K1PlantedBugAcknowledgesBeforeTheSync) {
  PutTen();
  bugs_.acknowledge_before_sync = true;
  const uint64_t store = Send(Store(kBase, 5, V(1)));
  EXPECT_TRUE(Answered(store));
  EXPECT_EQ(store_.durable.pages.count(kBase.value), 0u);
  store_.FinishCommit();
}

TEST_F(CoreHolderTest, K1EachStoreIsOneCommit) {
  PutTen();
  const int before = store_.commit_count;
  for (uint64_t i = 0; i < 10; ++i) Send(Store(kBase + i, 5, V(1)));
  EXPECT_EQ(store_.commit_count, before + 10);
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K1QueryTellsOfAVersionOnlyWhenItIsDurable) {
  PutTen();
  Send(Store(kBase, 5, V(1)));
  const uint64_t query = Send(Query(kBase));
  store_.FinishRead();
  EXPECT_FALSE(Answered(query));
  store_.FinishCommit();
  ASSERT_TRUE(Answered(query));
  EXPECT_EQ(answers_[query].version, V(1));
}

TEST_F(CoreHolderTest, K1PutAndDropAreAnsweredWhenTheyAreDurable) {
  const uint64_t put = Send(Put(kBase, 10, 5));
  const uint64_t again = Send(Put(kBase, 10, 5));
  EXPECT_FALSE(Answered(put));
  store_.FinishCommit();
  EXPECT_TRUE(Answered(put));
  EXPECT_FALSE(Answered(again));
  store_.FinishCommit();
  EXPECT_TRUE(Answered(again));
  const uint64_t drop = Send(Drop(kBase, 10, 5));
  EXPECT_FALSE(Answered(drop));
  store_.FinishCommit();
  EXPECT_EQ(answers_[drop].kind, MessageKind::kDone);
}

TEST_F(CoreHolderTest, K1FullDiskIsToldAndTheStoreCanBeRepeated) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  const uint64_t failed = Send(Store(kBase, 5, V(3)));
  const uint64_t older = Send(Store(kBase, 5, V(2)));
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(answers_[older].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(2));
}

TEST_F(CoreHolderTest, K1AfterTheNewestWriteFailedTheOneBeforeIsStillWaitedFor) {
  PutTen();
  Send(Store(kBase, 5, V(2)));
  Send(Store(kBase, 5, V(3)));
  store_.FailCommit();
  const uint64_t older = Send(Store(kBase, 5, V(1)));
  EXPECT_FALSE(Answered(older));
  store_.FinishAll();
  EXPECT_EQ(answers_[older].version, V(2));
}

TEST_F(CoreHolderTest, K1QueryThatSawAFailedWriteIsReadAgain) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  Send(Store(kBase, 5, V(2)));
  const uint64_t query = Send(Query(kBase));
  store_.FailCommit();
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  EXPECT_EQ(answers_[query].version, V(1));
}

// --- K2: versions never decrease --------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K2OlderStoreIsAcknowledgedWithoutWriting) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  const int before = store_.commit_count;
  for (const Version v : {V(2), V(3)}) {
    const Message answer = Call(Store(kBase, 5, v));
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, V(3));
  }
  EXPECT_EQ(store_.commit_count, before);
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K2LaterEpochBeatsEveryCounter) {
  PutTen();
  Call(Store(kBase, 5, V(100, 1)));
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 2))).version, V(1, 2));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1, 2));
}

TEST_F(CoreHolderTest, K2AfterAStartTheVersionIsReadOnceBeforeTheFirstStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  Restart();
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(3));
  EXPECT_EQ(store_.read_count, 1);
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(4));
  EXPECT_EQ(store_.read_count, 1);
}

TEST_F(CoreHolderTest, K2StoresOfOnePageKeepTheirOrderWhileItsVersionIsRead) {
  PutTenAndRestart();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(2)));
  const uint64_t late = Send(Store(kBase, 5, V(1)));
  const uint64_t other = Send(Store(kBase + 1, 5, V(7)));
  EXPECT_EQ(store_.reads.size(), 2u);
  EXPECT_TRUE(store_.commits.empty());
  store_.FinishRead();
  ASSERT_EQ(store_.commits.size(), 2u);
  EXPECT_EQ(store_.commits[0].first.put_pages[0].version, V(1));
  EXPECT_EQ(store_.commits[1].first.put_pages[0].version, V(2));
  store_.FinishAll();
  EXPECT_EQ(answers_[first].version, V(1));
  EXPECT_EQ(answers_[second].version, V(2));
  EXPECT_EQ(answers_[late].version, V(2));
  EXPECT_EQ(answers_[other].version, V(7));
}

TEST_F(CoreHolderTest, K2FreshExtentNeedsNoReadOfVersions) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  EXPECT_EQ(store_.read_count, 0);
}

TEST_F(CoreHolderTest, K2VersionsMayBeForgottenAndAreReadAgain) {
  ASSERT_EQ(Call(Put(kBase, CoreHolder::kMaxVersions + 10, 5)).code, StatusCode::kOk);
  Message store = Store(kBase, 5, V(9));
  for (uint64_t i = 0; i < CoreHolder::kMaxVersions + 1; ++i) {
    store.page = kBase + i;
    Send(store);
    store_.FinishAll();
  }
  EXPECT_EQ(store_.read_count, 0);
  EXPECT_EQ(Call(Store(kBase, 5, V(8))).version, V(9));
  EXPECT_EQ(store_.read_count, 1);
}

TEST_F(CoreHolderTest, K2ReadErrorIsToldToAllStoresThatWait) {
  PutTenAndRestart();
  const uint64_t first = Send(Store(kBase, 5, V(1)));
  const uint64_t second = Send(Store(kBase, 5, V(2)));
  auto read = std::move(store_.reads.front());
  store_.reads.clear();
  read.done({absl::InternalError("poisoned")});
  EXPECT_EQ(answers_[first].code, StatusCode::kInternal);
  EXPECT_EQ(answers_[second].code, StatusCode::kInternal);
}

TEST_F(CoreHolderTest, K2CorruptRecordIsToldAndMendedByTheNextStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  store_.corrupt.insert(kBase.value);
  EXPECT_EQ(Call(Query(kBase)).code, StatusCode::kDataLoss);
  EXPECT_EQ(Call(Store(kBase, 5, V(3), /*complete=*/true)).version, V(3));
  EXPECT_EQ(Call(Query(kBase)).version, V(3));
}

TEST_F(CoreHolderTest, K2CorruptRecordThatCouldNotBeMendedStaysSo) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  store_.corrupt.insert(kBase.value);
  Call(Query(kBase));
  const uint64_t failed = Send(Store(kBase, 5, V(3), /*complete=*/true));
  store_.corrupt.insert(kBase.value);
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  const int before = store_.commit_count;
  EXPECT_EQ(Call(Store(kBase, 5, V(3), /*complete=*/true)).version, V(3));
  EXPECT_EQ(store_.commit_count, before + 1);
}

TEST_F(CoreHolderTest, K2CorruptHeaderIsMendedByAStore) {
  PutTen();
  Call(Store(kBase, 5, V(3)));
  Restart();
  store_.corrupt.insert(kBase.value);
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(4));
  EXPECT_EQ(Call(Query(kBase)).version, V(4));
}

// --- K3: what is refused ----------------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K3StoreOutsideOfExtentsIsRefused) {
  PutTen();
  const Message answer = Call(Store(kBase + 10, 5, V(1)));
  EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
  EXPECT_THAT(answer.text, HasSubstr("is in no extent"));
}

TEST_F(CoreHolderTest, K3StoreOfAnotherConfigurationIsRefused) {
  PutTen();
  for (const uint64_t config : {4, 6}) {
    const Message answer = Call(Store(kBase, config, V(1)));
    EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
    EXPECT_THAT(answer.text, HasSubstr("has configuration 5"));
  }
  EXPECT_TRUE(store_.durable.pages.empty());
}

TEST_F(CoreHolderTest, K3SealRefusesOlderEpochsButNotCompletions) {
  PutTen();
  Call(Query(kBase, true, /*seal_at=*/4));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kAborted);
  EXPECT_EQ(Call(Store(kBase + 1, 5, V(9, 3))).code, StatusCode::kOk);
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3), /*complete=*/true)).code, StatusCode::kOk);
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 4))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3SealNeverGoesBack) {
  PutTen();
  Call(Query(kBase, true, 4));
  Call(Query(kBase, true, 3));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kAborted);
}

TEST_F(CoreHolderTest, K3SealCountsForStoresThatWaitForTheirVersion) {
  PutTenAndRestart();
  const uint64_t store = Send(Store(kBase, 5, V(9, 3)));
  const uint64_t query = Send(Query(kBase, true, 4));
  store_.FinishAll();
  EXPECT_EQ(answers_[store].code, StatusCode::kAborted);
  EXPECT_EQ(answers_[query].version, Version{});
}

TEST_F(CoreHolderTest, K3QueryWithoutSealSealsNothing) {
  PutTen();
  Message query = Query(kBase);
  query.grant_epoch = Epoch(4);
  Call(query);
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3PlantedBugSkipsTheSeal) {
  PutTen();
  bugs_.skip_seal = true;
  Call(Query(kBase, true, 4));
  EXPECT_EQ(Call(Store(kBase, 5, V(9, 3))).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K3StoreWithoutContentIsRefused) {
  PutTen();
  Message store = Store(kBase, 5, V(1));
  store.data = nullptr;
  EXPECT_EQ(Call(store).code, StatusCode::kInvalidArgument);
}

// --- K4: no record means zeros ----------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K4NoRecordInAnExtentIsVersionZero) {
  PutTen();
  for (int start = 0; start < 2; ++start) {
    const Message answer = Call(Query(kBase + 3));
    EXPECT_EQ(answer.kind, MessageKind::kStoredInfo);
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, Version{});
    EXPECT_FALSE(answer.have);
    EXPECT_EQ(answer.data, nullptr);
    EXPECT_EQ(answer.config, ConfigNumber(5));
    EXPECT_EQ(answer.replicas, 2u);
    Restart();
  }
}

TEST_F(CoreHolderTest, K4NoExtentIsNotFound) {
  PutTen();
  EXPECT_EQ(Call(Query(kBase + 10)).code, StatusCode::kNotFound);
  EXPECT_EQ(Call(Query(PageId(kBase.value - 1))).code, StatusCode::kNotFound);
}

TEST_F(CoreHolderTest, K4RecordIsGivenWithItsContentIfAsked) {
  ASSERT_EQ(Call(Put(kBase, 10, 5, 3, /*is_volatile=*/true)).code, StatusCode::kOk);
  Call(Store(kBase, 5, V(7)));
  Message answer = Call(Query(kBase));
  EXPECT_TRUE(answer.have);
  EXPECT_EQ(answer.version, V(7));
  EXPECT_EQ(answer.replicas, 3u);
  EXPECT_TRUE(answer.is_volatile);
  ASSERT_NE(answer.data, nullptr);
  EXPECT_EQ(answer.data->bytes[0], std::byte{7});
  answer = Call(Query(kBase, /*with_data=*/false));
  EXPECT_TRUE(answer.have);
  EXPECT_EQ(answer.data, nullptr);
}

TEST_F(CoreHolderTest, K4SystemPagesAreInBuiltInExtentsAndSayWhetherThereIsARecord) {
  for (const PageId page : {kSuperRootPage, kRamDirectoryRootPage, kDiskDirectoryRootPage, kRegionTablePages.first,
                            PageId(kRegionTablePages.end().value - 1)}) {
    Message answer = Call(Query(page));
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_EQ(answer.version, Version{});
    EXPECT_FALSE(answer.have);
    EXPECT_EQ(answer.config, ConfigNumber(1));
    EXPECT_EQ(answer.replicas, kSystemReplicas);
    EXPECT_FALSE(answer.is_volatile);
    EXPECT_EQ(Call(Store(page, 1, V(1))).code, StatusCode::kOk);
    Restart();
    EXPECT_TRUE(Call(Query(page)).have);
  }
  EXPECT_EQ(Call(Query(PageId(kDiskDirectoryRootPage + 1))).code, StatusCode::kNotFound);
  EXPECT_EQ(Call(Query(kRegionTablePages.end())).code, StatusCode::kNotFound);
}

TEST_F(CoreHolderTest, K4RecordOfAnotherConfigurationIsDataLoss) {
  PutTen();
  Call(Store(kBase, 5, V(7)));
  Extent extent = *holder_->Find(kBase);
  extent.config = ConfigNumber(6);
  StoreBatch batch;
  batch.records.push_back({ExtentKey(kBase), EncodeExtent(extent)});
  store_.Commit(std::move(batch), [](const absl::Status&) {});
  store_.FinishCommit();
  Restart();
  EXPECT_EQ(Call(Query(kBase)).code, StatusCode::kDataLoss);
  EXPECT_EQ(Call(Store(kBase, 6, V(1))).version, V(1));
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
}

TEST_F(CoreHolderTest, SealsAreForgottenWhenNothingOlderCanBeUnderWay) {
  PutTen();
  ASSERT_EQ(Call(Query(kBase, false, 5)).code, absl::StatusCode::kOk);
  ASSERT_EQ(Call(Query(kBase + 1, false, 5)).code, absl::StatusCode::kOk);
  EXPECT_EQ(holder_->seals(), 2u);
  holder_->ForgetOldSeals();
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 4))).code, absl::StatusCode::kAborted);
  ASSERT_EQ(Call(Query(kBase + 1, false, 4)).code, absl::StatusCode::kOk);  // Sealed again, and lower.
  holder_->ForgetOldSeals();
  EXPECT_EQ(holder_->seals(), 1u);
  EXPECT_EQ(Call(Store(kBase, 5, V(1, 4))).code, absl::StatusCode::kOk);
  EXPECT_EQ(Call(Store(kBase + 1, 5, V(1, 4))).code, absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace mangrove
