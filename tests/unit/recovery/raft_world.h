// Anchors in one thread: a network that loses, doubles, delays and reorders, disks that take their time or are replaced,
// nodes that die with what they had not written, all from one seed. Checks R1 to R5 of recovery/raft.h at each step, and that a quorum's knowledge holds.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "recovery/raft.h"

namespace mangrove {

class RaftWorld {
 public:
  struct Options {
    uint64_t seed = 1;
    int anchors = 3;  // In the log from the beginning on; as many again may join.
    bool faults = true;
    bool changes_votes = true;
    bool replaces_disks = true;  // One at a time.
    bool rough = false;          // Leaders last for few messages, of an entry each.
    RaftBugs bugs = {};
  };
  explicit RaftWorld(const Options& options);

  void RunFor(DurationNs span);
  // Ends the faults, starts everybody, and gives the first failure: of the checks, or to agree on something new within bounded time.
  std::string Settle();
  // What was found to be wrong first; empty: nothing.
  const std::string& failure() const { return failure_; }
  // What each anchor is at, for who looks into a failure.
  std::string Describe() const;
  uint64_t applied() const { return applied_.size(); }
  uint64_t leaders() const { return leaders_.size(); }
  uint64_t snapshots() const { return snapshots_; }
  uint64_t changes() const { return changes_; }
  uint64_t replaced() const { return replaced_disks_; }  // Disks, whose anchors are of full standing again.

 private:
  struct Node {
    NodeId id;
    RaftDurable disk;
    std::unique_ptr<Raft> raft;  // Null: it is down.
    uint64_t life = 0;
    LogIndex applied;
    std::string state;           // A digest of what was applied.
    std::vector<LogEntry> seen;  // The log at the last look, R2.
    LogIndex seen_from;
    bool led = false;
    std::tuple<Raft::Role, Term, LogIndex, LogIndex, Term> look;  // The last, with something new to check.
    bool writing = false;
    std::vector<RaftOutput> outputs;  // That wait for the disk, in their order.
  };

  void At(DurationNs delay, std::function<void()> event);
  bool Chance(uint64_t per_mille) { return random_() % 1000 < per_mille; }
  DurationNs Spread(DurationNs least, DurationNs most);
  void Start(Node& node);
  void Crash(Node& node);
  void Pump(Node& node);
  void Write(Node& node);
  void Finish(Node& node, const RaftOutput& output);
  void Deliver(NodeId from, NodeId to, const RaftMessage& message);
  void Tick(Node& node);
  void DoSomething();
  void Propose();
  void ChangeVotes();
  void ReplaceDisk(Node& node);
  void RestoreStanding();
  bool OthersHaveMajority(NodeId node) const;
  void Check(Node& node);
  void Fail(const std::string& what);
  static void WriteTo(RaftDurable& disk, const RaftOutput& output);
  static std::string Digest(const std::string& state, LogIndex index, const LogEntry& entry);

  const Options options_;
  const DurationNs heartbeat_;
  const DurationNs election_;
  std::mt19937_64 random_;
  TimeNs now_ = kSecond;
  bool faults_;
  uint64_t next_event_ = 0;
  std::map<std::pair<TimeNs, uint64_t>, std::function<void()>> events_;
  std::map<NodeId, Node> nodes_;
  std::set<std::pair<NodeId, NodeId>> cut_;  // From, to.
  uint64_t next_command_ = 0;
  std::map<Term, NodeId> leaders_;
  std::map<Term, TimeNs> promises_;       // Until when its leader had its quorum (Raft::QuorumAt).
  std::set<Term> void_;                   // Terms whose leader has handed over, or tried to.
  std::map<LogIndex, LogEntry> applied_;  // By anybody.
  std::map<LogIndex, Term> applied_in_;   // The term of who did so first.
  std::map<LogIndex, std::string> digests_;
  uint64_t snapshots_ = 0;
  uint64_t changes_ = 0;
  NodeId replaced_;  // Whose disk was, and that is not of full standing yet; 0: nobody.
  uint64_t replaced_disks_ = 0;
  std::string failure_;
};

}  // namespace mangrove
