// Clients of tokens and their server, and a network in which messages stay until they are let through: each order can be had by name.

#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "fs/tokens/token_client.h"
#include "fs/tokens/token_server.h"

namespace mangrove::fs {

inline constexpr TokenObject kA{1, 1}, kB{2, 1};
inline constexpr TokenSet kRead(TokenClass::kName, TokenLevel::kRead);
inline constexpr TokenSet kShared(TokenClass::kName, TokenLevel::kSharedWrite);
inline constexpr TokenSet kWrite(TokenClass::kName, TokenLevel::kWrite);
inline constexpr TokenSet kIoRead(TokenClass::kIo, TokenLevel::kRead), kIoWrite(TokenClass::kIo, TokenLevel::kWrite);
inline constexpr TokenSet kAttributesRead(TokenClass::kAttributes, TokenLevel::kRead),
    kAttributesWrite(TokenClass::kAttributes, TokenLevel::kWrite);
inline constexpr TokenSet kTimesRead(TokenClass::kTimes, TokenLevel::kRead),
    kTimesShared(TokenClass::kTimes, TokenLevel::kSharedWrite), kTimesWrite(TokenClass::kTimes, TokenLevel::kWrite);
inline constexpr TokenSet kSizeRead(TokenClass::kSize, TokenLevel::kRead),
    kSizeWrite(TokenClass::kSize, TokenLevel::kWrite);
inline constexpr TokenSet kExtentsRead(TokenClass::kExtents, TokenLevel::kRead),
    kExtentsWrite(TokenClass::kExtents, TokenLevel::kWrite);
inline constexpr TokenSet kExists(TokenClass::kExistence, TokenLevel::kRead),
    kExistsForNobody(TokenClass::kExistence, TokenLevel::kWrite);
inline constexpr TokenSet kOther(TokenClass::kAttributes, TokenLevel::kRead);
inline constexpr NodeInstance kServer{NodeId(9), Incarnation(1)};
inline NodeInstance Client(int i) { return {NodeId(uint64_t(i)), Incarnation(1)}; }

// Two clients.
class TokenWire : public ::testing::Test {
 protected:
  TokenWire() {
    NewServer();
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
    for (const auto& [object, values] : out.store) stored_[object] = values;
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
      if (event.kind == TokenEventKind::kInvalidate && invalidates_) Invalidated(i, {event.invalidation});
    }
  }
  void Invalidated(int i, const std::vector<uint64_t>& invalidations) {
    TokenClient::Output out;
    clients_.at(i).Invalidated(invalidations, now_, out);
    Do(i, out);
  }
  void EndLease(int i) {
    TokenClient::Output out;
    clients_.at(i).OnLeaseEnd(out);
    Do(i, out);
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
  bool Cancel(int i, uint64_t operation) {
    TokenClient::Output out;
    const bool waited = clients_.at(i).Cancel(operation, now_, out);
    Do(i, out);
    return waited;
  }
  // A change that the server makes for a client, and one of its own.
  void Change(int i, uint64_t operation, TokenObject object, TokenSet need) {
    TokenClient::Output out;
    ASSERT_TRUE(clients_.at(i).BeginChange(operation, object, need, now_, out));
    Do(i, out);
  }
  void CancelChange(int i, TokenObject object) {
    TokenClient::Output out;
    clients_.at(i).CancelChange(object, now_, out);
    Do(i, out);
  }
  void OwnChange(uint64_t number, TokenObject object, TokenSet need) {
    TokenServer::Output out;
    server_->BeginChange(object, number, need, now_, out);
    Do(out);
  }
  void EndChange(const TokenChangeId& change) {
    TokenServer::Output out;
    server_->EndChange(change, now_, out);
    Do(out);
  }
  void SetValues(TokenObject object, std::optional<TokenTimes> times, std::optional<uint64_t> size) {
    TokenServer::Output out;
    server_->SetValues(object, times, size, out);
    Do(out);
  }
  void RecallConditionally(TokenObject object, TokenSet against) {
    TokenServer::Output out;
    server_->RecallConditionally(object, against, now_, out);
    Do(out);
  }
  // A server that has nothing but what is stored.
  void NewServer() {
    server_.emplace(TokenServer::Options{}, [this](const TokenObject& object) { return stored_[object]; });
  }
  // Loses what is under way of a kind; how many that were.
  size_t Lose(TokenMessageKind kind) {
    return std::erase_if(wire_, [&](const auto& packet) { return packet.second.message.kind == kind; });
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
  std::map<TokenObject, TokenValues> stored_;
  bool invalidates_ = true;  // At once.
  int64_t now_ = 0;
};

}  // namespace mangrove::fs
