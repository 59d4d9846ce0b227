// Transactions on three engines: what they see of each other, how they end, and what is in the log.
//
// Covers: G15

#include "tests/unit/engine/transactions_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

TEST_F(TransactionsTest, WhatIsCommittedEveryNodeReads) {
  ASSERT_TRUE(Put(1, At(0), "hello").ok());
  for (uint64_t node = 1; node <= 3; ++node) EXPECT_EQ(*Get(node, At(0), 5), "hello") << node;
}

TEST_F(TransactionsTest, ATransactionReadsItsOwnWritesTheLastOneFirst) {
  const uint64_t id = Begin(1);
  ASSERT_TRUE(Write(1, id, At(0, 10), "abcdef").ok());
  ASSERT_TRUE(Write(1, id, At(0, 12), "XY").ok());
  EXPECT_EQ(*Read(1, id, At(0, 9), 8), std::string("\0abXYef\0", 8));
  ASSERT_TRUE(Commit(1, id).ok());
  EXPECT_EQ(*Get(2, At(0, 10), 6), "abXYef");
}

TEST_F(TransactionsTest, NothingIsInThePageBeforeTheCommit) {
  ASSERT_TRUE(Put(1, At(0), "old").ok());
  const uint64_t id = Begin(1);
  ASSERT_TRUE(Write(1, id, At(0), "new").ok());
  EXPECT_EQ(*Peek(1, At(0), 3), "old");
  ASSERT_TRUE(On(1).Abort(kClient, id).ok());
  EXPECT_EQ(*Get(2, At(0), 3), "old");
  EXPECT_EQ(LogOfNode(1, 2).size(), 1u);
}

TEST_F(TransactionsTest, TheLogSaysWhatWasCommitted) {
  ASSERT_TRUE(Put(1, At(0), "one").ok());
  const uint64_t id = Begin(1);
  ASSERT_TRUE(Write(1, id, At(3, 8), "two").ok());
  ASSERT_TRUE(Write(1, id, At(0), "three").ok());
  ASSERT_TRUE(Commit(1, id).ok());
  ASSERT_TRUE(Put(2, At(0), "four").ok());
  const std::vector<LogRecord> log = LogOfNode(1, 3);
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0].owner, cluster_.host(1).self);
  ASSERT_EQ(log[1].pages.size(), 2u);
  EXPECT_EQ(log[1].pages[0].page, kPage);
  EXPECT_EQ(log[1].pages[0].sequence, 2u);
  EXPECT_EQ(log[1].pages[1].page, kPage + 3);
  EXPECT_EQ(log[1].pages[1].sequence, 1u);
  EXPECT_EQ(log[1].pages[1].changes, (std::vector<ByteChange>{{8, "two"}}));
  const std::vector<LogRecord> other = LogOfNode(2, 1);
  ASSERT_EQ(other.size(), 1u);
  EXPECT_EQ(other[0].pages[0].sequence, 3u);
}

TEST_F(TransactionsTest, WhoWantsALockedPageIsAbortedAfterAWhileAndGetsItLater) {
  const uint64_t first = Begin(1);
  ASSERT_TRUE(Write(1, first, At(0), "first").ok());
  const uint64_t second = Begin(2);
  EXPECT_EQ(Read(2, second, At(0), 5).status().code(), StatusCode::kAborted);
  EXPECT_EQ(Write(2, second, At(1), "x").code(), StatusCode::kAborted);  // It has ended.
  const uint64_t local = Begin(1);
  EXPECT_EQ(Read(1, local, At(0), 5).status().code(), StatusCode::kAborted);
  ASSERT_TRUE(Commit(1, first).ok());
  EXPECT_EQ(*Get(2, At(0), 5), "first");
  EXPECT_EQ(On(2).counters().aborted, 2u);  // With the one that Get gave up.
}

TEST_F(TransactionsTest, ReadersShareAPageAndKeepWritersOut) {
  const uint64_t first = Begin(1);
  const uint64_t second = Begin(2);
  ASSERT_TRUE(Read(1, first, At(0), 1).ok());
  ASSERT_TRUE(Read(2, second, At(0), 1).ok());
  const uint64_t writer = Begin(3);
  EXPECT_EQ(Write(3, writer, At(0), "x").code(), StatusCode::kAborted);
  ASSERT_TRUE(Commit(1, first).ok());
  ASSERT_TRUE(Commit(2, second).ok());
  EXPECT_TRUE(Put(3, At(0), "x").ok());
}

TEST_F(TransactionsTest, WhoWritesWhatItHasReadIsAbortedIfAnotherWroteInBetween) {
  const uint64_t first = Begin(1);
  const uint64_t second = Begin(1);
  ASSERT_TRUE(Read(1, first, At(0), 1).ok());
  ASSERT_TRUE(Read(1, second, At(0), 1).ok());
  // Each gives its lock for reading up, and the other one keeps it away.
  EXPECT_EQ(Write(1, first, At(0), "1").code(), StatusCode::kAborted);
  EXPECT_TRUE(Write(1, second, At(0), "2").ok());
  EXPECT_TRUE(Commit(1, second).ok());
  EXPECT_EQ(*Get(1, At(0), 1), "2");
}

TEST_F(TransactionsTest, OneThatIsNotEndedInTimeIsAborted) {
  const uint64_t id = Begin(1, kSecond);
  ASSERT_TRUE(Write(1, id, At(0), "x").ok());
  cluster_.RunFor(2 * kSecond);
  EXPECT_EQ(On(1).open_transactions(), 0u);
  EXPECT_EQ(Commit(1, id).code(), StatusCode::kAborted);
  EXPECT_TRUE(Put(2, At(0), "y").ok());
}

TEST_F(TransactionsTest, ThoseOfAProgramThatEndsAreAborted) {
  const uint64_t id = Begin(1);
  ASSERT_TRUE(Write(1, id, At(0), "x").ok());
  On(1).EndClient(kClient);
  EXPECT_EQ(Commit(1, id).code(), StatusCode::kAborted);
  EXPECT_EQ(*Get(2, At(0), 1), std::string(1, '\0'));
}

TEST_F(TransactionsTest, AnotherProgramDoesNotGetAtIt) {
  const uint64_t id = Begin(1);
  ASSERT_TRUE(Write(1, id, At(0), "x").ok());
  EXPECT_EQ(cluster_.Wait(On(1).Commit(kClient + 1, id)).code(), StatusCode::kAborted);
  EXPECT_TRUE(Commit(1, id).ok());
}

TEST_F(TransactionsTest, WhatDoesNotFitIsRefusedAndSaysWhy) {
  const uint64_t id = Begin(1);
  for (const auto& [offset, length] : {std::pair(0, 0), {0, 4081}, {4080, 1}, {4079, 2}, {4095, 1}}) {
    const absl::Status status =
        Write(1, id, At(0, static_cast<uint64_t>(offset)), std::string(static_cast<size_t>(length), 'x'));
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << offset;
    EXPECT_THAT(std::string(status.message()), HasSubstr("expected 1 to 4080 bytes"));
  }
  EXPECT_TRUE(Write(1, id, At(0), std::string(4080, 'x')).ok());
  EXPECT_TRUE(Commit(1, id).ok());
}

TEST_F(TransactionsTest, APageThatIsNotAllocatedOrVolatileIsRefusedAndTheTransactionGoesOn) {
  cluster_.Allocate({kPage + 100, 1}, 2, /*is_volatile=*/true);
  const uint64_t id = Begin(1);
  EXPECT_EQ(Write(1, id, At(50), "x").code(), StatusCode::kFailedPrecondition);
  const absl::Status status = Write(1, id, At(100), "x");
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("volatile"));
  EXPECT_TRUE(Write(1, id, At(0), "x").ok());
  EXPECT_TRUE(Commit(1, id).ok());
}

TEST_F(TransactionsTest, APageWhoseTrailerSomebodyWroteOverIsRefused) {
  ASSERT_TRUE(Put(1, At(0), "x").ok());
  ASSERT_TRUE(cluster_.Write(1, kPage, 9).ok());
  EXPECT_EQ(*Get(2, At(0), 1), "\x09");  // The application's own bytes anybody may write.
  ASSERT_TRUE(cluster_.Write(1, kPage, 9).ok());
  cluster_.engine(1).Store(kPage, kPageBytes - 1, std::vector<std::byte>(1, std::byte{9}));
  const uint64_t id = Begin(2);
  EXPECT_EQ(Read(2, id, At(0), 1).status().code(), StatusCode::kDataLoss);
}

TEST_F(TransactionsTest, CommitsThatWaitTogetherGoWithOneWriteAndOneFlush) {
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 9; ++i) {
    ids.push_back(Begin(1));
    ASSERT_TRUE(Write(1, ids.back(), At(i), "x").ok());
  }
  const uint64_t groups = On(1).log().counters().groups;
  int done = 0;
  for (const uint64_t id : ids) {
    Spawn<absl::Status>(On(1).Commit(kClient, id), [&done](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      ++done;
    });
  }
  cluster_.RunFor(kSecond);
  EXPECT_EQ(done, 9);
  EXPECT_EQ(On(1).log().counters().groups - groups, 2u);  // The first one alone: nobody else was there yet.
  EXPECT_EQ(LogOfNode(1, 1).size(), 9u);
}

TEST_F(TransactionsTest, ACommitOnPagesThatAreHereIsOneMessageToEachCoreHolderOfTheLogAndItsAnswer) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Put(1, At(0), "warm").ok());
  cluster_.RunFor(kSecond);
  cluster_.sent.clear();
  ASSERT_TRUE(Put(1, At(0), "x").ok());
  std::vector<NodeId> others = cluster_.locator().CoreHolders(LogOf(NodeId(1)).first, 2);
  std::erase(others, NodeId(1));
  EXPECT_EQ(cluster_.sent[MessageKind::kStore], static_cast<int>(others.size()));
  int all = 0;
  for (const auto& [kind, count] : cluster_.sent) all += count;
  EXPECT_EQ(all, 2 * static_cast<int>(others.size()));
}

// The log's flush is held up: until it is over nobody sees, or stores, a byte of it.
TEST_F(TransactionsTest, NoPageLeavesTheNodeBeforeItsRecordIsDurable) {
  ASSERT_TRUE(Put(1, At(0), "old").ok());
  const uint64_t id = Begin(1, 60 * kSecond);
  ASSERT_TRUE(Write(1, id, At(0), "new").ok());
  cluster_.dropped = {MessageKind::kStore, MessageKind::kStored};
  bool committed = false;
  Spawn<absl::Status>(On(1).Commit(kClient, id), [&](const absl::Status& status) { committed = status.ok(); });
  cluster_.RunFor(2 * kSecond);
  EXPECT_FALSE(committed);
  std::string here(3, '\0');
  cluster_.engine(1).Load(kPage, 0, std::as_writable_bytes(std::span(here)));
  EXPECT_EQ(here, "old");
  EXPECT_FALSE(Peek(2, At(0), 3).ok());  // It is locked.
  cluster_.dropped.clear();
  cluster_.RunFor(5 * kSecond);
  EXPECT_TRUE(committed);
  EXPECT_EQ(*Get(2, At(0), 3), "new");
}

class SmallLog : public TransactionsTest {
 protected:
  SmallLog() : TransactionsTest(3, 8) {}
};

TEST_F(SmallLog, GoesRoundAndGivesUpWhatIsInItsPages) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Put(1, At(static_cast<uint64_t>(i % 5)), std::string(900, static_cast<char>('a' + i % 26))).ok()) << i;
    ASSERT_LE(On(1).log().used_pages(), 7u);
  }
  EXPECT_GT(On(1).log().counters().truncations, 3u);
  Lose(1);
  for (uint64_t page = 0; page < 5; ++page) {
    EXPECT_EQ(*Get(2, At(page), 900), std::string(900, static_cast<char>('a' + (95 + page) % 26))) << page;
  }
}

TEST_F(SmallLog, ATransactionThatIsTooLargeForItIsRefused) {
  const uint64_t id = Begin(1);
  absl::Status status;
  for (uint64_t page = 0; page < 16 && status.ok(); ++page) status = Write(1, id, At(page), std::string(4000, 'x'));
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected at most"));
  EXPECT_TRUE(Commit(1, id).ok());
}

// What is in the log cannot be flushed: commits wait for room, then say that there is none. Nothing of them has happened.
TEST_F(SmallLog, WhereThereIsNoRoomInTimeNothingHappens) {
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kStore && m.page < kFirstTransactionPage; };
  absl::Status status;
  int committed = 0;
  while (status.ok() && committed < 100) {
    status = Put(1, At(0), std::string(1000, 'x'));
    if (status.ok()) ++committed;
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  EXPECT_GT(committed, 10);
  cluster_.lost = nullptr;
  cluster_.RunFor(10 * kSecond);
  EXPECT_TRUE(Put(1, At(0), "y").ok());
  EXPECT_EQ(On(1).counters().committed, static_cast<uint64_t>(committed) + 1);
}

// One whose pages would fill the cache would leave the log no place, and wait for its own commit.
class TransactionsOfASmallCache : public TransactionsTest {
 protected:
  TransactionsOfASmallCache() : TransactionsTest(3, 16, [](PageEngineOptions& options) { options.cache_pages = 64; }) {
    cluster_.Allocate({kPage + kSegmentPages, 64});
  }
};

TEST_F(TransactionsOfASmallCache, WhatIsLockedLeavesTheLogItsPlace) {
  const uint64_t id = Begin(1, 30 * kSecond);
  absl::Status status;
  uint64_t pages = 0;
  while (status.ok() && pages < 64) {
    status = Write(1, id, At(kSegmentPages + pages), "x");
    if (status.ok()) ++pages;
  }
  EXPECT_EQ(pages, 48u);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cache"));
  EXPECT_TRUE(Put(2, At(0), "other").ok());
  ASSERT_TRUE(Commit(1, id).ok());
  EXPECT_EQ(*Get(3, At(kSegmentPages + 47), 1), "x");
  ASSERT_TRUE(Put(1, At(kSegmentPages + 48), "y").ok());
}

}  // namespace
}  // namespace mangrove
