// What every anchor does: elections, and the log as a leader has it. What a leader does is in raft_leader.cc.

#include "recovery/raft.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove {
namespace {

// Of another anchor's term: no cluster holds so many elections while one is away.
constexpr uint64_t kMostTermsAhead = uint64_t{1} << 32;

}  // namespace

Raft::Raft(const RaftOptions& options, RaftDurable durable, TimeNs now)
    : options_(options),
      random_(options.seed),
      term_(durable.term),
      vote_(durable.vote),
      standing_(durable.standing),
      mark_(Random() | 1),
      log_(std::move(durable.snapshot), std::move(durable.entries)),
      commit_(log_.snapshot().index),
      told_(commit_),
      heard_at_(now),
      durable_(log_.last()) {
  ResetElection(now);
}

RaftDurable Raft::Founder(NodeId self) {
  RaftDurable durable;
  durable.snapshot.votes = {{self, 1}};
  return durable;
}

// splitmix64.
uint64_t Raft::Random() {
  uint64_t z = (random_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

bool Raft::HasVote(const Votes& votes) const {
  const auto own = votes.find(options_.self);
  return own != votes.end() && own->second > 0;
}

bool Raft::TakesPart() const { return standing_ != Standing::kMustLoseVote || options_.bugs.vote_with_new_disk; }

// Who has lost its vote may be the one that is needed to get that committed; its own does not count (chapter 4.2.2).
bool Raft::MayStand() const {
  if (!TakesPart()) return false;
  return HasVote(log_.votes()) || (commit_ < log_.votes_at() && HasVote(log_.votes_before()));
}

bool Raft::HaveMajority(const std::vector<NodeId>& nodes) const {
  uint64_t all = 0;
  uint64_t these = 0;
  for (const auto& [node, votes] : log_.votes()) {
    all += votes;
    if (std::find(nodes.begin(), nodes.end(), node) != nodes.end()) these += votes;
  }
  return 2 * these > all;
}

void Raft::Send(NodeId to, RaftMessage message) {
  if (message.kind == RaftMessage::Kind::kAppended || message.kind == RaftMessage::Kind::kSnapshotTaken) {
    message.standing = standing_;
    message.mark = standing_ == Standing::kMustLoseVote ? mark_ : 0;
  }
  output_.messages.emplace_back(to, std::move(message));
}

// The log from `from` on is to be made durable as it is now.
void Raft::Wrote(LogIndex from) {
  output_.writes = true;
  if (output_.entries_at.value == 0 || from < output_.entries_at) output_.entries_at = from;
  const LogIndex before(from.value - 1);
  durable_ = std::min(durable_, before);
  for (auto& [number, end] : unwritten_) end = std::min(end, before);
}

void Raft::Commit(LogIndex index) {
  CHECK(index <= log_.last());
  commit_ = std::max(commit_, index);
}

// By what is committed: the rest may be taken back. And not by the log alone: that tells again how this member once came without a
// vote and got one, which is no reason to trust another disk. So it needs a leader's word that is younger than the disk, and all
// that the leader had committed by then. Who is given a vote before it has seen that it had none stays where it is, and is to be
// taken that vote again.
void Raft::FollowStanding() {
  if (standing_ == Standing::kFull || commit_ < log_.votes_at()) return;
  const bool has_vote = HasVote(log_.votes());
  if (standing_ == Standing::kMayGainVote) {
    if (!has_vote) return;
    standing_ = Standing::kFull;
  } else {
    if (has_vote || !lost_at_ || commit_ < *lost_at_) return;
    standing_ = Standing::kMayGainVote;
  }
  output_.writes = true;
}

// --- Time -------------------------------------------------------------------------------------------------------------

void Raft::ResetElection(TimeNs now) {
  election_at_ = now + options_.election + static_cast<DurationNs>(Random() % static_cast<uint64_t>(options_.election));
}

TimeNs Raft::next_tick() const {
  if (role_ != Role::kLeader) return election_at_;
  return handing_to_.value != 0 ? std::min(heartbeat_at_, hand_over_ends_) : heartbeat_at_;
}

void Raft::Tick(TimeNs now) {
  if (role_ == Role::kLeader) return TickLeader(now);
  if (now < election_at_) return;
  ResetElection(now);
  if (MayStand()) StandForElection(/*pre_vote=*/true, /*hand_over=*/false, now);
}

// --- Elections --------------------------------------------------------------------------------------------------------

void Raft::BecomeFollower(Term term, NodeId leader, TimeNs now) {
  if (term > term_) {
    term_ = term;
    vote_ = NodeId();
    output_.writes = true;
  }
  if (role_ == Role::kLeader) {
    heard_at_ = now;  // From itself: as its own voter it has promised what the others have (QuorumAt).
    ResetElection(now);
  }
  role_ = Role::kFollower;
  leader_ = leader;
  answers_.clear();
  peers_.clear();
  handing_to_ = NodeId();
  told_to_take_over_ = false;
}

// With a pre-vote first: who cannot be elected disturbs nobody's term.
void Raft::StandForElection(bool pre_vote, bool hand_over, TimeNs now) {
  role_ = pre_vote ? Role::kPreCandidate : Role::kCandidate;
  leader_ = NodeId();
  handed_over_ = hand_over;
  if (!pre_vote) {
    ++term_.value;
    vote_ = options_.self;
    output_.writes = true;
  }
  // Its own vote counts when it is durable: who has most of the votes needs no other.
  answers_ = {{options_.self, pre_vote}};
  own_vote_in_ = next_output_;
  RaftMessage request;
  request.kind = RaftMessage::Kind::kVoteRequest;
  request.term = pre_vote ? Term(term_.value + 1) : term_;
  request.index = log_.last();
  request.index_term = log_.last_term();
  request.pre_vote = pre_vote;
  request.hand_over = hand_over;
  request.sent_at = stood_at_ = now;
  for (const auto& [node, votes] : log_.votes()) {
    if (node != options_.self && votes > 0) Send(node, request);
  }
  CountAnswers(now);
}

void Raft::CountAnswers(TimeNs now) {
  std::vector<NodeId> yes;
  for (const auto& [node, answer] : answers_) {
    if (answer) yes.push_back(node);
  }
  if (!HaveMajority(yes)) return;
  role_ == Role::kPreCandidate ? StandForElection(/*pre_vote=*/false, handed_over_, now) : BecomeLeader(now);
}

void Raft::OnVoteRequest(NodeId from, const RaftMessage& message, TimeNs now) {
  if (!TakesPart()) return;
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kVoteAnswer;
  answer.pre_vote = message.pre_vote;
  answer.sent_at = message.sent_at;
  // Who hears from a leader keeps it (chapter 4.2.3).
  const bool has_leader = role_ == Role::kLeader || now < heard_at_ + options_.election;
  const bool is_bound = has_leader && !message.hand_over;
  if (is_bound && message.term > term_) return;
  if (!message.pre_vote && message.term > term_) BecomeFollower(message.term, NodeId(), now);
  const bool is_new = log_.IsAsNew(message.index, message.index_term) || options_.bugs.ignore_stale_log;
  if (message.pre_vote) {
    answer.yes = message.term > term_ && is_new;
  } else {
    const bool free = vote_.value == 0 || vote_ == from || options_.bugs.vote_again;
    answer.yes = message.term == term_ && free && is_new && !is_bound;
    if (answer.yes) {
      vote_ = from;
      role_ = Role::kFollower;
      output_.writes = true;
      ResetElection(now);
    }
  }
  answer.term = message.pre_vote && answer.yes ? message.term : term_;
  Send(from, std::move(answer));
}

void Raft::OnVoteAnswer(NodeId from, const RaftMessage& message, TimeNs now) {
  const bool of_pre_vote = role_ == Role::kPreCandidate && message.pre_vote;
  const bool of_vote = role_ == Role::kCandidate && !message.pre_vote && message.term == term_;
  if (!message.yes && message.term > term_) return BecomeFollower(message.term, NodeId(), now);
  if ((!of_pre_vote && !of_vote) || message.sent_at != stood_at_) return;  // Of this election alone.
  answers_[from] = message.yes;
  CountAnswers(now);
  // Somebody else stands as well, and neither may win: again soon, each after another while. Not before others, whose disks take as
  // long as this one's, can have answered.
  if (role_ != Role::kCandidate || message.yes) return;
  const auto spread = static_cast<DurationNs>(Random() % static_cast<uint64_t>(options_.election * 3 / 8));
  election_at_ = std::min(election_at_, now + 2 * (now - stood_at_) + options_.election / 8 + spread);
}

// --- Messages ---------------------------------------------------------------------------------------------------------

void Raft::Receive(NodeId from, const RaftMessage& message, TimeNs now) {
  using Kind = RaftMessage::Kind;
  if (!IsSound(message) || message.term.value > term_.value + kMostTermsAhead) {
    ++bad_messages_;
    return;
  }
  switch (message.kind) {
    case Kind::kVoteRequest: return OnVoteRequest(from, message, now);
    case Kind::kVoteAnswer: return OnVoteAnswer(from, message, now);
    default: break;
  }
  if (message.term > term_) {
    const bool leads = message.kind == Kind::kAppend || message.kind == Kind::kSnapshot;
    BecomeFollower(message.term, leads ? from : NodeId(), now);
  }
  if (message.term < term_) {
    // An old leader learns that there was an election, or that somebody has stood for one in vain.
    if (message.kind != Kind::kAppend && message.kind != Kind::kSnapshot) return;
    RaftMessage answer;
    answer.kind = Kind::kAppended;
    answer.term = term_;
    return Send(from, std::move(answer));
  }
  switch (message.kind) {
    case Kind::kAppend: return OnAppend(from, message, now);
    case Kind::kSnapshot: return OnSnapshot(from, message, now);
    case Kind::kAppended: return OnAppended(from, message, now);
    case Kind::kSnapshotTaken: return OnSnapshotTaken(from, message, now);
    case Kind::kTakeOver:
      if (from == leader_ && MayStand()) StandForElection(/*pre_vote=*/false, /*hand_over=*/true, now);
      return;
    default: return;
  }
}

void Raft::FollowLeader(NodeId leader, TimeNs now) {
  BecomeFollower(term_, leader, now);
  heard_at_ = now;
  ResetElection(now);
}

void Raft::OnAppend(NodeId from, const RaftMessage& message, TimeNs now) {
  if (role_ == Role::kLeader) return;  // R1: a term has no other.
  FollowLeader(from, now);
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kAppended;
  answer.term = term_;
  answer.sent_at = message.sent_at;
  if (Contradicts(message) || !AreCommands(message.entries)) {
    ++bad_messages_;
    return;
  }
  if (message.mark == mark_ && !lost_at_) lost_at_ = message.commit;
  const LogIndex end(message.index.value + message.entries.size());
  // Up to the snapshot's end everything is committed, and so the same.
  const bool agrees = message.index < log_.snapshot().index ||
                      (log_.Has(message.index) && log_.TermOf(message.index) == message.index_term);
  answer.yes = agrees;
  if (agrees) {
    AppendEntries(message);
    answer.index = end;
    Commit(std::min(message.commit, end));
    FollowStanding();
    if (incoming_ && incoming_->index <= commit_) incoming_.reset();
  } else {
    answer.index = log_.MayAgreeAt(LogIndex(message.index.value - 1), message.index_term);
  }
  Send(from, std::move(answer));
}

// What this node could not apply must not be in its log.
bool Raft::AreCommands(const std::vector<LogEntry>& entries) const {
  return options_.is_command == nullptr || std::all_of(entries.begin(), entries.end(), [&](const LogEntry& entry) {
           return entry.kind != LogEntry::Kind::kCommand || options_.is_command(entry.command);
         });
}

// What is committed (R4): no leader that keeps to the rules does.
bool Raft::Contradicts(const RaftMessage& message) const {
  const auto differs = [&](LogIndex at, Term term) {
    return at >= log_.snapshot().index && at <= commit_ && log_.TermOf(at) != term;
  };
  LogIndex at = message.index;
  if (differs(at, message.index_term)) return true;
  for (const LogEntry& entry : message.entries) {
    ++at.value;
    if (differs(at, entry.term)) return true;
  }
  return false;
}

void Raft::AppendEntries(const RaftMessage& message) {
  LogIndex at = message.index;
  for (const LogEntry& entry : message.entries) {
    ++at.value;
    if (at <= log_.snapshot().index) continue;
    if (log_.Has(at)) {
      if (log_.TermOf(at) == entry.term) continue;
      CHECK(at > commit_);  // R4
      log_.Truncate(at);
    }
    log_.Append(entry);
    Wrote(at);
  }
}

void Raft::OnSnapshot(NodeId from, const RaftMessage& message, TimeNs now) {
  if (role_ == Role::kLeader) return;
  FollowLeader(from, now);
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kSnapshotTaken;
  answer.term = term_;
  answer.index = message.index;
  answer.sent_at = message.sent_at;
  if (message.index <= commit_) {  // It is here already.
    answer.kind = RaftMessage::Kind::kAppended;
    answer.yes = true;
    answer.index = commit_;
    return Send(from, std::move(answer));
  }
  // Another leader's may be of other bytes.
  if (!incoming_ || incoming_in_ != term_ || incoming_->index != message.index) {
    incoming_ = LogSnapshot{message.index, message.index_term, message.votes, {}};
    incoming_in_ = term_;
  }
  std::string& state = incoming_->state;
  if (message.offset == state.size()) state += message.bytes;
  answer.offset = state.size();
  if (message.is_last && message.offset + message.bytes.size() == state.size()) {
    if (options_.is_state != nullptr && !options_.is_state(state)) {
      ++bad_messages_;
      incoming_.reset();
      return;
    }
    TakeSnapshot(*std::exchange(incoming_, std::nullopt));
    answer.kind = RaftMessage::Kind::kAppended;
    answer.yes = true;
  }
  Send(from, std::move(answer));
}

void Raft::TakeSnapshot(LogSnapshot snapshot) {
  const bool follows = log_.Has(snapshot.index) && log_.TermOf(snapshot.index) == snapshot.term;
  log_.Install(std::move(snapshot));
  if (!follows) Wrote(log_.first());
  output_.drops_log |= !follows;
  output_.is_news = true;
  output_.writes = true;
  output_.snapshot = log_.snapshot();
  commit_ = log_.snapshot().index;
  told_ = commit_;
  FollowStanding();
}

// --- Out --------------------------------------------------------------------------------------------------------------

void Raft::Compact(LogIndex index, std::string state) {
  CHECK(index <= commit_ && index <= told_);
  if (index <= log_.snapshot().index) return;
  log_.Compact(index, std::move(state));
  output_.writes = true;
  output_.snapshot = log_.snapshot();
}

RaftOutput Raft::TakeOutput() {
  for (LogIndex index(told_.value + 1); index <= commit_; ++index.value) {
    output_.committed.emplace_back(index, log_.At(index));
  }
  told_ = commit_;
  RaftOutput output = std::exchange(output_, {});
  output.number = next_output_++;
  output.term = term_;
  output.vote = vote_;
  output.standing = standing_;
  if (output.entries_at.value != 0) {
    output.entries_at = std::max(output.entries_at, log_.first());
    output.entries = log_.From(output.entries_at, SIZE_MAX);
  }
  if (output.writes) unwritten_.emplace_back(output.number, log_.last());
  return output;
}

void Raft::Persisted(uint64_t number, TimeNs now) {
  CHECK(!unwritten_.empty() && unwritten_.front().first == number);
  durable_ = std::max(durable_, std::min(unwritten_.front().second, log_.last()));
  unwritten_.erase(unwritten_.begin());
  if (role_ == Role::kCandidate && number >= own_vote_in_) {
    answers_[options_.self] = true;
    return CountAnswers(now);
  }
  if (role_ != Role::kLeader) return;
  AdvanceCommit(now);
  SendAll(now);
}

}  // namespace mangrove
