// Commits that are not durable yet: engine/transactions/local_pages.h.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/transactions_harness.h"

namespace mangrove {
namespace {

class LazyCommit : public TransactionsTest {
 protected:
  // What is on its way to the disks would have nobody to go on with it.
  void TearDown() override {
    for (const auto& [node, transactions] : transactions_) EXPECT_TRUE(Sync(node).ok()) << node;
  }
  absl::Status PutLazily(uint64_t node, GlobalAddress at, std::string bytes) {
    const uint64_t id = Begin(node);
    const absl::Status written = Write(node, id, at, std::move(bytes));
    return written.ok() ? cluster_.Wait(On(node).CommitLazily(kClient, id)) : written;
  }
  absl::Status Sync(uint64_t node) { return cluster_.Wait(On(node).Sync(cluster_.In(5 * kSecond))); }
};

// Covers: G15
TEST_F(LazyCommit, IsSeenHereAtOnceAndElsewhereWhenItIsDurable) {
  ASSERT_TRUE(PutLazily(1, At(0), "one").ok());
  ASSERT_TRUE(PutLazily(1, At(0, 8), "two").ok());
  EXPECT_EQ(*Get(1, At(0), 11), std::string("one\0\0\0\0\0two", 11));
  EXPECT_EQ(*Get(2, At(0), 11), std::string("one\0\0\0\0\0two", 11));
  EXPECT_EQ(On(1).log().counters().commits, 2u);
}

TEST_F(LazyCommit, WhatWasSyncedOutlivesItsNode) {
  ASSERT_TRUE(PutLazily(1, At(0), "first").ok());
  ASSERT_TRUE(PutLazily(1, At(1), "second").ok());
  ASSERT_TRUE(Sync(1).ok());
  Lose(1);
  EXPECT_EQ(*Get(2, At(0), 5), "first");
  EXPECT_EQ(*Get(3, At(1), 6), "second");
}

// Neither of the pages, nor the plain bytes of one, have anything of what the log has not.
TEST_F(LazyCommit, OfALostNodeIsThereWithAllThatCameBeforeIt) {
  ASSERT_TRUE(Put(1, At(0), "old").ok());
  ASSERT_TRUE(Put(1, At(1), "old").ok());
  ASSERT_TRUE(Put(1, At(2), "old").ok());
  for (int commits = 0; commits < 6; ++commits) {
    for (int i = 0; i < commits; ++i) {
      ASSERT_TRUE(PutLazily(1, At(static_cast<uint64_t>(i % 3)), absl::StrCat("n", commits, i)).ok());
    }
    Lose(1);
    const std::string values[3] = {*Get(2, At(0), 3), *Get(2, At(1), 3), *Get(2, At(2), 3)};
    // The number of the commits that are there, by each page's newest one.
    for (int i = commits - 1; i >= 0; --i) {
      if (values[i % 3] != absl::StrCat("n", commits, i)) continue;
      for (int before = i - 1; before >= std::max(0, i - 2); --before) {
        EXPECT_EQ(values[before % 3], absl::StrCat("n", commits, before)) << commits << " " << i;
      }
      break;
    }
    Back(1);
    for (uint64_t page = 0; page < 3; ++page) ASSERT_TRUE(Put(1, At(page), "old").ok());
  }
}

TEST_F(LazyCommit, ADurableOneTakesThoseBeforeItAlong) {
  ASSERT_TRUE(PutLazily(1, At(0), "lazy").ok());
  ASSERT_TRUE(PutLazily(1, At(1), "lazy").ok());
  ASSERT_TRUE(Put(1, At(0, 8), "firm").ok());
  Lose(1);
  EXPECT_EQ(*Get(2, At(0), 12), std::string("lazy\0\0\0\0firm", 12));
  EXPECT_EQ(*Get(2, At(1), 4), "lazy");
}

TEST_F(LazyCommit, PagesAreHeldByOneTransactionForWriting) {
  ASSERT_TRUE(PutLazily(1, At(0), "a").ok());
  const uint64_t first = Begin(1);
  ASSERT_TRUE(Write(1, first, At(0), "b").ok());
  const uint64_t second = Begin(1);
  EXPECT_TRUE(absl::IsAborted(Read(1, second, At(0), 1).status()));
  ASSERT_TRUE(cluster_.Wait(On(1).CommitLazily(kClient, first)).ok());
  EXPECT_EQ(*Get(1, At(0), 1), "b");
}

TEST_F(LazyCommit, OneThatReadAndThenWritesIsAbortedIfItWasChangedBetween) {
  ASSERT_TRUE(PutLazily(1, At(0), "a").ok());
  const uint64_t first = Begin(1);
  const uint64_t second = Begin(1);
  EXPECT_EQ(*Read(1, first, At(0), 1), "a");
  EXPECT_EQ(*Read(1, second, At(0), 1), "a");
  // Neither can have it while the other reads.
  EXPECT_TRUE(absl::IsAborted(Write(1, first, At(0), "b")));
  ASSERT_TRUE(Write(1, second, At(0), "c").ok());
  ASSERT_TRUE(cluster_.Wait(On(1).CommitLazily(kClient, second)).ok());
  EXPECT_EQ(*Get(1, At(0), 1), "c");
}

TEST_F(LazyCommit, ANodeThatChangesAPageAgainAndAgainLetsOthersIn) {
  ASSERT_TRUE(Put(2, At(0, 100), "x").ok());
  const uint64_t id = Begin(2);
  std::optional<absl::StatusOr<std::string>> read;
  Spawn<absl::StatusOr<std::string>>(On(2).Read(kClient, id, At(0), 1, AccessMode::kRead),
                                     [&](absl::StatusOr<std::string> r) { read = std::move(r); });
  int commits = 0;
  for (; !read && commits < 100'000; ++commits) {
    const uint64_t mine = Begin(1);
    if (Write(1, mine, At(0), "y").ok()) (void)cluster_.Wait(On(1).CommitLazily(kClient, mine));
  }
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(read->ok()) << read->status() << " after " << commits;
}

TEST_F(LazyCommit, APageThatNobodyElseWantsStaysWhileADiskIsSlow) {
  ASSERT_TRUE(Put(1, At(0), "-").ok());
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kStore; };
  ASSERT_TRUE(PutLazily(1, At(0), "a").ok());
  cluster_.RunFor(2 * LocalPages::kTenure);
  ASSERT_TRUE(PutLazily(1, At(0), "b").ok());
  EXPECT_EQ(*Get(1, At(0), 1), "b");
  cluster_.RunFor(LocalPages::kMostTenure);
  EXPECT_FALSE(PutLazily(1, At(0), "c").ok());
  cluster_.lost = nullptr;
  EXPECT_TRUE(Sync(1).ok());
  EXPECT_EQ(*Get(2, At(0), 1), "b");
}

TEST_F(LazyCommit, WhatCannotBeFlushedIsNotForgotten) {
  ASSERT_TRUE(Put(1, At(0), "-").ok());
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kStore; };
  ASSERT_TRUE(PutLazily(1, At(0), "a").ok());
  EXPECT_EQ(*Get(1, At(0), 1), "a");
  EXPECT_TRUE(absl::IsUnavailable(cluster_.Wait(On(1).Sync(cluster_.In(kSecond)))));
  // Other nodes might be waiting for the page.
  EXPECT_TRUE(absl::IsAborted(Get(1, At(0), 1).status()));
  cluster_.lost = nullptr;
  EXPECT_TRUE(Sync(1).ok());
  EXPECT_EQ(*Get(2, At(0), 1), "a");
}

// --- Reading without a transaction ------------------------------------------------------------------------------------

// Covers: G15
TEST_F(LazyCommit, AGlanceSeesWhatIsCommittedAndNothingOfWhatIsNot) {
  ASSERT_TRUE(PutLazily(1, At(0), "old").ok());
  EXPECT_EQ(On(1).Glance(At(0), 3), "old") << "before it is durable";
  const uint64_t open = Begin(1);
  ASSERT_TRUE(Write(1, open, At(0), "new").ok());
  EXPECT_EQ(On(1).Glance(At(0), 3), "old") << "while a transaction has it locked";
  ASSERT_TRUE(cluster_.Wait(On(1).CommitLazily(kClient, open)).ok());
  EXPECT_EQ(On(1).Glance(At(0), 3), "new");
  ASSERT_TRUE(Sync(1).ok());
  EXPECT_EQ(On(1).Glance(At(0), 3), "new") << "from the page itself";
}

TEST_F(LazyCommit, AGlanceSeesNothingOfAPageThatIsElsewhere) {
  ASSERT_TRUE(PutLazily(1, At(0), "one").ok());
  EXPECT_EQ(On(2).Glance(At(0), 3), std::nullopt) << "it was never there";
  EXPECT_EQ(*Get(2, At(0), 3), "one");
  EXPECT_EQ(On(2).Glance(At(0), 3), "one");
  ASSERT_TRUE(PutLazily(1, At(0), "two").ok());
  EXPECT_EQ(On(2).Glance(At(0), 3), std::nullopt) << "its copy was taken away before the commit";
}

TEST_F(LazyCommit, AGlanceNeedsALease) {
  ASSERT_TRUE(PutLazily(1, At(0), "one").ok());
  ASSERT_TRUE(PutLazily(1, At(1), "one").ok());
  ASSERT_TRUE(Sync(1).ok());
  ASSERT_TRUE(PutLazily(1, At(0), "two").ok());
  const TimeNs lease = cluster_.In(1000 * kSecond);
  cluster_.engine(1).OnLease(0);
  EXPECT_EQ(On(1).Glance(At(0), 3), std::nullopt) << "also of what is not durable yet";
  EXPECT_EQ(On(1).Glance(At(1), 3), std::nullopt);
  cluster_.engine(1).OnLease(lease);
  EXPECT_EQ(On(1).Glance(At(0), 3), "two");
}

TEST_F(LazyCommit, AGlanceSeesNothingBeforeALostNodesLogIsReplayed) {
  ASSERT_TRUE(PutLazily(2, At(0), "one").ok());
  EXPECT_EQ(*Get(2, At(0), 3), "one");
  ASSERT_TRUE(Sync(2).ok());
  Kill(1);
  cluster_.Leave(1);
  EXPECT_EQ(On(2).Glance(At(0), 3), std::nullopt);
  TellAll();
  EXPECT_EQ(*Get(2, At(0), 3), "one");
  EXPECT_EQ(On(2).Glance(At(0), 3), "one");
}

TEST_F(LazyCommit, AGlanceIsOfOnePagesPartForTransactions) {
  ASSERT_TRUE(PutLazily(1, At(0), "one").ok());
  EXPECT_EQ(On(1).Glance(At(0, kTransactionBytes - 2), 3), std::nullopt);
  EXPECT_EQ(On(1).Glance(At(0), 0), std::nullopt);
}

}  // namespace
}  // namespace mangrove
