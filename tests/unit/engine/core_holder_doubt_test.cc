// A core holder in doubt: what it stored before counts for nothing, and what it has stored since for all (K8).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/unit/engine/core_holder_doubt_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

// --- Stores -----------------------------------------------------------------------------------------------------------

// It was on its way to the disk when the doubt began: others may have stored its pages since.
TEST_F(CoreHolderDoubt, AnExtentThatWasBeingPutIsInDoubtToo) {
  const uint64_t put = Send(Put(kBase, 10, 5));
  ASSERT_FALSE(Answered(put));
  holder_->BeginDoubt(nullptr);
  store_.FinishAll();
  ASSERT_TRUE(Answered(put));
  ExpectNothingIsTold(Call(Query(kBase)));
  ASSERT_EQ(Call(Put(kBase + 10, 10, 6)).code, absl::StatusCode::kOk);  // One since then is not.
  EXPECT_TRUE(Call(Query(kBase + 10)).complete);
}

TEST_F(CoreHolderDoubt, K8AStoreOfAnOlderVersionReplacesWhatWasThere) {
  StoreEightAndDoubt();
  const uint64_t store = Send(Store(kBase, 5, V(3)));
  EXPECT_FALSE(Answered(store));  // K1
  store_.FinishAll();
  EXPECT_EQ(answers_[store].code, StatusCode::kOk);
  EXPECT_EQ(answers_[store].version, V(3));
  EXPECT_EQ(OnDisk(kBase), V(3));
  EXPECT_EQ(Call(Store(kBase + 1, 5, V(9))).version, V(9));
  EXPECT_EQ(Call(Store(kBase + 2, 5, V(12))).version, V(12));
  EXPECT_EQ(Call(Store(kBase + 9, 5, V(1))).version, V(1));
  Restart();
  ExpectTold(kBase, V(3));
}

TEST_F(CoreHolderDoubt, K8AnOlderStoreAlsoReplacesWhatIsRemembered) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  holder_->BeginDoubt(nullptr);
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(3));
  EXPECT_EQ(OnDisk(kBase), V(3));
}

TEST_F(CoreHolderDoubt, K8AStoreThatWaitsForItsVersionReplacesWhatWasThere) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  Restart();
  const uint64_t store = Send(Store(kBase, 5, V(3)));
  holder_->BeginDoubt(nullptr);
  store_.FinishAll();
  EXPECT_EQ(answers_[store].version, V(3));
  EXPECT_EQ(OnDisk(kBase), V(3));
}

TEST_F(CoreHolderDoubt, K2HoldsAmongStoresSince) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(5)));
  const int before = store_.commit_count;
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(5));
  EXPECT_EQ(Call(Store(kBase, 5, V(5))).version, V(5));
  EXPECT_EQ(store_.commit_count, before);
  EXPECT_EQ(Call(Store(kBase, 5, V(6))).version, V(6));
  holder_->EndDoubt();
  EXPECT_EQ(Call(Store(kBase, 5, V(5))).version, V(6));
  EXPECT_EQ(OnDisk(kBase), V(6));
  ExpectTold(kBase, V(6));
}

TEST_F(CoreHolderDoubt, K2HoldsAmongStoresOnTheirWay) {
  StoreEightAndDoubt();
  const uint64_t first = Send(Store(kBase, 5, V(5)));
  const uint64_t older = Send(Store(kBase, 5, V(4)));
  const uint64_t newer = Send(Store(kBase, 5, V(6)));
  EXPECT_FALSE(Answered(older));
  store_.FinishAll();
  EXPECT_EQ(answers_[first].version, V(5));
  EXPECT_EQ(answers_[older].version, V(5));
  EXPECT_EQ(answers_[newer].version, V(6));
  EXPECT_EQ(OnDisk(kBase), V(6));
}

TEST_F(CoreHolderDoubt, WhatIsOnItsWayWhenDoubtBeginsIsUnderK2) {
  PutTen();
  const uint64_t first = Send(Store(kBase, 5, V(9)));
  holder_->BeginDoubt(nullptr);
  const uint64_t older = Send(Store(kBase, 5, V(4)));
  store_.FinishAll();
  EXPECT_EQ(answers_[first].version, V(9));
  EXPECT_EQ(answers_[older].version, OnDisk(kBase));
  const uint64_t failed = Send(Store(kBase, 5, V(20)));
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  const Message later = Call(Store(kBase, 5, V(7)));
  EXPECT_EQ(later.version, OnDisk(kBase));
  EXPECT_GE(OnDisk(kBase), V(9));  // It was acknowledged since.
}

TEST_F(CoreHolderDoubt, AFailedStoreLeavesThePageInDoubt) {
  StoreEightAndDoubt();
  const uint64_t failed = Send(Store(kBase, 5, V(5)));
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  EXPECT_FALSE(holder_->WasStoredSince(kBase));
  ExpectNothingIsToldOf(kBase);
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
  EXPECT_EQ(OnDisk(kBase), V(2));
}

TEST_F(CoreHolderDoubt, AfterAFailedStoreTheEarlierOneCounts) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(4)));
  const uint64_t failed = Send(Store(kBase, 5, V(8)));
  store_.FailCommit();
  EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
  EXPECT_TRUE(holder_->WasStoredSince(kBase));
  ExpectTold(kBase, V(4));
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(4));
  EXPECT_EQ(OnDisk(kBase), V(4));
  EXPECT_EQ(Call(Store(kBase, 5, V(5))).version, V(5));
}

TEST_F(CoreHolderDoubt, AfterAFailedStoreTheOneOnItsWayCounts) {
  StoreEightAndDoubt();
  Send(Store(kBase, 5, V(4)));
  Send(Store(kBase, 5, V(8)));
  store_.FailCommit();
  const uint64_t older = Send(Store(kBase, 5, V(3)));
  store_.FinishAll();
  EXPECT_EQ(answers_[older].version, V(4));
  EXPECT_EQ(OnDisk(kBase), V(4));
}

TEST_F(CoreHolderDoubt, K3StoresAreRefusedAsEver) {
  StoreEightAndDoubt();
  EXPECT_EQ(Call(Store(kBase + 10, 5, V(1))).code, StatusCode::kFailedPrecondition);
  EXPECT_EQ(Call(Store(kBase, 4, V(1))).code, StatusCode::kFailedPrecondition);
  Call(Query(kBase, true, /*seal_at=*/4));
  EXPECT_EQ(Call(Store(kBase, 5, V(20, 3))).code, StatusCode::kAborted);
  EXPECT_EQ(Call(Store(kBase, 5, V(20, 3), /*complete=*/true)).version, V(20, 3));
}

// K2: a record that was stored since and is corrupt counts as {0, 0}.
TEST_F(CoreHolderDoubt, K2WhatWasStoredSinceAndIsCorruptIsMendedByTheNextStore) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(5)));
  store_.corrupt.insert(kBase.value);
  EXPECT_FALSE(Call(Query(kBase)).have);
  EXPECT_EQ(Call(Store(kBase, 5, V(3), /*complete=*/true)).version, V(3));
  EXPECT_EQ(OnDisk(kBase), V(3));
  ExpectTold(kBase, V(3));
  Send(Store(kBase, 5, V(6)));
  store_.FailCommit();
  EXPECT_EQ(Call(Store(kBase, 5, V(4))).version, V(4));
  EXPECT_EQ(OnDisk(kBase), V(4));
}

TEST_F(CoreHolderDoubt, ARunDoesWhatItsPagesDo) {
  StoreEightAndDoubt();
  Call(Store(kBase + 2, 5, V(5)));
  Call(Store(kBase + 3, 5, V(2)));
  Send(Store(kBase + 4, 5, V(7)));  // On its way.
  const auto answers = CallRun(kBase, 10, V(3));
  for (uint64_t i = 0; i < 10; ++i) {
    const Version expected = i == 2 ? V(5) : i == 4 ? V(7) : V(3);
    EXPECT_EQ(answers.at((kBase + i).value).version, expected) << i;
    EXPECT_EQ(OnDisk(kBase + i), expected) << i;
    EXPECT_TRUE(holder_->WasStoredSince(kBase + i)) << i;
    ExpectTold(kBase + i, expected);
  }
}

TEST_F(CoreHolderDoubt, ARunThatFailsLeavesItsPagesInDoubt) {
  StoreEightAndDoubt();
  Call(Store(kBase + 2, 5, V(4)));
  Message run = Store(kBase, 5, V(5));
  run.repeat = 4;
  run.data = NewPages(4);
  int failed = 0;
  holder_->Handle(run, [&](const Message& m) { failed += m.code == StatusCode::kResourceExhausted ? 1 : 0; });
  while (!store_.commits.empty()) store_.FailCommit();
  EXPECT_EQ(failed, 4);
  for (const uint64_t i : {0, 1, 3}) ExpectNothingIsToldOf(kBase + i);
  ExpectTold(kBase + 2, V(4));
  for (const auto& [page, answer] : CallRun(kBase, 4, V(3))) {
    EXPECT_EQ(answer.version, page == (kBase + 2).value ? V(4) : V(3));
  }
}

// --- Queries ----------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderDoubt, K8AQueryTellsNeitherARecordNorCompleteness) {
  ASSERT_EQ(Call(Put(kBase + 20, 2, 6, 3, /*is_volatile=*/true)).code, StatusCode::kOk);
  Call(Store(kSuperRootPage, 1, V(9)));
  StoreEightAndDoubt();
  for (const uint64_t i : {0, 8, 20}) ExpectNothingIsToldOf(kBase + i);
  ExpectNothingIsToldOf(kSuperRootPage);
  EXPECT_EQ(Call(Query(kBase + 30)).code, StatusCode::kNotFound);
  holder_->EndDoubt();
  ExpectTold(kBase, V(9));
  EXPECT_TRUE(Call(Query(kBase + 8)).complete);
  EXPECT_TRUE(Call(Query(kBase + 20)).complete);
  ExpectTold(kSuperRootPage, V(9));
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(9));  // K2 again.
}

TEST_F(CoreHolderDoubt, K8AQueryThatIsUnderWayWhenDoubtBeginsTellsNothing) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  Restart();
  const uint64_t query = Send(Query(kBase));
  holder_->BeginDoubt(nullptr);
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  ExpectNothingIsTold(answers_[query]);
}

TEST_F(CoreHolderDoubt, K8AQueryTellsOfWhatWasStoredSince) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(3)));
  Call(Store(kBase + 8, 5, V(2)));
  Call(Store(kSuperRootPage, 1, V(1)));
  ExpectTold(kBase, V(3));
  ExpectTold(kBase + 8, V(2));
  ExpectTold(kSuperRootPage, V(1));
  ExpectNothingIsToldOf(kBase + 1);
}

TEST_F(CoreHolderDoubt, K8AQueryTellsOfAnExtentThatWasPutSince) {
  StoreEightAndDoubt();
  ASSERT_EQ(Call(Put(kBase + 10, 4, 6)).code, StatusCode::kOk);
  ASSERT_EQ(Call(Put(kBase, 2, 6)).code, StatusCode::kOk);
  for (const uint64_t i : {0, 10}) {
    const Message answer = Call(Query(kBase + i));
    EXPECT_FALSE(answer.have);
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(Call(Store(kBase + i, 6, V(1))).version, V(1));
    ExpectTold(kBase + i, V(1));
  }
  ASSERT_EQ(Call(PutLearned(kBase + 20, 4, 6)).code, StatusCode::kOk);
  EXPECT_FALSE(Call(Query(kBase + 20)).complete);
}

TEST_F(CoreHolderDoubt, K8AQueryTellsNothingOfAnExtentThatWasPutBeforeTheDoubtBegan) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  holder_->BeginDoubt(nullptr);
  ExpectNothingIsToldOf(kBase);
  ExpectNothingIsToldOf(kBase + 1);
}

TEST_F(CoreHolderDoubt, AQueryWaitsForTheFirstStoreSince) {
  StoreEightAndDoubt();
  Send(Store(kBase, 5, V(3)));
  const uint64_t query = Send(Query(kBase));
  while (!store_.reads.empty()) store_.FinishRead();
  EXPECT_FALSE(Answered(query));
  store_.FinishAll();
  ASSERT_TRUE(Answered(query));
  EXPECT_TRUE(answers_[query].have);
  EXPECT_EQ(answers_[query].version, V(3));
}

TEST_F(CoreHolderDoubt, AQueryThatWaitedForAStoreThatFailedTellsNothing) {
  StoreEightAndDoubt();
  for (const bool read_first : {false, true}) {
    Send(Store(kBase, 5, V(3)));
    const uint64_t query = Send(Query(kBase));
    if (read_first) store_.FinishRead();
    store_.FailCommit();
    while (!store_.reads.empty()) store_.FinishRead(/*as_asked=*/true);
    ASSERT_TRUE(Answered(query));
    ExpectNothingIsTold(answers_[query]);
  }
}

// --- Deleting ---------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderDoubt, DeletePagesSparesWhatWasStoredSinceOrIsOnItsWay) {
  StoreEightAndDoubt();
  Call(Store(kBase + 1, 5, V(3)));
  const uint64_t under_way = Send(Store(kBase + 2, 5, V(4)));
  EXPECT_TRUE(holder_->WasStoredSince(kBase + 1));
  EXPECT_FALSE(holder_->WasStoredSince(kBase + 2));  // It may fail.
  EXPECT_FALSE(holder_->WasStoredSince(kBase));
  // What of those on their way fails is to be looked at again.
  ASSERT_TRUE(absl::IsAborted(Delete({kBase, kBase + 1, kBase + 2, kBase + 3, kBase + 9})));
  EXPECT_EQ(answers_[under_way].version, V(4));
  holder_->EndDoubt();
  for (int start = 0; start < 2; ++start) {
    for (const uint64_t i : {0, 3, 9}) EXPECT_FALSE(Call(Query(kBase + i)).have) << i;
    ExpectTold(kBase + 1, V(3));
    ExpectTold(kBase + 2, V(4));
    ExpectTold(kBase + 4, V(9));
    Restart();
  }
}

TEST_F(CoreHolderDoubt, DeletePagesIsDoneWhenItIsDurable) {
  StoreEightAndDoubt();
  bool done = false;
  holder_->DeletePages({kBase}, [&](const absl::Status& s) { done = s.ok(); });
  EXPECT_FALSE(done);
  const uint64_t store = Send(Store(kBase, 5, V(2)));  // Comes after it.
  store_.FinishCommit();
  EXPECT_TRUE(done);
  EXPECT_EQ(OnDisk(kBase), Version{});
  store_.FinishAll();
  EXPECT_EQ(answers_[store].version, V(2));
  EXPECT_EQ(OnDisk(kBase), V(2));
}

// --- Changes while a page's stores count ------------------------------------------------------------------------------

TEST_F(CoreHolderDoubt, K6AChangeThatFailsLeavesWhatWasStoredSince) {
  StoreEightAndDoubt();
  for (const bool put : {true, false}) {
    Call(Store(kBase, 5, V(5)));
    Send(put ? Put(kBase, 2, 6) : Drop(kBase, 2, 5));
    store_.FailCommit();
    EXPECT_TRUE(holder_->WasStoredSince(kBase));
    ExpectTold(kBase, V(5));
    EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(5));
    ASSERT_TRUE(Delete({kBase}).ok());
    EXPECT_EQ(OnDisk(kBase), V(5));
    EXPECT_FALSE(holder_->WasStoredSince(kBase + 1));
  }
}

TEST_F(CoreHolderDoubt, K2HoldsForWhatIsOnItsWayWhenAChangeFails) {
  StoreEightAndDoubt();
  const uint64_t first = Send(Store(kBase, 5, V(9)));
  Send(Drop(kBase, 2, 5));
  store_.FailCommit();
  const uint64_t older = Send(Store(kBase, 5, V(3)));
  store_.FinishAll();
  EXPECT_EQ(answers_[first].version, V(9));
  EXPECT_EQ(answers_[older].version, V(9));
  EXPECT_EQ(OnDisk(kBase), V(9));
}

TEST_F(CoreHolderDoubt, APageThatCouldNotBeDeletedIsAsItWas) {
  StoreEightAndDoubt();
  holder_->DeletePages({kBase}, [](const absl::Status& s) { EXPECT_EQ(s.code(), StatusCode::kResourceExhausted); });
  holder_->EndDoubt();
  const uint64_t query = Send(Query(kBase));
  store_.FinishRead();
  EXPECT_TRUE(Answered(query));
  store_.FailCommit();
  ExpectTold(kBase, V(9));
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(9));
}

// A store of the extent that goes says nothing of the one that comes.
TEST_F(CoreHolderDoubt, AStoreThatAChangeOvertookDoesNotCountInTheExtentThatItAdds) {
  StoreEightAndDoubt();
  const uint64_t before = Send(Store(kBase, 5, V(9)));
  ASSERT_EQ(Call(Put(kBase, 10, 6)).code, StatusCode::kOk);
  EXPECT_TRUE(Answered(before));
  EXPECT_FALSE(holder_->WasStoredSince(kBase));
  EXPECT_EQ(Call(Store(kBase, 6, V(1))).version, V(1));
  EXPECT_EQ(OnDisk(kBase), V(1));
}

TEST_F(CoreHolderDoubt, WhatWasStoredSinceInAnExtentThatIsGoneDoesNotCount) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(9)));
  ASSERT_EQ(Call(Drop(kBase, 10, 5)).code, StatusCode::kOk);
  ASSERT_EQ(Call(Put(kBase, 10, 4)).code, StatusCode::kOk);
  EXPECT_FALSE(holder_->WasStoredSince(kBase));
  EXPECT_EQ(Call(Store(kBase, 4, V(1))).version, V(1));
  EXPECT_EQ(OnDisk(kBase), V(1));
}

}  // namespace
}  // namespace mangrove
