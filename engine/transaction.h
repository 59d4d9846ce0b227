// Transactions: reads and writes of pages that happen together, or not at all, whatever nodes die.
//
//   absl::Status moved = mangrove::RunTransaction(*session, {}, [&](mangrove::Transaction& transaction) {
//     int64_t balance = 0;
//     absl::Status status = transaction.Read(*region, 0, std::as_writable_bytes(std::span(&balance, 1)), AccessMode::kWrite);
//     balance -= 5;
//     if (status.ok()) status = transaction.Write(*region, 0, std::as_bytes(std::span(&balance, 1)));
//     return status;
//   });
//
// Those that are committed are as if they had come one after the other; each page that one has read or written it keeps locked to
// its end. Of each page that transactions write the last 16 bytes are theirs: it has kTransactionBytesOfPage for programs. Reads,
// writes and mapped accesses that are no transaction's are possible, and see what is committed; their stores are not in any
// transaction, may be lost with a node as ever, and must not touch those 16 bytes: a transaction answers DataLoss to that.
//
// Errors, besides those of engine/mangrove.h:
//   Aborted             the transaction has ended, and nothing of it has happened: a page was locked by others for too long, or a
//                       node was lost, or its time was up. Try it again, from its beginning.
//   Unavailable         of Commit alone: it may or may not have happened.
//   ResourceExhausted   of Commit: the node's log has no room, since what it holds cannot be flushed; nothing has happened. Of
//                       Write: the transaction is larger than half of the log. Of Read and Write: three quarters of the node's
//                       cache are locked.
//                       Of Begin: the program has 128 transactions open.
//   FailedPrecondition  the page is not allocated, or volatile.
//
// Thread-safety: a Transaction is used by one thread at a time; different ones by any.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove {

constexpr uint64_t kTransactionBytesOfPage = 4080;

// Move-only. Its destructor aborts it, unless it has ended; so does the death of the process.
class Transaction {
 public:
  // Unavailable: a node was lost, and what its transactions wrote is not there again within the session's call timeout.
  static absl::StatusOr<Transaction> Begin(const std::shared_ptr<Session>& session,
                                           const TransactionOptions& options = {});
  Transaction(Transaction&&) noexcept = default;
  Transaction& operator=(Transaction&& other) noexcept;
  ~Transaction();

  // Of one page, within its first kTransactionBytesOfPage bytes; the region is one of the same session. `intent` kWrite locks it at
  // once as a write does: for what is read, changed and written back. Otherwise two that do so abort each other.
  absl::Status Read(Region& region, uint64_t offset, std::span<std::byte> out, AccessMode intent = AccessMode::kRead);
  // Nobody sees it before the commit, but Read.
  absl::Status Write(Region& region, uint64_t offset, std::span<const std::byte> bytes);
  // OK: it is on the disks of the core holders of the node's log, and every node sees it.
  absl::Status Commit();
  absl::Status Abort();

 private:
  Transaction(std::shared_ptr<Session> session, uint64_t number) : session_(std::move(session)), number_(number) {}

  std::shared_ptr<Session> session_;  // Null: it has ended.
  uint64_t number_ = 0;
};

struct RunTransactionOptions {
  TransactionOptions transaction;
  int most_tries = 20;
};

// Begins, calls `body` and commits; what is aborted is tried again after a while that grows, and differs between programs. What
// `body` returns, if that is not OK, ends it. Unavailable: it may have been committed.
absl::Status RunTransaction(const std::shared_ptr<Session>& session, const RunTransactionOptions& options,
                            const std::function<absl::Status(Transaction&)>& body);

}  // namespace mangrove
