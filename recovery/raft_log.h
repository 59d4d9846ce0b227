// The anchors' log as one anchor has it: a snapshot of what has been applied and dropped, and the entries behind it.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "net/ids.h"

namespace mangrove {

// Counts the elections; a term has one leader at most. 0 is before the first.
using Term = StrongId<struct TermTag>;
// Place of an entry in the log: 1, 2, 3 … 0 is before the first.
using LogIndex = StrongId<struct LogIndexTag>;

// Who has the log, and how many votes. A member without votes is brought up to date and asked nothing.
using Votes = std::map<NodeId, uint32_t>;

// How a member takes part, by what its disk has lost. A disk that came in the place of another knows nothing of what that one has
// voted and acknowledged.
enum class Standing : uint8_t {
  kFull = 0,  // Votes as the log says.
  // The disk came in the place of another: takes no part in elections, and is not counted for anything, until the members have taken
  // its votes away. Then nothing counts on what the old disk promised.
  kMustLoseVote = 1,
  // That has happened. Who asks for its vote has given it one since, or does not count it: so it answers, as one who joins does.
  kMayGainVote = 2,  // When it has a vote again, it is kFull.
};

struct LogEntry {
  enum class Kind : uint8_t {
    kNothing = 0,  // The first of a leader's term.
    kCommand = 1,
    kVotes = 2,  // Counts from where it stands in the log on, committed or not.
  };
  Term term;
  Kind kind = Kind::kNothing;
  std::string command = {};
  Votes votes = {};
  friend bool operator==(const LogEntry&, const LogEntry&) = default;
};

// What all entries up to `index` have come to.
struct LogSnapshot {
  LogIndex index;
  Term term;    // Of the last of these entries.
  Votes votes;  // At that place.
  std::string state;
  friend bool operator==(const LogSnapshot&, const LogSnapshot&) = default;
};

class RaftLog {
 public:
  // `entries` follow the snapshot.
  RaftLog(LogSnapshot snapshot, std::vector<LogEntry> entries);

  const LogSnapshot& snapshot() const { return snapshot_; }
  LogIndex first() const { return LogIndex(snapshot_.index.value + 1); }  // That may be there.
  LogIndex last() const { return LogIndex(snapshot_.index.value + entries_.size()); }
  Term last_term() const { return TermOf(last()); }
  // Of an entry that is there, or the snapshot's.
  bool Has(LogIndex index) const { return index >= snapshot_.index && index <= last(); }
  Term TermOf(LogIndex index) const;                                    // REQUIRES: Has.
  const LogEntry& At(LogIndex index) const;                             // REQUIRES: Has, and not the snapshot's last.
  std::vector<LogEntry> From(LogIndex index, size_t most_bytes) const;  // At least one, if there is one.

  // Is a log that ends so at least as new as this one?
  bool IsAsNew(LogIndex index, Term term) const;
  // The last place up to `index` where this log may agree with one that has `term` at `index`.
  LogIndex MayAgreeAt(LogIndex index, Term term) const;

  void Append(LogEntry entry);
  void Truncate(LogIndex from);  // Drops what is there from `from` on.
  void Install(LogSnapshot snapshot);
  // Drops the entries up to the snapshot's; those behind stay.
  void Compact(LogIndex index, std::string state);

  // The votes that count: those written last.
  const Votes& votes() const { return votes_.empty() ? snapshot_.votes : votes_.rbegin()->second; }
  // Those that counted before.
  const Votes& votes_before() const;
  // Where they were written; the snapshot's, or 0, if that is not in the log any more.
  LogIndex votes_at() const { return votes_.empty() ? snapshot_.index : votes_.rbegin()->first; }

 private:
  LogSnapshot snapshot_;
  std::vector<LogEntry> entries_;
  std::map<LogIndex, Votes> votes_;  // Of the entries.
};

}  // namespace mangrove
