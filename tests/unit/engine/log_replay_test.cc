// What transactions wrote is there again after the loss of nodes, wherever it was.
//
// Covers: G15

#include "tests/unit/engine/transactions_harness.h"

namespace mangrove {
namespace {

using absl::StatusCode;

class LogReplayTest : public TransactionsTest {
 protected:
  // Nothing of these pages was flushed: what a lost node had of them is lost.
  void ExpectEverywhere(GlobalAddress at, const std::string& bytes) {
    for (const auto& [node, transactions] : transactions_) EXPECT_EQ(*Get(node, at, bytes.size()), bytes) << node;
  }
};

TEST_F(LogReplayTest, ASurvivorReplaysWhatTheLostNodeCommitted) {
  ASSERT_TRUE(Put(3, At(0), "hello").ok());
  ASSERT_TRUE(Put(3, At(1), "world").ok());
  ASSERT_TRUE(Put(3, At(0), "HELLO").ok());
  Lose(3);
  ExpectEverywhere(At(0), "HELLO");
  ExpectEverywhere(At(1), "world");
  EXPECT_EQ(On(1).replay().counters().applied + On(2).replay().counters().applied, 3u);
}

// Also where no transaction follows: who reads the pages by other means finds it there after a while.
TEST_F(LogReplayTest, NobodyHasToAskForIt) {
  ASSERT_TRUE(Put(3, At(0), "hello").ok());
  Lose(3);
  cluster_.RunFor(2 * kSecond);
  EXPECT_EQ(*Peek(1, At(0), 5), "hello");
  EXPECT_TRUE(LogOfNode(3, 1).empty());  // It is given up.
}

TEST_F(LogReplayTest, WhatWasNotCommittedLeavesNoTrace) {
  ASSERT_TRUE(Put(3, At(0), "old").ok());
  const uint64_t id = Begin(3);
  ASSERT_TRUE(Write(3, id, At(0), "new").ok());
  ASSERT_TRUE(Write(3, id, At(1), "new").ok());
  Lose(3);
  ExpectEverywhere(At(0), "old");
  ExpectEverywhere(At(1), std::string(3, '\0'));
}

// The page had gone on to a node that is lost, and the log that has its change is that of a living one.
TEST_F(LogReplayTest, APageThatWasLostOnAnotherNodeComesFromTheLogOfALivingOne) {
  ASSERT_TRUE(Put(1, At(0), "hello").ok());
  ASSERT_TRUE(Put(3, At(1), "warm").ok());
  const uint64_t id = Begin(3);
  ASSERT_TRUE(Read(3, id, At(0), 5, AccessMode::kWrite).ok());  // Node 3 has the only copy now.
  Lose(3);
  ExpectEverywhere(At(0), "hello");
}

TEST_F(LogReplayTest, ChangesOfSeveralLogsComeInTheirOrder) {
  for (int i = 0; i < 12; ++i) {
    const uint64_t node = 1 + static_cast<uint64_t>(i * 7 % 3);
    const uint64_t id = Begin(node);
    ASSERT_TRUE(Write(node, id, At(0, static_cast<uint64_t>(4 * (i % 2))), "abcd").ok());
    ASSERT_TRUE(Write(node, id, At(0, static_cast<uint64_t>(i)), std::string(1, static_cast<char>('0' + i))).ok());
    ASSERT_TRUE(Commit(node, id).ok());
  }
  const std::string before = *Get(3, At(0), 16);
  ASSERT_TRUE(Put(3, At(0, 100), "mine").ok());
  Lose(3);
  ExpectEverywhere(At(0), before);
  ExpectEverywhere(At(0, 100), "mine");
  EXPECT_EQ(On(1).replay().counters().gaps + On(2).replay().counters().gaps, 0u);
}

TEST_F(LogReplayTest, AfterAStopOfEverythingItComesBeforeTheFirstTransaction) {
  ASSERT_TRUE(Put(1, At(0), "one").ok());
  ASSERT_TRUE(Put(2, At(1), "two").ok());
  ASSERT_TRUE(Put(3, At(0, 3), "three").ok());
  for (uint64_t node = 1; node <= 3; ++node) Kill(node);
  std::vector<NodeInstance> all;
  ++lives_;
  for (const NodeId node : members_) all.push_back({node, Incarnation(lives_)});
  cluster_.StartTogether(all);
  for (const NodeId node : members_) Attach(node.value);
  ExpectEverywhere(At(0), "onethree");
  ExpectEverywhere(At(1), "two");
  EXPECT_TRUE(Put(3, At(2), "again").ok());
  EXPECT_EQ(LogOfNode(3, 1).size(), 1u);
}

TEST_F(LogReplayTest, ANodeThatComesBackGoesOnInANewGeneration) {
  ASSERT_TRUE(Put(3, At(0), "one").ok());
  Lose(3);
  Back(3);
  ASSERT_TRUE(Put(3, At(0), "two").ok());
  const auto log = cluster_.Wait(On(1).ReadLogOf(NodeId(3), cluster_.In(5 * kSecond)));
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->header.generation, 2u);
  EXPECT_EQ(log->header.owner.incarnation, Incarnation(2));
  ASSERT_EQ(log->records.size(), 1u);
  EXPECT_EQ(log->records[0].pages[0].sequence, 2u);
  Lose(3);
  ExpectEverywhere(At(0), "two");
}

// A change of a page that was taken away and allocated again is not of the one that is there now.
TEST_F(LogReplayTest, AChangeOfAnEarlierAllocationIsNotApplied) {
  for (const char* text : {"one", "two", "three"}) ASSERT_TRUE(Put(3, At(0), text).ok());
  ASSERT_TRUE(
      cluster_.Wait(cluster_.engine(1).DropExtent({kPage, 16}, ConfigNumber(1), 2, cluster_.In(5 * kSecond))).ok());
  cluster_.Allocate({kPage, 16}, 2);
  ASSERT_TRUE(Put(1, At(0), "new").ok());
  const uint64_t id = Begin(3);
  ASSERT_TRUE(Read(3, id, At(0), 5, AccessMode::kWrite).ok());
  Lose(3);
  ExpectEverywhere(At(0), std::string("new\0\0", 5));
}

TEST_F(LogReplayTest, ATransactionThatGoesOnWhileOneIsLostIsAbortedAtItsNextPageAndKeepsNobodyWaiting) {
  ASSERT_TRUE(Put(3, At(0), "hello").ok());
  const uint64_t id = Begin(1, 30 * kSecond);
  ASSERT_TRUE(Read(1, id, At(2), 1).ok());
  cluster_.Leave(3);
  ended_.push_back(std::move(transactions_.at(3)));
  transactions_.erase(3);
  ended_.back()->Shutdown();
  On(1).OnView();  // Nobody has replayed yet.
  EXPECT_EQ(Read(1, id, At(0), 5).status().code(), StatusCode::kAborted);
  ExpectEverywhere(At(0), "hello");
}

// One that has all of its pages is not in the way: they were locked before anything was lost.
TEST_F(LogReplayTest, ATransactionThatHasAllItsPagesCommitsWhileOneIsLost) {
  ASSERT_TRUE(Put(3, At(0), "hello").ok());
  const uint64_t id = Begin(1, 30 * kSecond);
  ASSERT_TRUE(Write(1, id, At(0), "HE").ok());
  Lose(3);
  EXPECT_TRUE(Commit(1, id).ok());
  ExpectEverywhere(At(0), "HEllo");
}

// Its node dies while it could not be flushed, and another one has read the log meanwhile.
TEST_F(LogReplayTest, ARecordThatIsNotDurableIsNotReplayed) {
  // One that keeps the log stays, and cannot be reached.
  const std::vector<NodeId> keepers = cluster_.locator().CoreHolders(LogOf(NodeId(1)).first, 2);
  const uint64_t other = keepers.front() == NodeId(3) || keepers.back() == NodeId(3) ? 2 : 3;
  for (const uint64_t page : {0, 1}) ASSERT_TRUE(Put(1, At(page), "old").ok());
  ASSERT_TRUE(Put(2, At(2), "warm").ok());
  const uint64_t id = Begin(1, 60 * kSecond);
  for (const uint64_t page : {0, 1}) ASSERT_TRUE(Write(1, id, At(page), "new").ok());
  cluster_.lost = [](const Message& m) { return m.kind == MessageKind::kStore && LogOf(NodeId(1)).Contains(m.page); };
  bool committed = false;
  Spawn<absl::Status>(On(1).Commit(kClient, id), [&](const absl::Status& status) { committed = status.ok(); });
  cluster_.RunFor(kSecond);
  Lose(other);
  cluster_.RunFor(kSecond);
  Back(other);
  cluster_.RunFor(2 * kSecond);
  EXPECT_FALSE(committed);
  Lose(1);
  cluster_.lost = nullptr;
  cluster_.RunFor(kSecond);
  ExpectEverywhere(At(0), "old");
  ExpectEverywhere(At(1), "old");
}

// Each page takes longer than 100 ms to be opened; one after the other they would not be there for half a minute.
TEST_F(LogReplayTest, PagesThatAreSlowToOpenAreOpenedSideBySide) {
  constexpr uint64_t kPages = 256;
  cluster_.Allocate({kPage + kSegmentPages, kPages}, 1);
  for (uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(Put(3, At(kSegmentPages + i), "hello").ok()) << i;
  std::map<PageId, int> asked;
  cluster_.lost = [&asked](const Message& m) {
    const bool is_ours = m.kind == MessageKind::kQueryStored && m.page.value < kFirstDirectoryPage.value;
    return is_ours && (kPage + kSegmentPages) <= m.page && ++asked[m.page] <= 6;
  };
  const auto rounds = [this] { return On(1).replay().counters().rounds + On(2).replay().counters().rounds; };
  const uint64_t before = rounds();
  const TimeNs begin = cluster_.clock.Now();
  Lose(3);
  while (rounds() == before && cluster_.clock.Now() < begin + 60 * kSecond) cluster_.RunFor(100 * kMillisecond);
  EXPECT_LT(cluster_.clock.Now() - begin, 9 * kSecond);
  EXPECT_GE(asked.size(), kPages);
  cluster_.lost = nullptr;
  for (uint64_t i = 0; i < kPages; i += 50) EXPECT_EQ(*Get(2, At(kSegmentPages + i), 5), "hello") << i;
}

TEST_F(LogReplayTest, TheReplayerMayDieAtAnyStep) {
  for (int steps = 0; steps < 400; steps += 9) {
    const std::string text = "round" + std::to_string(1000 + steps);
    ASSERT_TRUE(Put(3, At(0), text).ok()) << steps;
    ASSERT_TRUE(Put(2, At(0, 20), text).ok()) << steps;
    ASSERT_TRUE(Put(3, At(1), text).ok()) << steps;
    Kill(3);
    cluster_.ChangeViewAt({1, 2}, {.epoch = {}, .joins = {}, .leaves = {NodeId(3)}});
    On(2).OnView();
    for (int i = 0; i < steps; ++i) cluster_.Step(cluster_.In(kSecond));
    Lose(2);
    Back(2);
    Back(3);
    EXPECT_EQ(*Get(1, At(0), text.size()), text) << steps;
    EXPECT_EQ(*Get(1, At(0, 20), text.size()), text) << steps;
    EXPECT_EQ(*Get(1, At(1), text.size()), text) << steps;
  }
}

}  // namespace
}  // namespace mangrove
