// Transactions of attached programs.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_server.h"
#include "engine/attach/attached_client.h"
#include "engine/transactions/transactions.h"

namespace mangrove {
namespace {

absl::Status NoTransactions() { return absl::UnimplementedError("the node has no transactions"); }

}  // namespace

absl::StatusOr<GlobalAddress> AttachedClient::AddressOf(const BytesOfPage& bytes, bool for_writing) {
  if (server_->operations_->transactions() == nullptr) return NoTransactions();
  const absl::StatusOr<PageRange> range = RangeOf({bytes.region, bytes.page, 1}, for_writing);
  if (!range.ok()) return range.status();
  if (bytes.offset >= kPageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("byte ", bytes.offset, " of a page; expected one below ", kPageBytes));
  }
  return mangrove::AddressOf(range->first) + bytes.offset;
}

void AttachedClient::Do(uint64_t id, TimeNs deadline, BeginCall) {
  Transactions* const transactions = server_->operations_->transactions();
  if (transactions == nullptr) return Finish(id, NoTransactions());
  using Begun = absl::StatusOr<uint64_t>;
  Spawn<Begun>(transactions->Begin(id_, deadline), [self = shared_from_this(), id, transactions](Begun begun) {
    if (!begun.ok()) return self->Finish(id, begun.status());
    // The program went before it began.
    if (self->ended_) return transactions->EndClient(self->id_);
    --self->requests_;
    self->Send({.id = id, .result = BegunReply{*begun}});
  });
}

void AttachedClient::Do(uint64_t id, TimeNs, ReadInCall call) {
  const auto place = AddressOf(call.bytes, call.intent == AccessMode::kWrite);
  if (!place.ok()) return Finish(id, place.status());
  using Text = absl::StatusOr<std::string>;
  Spawn<Text>(server_->operations_->transactions()->Read(id_, call.transaction, *place, call.bytes.length, call.intent),
              [self = shared_from_this(), id](Text text) {
                if (!text.ok()) return self->Finish(id, text.status());
                --self->requests_;
                self->Send({.id = id, .result = TextReply{*std::move(text)}});
              });
}

void AttachedClient::Do(uint64_t id, TimeNs, WriteInCall call) {
  const auto place = AddressOf(call.bytes, /*for_writing=*/true);
  if (!place.ok()) return Finish(id, place.status());
  Run(id, server_->operations_->transactions()->Write(id_, call.transaction, *place, std::move(call.content)));
}

void AttachedClient::Do(uint64_t id, TimeNs, EndTransactionCall call) {
  Transactions* const transactions = server_->operations_->transactions();
  if (transactions == nullptr) return Finish(id, NoTransactions());
  if (!call.commit) return Finish(id, transactions->Abort(id_, call.transaction));
  Run(id, transactions->Commit(id_, call.transaction));
}

void AttachedClient::Do(uint64_t id, TimeNs deadline, ReadLogCall call) {
  Transactions* const transactions = server_->operations_->transactions();
  if (transactions == nullptr) return Finish(id, NoTransactions());
  const auto region = Find(call.region);
  if (!region.ok()) return Finish(id, region.status());
  if (lists_ >= kMaxLists) return Finish(id, absl::ResourceExhaustedError("too many lists at once"));
  RunText(id, ReadLogOfRange(transactions, NodeId(call.node), (*region)->opened.pages, deadline));
}

}  // namespace mangrove
