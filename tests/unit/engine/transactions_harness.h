// Transactions on the nodes of an EngineCluster.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "engine/transactions/transactions.h"
#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {

class TransactionsTest : public testing::Test {
 protected:
  static constexpr ClientId kClient{1};

  explicit TransactionsTest(int nodes = 3, uint64_t log_pages = 64, std::function<void(PageEngineOptions&)> change = {})
      : log_pages_(log_pages), cluster_(nodes, std::move(change)) {
    SetLogLevel(LogLevel::kOff);
    for (int node = 1; node <= nodes; ++node) members_.push_back(NodeId(static_cast<uint64_t>(node)));
    for (const NodeId node : members_) Attach(node.value);
    cluster_.Allocate({kPage, 16});
  }
  ~TransactionsTest() override {
    cluster_.lost = nullptr;
    cluster_.dropped.clear();
    for (auto& [node, transactions] : transactions_) transactions->Shutdown();
  }

  static constexpr PageId kPage{kFirstReservablePage.value + 7 * kSegmentPages};

  void Attach(uint64_t node) {
    TransactionsOptions options;
    options.self = cluster_.host(node).self;
    options.log_pages = log_pages_;
    transactions_[node] = std::make_unique<Transactions>(options, &cluster_.engine(node), &cluster_.clock, &entropy_);
    transactions_[node]->OnView();
  }
  void TellAll() {
    for (auto& [node, transactions] : transactions_) transactions->OnView();
  }
  // It is gone, and all know it.
  void Lose(uint64_t node) {
    Kill(node);
    cluster_.Leave(node);
    TellAll();
  }
  // Nobody has noticed yet.
  void Kill(uint64_t node) {
    transactions_.at(node)->Shutdown();
    cluster_.Stop(NodeId(node));
    ended_.push_back(std::move(transactions_.at(node)));
    transactions_.erase(node);
  }
  void Back(uint64_t node) {
    cluster_.Start({NodeId(node), Incarnation(++lives_)});
    Attach(node);
    TellAll();
  }
  Transactions& On(uint64_t node) { return *transactions_.at(node); }

  static GlobalAddress At(uint64_t page, uint64_t offset = 0) { return AddressOf(kPage + page) + offset; }
  uint64_t Begin(uint64_t node, DurationNs limit = 5 * kSecond) {
    const auto begun = cluster_.Wait(On(node).Begin(kClient, cluster_.In(limit)));
    EXPECT_TRUE(begun.ok()) << begun.status() << " at node " << node;
    return begun.value_or(0);
  }
  absl::Status Write(uint64_t node, uint64_t id, GlobalAddress at, std::string bytes) {
    return cluster_.Wait(On(node).Write(kClient, id, at, std::move(bytes)));
  }
  absl::StatusOr<std::string> Read(uint64_t node, uint64_t id, GlobalAddress at, uint64_t length,
                                   AccessMode mode = AccessMode::kRead) {
    return cluster_.Wait(On(node).Read(kClient, id, at, length, mode));
  }
  absl::Status Commit(uint64_t node, uint64_t id) { return cluster_.Wait(On(node).Commit(kClient, id)); }
  // A transaction of one write.
  absl::Status Put(uint64_t node, GlobalAddress at, std::string bytes) {
    const uint64_t id = Begin(node);
    const absl::Status written = Write(node, id, at, std::move(bytes));
    return written.ok() ? Commit(node, id) : written;
  }
  // A transaction of one read.
  absl::StatusOr<std::string> Get(uint64_t node, GlobalAddress at, uint64_t length) {
    const uint64_t id = Begin(node, 30 * kSecond);
    absl::StatusOr<std::string> read = Read(node, id, at, length);
    On(node).Abort(kClient, id).IgnoreError();
    return read;
  }
  std::vector<LogRecord> LogOfNode(uint64_t node, uint64_t reader) {
    const auto content = cluster_.Wait(On(reader).ReadLogOf(NodeId(node), cluster_.In(5 * kSecond)));
    CHECK(content.ok());
    return content->records;
  }
  // What is in the page at the node, whoever may use it.
  absl::StatusOr<std::string> Peek(uint64_t node, GlobalAddress at, uint64_t length) {
    PageEngine& engine = cluster_.engine(node);
    const absl::Status status = cluster_.Wait(engine.Acquire({PageOf(at), 1}, Rights::kRead, cluster_.In(5 * kSecond)));
    if (!status.ok()) return status;
    std::string bytes(length, '\0');
    engine.Load(PageOf(at), absl::Uint128Low64(at.value) % kPageBytes, std::as_writable_bytes(std::span(bytes)));
    return bytes;
  }

  const uint64_t log_pages_;
  uint64_t lives_ = 1;
  std::vector<NodeId> members_;
  ZeroEntropy entropy_;
  EngineCluster cluster_;
  std::map<uint64_t, std::unique_ptr<Transactions>> transactions_;
  std::vector<std::unique_ptr<Transactions>> ended_;
};

}  // namespace mangrove
