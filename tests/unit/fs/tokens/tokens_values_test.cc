// Named orders about times and sizes: that which was written last is what is read, also after what the server sets.
// Covers: X01 X02

#include <gtest/gtest.h>

#include <optional>

#include "tests/unit/fs/tokens/token_wire.h"

namespace mangrove::fs {
namespace {

constexpr TokenTimes kEarly{3, 3, 3}, kLate{9, 9, 9};

class TokensValues : public TokenWire {
 protected:
  // The first client has written, and keeps the tokens.
  void Write(TokenSet tokens, uint64_t size, uint64_t operation = 500) {
    Acquire(1, operation, {{kA, tokens}});
    Settle();
    ASSERT_TRUE(Uses(1, operation));
    EXPECT_TRUE(!tokens.Covers(kTimesShared) || clients_.at(1).Touch(operation, kA, kLate));
    EXPECT_TRUE(!tokens.Covers(kSizeWrite) || clients_.at(1).SetSize(operation, kA, size));
    Release(1, operation);
    Settle();
  }
  uint64_t SizeAt(int i, uint64_t operation) {
    Acquire(i, operation, {{kA, kSizeRead}});
    Settle();
    EXPECT_TRUE(Uses(i, operation));
    return clients_.at(i).SizeOf(operation, kA).value_or(0);
  }
  TokenTimes TimesAt(int i, uint64_t operation) {
    Acquire(i, operation, {{kA, kTimesRead}});
    Settle();
    EXPECT_TRUE(Uses(i, operation));
    return clients_.at(i).TimesOf(operation, kA).value_or(TokenTimes());
  }
};

TEST_F(TokensValues, AChangeIsMadeOfWhatItsClientHasWrittenOfWhatItLent) {
  Write(kSizeWrite | kTimesShared, 100);
  Change(1, 7, kA, kSizeWrite | kTimesWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  EXPECT_EQ(recalls_[1], 0);
  EXPECT_EQ(stored_[kA].size, 100u);
  EXPECT_EQ(stored_[kA].times, kLate);
}

TEST_F(TokensValues, WhatAChangeMadeComesBackWithItsEnd) {
  Write(kSizeWrite | kTimesShared, 100);
  Hold(1, kTimesRead);
  Change(1, 7, kA, kSizeWrite | kTimesWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  SetValues(kA, kEarly, 50);
  EndChange(begun_[0]);
  // Also if the end has to be asked for.
  ASSERT_EQ(Lose(TokenMessageKind::kGiveBack), 1u);
  Tick(250);
  Settle();
  EXPECT_EQ(SizeAt(1, 1), 50u);
  EXPECT_EQ(TimesAt(1, 2), kEarly);
  EXPECT_EQ(recalls_[1], 0);
  EXPECT_EQ(stored_[kA].times, kEarly);
}

TEST_F(TokensValues, ASizeThatIsWrittenAfterAChangeIsNotTakenForWhatTheChangeMade) {
  Write(kSizeWrite, 100);
  Change(1, 7, kA, kSizeWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  SetValues(kA, {}, 50);
  EndChange(begun_[0]);
  Settle();
  Write(kSizeWrite, 200);
  // A grant of something else brings what the server has.
  Hold(1, kRead);
  Acquire(2, 2, {{kA, kSizeRead}});
  Deliver(0);
  Deliver(0);
  ASSERT_EQ(Lose(TokenMessageKind::kReturn), 1u);
  NewServer();
  View(2);
  Settle();
  Tick(250);
  Settle();
  ASSERT_TRUE(Uses(2, 2));
  EXPECT_EQ(clients_.at(2).SizeOf(2, kA), 200u);
}

TEST_F(TokensValues, TimesThatWereSetAreNotMergedWithThoseOfBefore) {
  Write(kTimesShared, 0);
  OwnChange(5, kA, kTimesWrite);
  Deliver(0);
  const auto late = wire_.front();
  ASSERT_EQ(late.second.message.kind, TokenMessageKind::kReturn);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  EXPECT_EQ(stored_[kA].times, kLate);
  SetValues(kA, kEarly, {});
  EndChange(begun_[0]);
  wire_.push_back(late);
  Settle();
  EXPECT_EQ(stored_[kA].times, kEarly);
  EXPECT_EQ(TimesAt(1, 1), kEarly);
}

TEST_F(TokensValues, AnOperationThatLostItsTokensWithTheLeaseIsToldSo) {
  Acquire(1, 1, {{kA, kSizeWrite | kTimesWrite}});
  Settle();
  ASSERT_TRUE(Uses(1, 1));
  EndLease(1);
  TokenClient& client = clients_.at(1);
  EXPECT_FALSE(client.SetSize(1, kA, 7));
  EXPECT_FALSE(client.Touch(1, kA, kLate));
  EXPECT_EQ(client.SizeOf(1, kA), std::nullopt);
  EXPECT_EQ(client.TimesOf(1, kA), std::nullopt);
  TokenClient::Output out;
  EXPECT_FALSE(client.Release(1, now_, out));
  EXPECT_TRUE(out.send.empty() && out.events.empty());
  EXPECT_EQ(client.Objects(), 0u);
}

TEST_F(TokensValues, WhatWasLentForAChangeOfALostServerIsGivenBack) {
  Write(kSizeWrite | kTimesShared, 100);
  Hold(1, kOther);
  Change(1, 7, kA, kSizeWrite | kTimesWrite);
  Settle();
  ASSERT_EQ(begun_.size(), 1u);
  SetValues(kA, kEarly, 50);
  events_[1].clear();
  // It is the same node again; who asks for registrations has forgotten the changes.
  NewServer();
  View(2);
  Settle();
  ASSERT_EQ(events_[1].size(), 2u);
  EXPECT_EQ(events_[1][0].kind, TokenEventKind::kChanged);
  EXPECT_EQ(events_[1][0].why, TokenFailure::kInterrupted);
  EXPECT_EQ(events_[1][1].kind, TokenEventKind::kInvalidate);
  Tick(250);
  Settle();
  EXPECT_EQ(begun_.size(), 1u) << "not made again";
  EXPECT_EQ(clients_.at(1).Held(kA), kOther);
  EXPECT_EQ(SizeAt(1, 1), 50u);
  EXPECT_EQ(TimesAt(1, 2), kEarly);
}

}  // namespace
}  // namespace mangrove::fs
