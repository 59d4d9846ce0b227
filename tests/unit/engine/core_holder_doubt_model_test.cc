// All rules of a core holder, K1 to K8, that is in doubt at times.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "tests/sanitizers.h"
#include "tests/unit/engine/core_holder_doubt_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

constexpr uint64_t kPages = 8;

// --- One operation after the other: each answer is known --------------------------------------------------------------

// What is to be known of a page.
struct ModelPage {
  uint64_t config = 0;  // Of its extent; 0: it is in none.
  bool learned = false;
  bool put_since = false;       // Its extent was put since the start or the beginning of doubt, as an allocation.
  bool doubtful = false;        // Its extent is.
  std::optional<Version> disk;  // Its record.
  bool corrupt = false;
  bool stored_since = false;
  std::optional<Version> lost;
};

class CoreHolderDoubtModel : public CoreHolderDoubt {
 protected:
  ModelPage& At(uint64_t i) { return pages_[i]; }
  bool Fails() { return random_() % 5 == 0; }

  // Sends, and lets it end or fail as on a full disk.
  Message CallOrFail(const Message& message, bool fails) {
    const uint64_t number = Send(message);
    while (!store_.reads.empty()) store_.FinishRead();
    if (fails) {
      // The fake forgets of a record that is being replaced that it is corrupt.
      for (uint64_t i = 0; i < kPages; ++i) {
        if (At(i).corrupt) store_.corrupt.insert((kBase + i).value);
      }
      store_.FailCommit();
    }
    store_.FinishAll();
    EXPECT_TRUE(Answered(number));
    return answers_[number];
  }

  // K2, K7, K8: the version that a store has to be newer than.
  Version Known(const ModelPage& page) const {
    const bool counts = page.disk && !page.corrupt && !page.lost && (!in_doubt_ || page.stored_since);
    return counts ? *page.disk : Version{};
  }

  void DoStore() {
    const uint64_t i = random_() % kPages;
    const uint64_t count = 1 + random_() % 3;
    for (uint64_t page = i; page < std::min(kPages, i + count); ++page) StoreOne(page, V(1 + random_() % 20));
  }
  void StoreOne(uint64_t i, Version version) {
    ModelPage& page = At(i);
    const uint64_t config = random_() % 8 == 0 ? last_config_ + 1 : page.config;
    const Message store = Store(kBase + i, config, version);
    if (page.config == 0 || page.config != config) {
      EXPECT_EQ(Call(store).code, StatusCode::kFailedPrecondition);
      return;
    }
    const int before = store_.commit_count;
    if (version <= Known(page)) {
      EXPECT_EQ(Call(store).version, Known(page));
      EXPECT_EQ(store_.commit_count, before);
      return;
    }
    const bool fails = Fails();
    const Message answer = CallOrFail(store, fails);
    EXPECT_EQ(store_.commit_count, before + 1);
    EXPECT_EQ(answer.code, fails ? StatusCode::kResourceExhausted : StatusCode::kOk);
    if (fails) {
      if (page.corrupt || page.lost) page.stored_since = false;  // What was stored since is known to be gone.
      return;
    }
    EXPECT_EQ(answer.version, version);
    page.disk = version;
    page.corrupt = false;
    page.lost.reset();
    page.stored_since = in_doubt_;
  }

  std::pair<uint64_t, uint64_t> RandomRange() {
    const uint64_t first = random_() % kPages;
    return {first, 1 + random_() % (kPages - first)};
  }
  // The page's record and all that is known of it go.
  void Clear(uint64_t i, ModelPage page) {
    At(i) = page;
    store_.corrupt.erase((kBase + i).value);
  }
  void DoPut() {
    const auto [first, count] = RandomRange();
    const bool old = random_() % 4 == 0;
    const uint64_t config = old ? 1 : ++last_config_;
    const bool hits = std::any_of(pages_.begin() + static_cast<ptrdiff_t>(first),
                                  pages_.begin() + static_cast<ptrdiff_t>(first + count),
                                  [config](const ModelPage& page) { return page.config > config; });
    // Of the oldest there may be an equal one.
    if (old && !hits) return;
    const bool learned = random_() % 2 == 0;
    const Message put = learned ? PutLearned(kBase + first, count, config) : Put(kBase + first, count, config);
    if (hits) {
      EXPECT_EQ(Call(put).code, StatusCode::kFailedPrecondition);
      return;
    }
    const bool fails = Fails();
    EXPECT_EQ(CallOrFail(put, fails).code, fails ? StatusCode::kResourceExhausted : StatusCode::kOk);
    if (fails) return;
    for (uint64_t i = first; i < first + count; ++i) {
      Clear(i, {.config = config, .learned = learned, .put_since = !learned});
    }
    EXPECT_EQ(Call(put).code, StatusCode::kOk);  // The same again: no change.
  }
  void DoDrop() {
    const auto [first, count] = RandomRange();
    const uint64_t at_most = last_config_ - std::min(last_config_ - 1, random_() % 3);
    const bool fails = Fails();
    EXPECT_EQ(CallOrFail(Drop(kBase + first, count, at_most), fails).code,
              fails ? StatusCode::kResourceExhausted : StatusCode::kOk);
    for (uint64_t i = first; !fails && i < first + count; ++i) {
      if (At(i).config > 0 && At(i).config <= at_most) Clear(i, {});
    }
  }
  void DoBeginDoubt() {
    if (in_doubt_) return;
    holder_->BeginDoubt(nullptr);
    in_doubt_ = true;
    for (ModelPage& page : pages_) {
      page.put_since = page.stored_since = false;
      page.doubtful = page.config > 0;
    }
  }
  void DoEndDoubt() {
    holder_->EndDoubt();
    in_doubt_ = false;
    for (ModelPage& page : pages_) page.stored_since = false;
  }
  void DoDeletePages() {
    if (!in_doubt_) return;
    const auto [first, count] = RandomRange();
    std::vector<PageId> pages;
    for (uint64_t i = first; i < first + count; ++i) {
      if (At(i).config == 0) continue;
      pages.push_back(kBase + i);
      if (At(i).stored_since) continue;
      At(i).disk.reset();
      At(i).lost.reset();
      At(i).corrupt = false;
      store_.corrupt.erase((kBase + i).value);
    }
    EXPECT_TRUE(Delete(pages).ok());
  }
  void DoEndLearning() {
    const uint64_t rest = random_() % 2;
    Commit(holder_->EndLearning([rest](const Extent& extent) { return extent.config.value % 2 == rest; }));
    store_.FinishAll();
    for (ModelPage& page : pages_) page.learned &= page.config % 2 != rest;
  }
  void DoMarkLost() {
    const uint64_t i = random_() % kPages;
    const Version version = V(1 + random_() % 20);
    absl::Status status = absl::UnknownError("not called");
    holder_->MarkLost(kBase + i, version, [&](absl::Status s) { status = std::move(s); });
    store_.FinishAll();
    EXPECT_EQ(status.code(), At(i).config > 0 ? StatusCode::kOk : StatusCode::kAborted);
    if (At(i).config > 0) At(i).lost = version;
  }
  // A record becomes corrupt; a query finds it.
  void DoCorrupt() {
    const uint64_t i = random_() % kPages;
    if (!At(i).disk || (in_doubt_ && !At(i).stored_since)) return;
    At(i).corrupt = true;
    store_.corrupt.insert((kBase + i).value);
    Call(Query(kBase + i));
  }
  void DoCrash() {
    Restart();
    in_doubt_ = false;
    for (ModelPage& page : pages_) page.put_since = page.stored_since = page.doubtful = false;
  }

  void CheckPage(uint64_t i) {
    SCOPED_TRACE(i);
    const ModelPage& page = At(i);
    const Extent* const extent = holder_->Find(kBase + i);
    ASSERT_EQ(extent == nullptr ? 0 : extent->config.value, page.config);
    EXPECT_EQ(holder_->lost().contains(kBase + i), page.lost.has_value());
    if (page.lost) {
      EXPECT_EQ(holder_->lost().at(kBase + i), *page.lost);
    }
    const Message answer = Call(Query(kBase + i));
    if (page.config == 0) {
      EXPECT_EQ(answer.code, StatusCode::kNotFound);
      return;
    }
    EXPECT_EQ(extent->doubtful, page.doubtful);
    EXPECT_EQ(extent->learned, page.learned);
    const bool bad = page.lost || page.corrupt;
    if (in_doubt_ && (!page.stored_since || bad) && (!page.put_since || page.stored_since)) {
      EXPECT_FALSE(answer.have || (answer.complete && answer.code == StatusCode::kOk));
      if (!bad) ExpectNothingIsTold(answer);
    } else if (bad) {
      EXPECT_EQ(answer.code, StatusCode::kDataLoss);
    } else {
      EXPECT_EQ(answer.code, StatusCode::kOk);
      EXPECT_EQ(answer.have, page.disk.has_value());
      EXPECT_EQ(answer.version, page.disk.value_or(Version{}));
      EXPECT_EQ(answer.complete, page.disk || !page.learned);
    }
    if (!bad) {
      EXPECT_EQ(holder_->WasStoredSince(kBase + i), page.stored_since);
    }
  }

  void Step() {
    const uint64_t dice = random_() % 100;
    if (dice < 50) return DoStore();
    if (dice < 58) return DoPut();
    if (dice < 65) return DoDrop();
    if (dice < 72) return DoBeginDoubt();
    if (dice < 76) return DoEndDoubt();
    if (dice < 83) return DoDeletePages();
    if (dice < 87) return DoEndLearning();
    if (dice < 92) return DoMarkLost();
    if (dice < 95) return DoCorrupt();
    if (dice < 98) return DoCrash();
  }

  std::mt19937_64 random_;
  std::array<ModelPage, kPages> pages_;
  bool in_doubt_ = false;
  uint64_t last_config_ = 1;
};

TEST_F(CoreHolderDoubtModel, EachAnswerIsWhatTheRulesSay) {
  for (uint64_t seed = 1; seed <= Histories(40) && !HasFailure(); ++seed) {
    random_.seed(seed);
    for (int step = 0; step < 400 && !HasFailure(); ++step) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << " step " << step);
      Step();
      answers_.clear();
      if (random_() % 3 != 0) continue;
      for (uint64_t i = 0; i < kPages; ++i) CheckPage(i);
    }
  }
}

// --- Operations that overtake each other: what was promised is there --------------------------------------------------

class CoreHolderDoubtRace : public CoreHolderDoubt {
 protected:
  // The newest version that was told of in its extent, since the beginning of doubt if there is any.
  struct Promise {
    uint64_t config = 0;
    Version version;
  };

  PageId RandomPage() { return kBase + random_() % kPages; }
  void SendStore() {
    const PageId page = RandomPage();
    const Extent* const extent = holder_->Find(page);
    const uint64_t config = extent != nullptr ? extent->config.value : 1;
    configs_[Send(Store(page, config, V(1 + random_() % 20)))] = config;
  }
  void SendChange() {
    const uint64_t first = random_() % kPages;
    const uint64_t count = 1 + random_() % (kPages - first);
    const uint64_t config = ++last_config_;
    Message change = random_() % 2 == 0 ? Put(kBase + first, count, config) : PutLearned(kBase + first, count, config);
    if (random_() % 2 == 0) {
      change.kind = MessageKind::kDropExtent;
      change.complete = false;
    }
    configs_[Send(change)] = config;
  }
  void ChangeDoubt() {
    in_doubt_ = !in_doubt_;
    if (!in_doubt_) return holder_->EndDoubt();
    holder_->BeginDoubt(nullptr);
    for (auto& [page, promise] : promises_) promise.version = Version{};
  }
  void MarkOne() {
    const PageId page = RandomPage();
    bool aborted = false;
    holder_->MarkLost(page, V(30), [&aborted](const absl::Status& s) { aborted = absl::IsAborted(s); });
    if (!aborted) promises_[page.value].version = Version{};
    while (!aborted && store_.commits.size() > 1) store_.FinishCommit();
    if (!aborted) store_.FinishCommit();
  }
  void DeleteSome() {
    if (!in_doubt_) return;
    holder_->DeletePages({RandomPage(), RandomPage()}, [](const absl::Status&) {});
  }

  void Step() {
    const uint64_t dice = random_() % 100;
    if (dice < 32) {
      SendStore();
    } else if (dice < 42) {
      Send(Query(RandomPage()));
    } else if (dice < 46) {
      SendChange();
    } else if (dice < 66) {
      if (!store_.commits.empty()) store_.FinishCommit();
    } else if (dice < 82) {
      if (!store_.reads.empty()) store_.FinishRead(random_() % 2 == 0);
    } else if (dice < 85) {
      if (!store_.commits.empty()) store_.FailCommit();
    } else if (dice < 88) {
      if (!store_.commits.empty()) store_.FailOldestCommit();
    } else if (dice < 91) {
      ChangeDoubt();
    } else if (dice < 93) {
      DeleteSome();
    } else if (dice < 95) {
      MarkOne();
    } else if (dice < 97) {
      StoreBatch batch = holder_->EndLearning([](const Extent&) { return true; });
      store_.Commit(std::move(batch), [](const absl::Status&) {});
    } else if (dice < 98) {
      Restart();
      in_doubt_ = false;
    }
    CheckAnswers();
  }

  void CheckAnswers() {
    for (const auto& [number, answer] : std::exchange(answers_, {})) {
      if (answer.code != StatusCode::kOk) continue;
      if (answer.kind == MessageKind::kDone) {
        for (uint64_t i = 0; i < answer.count; ++i) Keep(answer.page + i, configs_.at(number), Version{});
      } else {
        const bool stored = answer.kind == MessageKind::kStored;
        Keep(answer.page, stored ? configs_.at(number) : answer.config.value, answer.version);
      }
    }
    for (const auto& [page, promise] : promises_) {
      const auto it = store_.durable.pages.find(page);
      if (it == store_.durable.pages.end()) {
        EXPECT_EQ(promise.version, Version{});
      } else if (it->second.config.value == promise.config) {
        EXPECT_GE(it->second.version, promise.version);
      } else {
        EXPECT_GT(it->second.config.value, promise.config);
      }
    }
  }
  void Keep(PageId page, uint64_t config, Version version) {
    Promise& promise = promises_[page.value];
    if (config > promise.config) promise = {config, version};
    if (config == promise.config) promise.version = std::max(promise.version, version);
  }

  std::mt19937_64 random_;
  std::map<uint64_t, uint64_t> configs_;  // Of requests.
  std::map<absl::uint128, Promise> promises_;
  bool in_doubt_ = false;
  uint64_t last_config_ = 10;
};

TEST_F(CoreHolderDoubtRace, WhatWasAcknowledgedIsThereInAnyOrderOfEvents) {
  for (uint64_t seed = 1; seed <= Histories(20) && !HasFailure(); ++seed) {
    random_.seed(seed);
    for (int step = 0; step < 5000 && !HasFailure(); ++step) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << " step " << step);
      Step();
    }
  }
}

}  // namespace
}  // namespace mangrove
