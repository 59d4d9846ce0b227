// Named orders of changes that the server makes, for a client that lends or of its own, and of conditional recalls.
// Covers: X01 X07

#include <gtest/gtest.h>

#include <deque>
#include <utility>
#include <vector>

#include "tests/unit/fs/tokens/token_wire.h"

namespace mangrove::fs {
namespace {

using TokensChanges = TokenWire;

TEST_F(TokensChanges, AChangeOfAnOperationThatPinsPassesTheRequestThatWaitsForItsPins) {
  Hold(1, kExtentsRead);
  Acquire(1, 1, {{kA, kIoRead}});
  Settle();
  Acquire(2, 2, {{kA, kIoWrite | kExtentsRead}});
  Settle();
  ASSERT_FALSE(Uses(2, 2));
  Change(1, 1, kA, kExtentsWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u) << "the other waits for the I/O of who waits for this";
  EndChange(begun_[0]);
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
}

TEST_F(TokensChanges, ARequestThatWasPassedWaitsForTheChangeToEnd) {
  Acquire(1, 1, {{kA, kIoRead}});
  Acquire(1, 3, {{kA, kAttributesRead}});
  Settle();
  Acquire(2, 2, {{kA, kAttributesWrite | kExtentsRead}});
  Settle();
  Change(1, 1, kA, kExtentsWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  Release(1, 3);
  Settle();
  EXPECT_FALSE(Uses(2, 2)) << "the change came later, and is being made";
  EndChange(begun_[0]);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
}

TEST_F(TokensChanges, AChangeThatNeedsLaterClassesPassesTheChangeThatWaitsForItsPins) {
  Acquire(1, 1, {{kA, kIoRead}});
  Acquire(2, 2, {{kA, kIoRead | kSizeRead}});
  Settle();
  Change(1, 1, kA, kSizeWrite | kExtentsWrite);
  Settle();
  ASSERT_TRUE(begun_.empty()) << "the size is in use";
  Change(2, 2, kA, kExtentsWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  EXPECT_EQ(begun_[0].client, Client(2));
  EndChange(begun_[0]);
  Release(2, 2);
  Settle();
  ASSERT_EQ(begun_.size(), 2u);
  EXPECT_EQ(begun_[1].client, Client(1));
}

TEST_F(TokensChanges, AChangeNeedsOnlyWhatComesAfterAllThatItsOperationUses) {
  Acquire(1, 1, {{kA, kSizeRead}, {kB, kSizeRead}});
  Settle();
  TokenClient::Output out;
  TokenClient& client = clients_.at(1);
  EXPECT_DEATH(client.BeginChange(1, kB, kIoWrite, now_, out), "ComesAfterUses") << "an earlier class";
  EXPECT_DEATH(client.BeginChange(1, kB, kSizeWrite, now_, out), "ComesAfterUses") << "the same class";
  EXPECT_DEATH(client.BeginChange(1, kA, kExtentsWrite, now_, out), "ComesAfterUses") << "an earlier object";
  Change(1, 1, kB, kExtentsWrite);
  Settle();
  EXPECT_EQ(begun_.size(), 1u);
}

TEST_F(TokensChanges, AChangeOfAnOperationThatPinsNothingKeepsItsPlace) {
  Acquire(1, 1, {{kA, kRead}});
  Settle();
  Acquire(2, 2, {{kA, kWrite}});
  Settle();
  // It needs what the other request wants, and nothing that anybody uses.
  Acquire(2, 3, {{kA, kAttributesWrite}});
  Settle();
  Change(1, 7, kA, kWrite);
  Settle();
  EXPECT_TRUE(begun_.empty());
  Release(1, 1);
  Settle();
  EXPECT_TRUE(begun_.empty()) << "or a stream of changes would starve who asks";
  ASSERT_TRUE(Uses(2, 2));
  Release(2, 2);
  Settle();
  EXPECT_EQ(begun_.size(), 1u);
}

TEST_F(TokensChanges, WhatWasNeverReceivedIsGivenBackBesideWhatIsInUse) {
  Acquire(1, 1, {{kA, kIoWrite}});
  Settle();
  Acquire(1, 3, {{kA, kAttributesWrite}});
  Deliver(0);
  ASSERT_EQ(Lose(TokenMessageKind::kGrant), 1u);
  ASSERT_TRUE(Cancel(1, 3));
  Settle();
  ASSERT_EQ(server_->HeldBy(kA, Client(1)), kIoWrite | kAttributesWrite);
  Acquire(2, 2, {{kA, kIoWrite | kAttributesRead}});
  Settle();
  Change(1, 1, kA, kAttributesWrite);
  Settle();
  Tick(250);
  Settle();
  ASSERT_EQ(begun_.size(), 1u) << "its own node would have to give back what it does not know of";
  EndChange(begun_[0]);
  Release(1, 1);
  Settle();
  EXPECT_TRUE(Uses(2, 2));
}

TEST_F(TokensChanges, ACancelledChangeIsSaidNotToBeMadeHoweverOften) {
  Acquire(2, 9, {{kA, kRead}});
  Settle();
  Change(1, 7, kA, kWrite);
  Settle();
  CancelChange(1, kA);
  Deliver(0);
  ASSERT_EQ(Lose(TokenMessageKind::kGiveBack), 1u);
  Tick(250);
  Settle();
  ASSERT_EQ(events_[1].size(), 1u);
  EXPECT_EQ(events_[1][0].kind, TokenEventKind::kChanged);
  EXPECT_EQ(events_[1][0].why, TokenFailure::kNotMade);
  EXPECT_TRUE(begun_.empty());
}

TEST_F(TokensChanges, AChangeThatItsClientGaveUpWithTheServerIsNotBegunByTheNext) {
  Hold(1, kRead);
  Change(1, 7, kA, kWrite);
  wire_.clear();
  NewServer();
  View(2);
  // The lend of this view is the last to come.
  std::deque<std::pair<NodeInstance, TokenSend>> lends;
  for (const auto& packet : wire_) {
    if (packet.second.message.kind == TokenMessageKind::kLend) lends.push_back(packet);
  }
  ASSERT_EQ(Lose(TokenMessageKind::kLend), 1u);
  Settle();
  ASSERT_TRUE(server_->Ready());
  wire_ = lends;
  Settle();
  EXPECT_TRUE(begun_.empty());
  Change(1, 8, kA, kWrite);
  Settle();
  EXPECT_EQ(begun_.size(), 1u);
}

TEST_F(TokensChanges, AConditionalRecallIsRefusedIfTheClassWasGrantedMeanwhile) {
  Hold(1, kExists);
  RecallConditionally(kA, kExistsForNobody);
  Acquire(2, 2, {{kA, kExists}});
  Deliver(1);
  Settle();
  ASSERT_TRUE(Uses(2, 2));
  EXPECT_EQ(conditional_, std::vector<bool>{true});
}

TEST_F(TokensChanges, AServerDoesNothingOfItsOwnBeforeAllHaveRegisteredAndForgetsNoneOfIt) {
  Acquire(1, 1, {{kA, kRead}, {kB, kExists}});
  Settle();
  NewServer();
  View(2);
  OwnChange(5, kA, kWrite);
  RecallConditionally(kB, kExistsForNobody);
  EXPECT_TRUE(begun_.empty());
  EXPECT_TRUE(conditional_.empty());
  View(3);
  Settle();
  EXPECT_TRUE(begun_.empty()) << "it is in use";
  EXPECT_EQ(conditional_, std::vector<bool>{true});
  Release(1, 1);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  EXPECT_EQ(begun_[0].number, 5u);
}

}  // namespace
}  // namespace mangrove::fs
