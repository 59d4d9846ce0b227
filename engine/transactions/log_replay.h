// After the loss of a node, brings to its pages what committed transactions wrote and was lost with it.
//
// The data flow: engine/transactions/log_replay.cc is told of each view; where nodes have left, it takes the replay page's lock,
// which one node of the cluster has at a time; reads every log that it names; brings each page that they name up to its newest sequence; flushes
// what the logs of those that are gone name, and gives these logs up; and says on the replay page for which view that is done.
//
//  Y1  A page goes back to an older version only when an incarnation leaves the view. So what a view lacks, it lacks from its
//      beginning on; and whoever gets a page gets it under a view in which that loss is known.
//  Y2  `required` is the newest view, as far as this node has followed them, in which somebody was lost, or may have been: the
//      first one that it has seen, and one behind a gap, count. `done` is what the replay page has said. A page that was got while
//      done >= required lacks nothing.
//  Y3  A record is applied where the page's sequence is one less, and its allocation is the record's. So applying is idempotent, and
//      the order of the records of one page does not depend on whose logs they are in.
//  Y4  A log is given up when all pages that it names are flushed. A loss in between, and nothing of this round counts.
//  Y5  A replay page of zeros says nothing: it was never written, or each disk that had it is lost. Whoever reads it takes those
//      logs for named whose headers there are, of all nodes that the cluster has or ever had. So who makes a log writes its header
//      first, and its first record when it has seen after that that the log is named.
//  Y6  A log that cannot be read, and never will be, is given up by an operator's word alone, and not while its node is in the view. Its
//      next generation is above every one that it can have had: of what the lost pages had beside them nothing counts again.
//
// Owned by the loop.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "engine/page_engine.h"
#include "engine/transactions/log_reader.h"
#include "engine/transactions/transaction_options.h"
#include "engine/transactions/transaction_pages.h"
#include "engine/transactions/waiters.h"
#include "net/runtime/entropy.h"

namespace mangrove {

class LogReplay {
 public:
  LogReplay(const TransactionsOptions& options, PageEngine* engine, TransactionPages* pages, Clock* clock,
            Entropy* entropy);
  ~LogReplay();

  // The engine follows another view. Replay begins if it has to.
  void OnView();
  void Shutdown();

  // Y2.
  bool IsDone();
  Epoch required();
  Task<absl::Status> Wait(TimeNs deadline);
  // Puts the replay page. What it says, if it is there, stays.
  Task<absl::Status> Put(TimeNs deadline);
  // From now on this node's log is one of those that are read; durably. ResourceExhausted: there are too many.
  Task<absl::Status> Register(TimeNs deadline);
  // The same, if it is not named any more. REQUIRES: it was registered, and the log's header is written and not locked.
  Task<absl::Status> StayRegistered(TimeNs deadline);

  // The nodes that have logs.
  Task<absl::StatusOr<std::vector<NodeId>>> Logs(TimeNs deadline);

  // Y6. DataLoss says what of the node's log cannot be read. OK: all of it can be. FailedPrecondition: its node is in the view.
  Task<absl::Status> CheckLost(NodeId node, TimeNs deadline);
  // What is lost of the log is lost for good from now on, and what is behind that in it; replays go on. FailedPrecondition as well: it
  // can be read.
  Task<absl::Status> GiveUpLost(NodeId node, TimeNs deadline);

  struct Counters {
    uint64_t rounds = 0;   // Of this node, to their end.
    uint64_t records = 0;  // Read in them.
    uint64_t applied = 0;  // Changes of a page.
    // Against the rules: a change that a page lacks is in no log, or two different ones have the same sequence.
    uint64_t gaps = 0;
    uint64_t conflicts = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  struct Round;

  void Follow();
  void Start();
  Task<bool> Run();
  TimeNs StepDeadline() const;
  Task<absl::Status> Try();
  Task<absl::StatusOr<ReplayState>> ReadState(TimeNs deadline);
  Task<absl::StatusOr<std::vector<NodeId>>> FindLogs(TimeNs deadline);
  Task<absl::StatusOr<bool>> MayHaveLog(NodeId node, TimeNs deadline);
  Task<absl::Status> WriteState(ReplayState state, TimeNs deadline);
  Task<absl::Status> ReplayAll(ReplayState before);
  Task<absl::Status> Scan(Round* round);
  void Note(Round& round, NodeId node, LogContent content);
  Task<absl::Status> ApplyAll(Round* round);
  absl::StatusOr<std::vector<const PageChange*>> Lacking(const Round& round, PageId page, const PageBytes& content);
  Task<absl::Status> ApplyTo(Round* round, PageId page, TimeNs deadline);
  Task<absl::Status> GiveUp(Round* round);
  Task<absl::Status> BeginAnew(NodeId node, TimeNs deadline);

  const TransactionsOptions options_;
  PageEngine* const engine_;
  TransactionPages* const pages_;
  Clock* const clock_;
  Entropy* const entropy_;
  View seen_;
  Epoch required_;
  Epoch done_;
  bool running_ = false;
  bool stopped_ = false;
  absl::Status trouble_;  // Why it is not done yet.
  Waiters waiters_;
  Counters counters_;
  std::shared_ptr<bool> alive_ =
      std::make_shared<bool>(true);  // False once this object is gone, for applets that slept.
};

}  // namespace mangrove
