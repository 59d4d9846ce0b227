// What must hold of the anchors' log in every run: R1 to R5 of recovery/raft.h, over all anchors that there ever were.
//
// Looked at after each event. Without news that is a comparison of a few numbers for each anchor; with news, of the entries that are
// news to that anchor, and of all when it has started anew or leads a term.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "recovery/raft.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

class AnchorsOracle {
 public:
  explicit AnchorsOracle(SimWorld* world) : world_(world) {}

  // An anchor's part of the log, as it is now.
  struct Look {
    Raft::Role role = Raft::Role::kFollower;
    Term term;
    LogIndex commit;
    const RaftLog& log;
  };
  // `life` counts the node's starts.
  void OnAnchor(int node, uint64_t life, const Look& look);
  void OnAnchor(int node, uint64_t life, const Raft& raft) {
    OnAnchor(node, life, {.role = raft.role(), .term = raft.term(), .commit = raft.commit(), .log = raft.log()});
  }

  uint64_t leaders() const { return leaders_.size(); }
  uint64_t committed() const { return committed_.size(); }

 private:
  // Of a node, at the last look.
  struct Seen {
    uint64_t life = 0;
    Raft::Role role = Raft::Role::kFollower;
    Term term;
    LogIndex commit;
    LogIndex first;
    LogIndex last;
    Term last_term;
    std::map<LogIndex, Term> terms;  // Of the entries, and of the one before the first.
  };
  struct Known {
    LogEntry entry;
    Term before;  // Of the entry before it.
  };
  struct Committed {
    LogEntry entry;
    Term in;  // The term of who was seen first to have it as committed.
  };

  void CheckLeader(int node, const Seen& before, const Look& look);
  void CheckLogMatching(int node, Seen& seen, const RaftLog& log);
  void CheckSnapshot(int node, const LogSnapshot& snapshot);
  void CheckCommitted(int node, LogIndex from, const Look& look);
  void Fail(const char* rule, int node, const std::string& what);

  SimWorld* const world_;
  std::array<Seen, kMaxNodes> seen_;
  std::map<Term, int> leaders_;
  std::map<std::pair<LogIndex, Term>, Known> entries_;  // In any log, ever.
  std::map<LogIndex, Committed> committed_;
  std::map<LogIndex, LogSnapshot> snapshots_;
};

}  // namespace mangrove::sim
