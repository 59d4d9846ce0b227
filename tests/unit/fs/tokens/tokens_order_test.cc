// Named orders of messages between clients of tokens and their server, each rule alone.
// Covers: X01 X02 X07

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "fs/tokens/token_client.h"
#include "fs/tokens/token_server.h"

namespace mangrove::fs {
namespace {

constexpr TokenObject kA{1, 1}, kB{2, 1};
constexpr TokenSet kRead(TokenClass::kName, TokenLevel::kRead);
constexpr TokenSet kShared(TokenClass::kName, TokenLevel::kSharedWrite);
constexpr TokenSet kWrite(TokenClass::kName, TokenLevel::kWrite);
constexpr TokenSet kOther(TokenClass::kAttributes, TokenLevel::kRead);
constexpr NodeInstance kServer{NodeId(9), Incarnation(1)};
NodeInstance Client(int i) { return {NodeId(uint64_t(i)), Incarnation(1)}; }

// Two clients, and a network in which messages stay until they are let through. Invalidation is done at once.
class TokensOrder : public ::testing::Test {
 protected:
  TokensOrder() {
    server_.emplace(TokenServer::Options{}, [](const TokenObject&) { return TokenValues(); });
    for (int i = 1; i <= 2; ++i) clients_.emplace(i, TokenClient({}));
    View(1);
    Settle();
  }
  void View(uint64_t view) {
    TokenServer::Output out;
    server_->OnView(Epoch(view), {Client(1), Client(2)}, now_, out);
    Do(out);
    for (auto& [i, client] : clients_) {
      TokenClient::Output o;
      client.OnView(Epoch(view), kServer, now_, o);
      Do(i, o);
    }
  }
  void Do(TokenServer::Output out) {
    for (const TokenChangeId& change : out.begin) begun_.push_back(change);
    for (const auto& [object, refused] : out.conditional) conditional_.push_back(refused);
    for (const TokenSend& send : out.send) {
      if (send.message.kind == TokenMessageKind::kRecall) recalls_[int(send.to.node.value)] += 1;
      wire_.push_back({kServer, send});
    }
  }
  void Do(int i, TokenClient::Output out) {
    for (const TokenSend& send : out.send) wire_.push_back({Client(i), send});
    for (const TokenEvent& event : out.events) {
      events_[i].push_back(event);
      if (event.kind != TokenEventKind::kInvalidate) continue;
      TokenClient::Output o;
      clients_.at(i).Invalidated(event.object, event.set, now_, o);
      Do(i, o);
    }
  }
  void Deliver(size_t which) {
    const auto [from, send] = wire_.at(which);
    wire_.erase(wire_.begin() + std::ptrdiff_t(which));
    if (send.to == kServer) {
      TokenServer::Output out;
      server_->OnMessage(from, send.message, now_, out);
      return Do(out);
    }
    const int i = int(send.to.node.value);
    TokenClient::Output out;
    clients_.at(i).OnMessage(from, send.message, now_, out);
    Do(i, out);
  }
  void Settle() {
    for (int steps = 0; !wire_.empty(); ++steps) {
      ASSERT_LT(steps, 1000) << "messages without end";
      Deliver(0);
    }
  }
  void Tick(int64_t by_ms) {
    now_ += by_ms;
    TokenServer::Output s;
    server_->Tick(now_, s);
    Do(s);
    for (auto& [i, client] : clients_) {
      TokenClient::Output out;
      client.Tick(now_, out);
      Do(i, out);
    }
  }
  void Acquire(int i, uint64_t operation, std::vector<TokenClient::Wanted> wanted, bool interruptible = false) {
    TokenClient::Output out;
    clients_.at(i).Acquire(operation, wanted, now_ + 10'000, interruptible, now_, out);
    Do(i, out);
  }
  void Release(int i, uint64_t operation) {
    TokenClient::Output out;
    clients_.at(i).Release(operation, now_, out);
    Do(i, out);
  }
  bool Uses(int i, uint64_t operation) { return clients_.at(i).InUse(operation); }
  void Hold(int i, TokenSet set) {
    Acquire(i, 1000, {{kA, set}});
    Settle();
    ASSERT_TRUE(Uses(i, 1000));
    Release(i, 1000);
    Settle();
  }

  std::optional<TokenServer> server_;
  std::map<int, TokenClient> clients_;
  std::deque<std::pair<NodeInstance, TokenSend>> wire_;
  std::map<int, std::vector<TokenEvent>> events_;
  std::map<int, int> recalls_;
  std::vector<TokenChangeId> begun_;
  std::vector<bool> conditional_;
  int64_t now_ = 0;
};

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
  server_.emplace(TokenServer::Options{}, [](const TokenObject&) { return TokenValues(); });
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
  clients_.at(1).Touch(kA, {.access = 5, .modify = 9, .change = 1});
  clients_.at(2).Touch(kA, {.access = 7, .modify = 2, .change = 3});
  Release(1, 1);
  Release(2, 2);
  Acquire(
      1, 3,
      {{kA, TokenSet(TokenClass::kTimes, TokenLevel::kRead)}, {kB, TokenSet(TokenClass::kSize, TokenLevel::kWrite)}});
  Settle();
  ASSERT_TRUE(Uses(1, 3));
  EXPECT_EQ(clients_.at(1).TimesOf(kA), (TokenTimes{7, 9, 3}));
  clients_.at(1).SetSize(kB, 100);
  clients_.at(1).SetSize(kB, 40);
  Release(1, 3);
  Acquire(2, 4, {{kB, TokenSet(TokenClass::kSize, TokenLevel::kRead)}});
  Settle();
  ASSERT_TRUE(Uses(2, 4));
  EXPECT_EQ(clients_.at(2).SizeOf(kB), 40u) << "the last, not the largest";
}

}  // namespace
}  // namespace mangrove::fs
