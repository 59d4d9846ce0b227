// Named orders of messages between clients of tokens and their server, each rule alone.
// Covers: X01 X02 X07

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/fs/tokens/token_wire.h"

namespace mangrove::fs {
namespace {

using TokensOrder = TokenWire;

TEST_F(TokensOrder, IdleTokensAreKeptUntilTheyAreRecalled) {
  Hold(1, kRead);
  EXPECT_EQ(clients_.at(1).Held(kA), kRead);
  Acquire(1, 1, {{kA, kRead}});
  EXPECT_TRUE(Uses(1, 1));
  EXPECT_TRUE(wire_.empty());
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  EXPECT_FALSE(Uses(2, 2)) << "the first uses it";
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
  EXPECT_TRUE(clients_.at(1).Held(kA).Empty());
}

TEST_F(TokensOrder, TwoUpgradesDoNotWaitForEachOther) {
  Hold(1, kRead);
  Hold(2, kRead);
  Acquire(1, 1, {{kA, kWrite}});
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  EXPECT_TRUE(Uses(1, 1));
  EXPECT_FALSE(Uses(2, 2));
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
}

TEST_F(TokensOrder, WhatIsHeldAndWhatIsWantedConflictTogether) {
  Hold(1, kRead);
  Hold(2, kRead);
  // Read and shared write are write: the other reader has to go.
  Acquire(1, 1, {{kA, kShared}});
  Settle();
  EXPECT_TRUE(Uses(1, 1));
  EXPECT_EQ(clients_.at(1).Held(kA), kWrite);
  EXPECT_TRUE(clients_.at(2).Held(kA).Empty());
}

TEST_F(TokensOrder, TwoObjectsAreTakenInOneOrder) {
  Hold(1, kWrite);
  Acquire(1, 1, {{kB, kWrite}, {kA, kWrite}});
  Acquire(2, 2, {{kA, kWrite}, {kB, kWrite}});
  Settle();
  ASSERT_NE(Uses(1, 1), Uses(2, 2));
  const int first = Uses(1, 1) ? 1 : 2;
  Release(first, uint64_t(first));
  Settle();
  EXPECT_TRUE(Uses(3 - first, uint64_t(3 - first)));
}

TEST_F(TokensOrder, ReadersWaitBehindAWriterAndOtherClassesDoNot) {
  Acquire(1, 1, {{kA, kRead}});
  Settle();
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  Acquire(1, 3, {{kA, kRead}});
  Acquire(1, 4, {{kA, kOther}});
  Settle();
  EXPECT_FALSE(Uses(1, 3)) << "it would starve the writer";
  EXPECT_TRUE(Uses(1, 4));
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
  Release(2, 2);
  Settle();
  EXPECT_TRUE(Uses(1, 3));
}

TEST_F(TokensOrder, FiveHundredObjectsAreAskedForInOneMessage) {
  std::vector<TokenClient::Wanted> wanted;
  for (uint64_t i = 1; i <= 512; ++i) wanted.push_back({{i, 1}, kRead});
  Acquire(1, 1, wanted);
  EXPECT_EQ(wire_.size(), 1u);
  Settle();
  EXPECT_TRUE(Uses(1, 1));
}

TEST_F(TokensOrder, ALateDoubleOfARequestIsAnsweredByAReturn) {
  Acquire(1, 1, {{kA, kRead}});
  const auto request = wire_.front();
  Settle();
  Release(1, 1);
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  Release(2, 2);
  wire_.push_back(request);
  Settle();
  EXPECT_TRUE(clients_.at(1).Held(kA).Empty());
  EXPECT_TRUE(server_->HeldBy(kA, Client(1)).Empty());
  EXPECT_EQ(clients_.at(1).Objects(), 0u);
}

TEST_F(TokensOrder, AGrantThatComesAgainAfterAllWasGivenBackIsNotBelieved) {
  Acquire(1, 1, {{kA, kRead}});
  Deliver(0);
  const auto grant = wire_.front();
  Settle();
  Release(1, 1);
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  wire_.push_back(grant);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
  EXPECT_TRUE(clients_.at(1).Held(kA).Empty());
}

TEST_F(TokensOrder, WhatIsLentIsNotRecalledAndNotUsedMeanwhile) {
  Hold(1, kRead);
  Hold(2, kRead);
  recalls_.clear();
  TokenClient::Output out;
  ASSERT_TRUE(clients_.at(1).BeginChange(7, kA, kWrite, now_, out));
  Do(1, out);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  EXPECT_EQ(recalls_[1], 0);
  EXPECT_EQ(recalls_[2], 1);
  Acquire(1, 1, {{kA, kRead}});
  Settle();
  EXPECT_FALSE(Uses(1, 1));
  TokenServer::Output end;
  server_->EndChange(begun_[0], now_, end);
  Do(end);
  Settle();
  EXPECT_TRUE(Uses(1, 1));
  EXPECT_EQ(recalls_[1], 0);
}

TEST_F(TokensOrder, AConditionalRecallIsRefusedByWhoUsesIt) {
  Acquire(1, 1, {{kA, kRead}});
  Settle();
  Hold(2, kRead);
  for (const bool refused : {true, false}) {
    conditional_.clear();
    TokenServer::Output out;
    server_->RecallConditionally(kA, kWrite, now_, out);
    Do(out);
    Settle();
    EXPECT_EQ(conditional_, std::vector<bool>{refused});
    if (refused) {
      EXPECT_EQ(clients_.at(1).Held(kA), kRead);
      EXPECT_TRUE(clients_.at(2).Held(kA).Empty());
      Release(1, 1);
    }
  }
  EXPECT_TRUE(clients_.at(1).Held(kA).Empty());
}

TEST_F(TokensOrder, ALostMessageIsSentAgain) {
  Acquire(1, 1, {{kA, kWrite}});
  wire_.clear();  // The request.
  Tick(250);
  Deliver(0);
  wire_.clear();  // The grant.
  Tick(250);
  Settle();
  EXPECT_TRUE(Uses(1, 1));
}

TEST_F(TokensOrder, AWaitEndsByTimeByCancelByViewAndWithTheLease) {
  Acquire(2, 9, {{kA, kWrite}});
  Settle();
  Acquire(1, 1, {{kA, kRead}});
  Acquire(1, 2, {{kA, kRead}}, true);
  Acquire(1, 3, {{kA, kRead}});
  Settle();
  TokenClient::Output out;
  EXPECT_TRUE(clients_.at(1).Cancel(1, now_, out));
  EXPECT_FALSE(clients_.at(1).Cancel(1, now_, out));
  Do(1, out);
  View(2);
  Settle();
  ASSERT_EQ(events_[1].size(), 1u);
  EXPECT_EQ(events_[1][0].operation, 2u);
  EXPECT_EQ(events_[1][0].why, TokenFailure::kInterrupted);
  Tick(10'000);
  Settle();
  ASSERT_EQ(events_[1].size(), 2u);
  EXPECT_EQ(events_[1][1].operation, 3u);
  EXPECT_EQ(events_[1][1].why, TokenFailure::kTimedOut);
  EXPECT_EQ(server_->Waiting(), 0u);
  TokenClient::Output end;
  clients_.at(2).OnLeaseEnd(end);
  ASSERT_EQ(end.events.size(), 2u);
  EXPECT_EQ(end.events[0].why, TokenFailure::kLeaseEnded);
  EXPECT_EQ(end.events[1].kind, TokenEventKind::kLost);
  EXPECT_EQ(clients_.at(2).Objects(), 0u);
}

TEST_F(TokensOrder, AServerIsRebuiltOfWhatTheClientsSayAndAgainAfterAnotherFailure) {
  Hold(1, kWrite);
  NewServer();
  View(2);
  EXPECT_FALSE(server_->Ready());
  Deliver(0);
  View(3);
  Settle();
  EXPECT_TRUE(server_->Ready());
  EXPECT_EQ(server_->HeldBy(kA, Client(1)), kWrite);
  Acquire(2, 2, {{kA, kRead}});
  Settle();
  EXPECT_TRUE(Uses(2, 2));
  EXPECT_TRUE(clients_.at(1).Held(kA).Empty());
}

TEST_F(TokensOrder, AMessageOfAnotherViewCountsForNothing) {
  Acquire(1, 1, {{kA, kRead}});
  const auto request = wire_.front();
  wire_.clear();
  View(2);
  wire_.clear();
  wire_.push_back(request);
  Settle();
  EXPECT_EQ(server_->Objects(), 0u);
}

TEST_F(TokensOrder, TimesMergeAndASizeIsOnlyTheWritersOwn) {
  constexpr TokenSet kTimes(TokenClass::kTimes, TokenLevel::kSharedWrite);
  Acquire(1, 1, {{kA, kTimes}});
  Acquire(2, 2, {{kA, kTimes}});
  Settle();
  EXPECT_TRUE(clients_.at(1).Touch(1, kA, {.access = 5, .modify = 9, .change = 1}));
  EXPECT_TRUE(clients_.at(2).Touch(2, kA, {.access = 7, .modify = 2, .change = 3}));
  Release(1, 1);
  Release(2, 2);
  Acquire(
      1, 3,
      {{kA, TokenSet(TokenClass::kTimes, TokenLevel::kRead)}, {kB, TokenSet(TokenClass::kSize, TokenLevel::kWrite)}});
  Settle();
  ASSERT_TRUE(Uses(1, 3));
  EXPECT_EQ(clients_.at(1).TimesOf(3, kA), (TokenTimes{7, 9, 3}));
  EXPECT_TRUE(clients_.at(1).SetSize(3, kB, 100));
  EXPECT_TRUE(clients_.at(1).SetSize(3, kB, 40));
  Release(1, 3);
  Acquire(2, 4, {{kB, TokenSet(TokenClass::kSize, TokenLevel::kRead)}});
  Settle();
  ASSERT_TRUE(Uses(2, 4));
  EXPECT_EQ(clients_.at(2).SizeOf(4, kB), 40u) << "the last, not the largest";
}

TEST_F(TokensOrder, AnInvalidationOfBeforeTheEndOfALeaseIsNotThatOfALaterRecall) {
  Hold(1, kWrite);
  invalidates_ = false;
  Acquire(2, 2, {{kA, kRead}});
  Settle();
  ASSERT_EQ(events_[1].back().kind, TokenEventKind::kInvalidate);
  const uint64_t old = events_[1].back().invalidation;
  EndLease(1);
  View(2);
  Settle();
  ASSERT_TRUE(Uses(2, 2));
  Release(2, 2);
  Acquire(1, 1, {{kA, kWrite}});
  Settle();
  Invalidated(2, {events_[2].back().invalidation});
  Settle();
  ASSERT_TRUE(Uses(1, 1));
  Release(1, 1);
  Acquire(2, 3, {{kA, kRead}});
  Settle();
  Invalidated(1, {old});
  Settle();
  EXPECT_EQ(clients_.at(1).Held(kA), kWrite);
  EXPECT_FALSE(Uses(2, 3));
  Invalidated(1, {events_[1].back().invalidation});
  Settle();
  EXPECT_TRUE(Uses(2, 3));
}

TEST_F(TokensOrder, ARecallOutlivesAGrantOfOtherClasses) {
  Acquire(1, 1, {{kA, kRead}});
  Settle();
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  Acquire(1, 3, {{kA, kOther}});
  Settle();
  ASSERT_TRUE(Uses(1, 3));
  // Nobody says again what is to be given back.
  Acquire(1, 4, {{kA, kRead}});
  EXPECT_FALSE(Uses(1, 4));
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
}

TEST_F(TokensOrder, TimesTouchedBehindAReturnAreNotTakenForStored) {
  Acquire(1, 1, {{kA, kTimesShared | kRead}});
  Settle();
  ASSERT_TRUE(Uses(1, 1));
  Acquire(1, 2, {{kA, kTimesShared}});
  Release(1, 1);
  // The name is given back, the times stay in use.
  Acquire(2, 3, {{kA, kWrite}});
  Deliver(0);
  Deliver(0);
  ASSERT_EQ(wire_.front().second.message.kind, TokenMessageKind::kReturn);
  EXPECT_TRUE(clients_.at(1).Touch(2, kA, {.access = 8, .modify = 8, .change = 8}));
  Acquire(1, 4, {{kA, kOther}});
  Deliver(0);
  ASSERT_EQ(Lose(TokenMessageKind::kAck), 1u);
  // This grant says that the return was taken.
  Settle();
  ASSERT_TRUE(Uses(1, 4));
  Release(1, 2);
  EXPECT_EQ(stored_[kA].times.modify, 0);
  Acquire(2, 5, {{kA, kTimesRead}});
  Settle();
  ASSERT_TRUE(Uses(2, 5));
  EXPECT_EQ(clients_.at(2).TimesOf(5, kA), (TokenTimes{8, 8, 8}));
}

TEST_F(TokensOrder, ARequestIsMadeSmallerWhenTheLargestOfItsWaitsEnds) {
  Acquire(2, 9, {{kA, kRead}});
  Settle();
  Acquire(1, 1, {{kA, kWrite | kAttributesRead}});
  Settle();
  Acquire(1, 2, {{kA, kAttributesRead}});
  Settle();
  ASSERT_TRUE(Cancel(1, 1));
  Settle();
  EXPECT_TRUE(Uses(1, 2));
  EXPECT_EQ(server_->Waiting(), 0u);
}

}  // namespace
}  // namespace mangrove::fs
