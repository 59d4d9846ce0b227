// What a core holder does with extents, K5 and K6, and all its rules at once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/engine/core_holder_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

// --- K5: extents do not overlap ---------------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K5ExtentsSurviveARestart) {
  PutTen();
  ASSERT_EQ(Call(Put(kBase + 10, 5, 7, 1, true)).code, StatusCode::kOk);
  ASSERT_TRUE(holder_->Find(kBase)->fresh);
  Restart();
  const Extent* const extent = holder_->Find(kBase + 12);
  ASSERT_NE(extent, nullptr);
  EXPECT_EQ(extent->range, (PageRange{kBase + 10, 5}));
  EXPECT_EQ(extent->config, ConfigNumber(7));
  EXPECT_EQ(extent->replicas, 1u);
  EXPECT_TRUE(extent->is_volatile);
  EXPECT_FALSE(extent->fresh);
  EXPECT_EQ(holder_->extents().size(), 4u);
}

// K4: a disk that learned of a range later does not answer for what it lacks of it.
TEST_F(CoreHolderTest, K4NoRecordMeansZerosOnlyWhereTheExtentIsFromItsAllocationOn) {
  PutTen();
  Message learned = Put(kBase + 10, 5, 7);
  learned.complete = true;
  ASSERT_EQ(Call(learned).code, StatusCode::kOk);
  Call(Store(kBase + 11, 7, V(1)));
  for (int start = 0; start < 2; ++start) {
    EXPECT_TRUE(Call(Query(kBase)).complete);
    EXPECT_FALSE(Call(Query(kBase + 10)).complete);
    EXPECT_FALSE(Call(Query(kBase + 10)).have);
    EXPECT_TRUE(Call(Query(kBase + 11)).complete);
    EXPECT_FALSE(Call(Query(kSuperRootPage)).complete);
    ASSERT_EQ(Call(learned).code, StatusCode::kOk);  // Repeated: no news.
    Restart();
  }
}

// Whoever allocates it has not ended yet, while others have told of it already.
TEST_F(CoreHolderTest, K5WhatWasLearnedIsKnownWhenItIsPut) {
  Message learned = Put(kBase + 10, 5, 7);
  learned.complete = true;
  ASSERT_EQ(Call(learned).code, StatusCode::kOk);
  ASSERT_EQ(Call(Put(kBase + 10, 5, 7)).code, StatusCode::kOk);
  for (int start = 0; start < 2; ++start) {
    EXPECT_TRUE(Call(Query(kBase + 10)).complete);
    ASSERT_EQ(Call(learned).code, StatusCode::kOk);  // No news.
    Restart();
  }
}

TEST_F(CoreHolderTest, K5FirstUnallocatedPage) {
  PutTen();
  Call(Put(kBase + 10, 5, 7));
  EXPECT_EQ(holder_->FirstUnallocated({kBase, 15}), std::nullopt);
  EXPECT_EQ(holder_->FirstUnallocated({kBase + 3, 20}), kBase + 15);
  EXPECT_EQ(holder_->FirstUnallocated({PageId(kBase.value - 1), 3}), PageId(kBase.value - 1));
}

TEST_F(CoreHolderTest, K5PuttingTheSameAgainChangesNothing) {
  PutTen();
  Call(Store(kBase, 5, V(1)));
  EXPECT_EQ(Call(Put(kBase, 10, 5)).code, StatusCode::kOk);
  EXPECT_EQ(Call(Query(kBase)).version, V(1));
}

TEST_F(CoreHolderTest, K5PuttingAnOlderOneIsRefused) {
  PutTen();
  for (const Message& m :
       {Put(kBase, 10, 4), Put(kBase + 9, 2, 4), Put(PageId(kBase.value - 5), 20, 4), Put(kBase, 9, 5)}) {
    const Message answer = Call(m);
    EXPECT_EQ(answer.code, StatusCode::kFailedPrecondition);
    EXPECT_THAT(answer.text, HasSubstr("is not newer than 5"));
  }
  EXPECT_EQ(holder_->extents().size(), 3u);
}

TEST_F(CoreHolderTest, K5NewerOneRemovesWhatItOverlapsPagesIncluded) {
  PutTen();
  for (const uint64_t i : {0, 3, 4, 9}) Call(Store(kBase + i, 5, V(9)));
  const int before = store_.commit_count;
  ASSERT_EQ(Call(Put(kBase + 3, 4, 6)).code, StatusCode::kOk);
  EXPECT_EQ(store_.commit_count, before + 1);
  EXPECT_EQ(holder_->Find(kBase)->range, (PageRange{kBase, 3}));
  EXPECT_EQ(holder_->Find(kBase + 3)->config, ConfigNumber(6));
  EXPECT_EQ(holder_->Find(kBase + 7)->range, (PageRange{kBase + 7, 3}));
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(Call(Query(kBase)).version, V(9));
    EXPECT_EQ(Call(Query(kBase + 3)).version, Version{});
    EXPECT_EQ(Call(Query(kBase + 4)).version, Version{});
    EXPECT_EQ(Call(Query(kBase + 9)).version, V(9));
    Restart();
  }
  EXPECT_EQ(Call(Store(kBase + 3, 6, V(1))).version, V(1));
}

TEST_F(CoreHolderTest, K5DropSplitsAndLeavesNewerOnes) {
  PutTen();
  Call(Put(kBase + 5, 2, 8));
  Call(Store(kBase + 2, 5, V(1)));
  EXPECT_EQ(Call(Drop(kBase + 2, 6, 5)).code, StatusCode::kOk);
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(holder_->Find(kBase + 1)->range, (PageRange{kBase, 2}));
    EXPECT_EQ(holder_->Find(kBase + 2), nullptr);
    EXPECT_EQ(holder_->Find(kBase + 5)->range, (PageRange{kBase + 5, 2}));
    EXPECT_EQ(holder_->Find(kBase + 7), nullptr);
    EXPECT_EQ(holder_->Find(kBase + 8)->range, (PageRange{kBase + 8, 2}));
    EXPECT_EQ(store_.durable.pages.size(), 0u);
    Restart();
  }
}

TEST_F(CoreHolderTest, K5DropOfNothingIsDone) { EXPECT_EQ(Call(Drop(kBase, 10, 5)).code, StatusCode::kOk); }

TEST_F(CoreHolderTest, K5SystemPagesAndNonsenseCanBeNeitherPutNorDropped) {
  for (const Message& m :
       {Put(kSuperRootPage, 1, 9), Drop(kSuperRootPage, 1, 9), Put(PageId(100), 500, 9),
        Drop(kRegionTablePages.first, 1, 9), Put(kBase, 0, 9), Put(PageId(0), 1, 9), Put(PageId(kSpacePages - 1), 2, 9),
        Put(PageId(kSpacePages), 1, 9), Put(kBase, 1, 0), Drop(kBase, 0, 1)}) {
    EXPECT_EQ(Call(m).code, StatusCode::kInvalidArgument) << m.page.value << " " << m.count;
  }
}

TEST_F(CoreHolderTest, K5CorruptRecordsOfExtentsAreNamedAtOpen) {
  const Extent extent{.range = {kBase, 10}, .config = ConfigNumber(5), .replicas = 2};
  Extent overlapping = extent;
  overlapping.range.first = kBase + 9;
  Extent none = extent;
  none.config = ConfigNumber(0);
  std::string flags = EncodeExtent(extent);
  flags.back() = 4;
  std::string format = EncodeExtent(extent);
  format[0] = 9;
  const std::string key = ExtentKey(kBase);
  const std::vector<std::pair<std::string, std::string>> bad = {{key, ""},
                                                                {key, EncodeExtent(extent) + "x"},
                                                                {key, EncodeExtent(overlapping)},
                                                                {key, EncodeExtent(none)},
                                                                {key, flags},
                                                                {key, format},
                                                                {ExtentKey(kBase + 9), EncodeExtent(overlapping)}};
  for (const auto& [bad_key, value] : bad) {
    StoreBatch batch;
    batch.records.push_back({key, EncodeExtent(extent)});
    batch.records.push_back({bad_key, value});
    store_.Commit(std::move(batch), [](const absl::Status&) {});
    store_.FinishCommit();
    CoreHolder holder(&store_, &bugs_, 1);
    absl::Status opened;
    holder.Open([&](absl::Status s) { opened = std::move(s); });
    EXPECT_EQ(opened.code(), StatusCode::kDataLoss);
    EXPECT_THAT(std::string(opened.message()), HasSubstr(bad_key));
    store_.durable.records.clear();
    store_.Crash();
  }
}

TEST_F(CoreHolderTest, K5RecordsSortByAddress) {
  EXPECT_EQ(ExtentKey(PageId(0x1234)), "extent/00000000000000000000000000001234");
  EXPECT_LT(ExtentKey(PageId(UINT64_MAX)), ExtentKey(PageId(absl::MakeUint128(1, 0))));
  Extent extent{
      .range = {PageId(absl::MakeUint128(7, 1)), 10}, .config = ConfigNumber(5), .replicas = 2, .is_volatile = true};
  const auto decoded = DecodeExtent(ExtentKey(extent.range.first), EncodeExtent(extent));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->range, extent.range);
  EXPECT_EQ(decoded->config, extent.config);
  EXPECT_EQ(decoded->replicas, 2u);
  EXPECT_TRUE(decoded->is_volatile);
}

// --- K6: one change after the other -----------------------------------------------------------------------------------

TEST_F(CoreHolderTest, K6WhatAChangeRemovesIsInNoExtentFromTheCallOn) {
  PutTen();
  const uint64_t put = Send(Put(kBase, 5, 6));
  EXPECT_EQ(holder_->Find(kBase), nullptr);
  EXPECT_NE(holder_->Find(kBase + 5), nullptr);
  EXPECT_EQ(answers_[Send(Store(kBase, 5, V(1)))].code, StatusCode::kFailedPrecondition);
  store_.FinishCommit();
  EXPECT_TRUE(Answered(put));
  EXPECT_EQ(holder_->Find(kBase)->config, ConfigNumber(6));
}

TEST_F(CoreHolderTest, K6ChangesWaitForEachOther) {
  const uint64_t first = Send(Put(kBase, 10, 5));
  const uint64_t drop = Send(Drop(kBase + 5, 5, 5));
  const uint64_t second = Send(Put(kBase + 5, 5, 4));
  EXPECT_EQ(store_.commits.size(), 1u);
  store_.FinishAll();
  EXPECT_EQ(answers_[first].code, StatusCode::kOk);
  EXPECT_EQ(answers_[drop].code, StatusCode::kOk);
  EXPECT_EQ(answers_[second].code, StatusCode::kOk);
  EXPECT_EQ(holder_->Find(kBase + 5)->config, ConfigNumber(4));
}

TEST_F(CoreHolderTest, K6FailedChangeLeavesWhatWasThere) {
  PutTen();
  Call(Store(kBase + 4, 5, V(3)));
  const uint64_t put = Send(Put(kBase + 4, 2, 6));
  store_.FailCommit();
  EXPECT_EQ(answers_[put].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(holder_->Find(kBase + 4)->range, (PageRange{kBase, 10}));
  EXPECT_EQ(holder_->extents().size(), 3u);
  EXPECT_EQ(Call(Store(kBase + 4, 5, V(2))).version, V(3));
  EXPECT_EQ(Call(Put(kBase + 4, 2, 6)).code, StatusCode::kOk);
}

TEST_F(CoreHolderTest, K6VersionReadBeforeAChangeDoesNotCountAfterIt) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  Restart();
  Send(Store(kBase, 5, V(10)));  // Waits for its version.
  Send(Put(kBase, 10, 6));
  store_.FinishCommit();
  const uint64_t store = Send(Store(kBase, 6, V(1)));
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  EXPECT_EQ(answers_[store].version, V(1));
  EXPECT_EQ(store_.durable.pages.at(kBase.value).version, V(1));
}

TEST_F(CoreHolderTest, K6QueryThatWasReadBeforeAChangeIsReadAgain) {
  PutTen();
  Call(Store(kBase, 5, V(9)));
  const uint64_t query = Send(Query(kBase));
  Send(Put(kBase, 10, 6));
  store_.FinishCommit();
  store_.FinishRead(/*as_asked=*/true);
  store_.FinishAll();
  ASSERT_TRUE(Answered(query));
  EXPECT_EQ(answers_[query].version, Version{});
  EXPECT_EQ(answers_[query].config, ConfigNumber(6));
}

TEST_F(CoreHolderTest, CallbacksThatComeAfterItsEndAreIgnored) {
  PutTenAndRestart();
  Send(Store(kBase, 5, V(1)));
  Send(Query(kBase));
  Send(Put(kBase + 20, 1, 9));
  holder_.reset();
  store_.FinishAll();
  EXPECT_TRUE(answers_.empty());
}

// --- All rules at once ------------------------------------------------------------------------------------------------

// Random messages, finished in random order, with crashes: what was acknowledged is there after each of them.
class CoreHolderModel : public CoreHolderTest {
 protected:
  static constexpr uint64_t kPages = 6;

  void Step(std::mt19937_64& random) {
    const uint64_t dice = random() % 100;
    if (dice < 35) {
      SendStore(random);
    } else if (dice < 45) {
      Send(Query(kBase + random() % kPages));
    } else if (dice < 48) {
      SendPut(random);
    } else if (dice < 70) {
      if (!store_.commits.empty()) store_.FinishCommit();
    } else if (dice < 90) {
      if (!store_.reads.empty()) store_.FinishRead(random() % 2 == 0);
    } else if (dice < 93) {
      if (!store_.commits.empty()) store_.FailCommit();
    } else if (dice < 95) {
      CheckAnswers();
      Restart();
    }
    CheckAnswers();
  }

  void SendStore(std::mt19937_64& random) {
    const PageId page = kBase + random() % kPages;
    const Extent* const extent = holder_->Find(page);
    const uint64_t config = extent != nullptr ? extent->config.value : 1;
    Message m = Store(page, config, V(1 + random() % 30));
    configs_[Send(m)] = config;
  }
  void SendPut(std::mt19937_64& random) {
    const uint64_t first = random() % kPages;
    const uint64_t config = ++last_config_;
    configs_[Send(Put(kBase + first, 1 + random() % (kPages - first), config))] = config;
  }

  // K1 and K2, as an observer of the answers sees them.
  void CheckAnswers() {
    for (auto& [number, answer] : answers_) {
      if (answer.code != StatusCode::kOk) continue;
      if (answer.kind == MessageKind::kDone) {
        const uint64_t config = configs_.at(number);
        for (uint64_t i = 0; i < answer.count; ++i) {
          auto& page = pages_[(answer.page + i).value];
          if (config > page.first) page = {config, Version{}};
        }
      } else {
        const uint64_t config = answer.kind == MessageKind::kStored ? configs_.at(number) : answer.config.value;
        Promise(answer.page, config, answer.version);
      }
    }
    answers_.clear();
    for (const auto& [page, promise] : pages_) {
      const auto it = store_.durable.pages.find(page);
      if (it == store_.durable.pages.end()) {
        EXPECT_EQ(promise.second, Version{});
      } else if (it->second.config.value == promise.first) {
        EXPECT_GE(it->second.version, promise.second);
      } else {
        EXPECT_GT(it->second.config.value, promise.first);
      }
    }
  }
  void Promise(PageId page, uint64_t config, Version version) {
    auto& promise = pages_[page.value];
    if (config > promise.first) promise = {config, version};
    if (config == promise.first) promise.second = std::max(promise.second, version);
  }

  std::map<uint64_t, uint64_t> configs_;                         // Of requests.
  std::map<absl::uint128, std::pair<uint64_t, Version>> pages_;  // What was acknowledged last.
  uint64_t last_config_ = 10;
};

TEST_F(CoreHolderModel, AcknowledgedVersionsSurviveAnyOrderOfEvents) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200'000 && !HasFailure(); ++round) Step(random);
}

}  // namespace
}  // namespace mangrove
