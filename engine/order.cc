// Numbers that grow over the whole cluster: the transactions of responsible nodes, and the epochs of their grants.
//
// Whoever becomes responsible for a segment must use higher ones than whoever was before, which may be gone, with all that it
// knew. So a node that starts takes a number above every one that any member knows, makes it durable, and tells it to all
// members, which make it durable too, before it is responsible for anything: it is the upper part of what the node uses from
// then on. While nodes live, the numbers travel with the segments.

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr char kOrderKey[] = "engine/order";
constexpr int kGrantEpochBits = 32;
constexpr int kTxnBits = 40;
static_assert(PageEngine::kOrders == uint64_t{1} << (64 - kTxnBits));
constexpr DurationNs kAskAgain = 2 * kSecond;
constexpr DurationNs kTryAgain = 100 * kMillisecond;

}  // namespace

uint64_t PageEngine::OrderOf(Txn txn) { return txn.value >> kTxnBits; }
uint64_t PageEngine::OrderOf(Epoch epoch) { return epoch.value >> kGrantEpochBits; }

void PageEngine::OpenOrder(absl::AnyInvocable<void(absl::Status)> done) {
  store_->ReadRecords(kOrderKey, [this, done = std::move(done), alive = alive_](auto records) mutable {
    if (!*alive) return;
    if (!records.ok()) return done(records.status());
    for (const auto& [key, value] : *records) {
      if (key == kOrderKey) known_order_ = std::strtoull(value.c_str(), nullptr, 10);
    }
    clock_->CallSoon([this, alive = alive_] {
      if (*alive) Spawn<absl::Status>(TakeOrder(), [](const absl::Status&) {});
    });
    done(absl::OkStatus());
  });
}

// `done` when it is durable here.
void PageEngine::NoteOrder(uint64_t order, absl::AnyInvocable<void(absl::Status)> done) {
  known_order_ = std::max(known_order_, order);
  grant_epoch_ = std::max(grant_epoch_, Epoch(order << kGrantEpochBits));
  next_txn_ = std::max(next_txn_, order << kTxnBits);
  StoreBatch batch;
  batch.records.push_back({kOrderKey, std::to_string(known_order_)});
  store_->Commit(std::move(batch), std::move(done));
}

// Asks all members, then tells them; each as often as it takes.
Task<absl::Status> PageEngine::TakeOrder() {
  uint64_t order = std::max(known_order_ + 1, options_.self.incarnation.value);
  for (const bool tells : {false, true}) {
    if (tells) {
      order = std::max(order, known_order_ + 1);
      while (true) {
        Outcome<absl::Status> kept(clock_);
        NoteOrder(order, [kept](absl::Status status) mutable { kept.Set(std::move(status)); });
        const absl::Status status = co_await kept.Get();
        if (stopped_) co_return status;
        if (status.ok()) break;
        co_await SleepUntil(clock_, clock_->Now() + kTryAgain);  // The disk is full.
      }
    }
    unordered_.insert(options_.members.begin(), options_.members.end());
    unordered_.erase(options_.self.node);
    while (!unordered_.empty()) {
      Message message;
      message.kind = MessageKind::kOrder;
      message.count = tells ? order : 0;
      std::vector<std::pair<NodeId, Outcome<Message>>> outcomes;
      {
        Turn turn(this);
        for (NodeId node : unordered_) {
          outcomes.emplace_back(node, StartCall(node, message, clock_->Now() + kAskAgain, options_.resend_after));
        }
      }
      for (auto& [node, outcome] : outcomes) {
        const Message answer = co_await outcome.Get();
        if (stopped_) co_return absl::UnavailableError("shutting down");
        if (!answer.status().ok()) continue;
        order = tells ? order : std::max(order, answer.count + 1);
        unordered_.erase(node);
      }
    }
  }
  ordered_ = true;
  known_at_start_ = known_;
  Turn turn(this);
  AskForHoldings();
  co_return absl::OkStatus();
}

// As the one that is asked, or told.
void PageEngine::AnswerOrder(const Message& message, NodeInstance from) {
  auto answer = [this, request = message.request, to = from.node, alive = alive_](const absl::Status& status) {
    if (!*alive || !status.ok()) return;
    Turn turn(this);
    Message known;
    known.kind = MessageKind::kOrderNoted;
    known.request = request;
    known.count = std::max({known_order_, OrderOf(Txn(next_txn_)), OrderOf(grant_epoch_)});
    Post(to, std::move(known));
  };
  if (message.count == 0) return answer(absl::OkStatus());
  NoteOrder(message.count, std::move(answer));
}

}  // namespace mangrove
