// Extents of a core holder in doubt: which of them are doubtful, and when "no record" comes to mean zeros (K4, K6, K8).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/unit/engine/core_holder_doubt_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

class CoreHolderLearning : public CoreHolderDoubt {
 protected:
  // Two learned extents of ten pages, of configuration 5 and 6; the first page of each is stored. Then doubt.
  void LearnTwoAndDoubt() {
    ASSERT_EQ(Call(PutLearned(kBase, 10, 5)).code, StatusCode::kOk);
    ASSERT_EQ(Call(PutLearned(kBase + 20, 10, 6)).code, StatusCode::kOk);
    Call(Store(kBase, 5, V(9)));
    Call(Store(kBase + 20, 6, V(9)));
    Restart();
    holder_->BeginDoubt(nullptr);
  }
  StoreBatch EndLearningOfFive() {
    return holder_->EndLearning([](const Extent& extent) { return extent.config == ConfigNumber(5); });
  }
  bool IsComplete(PageId page) {
    const Message answer = Call(Query(page));
    EXPECT_EQ(answer.code, StatusCode::kOk);
    EXPECT_FALSE(answer.have);
    return answer.complete;
  }
};

// --- Doubtful extents -------------------------------------------------------------------------------------------------

TEST_F(CoreHolderLearning, K8ExtentsAreDoubtfulUntilTheyArePutAgain) {
  PutTen();
  Call(Put(kBase + 20, 10, 6));
  EXPECT_FALSE(holder_->Find(kBase)->doubtful);
  Restart();
  EXPECT_FALSE(holder_->Find(kBase)->doubtful);
  holder_->BeginDoubt(nullptr);
  EXPECT_TRUE(holder_->Find(kBase)->doubtful);
  EXPECT_TRUE(holder_->Find(kBase + 20)->doubtful);
  PutTen();
  EXPECT_FALSE(holder_->Find(kBase)->doubtful);
  EXPECT_TRUE(holder_->Find(kBase + 20)->doubtful);
  ExpectNothingIsToldOf(kBase);  // Its pages are.
}

TEST_F(CoreHolderLearning, ExtentsThatArePutInDoubtAreNotDoubtful) {
  StoreEightAndDoubt();
  Call(Put(kBase + 20, 4, 6));
  Call(PutLearned(kBase + 30, 4, 6));
  Call(Put(kBase + 2, 2, 6));
  EXPECT_FALSE(holder_->Find(kBase + 20)->doubtful);
  EXPECT_FALSE(holder_->Find(kBase + 30)->doubtful);
  EXPECT_FALSE(holder_->Find(kBase + 2)->doubtful);
  EXPECT_TRUE(holder_->Find(kBase)->doubtful);
  EXPECT_TRUE(holder_->Find(kBase + 4)->doubtful);
}

// A list that was made before says that it is not there.
TEST_F(CoreHolderLearning, WhatIsPutAgainIsNotDroppedForBeingInDoubt) {
  StoreEightAndDoubt();
  Call(Put(kBase + 30, 4, 6));
  Message drop = Drop(kBase, 10, 5);
  drop.complete = true;
  Send(Put(kBase + 20, 4, 6));  // On its way to the disk: the others wait for it.
  Send(Put(kBase, 10, 5));
  Send(drop);
  store_.FinishAll();
  ASSERT_NE(holder_->Find(kBase), nullptr);
  drop = Drop(kBase + 30, 4, 6);
  drop.complete = true;
  Call(drop);
  EXPECT_NE(holder_->Find(kBase + 30), nullptr);  // It is not in doubt, either.
}

TEST_F(CoreHolderLearning, OfWhatIsInDoubtAloneTheRestStays) {
  StoreEightAndDoubt();
  Call(Put(kBase + 4, 2, 6));
  Message drop = Drop(kBase, 10, 6);
  drop.complete = true;
  Call(drop);
  EXPECT_EQ(holder_->Find(kBase), nullptr);
  EXPECT_NE(holder_->Find(kBase + 4), nullptr);
  EXPECT_EQ(holder_->Find(kBase + 6), nullptr);
}

TEST_F(CoreHolderLearning, K5PartsOfACutExtentAreAsItWas) {
  for (const bool fails : {false, true}) {
    Call(Drop(kBase, 100, 9));
    Message learned = PutLearned(kBase, 10, 5);
    learned.replicas = 3;
    learned.is_volatile = true;
    Call(learned);
    Restart();
    holder_->BeginDoubt(nullptr);
    Call(Put(kBase + 20, 10, 5));
    Send(Drop(kBase + 4, 2, 5));
    fails ? store_.FailCommit() : store_.FinishCommit();
    Send(Drop(kBase + 24, 2, 5));
    fails ? store_.FailCommit() : store_.FinishCommit();
    EXPECT_EQ(holder_->Find(kBase + 4) == nullptr, !fails);
    for (const uint64_t i : {0, 9}) {
      const Extent& part = *holder_->Find(kBase + i);
      EXPECT_TRUE(part.doubtful && part.learned && part.is_volatile);
      EXPECT_FALSE(part.since_start || part.fresh);
      EXPECT_EQ(part.replicas, 3u);
      EXPECT_EQ(part.config, ConfigNumber(5));
      const Extent& of_new = *holder_->Find(kBase + 20 + i);
      EXPECT_TRUE(of_new.since_start && of_new.fresh);
      EXPECT_FALSE(of_new.doubtful || of_new.learned || of_new.is_volatile);
    }
    Restart();
    EXPECT_TRUE(holder_->Find(kBase + 9)->learned && holder_->Find(kBase + 9)->is_volatile);
    EXPECT_FALSE(holder_->Find(kBase + 29)->learned);
  }
}

TEST_F(CoreHolderLearning, APartOfAnExtentThatIsNotDoubtfulIsNotEither) {
  StoreEightAndDoubt();
  PutTen();  // Again.
  Call(Drop(kBase + 4, 2, 5));
  EXPECT_FALSE(holder_->Find(kBase)->doubtful);
  EXPECT_FALSE(holder_->Find(kBase + 9)->doubtful);
}

TEST_F(CoreHolderLearning, AnExtentThatIsBeingCutWhenDoubtBeginsIsDoubtfulWhenThatFails) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  Send(Drop(kBase, 2, 5));
  holder_->BeginDoubt(nullptr);
  store_.FailCommit();
  EXPECT_TRUE(holder_->Find(kBase)->doubtful);
  ExpectNothingIsToldOf(kBase);
  EXPECT_EQ(Call(Store(kBase, 5, V(3))).version, V(3));
}

// --- The end of learning ----------------------------------------------------------------------------------------------

TEST_F(CoreHolderLearning, K4NoRecordMeansZerosAfterwardsWhereItIsCovered) {
  LearnTwoAndDoubt();
  Commit(EndLearningOfFive());
  EXPECT_FALSE(IsComplete(kBase + 1));  // K8
  store_.FinishAll();
  holder_->EndDoubt();
  for (int start = 0; start < 2; ++start) {
    EXPECT_TRUE(IsComplete(kBase + 1));
    EXPECT_FALSE(IsComplete(kBase + 21));
    EXPECT_FALSE(IsComplete(kDiskDirectoryRootPage));
    ExpectTold(kBase, V(9));
    ExpectTold(kBase + 20, V(9));
    Restart();
  }
}

TEST_F(CoreHolderLearning, AnEndOfLearningThatIsNotDurableIsForgottenInACrash) {
  LearnTwoAndDoubt();
  Commit(EndLearningOfFive());
  Restart();
  EXPECT_FALSE(IsComplete(kBase + 1));
  EXPECT_FALSE(IsComplete(kBase + 21));
}

TEST_F(CoreHolderLearning, SystemPagesAreLearnedForEver) {
  LearnTwoAndDoubt();
  Commit(holder_->EndLearning([](const Extent&) { return true; }));
  store_.FinishAll();
  holder_->EndDoubt();
  for (int start = 0; start < 2; ++start) {
    EXPECT_TRUE(IsComplete(kBase + 1));
    EXPECT_TRUE(IsComplete(kBase + 21));
    for (const PageId page : {kSuperRootPage, kRegionTablePages.first}) EXPECT_FALSE(IsComplete(page));
    Restart();
  }
}

TEST_F(CoreHolderLearning, WhatIsNotCoveredChangesNothing) {
  LearnTwoAndDoubt();
  const StoreBatch batch = holder_->EndLearning([](const Extent&) { return false; });
  EXPECT_TRUE(batch.put_pages.empty() && batch.delete_pages.empty() && batch.records.empty());
  holder_->EndDoubt();
  EXPECT_FALSE(IsComplete(kBase + 1));
}

// K6: the disk still has the whole extent, so that the record of a part must not come beside it.
TEST_F(CoreHolderLearning, K6AnEndOfLearningDuringACutThatFailsLeavesTheExtentWhole) {
  LearnTwoAndDoubt();
  const uint64_t drop = Send(Drop(kBase + 4, 2, 5));
  Commit(EndLearningOfFive());
  store_.FailOldestCommit();
  EXPECT_EQ(answers_[drop].code, StatusCode::kResourceExhausted);
  store_.FinishAll();
  for (int start = 0; start < 2; ++start) {
    for (const uint64_t i : {0, 4, 9}) {
      ASSERT_NE(holder_->Find(kBase + i), nullptr);
      EXPECT_EQ(holder_->Find(kBase + i)->range, (PageRange{kBase, 10}));
    }
    Restart();
  }
}

TEST_F(CoreHolderLearning, AnEndOfLearningDuringACutCountsForItsParts) {
  LearnTwoAndDoubt();
  Send(Drop(kBase + 4, 2, 5));
  Commit(EndLearningOfFive());
  store_.FinishAll();
  holder_->EndDoubt();
  for (int start = 0; start < 2; ++start) {
    EXPECT_TRUE(IsComplete(kBase + 3));
    EXPECT_TRUE(IsComplete(kBase + 6));
    EXPECT_EQ(holder_->Find(kBase + 4), nullptr);
    Restart();
  }
}

}  // namespace
}  // namespace mangrove
