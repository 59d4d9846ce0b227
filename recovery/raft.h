// The anchors' replicated log: Raft as in its author's dissertation (D. Ongaro, "Consensus: Bridging Theory and Practice",
// 2014), with a pre-vote, votes that change one step at a time, snapshots, and leadership that is handed over.
//
// Pure: the time comes in with each call, chance with the seed, and what is to be done comes out as a RaftOutput. Who
// drives it keeps the order: what an output is to make durable is so before its messages leave, and outputs go one after
// the other. A disk that fails ends that: the anchor stops, and nothing is taken back.
//
// What holds in every run (chapter 3.2), and tests/unit/recovery/raft_world.h checks:
//  R1  A term has one leader at most.
//  R2  A leader changes none of its entries, and drops none.
//  R3  Two logs with an entry of the same term at a place are the same up to there.
//  R4  What is committed is in the log of every later leader.
//  R5  Where one anchor has applied an entry, no other applies another.
//
// Votes are weights. A majority before a change and one after it must share a member, so one member's votes change by one
// at a time, and only when the change before is committed, and an entry of this leader (chapter 4.1, and the remedy of its
// author's mail of 2015).
//
// Owned by one thread.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/raft_log.h"

namespace mangrove {

struct RaftMessage {
  enum class Kind : uint8_t {
    kVoteRequest,    // index, index_term: where the candidate's log ends; pre_vote, hand_over
    kVoteAnswer,     // pre_vote, yes
    kAppend,         // index, index_term: of the entry before `entries`; commit, sent_at, mark
    kAppended,       // yes: index is the last that the two logs share; no: that they may share. sent_at, standing, mark
    kSnapshot,       // index, index_term, votes; offset, bytes, is_last; sent_at
    kSnapshotTaken,  // index, offset: what is wanted next; sent_at, standing, mark
    kTakeOver,       // Stand for election now: the leader wants it.
  };
  Kind kind = Kind::kAppend;
  Term term;  // The sender's; of a pre-vote's request, and its answer with yes, the one that the candidate would begin.
  LogIndex index;
  Term index_term;
  LogIndex commit;
  std::vector<LogEntry> entries = {};
  Votes votes = {};
  uint64_t offset = 0;
  std::string bytes = {};
  bool is_last = false;
  bool pre_vote = false;
  bool hand_over = false;  // Its leader wants the election: it is no reason to refuse that there is one.
  bool yes = false;
  TimeNs sent_at = 0;                   // By the clock of who asks, of a request; echoed by its answer.
  Standing standing = Standing::kFull;  // Of who answers.
  // Of who answers and must lose its vote: names this run of it. The leader echoes it when that vote is gone for certain.
  uint64_t mark = 0;
  friend bool operator==(const RaftMessage&, const RaftMessage&) = default;
};

// What an anchor has on its disk.
struct RaftDurable {
  Term term;
  NodeId vote;  // In that term; 0: for nobody.
  LogSnapshot snapshot;
  std::vector<LogEntry> entries;  // Behind the snapshot.
  Standing standing = Standing::kFull;
};

// What is to be done. First `term`, `vote` and `standing`, `snapshot` and `entries` become durable, as one; then the messages are
// sent.
struct RaftOutput {
  uint64_t number = 0;  // For Persisted, which is called for each output that writes, in their order.
  bool writes = false;  // Is there anything to make durable?
  Term term;
  NodeId vote;
  Standing standing = Standing::kFull;
  std::optional<LogSnapshot>
      snapshot;  // In the place of everything up to its index, and of what is behind it if `drops_log`.
  bool drops_log = false;
  bool is_news = false;           // The snapshot is another anchor's: it is to be loaded.
  LogIndex entries_at;            // Of the first of `entries`: what is there from this place on is replaced.
  std::vector<LogEntry> entries;  // Empty, with entries_at not 0: the log ends before it.
  std::vector<std::pair<NodeId, RaftMessage>> messages;
  // Committed since the last output, in their order; after a snapshot, what follows it.
  std::vector<std::pair<LogIndex, LogEntry>> committed;
};

// For tests of the checker.
struct RaftBugs {
  bool commit_by_counting = false;  // Also what earlier leaders wrote.
  bool vote_again = false;          // In a term in which it has voted.
  bool votes_at_once = false;       // Any change of the votes, at any time.
  bool ignore_stale_log = false;    // In an election.
  bool vote_with_new_disk = false;  // At once, whatever the old one has promised.
};

struct RaftOptions {
  NodeId self;
  DurationNs heartbeat = 50 * kMillisecond;
  // A follower that has not heard from a leader for so long, and up to twice that, stands for election; a leader that has not had
  // its quorum's answers for so long is none any more. The same on all anchors.
  DurationNs election = 500 * kMillisecond;
  size_t message_bytes = 8 * 1024;  // Of entries, or of a snapshot, in a message.
  size_t command_bytes = 4 * 1024;  // Of a command, at most.
  uint64_t seed = 0;                // Another one at each start: the mark of a member with another disk comes of it.
  // Whether the bytes of a command, or of a snapshot's state, can be applied here; null: all can. What cannot is not taken in.
  bool (*is_command)(std::string_view bytes) = nullptr;
  bool (*is_state)(std::string_view bytes) = nullptr;
  RaftBugs bugs = {};
};

class Raft {
 public:
  static constexpr size_t kMaxMembers = 64;
  static constexpr uint32_t kMaxVotes = 100;

  enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

  Raft(const RaftOptions& options, RaftDurable durable, TimeNs now);

  // What the first anchor of a cluster begins with; others begin with nothing.
  static RaftDurable Founder(NodeId self);

  // When Tick wants to be called, at the latest.
  TimeNs next_tick() const;
  void Tick(TimeNs now);
  void Receive(NodeId from, const RaftMessage& message, TimeNs now);

  // FailedPrecondition: this anchor is not the leader. Unavailable: it is about to hand over. InvalidArgument: the command is too
  // long. The entry is committed when an output says so; never, if one of another term stands at its place then; and it is not
  // known here if a snapshot has come instead.
  absl::StatusOr<LogIndex> Propose(std::string command, TimeNs now);
  // Sets a member's votes, or takes it out. InvalidArgument: by more than one vote, or nobody would be left with one, or there
  // would be too many. FailedPrecondition, Unavailable: as above; Unavailable also while an earlier change is not committed,
  // while the member that is to vote is not up to date or has to lose the votes of its old disk first, and where too few of those
  // that would vote have answered of late.
  absl::StatusOr<LogIndex> ProposeVotes(NodeId member, std::optional<uint32_t> votes, TimeNs now);
  // Brings `to` up to date, then has it elected, at once: what QuorumAt has said is void from now on, so nobody may rely on it any
  // more. This anchor goes on leading if `to` cannot be told within an election time. FailedPrecondition, Unavailable: as above;
  // Unavailable also while `to` has to lose its votes. InvalidArgument: it has no vote.
  absl::Status HandOver(NodeId to, TimeNs now);
  // Of a leader: who would take the leadership soonest, of `staying` if one of these can. 0: nobody that may has answered of late.
  NodeId Successor(const std::set<NodeId>& staying, TimeNs now) const;

  // What has been applied up to `index` has come to `state`: the log up to there is dropped. REQUIRES: an output has had it as
  // committed.
  void Compact(LogIndex index, std::string state);

  RaftOutput TakeOutput();
  void Persisted(uint64_t number, TimeNs now);

  Role role() const { return role_; }
  Term term() const { return term_; }
  NodeId leader() const { return leader_; }  // As far as is known; 0: nobody.
  LogIndex commit() const { return commit_; }
  const RaftLog& log() const { return log_; }
  Standing standing() const { return standing_; }
  // What this leader has heard last of a member; kFull of itself, of who has not answered yet, and of strangers.
  Standing StandingOf(NodeId member) const;
  uint64_t bad_messages() const { return bad_messages_; }  // That no anchor sends which keeps to the rules.
  // Of a leader: when it sent what a majority of the votes has answered. For no later term was anybody elected before that, nor
  // will be until an election time later by any of their clocks. Nothing: it is no leader, has had no answers yet, or
  // hands over.
  std::optional<TimeNs> QuorumAt(TimeNs now) const;

 private:
  struct Peer {
    LogIndex match;        // The logs agree up to here.
    LogIndex next{1};      // To be sent.
    bool waiting = false;  // For an answer.
    TimeNs sent_at = 0;    // The request that is waited for.
    TimeNs last_sent = 0;
    TimeNs answered = 0;                         // Of the requests that were answered, when the last one was sent.
    LogIndex commit;                             // That it was told of.
    std::shared_ptr<const LogSnapshot> sending;  // As it was when that began.
    uint64_t offset = 0;                         // Of it, to be sent.
    Standing standing = Standing::kFull;
    uint64_t mark = 0;
    TimeNs standing_at = 0;  // Since when these two are known.
  };

  // raft.cc
  uint64_t Random();
  void ResetElection(TimeNs now);
  void BecomeFollower(Term term, NodeId leader, TimeNs now);
  void StandForElection(bool pre_vote, bool hand_over, TimeNs now);
  void CountAnswers(TimeNs now);
  void OnVoteRequest(NodeId from, const RaftMessage& message, TimeNs now);
  void OnVoteAnswer(NodeId from, const RaftMessage& message, TimeNs now);
  void FollowLeader(NodeId leader, TimeNs now);
  void OnAppend(NodeId from, const RaftMessage& message, TimeNs now);
  void OnSnapshot(NodeId from, const RaftMessage& message, TimeNs now);
  static bool IsSound(const RaftMessage& message);  // raft_check.cc
  bool Contradicts(const RaftMessage& message) const;
  bool AreCommands(const std::vector<LogEntry>& entries) const;
  void AppendEntries(const RaftMessage& message);
  void TakeSnapshot(LogSnapshot snapshot);
  bool HasVote(const Votes& votes) const;
  bool TakesPart() const;
  bool MayStand() const;
  bool HaveMajority(const std::vector<NodeId>& nodes) const;
  void Send(NodeId to, RaftMessage message);
  void Commit(LogIndex index);
  void FollowStanding();
  void Wrote(LogIndex from);

  // raft_leader.cc
  void BecomeLeader(TimeNs now);
  absl::Status CheckLeads() const;
  LogIndex AppendOwn(LogEntry entry, TimeNs now);
  void SendAll(TimeNs now);
  void SendTo(NodeId to, Peer& peer, TimeNs now);
  void SendSnapshot(NodeId to, Peer& peer, RaftMessage message);
  void SendPulse(NodeId to, Peer& peer, TimeNs now);
  static bool TakeAnswer(Peer& peer, const RaftMessage& message, TimeNs now);
  bool AreVotesSettled() const;
  bool HasLostVote(NodeId node, const Peer& peer, TimeNs now) const;
  std::optional<TimeNs> QuorumOf(const Votes& votes, TimeNs now) const;
  void OnAppended(NodeId from, const RaftMessage& message, TimeNs now);
  void OnSnapshotTaken(NodeId from, const RaftMessage& message, TimeNs now);
  void AdvanceCommit(TimeNs now);
  void TickLeader(TimeNs now);
  absl::Status CheckVotes(const Votes& changed, NodeId member, uint32_t before, TimeNs now) const;
  void FollowVotes(TimeNs now);

  const RaftOptions options_;
  uint64_t random_;
  Term term_;
  NodeId vote_;
  Standing standing_;
  uint64_t mark_;  // Of this run.
  // A leader's word to this run: nothing counts on the old disk any more, by what is committed up to here.
  std::optional<LogIndex> lost_at_;
  RaftLog log_;
  LogIndex commit_;
  LogIndex told_;  // Committed, and in an output.

  Role role_ = Role::kFollower;
  NodeId leader_;
  TimeNs heard_at_;  // From a leader. Who has just started may have before.
  TimeNs election_at_ = 0;
  std::map<NodeId, bool> answers_;  // To a request for votes.
  uint64_t own_vote_in_ = 0;        // The output with its own vote.
  TimeNs stood_at_ = 0;
  bool handed_over_ = false;             // The election that goes on is the leader's wish.
  std::optional<LogSnapshot> incoming_;  // Of which the first part is here, from the leader of incoming_in_.
  Term incoming_in_;
  uint64_t bad_messages_ = 0;

  // A leader's.
  std::map<NodeId, Peer> peers_;  // All members but this one.
  TimeNs heartbeat_at_ = 0;
  TimeNs led_since_ = 0;  // With these votes.
  NodeId handing_to_;
  bool told_to_take_over_ = false;
  TimeNs hand_over_ends_ = 0;

  RaftOutput output_;
  uint64_t next_output_ = 1;
  std::vector<std::pair<uint64_t, LogIndex>>
      unwritten_;     // Outputs on their way to the disk, and where the log ends then.
  LogIndex durable_;  // Of the log of this leader's term.
};

}  // namespace mangrove
