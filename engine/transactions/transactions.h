// Transactions of local programs: reads and writes of pages that happen together, or not at all.
//
// A transaction keeps its writes to itself, and the pages that it has read or written locked, to its end: so those that are committed
// are as if they had come one after the other. At its commit one record with all its writes goes into this node's log
// (engine/transactions/log_writer.h), then they go into the pages, then the locks go. docs/TRANSACTIONS.md is the protocol.
//
//  T1  Of a transaction that is not committed nothing is in any page.
//  T2  A page is used only if it was locked when nothing of it was lost that is not replayed (Y2); once locked it stays as it is.
//      What is committed lazily is in the pages, for transactions of this node, before it is there for others (local_pages.h).
//  T3  Aborted: nothing of the transaction has happened, and it has ended; it may be tried again. Other errors of Read and Write
//      leave it as it was.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/transactions/local_pages.h"
#include "engine/transactions/log_reader.h"
#include "engine/transactions/log_replay.h"
#include "engine/transactions/log_writer.h"
#include "engine/transactions/transaction_options.h"
#include "engine/transactions/transaction_pages.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/runtime/task.h"

namespace mangrove {

class PageEngine;

class Transactions {
 public:
  // All outlive this object.
  Transactions(const TransactionsOptions& options, PageEngine* engine, Clock* clock, Entropy* entropy);
  ~Transactions();

  // The engine follows another view; called right after the engine was told.
  void OnView() { replay_.OnView(); }
  // Everything that waits ends. Before the engine's.
  void Shutdown();

  // The transaction's number. It ends by `deadline` at the latest: Aborted, unless its commit has begun.
  Task<absl::StatusOr<uint64_t>> Begin(ClientId client, TimeNs deadline);
  // Of one page, in its first kTransactionBytes. `mode` kWrite: it is going to be written; this saves asking twice, and that
  // another transaction comes in between.
  Task<absl::StatusOr<std::string>> Read(ClientId client, uint64_t id, GlobalAddress at, uint64_t length,
                                         AccessMode mode);
  Task<absl::Status> Write(ClientId client, uint64_t id, GlobalAddress at, std::string bytes);
  // What is committed of a page, without a transaction, if it is here now. What is read so in one step of the loop is of one moment.
  // REQUIRES: pages that are only changed by lazy commits: of others half a commit might be seen.
  std::optional<std::string> Glance(GlobalAddress at, uint64_t length);
  // OK: it survives whatever happens. Unavailable: it may or may not have happened. Other errors: nothing has.
  Task<absl::Status> Commit(ClientId client, uint64_t id);
  // The same, but OK comes before it is durable. If the node is lost before that, it has not happened, nor has anything that was committed
  // here after it; other nodes do not see it before. Aborted: too much is not durable yet.
  Task<absl::Status> CommitLazily(ClientId client, uint64_t id);
  // OK: everything that was committed here before is durable. Unavailable: not by the deadline.
  Task<absl::Status> Sync(TimeNs deadline);
  absl::Status Abort(ClientId client, uint64_t id);
  // Whether it still holds what it has locked.
  bool IsOpen(ClientId client, uint64_t id) const;
  // Its transactions are aborted, but those whose commit has begun.
  void EndClient(ClientId client);

  // NotFound: it has no log.
  Task<absl::StatusOr<LogContent>> ReadLogOf(NodeId node, TimeNs deadline);
  // By an operator's word, when it cannot be read any more. What of it that is, and without `is_confirmed` nothing else is done.
  // NotFound: it has no log. FailedPrecondition: it can be read, or the node is here. Unavailable: its disks are away.
  Task<absl::StatusOr<std::string>> GiveUpLog(NodeId node, bool is_confirmed, TimeNs deadline);

  const LogReplay& replay() const { return replay_; }
  const LogWriter& log() const { return log_; }
  struct Counters {
    uint64_t committed = 0;  // With writes.
    uint64_t aborted = 0;
  };
  const Counters& counters() const { return counters_; }
  size_t open_transactions() const { return open_.size(); }

 private:
  struct Page;
  struct Open;
  using OpenPtr = std::shared_ptr<Open>;

  absl::StatusOr<OpenPtr> Find(ClientId client, uint64_t id);
  static absl::Status CheckRange(GlobalAddress at, uint64_t length);
  Task<absl::StatusOr<Page*>> Hold(OpenPtr transaction, PageId page, LockMode mode);
  Task<absl::Status> LockPage(OpenPtr transaction, PageId page, LockMode mode, Page* held);
  Task<absl::StatusOr<bool>> TakeLocal(OpenPtr transaction, PageId page, LockMode mode, Page* held);
  void LeavePages(Open* transaction);
  Task<absl::StatusOr<std::string>> ReadHeld(OpenPtr transaction, GlobalAddress at, uint64_t length, LockMode mode);
  Task<absl::Status> WriteHeld(OpenPtr transaction, GlobalAddress at, std::string bytes);
  absl::Status Ended(const Open& transaction) const;
  void End(uint64_t id);
  void Leave(const OpenPtr& transaction, const absl::Status& status);
  void EndOverdue(uint64_t id);
  LogRecord RecordOf(const Open& transaction) const;
  Task<absl::Status> AppendAndEnd(OpenPtr transaction);
  Task<absl::Status> LoadForCommit(OpenPtr transaction);
  Task<absl::Status> AwaitRoom(OpenPtr transaction);
  void CommitNow(const OpenPtr& transaction);
  Task<bool> AwaitApplied(Outcome<absl::Status> appended, std::vector<PageId> pages, size_t bytes);

  const TransactionsOptions options_;
  Clock* const clock_;
  TransactionPages pages_;
  LogReplay replay_;
  LogWriter log_;
  LocalPages local_;
  // Of lazy commits: how many there were, and how many of them are durable and in their pages; the bytes of the others.
  uint64_t lazy_commits_ = 0;
  uint64_t lazy_applied_ = 0;
  size_t lazy_bytes_ = 0;
  Waiters sync_waiters_;
  std::map<uint64_t, OpenPtr> open_;
  uint64_t next_ = 1;
  bool stopped_ = false;
  Counters counters_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// What the log of `node` has of these pages, record after record, encoded. NotFound: it has no log.
Task<absl::StatusOr<std::string>> ReadLogOfRange(Transactions* transactions, NodeId node, PageRange pages,
                                                 TimeNs deadline);

}  // namespace mangrove
