// Pages that are marked as lost: K7.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/engine/core_holder_doubt_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class CoreHolderLost : public CoreHolderDoubt {
 protected:
  absl::Status Mark(PageId page, Version version = V(20)) {
    absl::Status status = absl::UnknownError("not called");
    holder_->MarkLost(page, version, [&](absl::Status s) { status = std::move(s); });
    store_.FinishAll();
    return status;
  }
  // Ten pages, the first eight stored in version 9; the first one is lost in version 20.
  void StoreEightAndLoseOne() {
    PutTen();
    for (uint64_t i = 0; i < 8; ++i) ASSERT_EQ(Call(Store(kBase + i, 5, V(9))).version, V(9));
    ASSERT_TRUE(Mark(kBase).ok());
  }
  void ExpectLost(PageId page) {
    for (const bool with_data : {true, false}) {
      const Message answer = Call(Query(page, with_data));
      EXPECT_EQ(answer.code, StatusCode::kDataLoss);
      EXPECT_FALSE(answer.have);
      EXPECT_EQ(answer.data, nullptr);
    }
    EXPECT_TRUE(holder_->IsUnreadable(page));
    EXPECT_TRUE(holder_->lost().contains(page));
  }
  void ExpectNotLost(PageId page) {
    EXPECT_FALSE(holder_->IsUnreadable(page));
    EXPECT_FALSE(holder_->lost().contains(page));
    EXPECT_FALSE(store_.durable.records.contains(LostKey(page)));
    EXPECT_NE(Call(Query(page)).code, StatusCode::kDataLoss);
  }
};

// --- The mark ---------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderLost, K7AMarkedPageIsDataLossAlsoAfterARestart) {
  StoreEightAndLoseOne();
  ASSERT_TRUE(Mark(kBase + 9, V(3)).ok());  // There is no record of it.
  ASSERT_TRUE(Mark(kSuperRootPage, V(4)).ok());
  for (int start = 0; start < 3; ++start) {
    ExpectLost(kBase);
    ExpectLost(kBase + 9);
    ExpectLost(kSuperRootPage);
    EXPECT_THAT(holder_->lost(), ElementsAre(Pair(kSuperRootPage, V(4)), Pair(kBase, V(20)), Pair(kBase + 9, V(3))));
    ExpectTold(kBase + 1, V(9));
    EXPECT_FALSE(holder_->IsUnreadable(kBase + 1));
    Restart();
  }
}

TEST_F(CoreHolderLost, AMarkIsToldOfWhenItIsDurable) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  bool done = false;
  holder_->MarkLost(kBase, V(20), [&](const absl::Status& s) { done = s.ok(); });
  EXPECT_FALSE(done);
  store_.FinishCommit();
  EXPECT_TRUE(done);
  holder_->MarkLost(kBase + 1, V(20), [](const absl::Status&) {});
  Restart();
  ExpectLost(kBase);
  ExpectNotLost(kBase + 1);
}

TEST_F(CoreHolderLost, AMarkIsAbortedWhileThePageIsStored) {
  PutTen();
  Send(Store(kBase, 5, V(9)));
  absl::Status status;
  holder_->MarkLost(kBase, V(20), [&](absl::Status s) { status = std::move(s); });
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  store_.FinishAll();
  ExpectNotLost(kBase);
  ExpectTold(kBase, V(9));
  EXPECT_TRUE(Mark(kBase).ok());
  ExpectLost(kBase);
}

TEST_F(CoreHolderLost, AMarkIsAbortedInNoExtent) {
  PutTen();
  EXPECT_EQ(Mark(kBase + 10).code(), StatusCode::kAborted);
  Send(Drop(kBase, 1, 5));  // On its way.
  absl::Status status;
  holder_->MarkLost(kBase, V(20), [&](absl::Status s) { status = std::move(s); });
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  store_.FinishAll();
  EXPECT_THAT(holder_->lost(), IsEmpty());
}

TEST_F(CoreHolderLost, AQueryThatIsUnderWayIsDataLoss) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  const uint64_t query = Send(Query(kBase));
  holder_->MarkLost(kBase, V(20), [](const absl::Status&) {});
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  EXPECT_EQ(answers_[query].code, StatusCode::kDataLoss);
}

// --- Its end ----------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderLost, K7ANewerOrAnOlderStoreEndsIt) {
  for (const bool restarts : {false, true}) {
    for (const uint64_t version : {1, 9, 20, 30}) {
      SCOPED_TRACE(version);
      Call(Put(kBase, 10, 5));
      Call(Store(kBase, 5, V(9)));
      ASSERT_TRUE(Mark(kBase).ok());
      if (restarts) Restart();
      const Message answer = Call(Store(kBase, 5, V(version)));
      EXPECT_EQ(answer.code, StatusCode::kOk);
      EXPECT_EQ(answer.version, V(version));
      for (int start = 0; start < 2; ++start) {
        ExpectNotLost(kBase);
        ExpectTold(kBase, V(version));
        Restart();
      }
      Call(Drop(kBase, 10, 5));
    }
  }
}

TEST_F(CoreHolderLost, ARunEndsTheMarksOfItsPages) {
  StoreEightAndLoseOne();
  ASSERT_TRUE(Mark(kBase + 2).ok());
  const auto answers = CallRun(kBase, 4, V(5));
  for (uint64_t i = 0; i < 4; ++i) {
    const Version expected = i % 2 == 0 ? V(5) : V(9);
    EXPECT_EQ(answers.at((kBase + i).value).version, expected);
    ExpectNotLost(kBase + i);
    ExpectTold(kBase + i, expected);
  }
}

TEST_F(CoreHolderLost, K7DroppingItsExtentEndsIt) {
  StoreEightAndLoseOne();
  ASSERT_TRUE(Mark(kBase + 1).ok());
  ASSERT_TRUE(Mark(kBase + 5).ok());
  ASSERT_EQ(Call(Drop(kBase, 1, 5)).code, StatusCode::kOk);
  ASSERT_EQ(Call(Put(kBase + 1, 1, 6)).code, StatusCode::kOk);
  ASSERT_EQ(Call(Put(kBase, 1, 5)).code, StatusCode::kOk);
  for (int start = 0; start < 2; ++start) {
    ExpectNotLost(kBase);
    ExpectNotLost(kBase + 1);
    ExpectLost(kBase + 5);
    EXPECT_FALSE(Call(Query(kBase)).have);
    Restart();
  }
  EXPECT_EQ(Call(Store(kBase, 5, V(1))).version, V(1));
}

TEST_F(CoreHolderLost, K7AStoreThatFailsLeavesIt) {
  StoreEightAndLoseOne();
  for (const uint64_t version : {3, 30}) {
    const uint64_t failed = Send(Store(kBase, 5, V(version)));
    store_.FailCommit();
    EXPECT_EQ(answers_[failed].code, StatusCode::kResourceExhausted);
    ExpectLost(kBase);
  }
  Restart();
  ExpectLost(kBase);
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
  ExpectTold(kBase, V(2));
}

TEST_F(CoreHolderLost, K7SeveralStoresThatFailLeaveIt) {
  for (const bool oldest_first : {true, false}) {
    Call(Drop(kBase, 10, 5));
    StoreEightAndLoseOne();
    Send(Store(kBase, 5, V(3)));
    Send(Store(kBase, 5, V(4)));
    while (!store_.commits.empty()) oldest_first ? store_.FailOldestCommit() : store_.FailCommit();
    ExpectLost(kBase);
    EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
    ExpectNotLost(kBase);
    ExpectTold(kBase, V(2));
  }
}

TEST_F(CoreHolderLost, AQueryWaitsForTheStoreThatEndsIt) {
  StoreEightAndLoseOne();
  for (const bool fails : {true, false}) {
    Send(Store(kBase, 5, V(3)));
    const uint64_t query = Send(Query(kBase));
    while (!store_.reads.empty()) store_.FinishRead();
    EXPECT_FALSE(Answered(query));
    fails ? store_.FailCommit() : store_.FinishCommit();
    store_.FinishAll();
    EXPECT_EQ(answers_[query].code, fails ? StatusCode::kDataLoss : StatusCode::kOk);
    EXPECT_EQ(answers_[query].have, !fails);
  }
  EXPECT_EQ(Call(Query(kBase)).version, V(3));
}

TEST_F(CoreHolderLost, K6AChangeThatFailsLeavesIt) {
  StoreEightAndLoseOne();
  for (const Message& change : {Drop(kBase, 10, 5), Drop(kBase, 1, 5), Put(kBase, 4, 6)}) {
    const uint64_t number = Send(change);
    store_.FailCommit();
    EXPECT_EQ(answers_[number].code, StatusCode::kResourceExhausted);
    ExpectLost(kBase);
  }
  Restart();
  ExpectLost(kBase);
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
}

TEST_F(CoreHolderLost, AStoreThatEndsItBeforeAChangeFailsHasEndedIt) {
  StoreEightAndLoseOne();
  const uint64_t store = Send(Store(kBase, 5, V(3)));
  Send(Drop(kBase, 1, 5));
  store_.FinishCommit();
  store_.FailCommit();
  EXPECT_EQ(answers_[store].version, V(3));
  for (int start = 0; start < 2; ++start) {
    ExpectNotLost(kBase);
    ExpectTold(kBase, V(3));
    Restart();
  }
}

TEST_F(CoreHolderLost, AStoreThatFailsBeforeAChangeFailsHasNotEndedIt) {
  StoreEightAndLoseOne();
  Send(Store(kBase, 5, V(3)));
  Send(Drop(kBase, 1, 5));
  store_.FailOldestCommit();
  store_.FailOldestCommit();
  ExpectLost(kBase);
  EXPECT_EQ(Call(Store(kBase, 5, V(2))).version, V(2));
  ExpectNotLost(kBase);
}

TEST_F(CoreHolderLost, NothingIsLeftOfAStoreThatFailedInAnExtentThatIsGone) {
  StoreEightAndLoseOne();
  Send(Store(kBase, 5, V(3)));
  Send(Put(kBase, 1, 6));
  store_.FailOldestCommit();
  store_.FinishAll();
  ExpectNotLost(kBase);
  EXPECT_TRUE(Call(Query(kBase)).complete);
}

// --- In doubt ---------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderLost, WhatIsMarkedInDoubtIsDataLossAfterwards) {
  StoreEightAndDoubt();
  ASSERT_TRUE(Mark(kBase).ok());
  ASSERT_TRUE(Mark(kBase + 1).ok());
  EXPECT_FALSE(Call(Query(kBase)).have);
  EXPECT_FALSE(Call(Query(kBase)).complete);
  EXPECT_EQ(Call(Store(kBase + 1, 5, V(2))).version, V(2));
  ExpectTold(kBase + 1, V(2));
  holder_->EndDoubt();
  ExpectLost(kBase);
  ExpectTold(kBase + 1, V(2));
}

TEST_F(CoreHolderLost, K7AnOlderStoreEndsItAlsoOfWhatWasStoredSince) {
  StoreEightAndDoubt();
  Call(Store(kBase, 5, V(5)));
  ASSERT_TRUE(Mark(kBase).ok());
  EXPECT_FALSE(Call(Query(kBase)).have);
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(3));
  ExpectNotLost(kBase);
  ExpectTold(kBase, V(3));
}

TEST_F(CoreHolderLost, AStoreThatFailsInDoubtLeavesIt) {
  StoreEightAndDoubt();
  ASSERT_TRUE(Mark(kBase).ok());
  Send(Store(kBase, 5, V(3)));
  Send(Store(kBase, 5, V(30)));
  store_.FailOldestCommit();
  store_.FailOldestCommit();
  holder_->EndDoubt();
  ExpectLost(kBase);
}

TEST_F(CoreHolderLost, DeletingThePageDeletesTheMark) {
  StoreEightAndDoubt();
  ASSERT_TRUE(Mark(kBase).ok());
  holder_->DeletePages({kBase}, [](const absl::Status&) {});
  store_.FailCommit();
  holder_->EndDoubt();
  ExpectLost(kBase);
  holder_->BeginDoubt(nullptr);
  ASSERT_TRUE(Delete({kBase}).ok());
  holder_->EndDoubt();
  for (int start = 0; start < 2; ++start) {
    ExpectNotLost(kBase);
    EXPECT_FALSE(Call(Query(kBase)).have);
    Restart();
  }
}

// --- Records ----------------------------------------------------------------------------------------------------------

TEST_F(CoreHolderLost, RecordsComeBackAsTheyWere) {
  const std::vector<PageId> pages = {PageId(1),
                                     kBase,
                                     PageId(UINT64_MAX),
                                     PageId(absl::MakeUint128(1, 0)),
                                     PageId(absl::MakeUint128(7, 9)),
                                     PageId(kSpacePages - 1)};
  std::string before;
  for (const PageId page : pages) {
    const std::string key = LostKey(page);
    EXPECT_EQ(key.rfind(kLostPrefix, 0), 0u);
    EXPECT_LT(before, key);  // In the order of the pages.
    before = key;
    for (const Version version : {Version{}, V(1), V(7, 5), Version{Epoch(UINT64_MAX), UINT64_MAX}}) {
      const auto lost = DecodeLost(key, EncodeLost(page, version));
      ASSERT_TRUE(lost.ok()) << lost.status();
      EXPECT_EQ(*lost, std::pair(page, version));
    }
  }
}

TEST_F(CoreHolderLost, RecordsThatAreNoneAreDataLossAndNamed) {
  const std::string key = LostKey(kBase);
  const std::string good = EncodeLost(kBase, V(3));
  const PageId beyond(kSpacePages);
  const std::vector<std::pair<std::string, std::string>> bad = {
      {key, ""},
      {key, good.substr(1)},
      {key, good + '\0'},
      {key, EncodeLost(kBase + 1, V(3))},
      {LostKey(kBase + 1), good},
      {key + "0", good},
      {std::string(kLostPrefix), good},
      {LostKey(PageId(0)), EncodeLost(PageId(0), V(3))},
      {LostKey(beyond), EncodeLost(beyond, V(3))},
  };
  for (const auto& [bad_key, value] : bad) {
    SCOPED_TRACE(bad_key);
    const auto lost = DecodeLost(bad_key, value);
    EXPECT_EQ(lost.status().code(), StatusCode::kDataLoss);
    EXPECT_THAT(std::string(lost.status().message()), HasSubstr(bad_key));
    store_.durable.records = {{bad_key, value}};
    store_.Crash();
    CoreHolder holder(&store_, &bugs_, 1);
    absl::Status opened;
    holder.Open([&](absl::Status s) { opened = std::move(s); });
    EXPECT_EQ(opened.code(), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace mangrove
