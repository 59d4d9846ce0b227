// A log begun anew from the one on a surviving anchor's disk, for when most anchors are lost for ever. By hand, while the anchor is
// stopped: nothing here can know whether the others are lost.
//
// B1  What the log on this disk has is kept, committed or not. What others committed behind its end is lost.
// B2  The new log is newer than any that the lost anchors may have: of a later term, and at a later place. Another survivor that is
//     started with its old log takes the new one in its place, however much its own has.
// B3  Its views are newer than any that the lost anchors may have made (V2: numbers of transactions and grants are by epochs), and so
//     is what it says of the nodes: who has heard of later changes from the lost anchors hears of these all the same.
// B4  It does not keep the lost anchors from going on by themselves, if they are there after all: a new key of the cluster does.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "recovery/anchor_records.h"
#include "recovery/node_database.h"
#include "recovery/raft_log.h"

namespace mangrove {

// By how much the term and the place go up: more than lost anchors can have come further than this one.
constexpr uint64_t kRecoveryStep = uint64_t{1} << 20;
// The same of the view's epoch, and of the numbers of the nodes' changes (D6). Both begin with a founder's incarnation, a count of
// minutes, where a log is founded on empty disks: so that is safe again after 11 days, which no larger step would leave.
constexpr uint64_t kRecoveryEpochs = uint64_t{1} << 14;
// The most that a view's epoch may be afterwards: numbers of transactions have room for no more.
constexpr Epoch kMostRecoveredEpoch{(uint64_t{1} << 24) - kRecoveryEpochs};

struct RecoveredLog {
  // What is there.
  Votes votes;         // That count: those written last.
  Term term;           // Of the last entry; as with an election, of two logs the one with the later term is the newer,
  LogIndex last;       // or, of one term, the one that is longer.
  size_t entries = 0;  // Behind the last snapshot.
  size_t passed_over = 0;  // Of them, as anchors do with what does not fit.
  NodeDatabase database;   // With all of them applied.

  // What would be.
  Term new_term;
  LogIndex new_last;
  Epoch new_epoch;
  std::vector<AnchorRecords::Record> records;  // One batch.

  std::string Position() const;  // "TERM.INDEX"
};

// `records`: all with AnchorRecords::kPrefix, in the order of their keys. NotFound: no log, or one that says nothing.
// FailedPrecondition: `self` has most of the votes, or the log says that it left for good. DataLoss: what is there is no log.
// OutOfRange: it has been done too often.
absl::StatusOr<RecoveredLog> RecoverLog(NodeId self, const std::vector<std::pair<std::string, std::string>>& records);

}  // namespace mangrove
