// An anchor: its part of the log, the database that the log makes, and, while it leads, the views.
//
// Before there is a log: an anchor with an empty disk asks every other one whether it has ever stood or voted in an election. If
// nobody has, all are at the cluster's first start, and each begins a log in which all of them vote; if somebody has, this disk may
// have come in the place of another one, and its anchor votes when the others have taken its votes away and given them back
// (Standing). It needs all others to answer: one that is away may be the one that knows. Who was late at the first start goes that
// way too, and finds a majority of the others at work: they have held an election.
//
//  A1  Outputs go one after the other: what one is to make durable is so before its messages leave.
//  A2  The database is what the committed entries of the log, in their order, have made of it.
//  A3  A leader acts (gives leases, changes views) from its first committed entry on: then the database has all that earlier
//      leaders have got committed.
//  A4  One change of the view is under way at a time.
//
// Pure. Owned by one thread.

#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/anchor_records.h"
#include "recovery/groups.h"
#include "recovery/messages.h"
#include "recovery/node_database.h"
#include "recovery/raft.h"
#include "recovery/timing.h"
#include "recovery/view_history.h"
#include "recovery/view_keeper.h"

namespace mangrove {

struct AnchorOutput {
  std::vector<AnchorRecords::Record> records;                // To be made durable, as one.
  uint64_t number = 0;                                       // For Persisted, when they are; 0: it is not to be called.
  std::vector<std::pair<NodeId, RecoveryMessage>> messages;  // To nodes, this one among them.

  bool empty() const { return records.empty() && messages.empty(); }
};

class Anchor {
 public:
  struct Options {
    NodeInstance self;
    // As this node knows them. Those that are anchors are asked before there is a log; and until the first view a leader brings the
    // database to say so. From then on the database is changed by requests alone.
    std::map<NodeId, NodeRecord> nodes;
    // This node knows a cluster that has a log: it takes part in that, and begins none.
    bool has_joined = false;
    // It may begin a log where none of the others has one; otherwise it waits until one of them has.
    bool may_found = true;
    RecoveryTiming timing = {};
    uint64_t seed = 0;
    uint64_t compact_after = 256;  // Entries in the log.
    RaftBugs raft_bugs = {};
    ViewBugs view_bugs = {};
  };

  // DataLoss: the log holds what this version cannot apply.
  static absl::Status Check(const RaftDurable& durable);

  // REQUIRES: Check. `durable`: what the disk has of a log; nothing: it is empty. `records`: as they loaded it.
  Anchor(Options options, AnchorRecords records, std::optional<RaftDurable> durable, TimeNs now);

  // When Tick wants to be called, at the latest.
  TimeNs next_tick() const;
  void Tick(TimeNs now);
  void Receive(NodeInstance from, const RecoveryMessage& message, TimeNs now);
  void Persisted(uint64_t number, TimeNs now);
  // To be taken after each of the calls above; until nothing is in it.
  AnchorOutput TakeOutput(TimeNs now);

  // From now on messages of the log are taken from these, too: this node has heard that they have votes.
  void KnowAnchors(const std::set<NodeId>& anchors) { known_anchors_ = anchors; }
  // For whoever operates the cluster. FailedPrecondition, Unavailable: as Raft::HandOver.
  absl::Status HandOver(NodeId to, TimeNs now);
  // To whom it best goes: of `staying`, as far as they are in the view and have not said that they leave, if one of these can take it.
  // Unavailable: there is nobody.
  absl::Status HandOver(std::set<NodeId> staying, TimeNs now);

  bool has_log() const { return raft_.has_value(); }
  bool has_voted() const;
  // Anchors whose answer a first start still needs.
  std::vector<NodeId> awaited() const;
  bool leads() const { return raft_ && raft_->role() == Raft::Role::kLeader; }
  NodeId leader() const { return raft_ ? raft_->leader() : NodeId(); }
  LogIndex applied() const { return applied_; }  // To the database.
  const NodeDatabase& database() const { return database_; }
  // Or may have, after another election.
  bool HasVotes(NodeId node) const;
  const Raft* raft() const { return raft_ ? &*raft_ : nullptr; }
  uint64_t bad_messages() const { return bad_messages_ + (raft_ ? raft_->bad_messages() : 0); }
  // Of the log, from who is no anchor as far as this one knows: not yet, or not any more.
  uint64_t strays() const { return strays_; }

 private:
  void BeginLog(RaftDurable durable, TimeNs now);
  void JoinLog(TimeNs now);
  bool IsAnchor(NodeId node) const;
  void OnGreeting(NodeId from, const Greeting& greeting, TimeNs now);
  void OnPulse(NodeInstance from, const Pulse& pulse, TimeNs now);
  void OnPulses(NodeInstance from, const PulseBatch& batch, TimeNs now);
  PulseAnswer AnswerTo(NodeInstance to);
  void SendAnswer(NodeInstance to);
  void SendView(NodeInstance to);
  void SendRoster(NodeId to, uint64_t known);
  void OnRequest(const NodeRequest& request);
  void GiveLeases(TimeNs now);
  void TellView(const View& before);
  void Apply(const RaftOutput& output);
  void FollowRole(TimeNs now);
  bool IsReady() const { return leads() && led_in_ == raft_->term() && ready_; }
  void Reconcile(TimeNs now);
  bool FoundNodes(TimeNs now);
  bool ChangeNodes(TimeNs now);
  std::optional<DatabaseCommand> CommandFor(const NodeRequest& request) const;
  NodeId FreeNode(uint64_t group) const;
  bool ReconcileVotes(TimeNs now);
  bool RemoveNodes(TimeNs now);
  bool HasLeft(NodeId node) const;
  bool Propose(const DatabaseCommand& command, TimeNs now);  // False: it is to be tried again.

  const Options options_;
  AnchorRecords records_;
  std::optional<Raft> raft_;
  NodeDatabase database_;
  ViewHistory history_;  // Of the database's view.
  LogIndex applied_;
  AnchorOutput output_;
  uint64_t bad_messages_ = 0;
  uint64_t strays_ = 0;
  std::set<NodeId> known_anchors_;

  // Before there is a log.
  std::set<NodeId> fresh_;  // Others that have none either.
  TimeNs ask_at_ = 0;
  std::optional<RaftDurable> begins_;  // Is to become durable with the next output.

  // A leader's.
  Term led_in_;
  ViewKeeper keeper_;
  bool ready_ = false;                 // A3
  std::map<NodeId, NodeId> monitors_;  // Of nodes whose last pulse a monitor has passed on.
  LogIndex proposed_;                  // A4: not applied yet, if it is after applied_.
  TimeNs reconcile_at_ = 0;
  std::deque<NodeRequest> changes_;  // Of nodes.
};

}  // namespace mangrove
