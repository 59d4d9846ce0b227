// What a leader does: its log goes to the others, and what a majority has is committed.

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "recovery/raft.h"

namespace mangrove {
namespace {

constexpr uint64_t kFewEntries = 16;  // That a member may be behind when it gets a vote.

}  // namespace

void Raft::BecomeLeader(TimeNs now) {
  role_ = Role::kLeader;
  leader_ = options_.self;
  led_since_ = now;
  heartbeat_at_ = now + options_.heartbeat;
  answers_.clear();
  incoming_.reset();
  // Nothing of an earlier term is committed before something of this one is (chapter 3.6.2).
  AppendOwn({.term = term_, .kind = LogEntry::Kind::kNothing}, now);
}

absl::Status Raft::CheckLeads() const {
  if (role_ != Role::kLeader) {
    return absl::FailedPreconditionError(leader_.value == 0
                                             ? "there is no leader of the anchors now; try again"
                                             : absl::StrCat("the leader of the anchors is ", ToString(leader_)));
  }
  if (handing_to_.value != 0) {
    return absl::UnavailableError(absl::StrCat("the leadership goes to ", ToString(handing_to_), "; try again"));
  }
  return absl::OkStatus();
}

LogIndex Raft::AppendOwn(LogEntry entry, TimeNs now) {
  const bool changes_votes = entry.kind == LogEntry::Kind::kVotes;
  log_.Append(std::move(entry));
  const LogIndex index = log_.last();
  Wrote(index);
  if (changes_votes || peers_.empty()) FollowVotes(now);
  SendAll(now);
  return index;
}

absl::StatusOr<LogIndex> Raft::Propose(std::string command, TimeNs now) {
  if (absl::Status status = CheckLeads(); !status.ok()) return status;
  if (command.size() > options_.command_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a command of ", command.size(), " bytes, more than ", options_.command_bytes));
  }
  return AppendOwn({.term = term_, .kind = LogEntry::Kind::kCommand, .command = std::move(command)}, now);
}

absl::StatusOr<LogIndex> Raft::ProposeVotes(NodeId member, std::optional<uint32_t> votes, TimeNs now) {
  if (absl::Status status = CheckLeads(); !status.ok()) return status;
  Votes changed = log_.votes();
  const auto found = changed.find(member);
  const uint32_t before = found == changed.end() ? 0 : found->second;
  const uint32_t after = votes.value_or(0);
  if (std::max(before, after) - std::min(before, after) > 1 && !options_.bugs.votes_at_once) {
    return absl::InvalidArgumentError(
        absl::StrCat("votes of ", ToString(member), " change from ", before, " to ", after, ": by one at a time"));
  }
  if (votes) {
    changed[member] = *votes;
  } else {
    changed.erase(member);
  }
  if (std::all_of(changed.begin(), changed.end(), [](const auto& other) { return other.second == 0; })) {
    return absl::InvalidArgumentError(absl::StrCat("without ", ToString(member), " no anchor has a vote"));
  }
  if (member.value == 0 || changed.size() > kMaxMembers || after > kMaxVotes) {
    return absl::InvalidArgumentError(absl::StrCat(ToString(member), " with ", after, " votes: expected at most ",
                                                   kMaxMembers, " members with ", kMaxVotes, " votes each"));
  }
  if (!AreVotesSettled() && !options_.bugs.votes_at_once) {
    return absl::UnavailableError("an earlier change of the anchors is under way; try again");
  }
  if (absl::Status status = CheckVotes(changed, member, before, now); !status.ok()) return status;
  return AppendOwn({.term = term_, .kind = LogEntry::Kind::kVotes, .votes = std::move(changed)}, now);
}

// Committed, and in this term.
bool Raft::AreVotesSettled() const {
  return commit_ >= log_.votes_at() && log_.Has(commit_) && log_.TermOf(commit_) == term_;
}

// The new votes count at once: without a majority of them nothing goes on, not even taking them back.
absl::Status Raft::CheckVotes(const Votes& changed, NodeId member, uint32_t before, TimeNs now) const {
  if (options_.bugs.votes_at_once) return absl::OkStatus();
  const auto peer = peers_.find(member);
  const auto raised = changed.find(member);
  const bool gets_first = before == 0 && raised != changed.end() && raised->second > 0;
  const bool gets_more = raised != changed.end() && raised->second > before;
  if (gets_more && StandingOf(member) == Standing::kMustLoseVote) {
    return absl::UnavailableError(absl::StrCat(
        ToString(member),
        " has another disk than the one that its votes were given to: it has to hear first that it has none"));
  }
  if (gets_first && member != options_.self &&
      (peer == peers_.end() || peer->second.match.value + kFewEntries < log_.last().value)) {
    return absl::UnavailableError(
        absl::StrCat(ToString(member), " has not the whole log yet; add it without a vote, and try again"));
  }
  // A short log has few entries that even who was never there would lack.
  if (gets_first && member != options_.self && peer->second.answered + options_.election <= now) {
    return absl::UnavailableError(absl::StrCat(ToString(member), " has not answered of late; try again"));
  }
  const std::optional<TimeNs> answered = QuorumOf(changed, now);
  if (answered && *answered + options_.election > now) return absl::OkStatus();
  return absl::UnavailableError("too few of the anchors that would have a vote have answered of late; try again");
}

// Members come and go as the votes that count do.
void Raft::FollowVotes(TimeNs now) {
  const Votes& votes = log_.votes();
  led_since_ = now;
  std::erase_if(peers_, [&](const auto& peer) { return !votes.contains(peer.first); });
  for (const auto& [node, count] : votes) {
    if (node == options_.self) continue;
    const auto [peer, is_new] = peers_.try_emplace(node);
    if (!is_new) continue;
    peer->second.next = log_.last();
  }
}

absl::Status Raft::HandOver(NodeId to, TimeNs now) {
  if (absl::Status status = CheckLeads(); !status.ok()) return status;
  const auto member = log_.votes().find(to);
  if (member == log_.votes().end() || member->second == 0) {
    return absl::InvalidArgumentError(absl::StrCat(ToString(to), " has no vote, and cannot lead the anchors"));
  }
  if (to == options_.self) return absl::OkStatus();
  if (StandingOf(to) == Standing::kMustLoseVote) {
    return absl::UnavailableError(
        absl::StrCat(ToString(to), " has another disk than before, and does not stand for election yet; try again"));
  }
  handing_to_ = to;
  told_to_take_over_ = false;
  hand_over_ends_ = now + options_.election;
  SendTo(to, peers_.at(to), now);
  return absl::OkStatus();
}

NodeId Raft::Successor(const std::set<NodeId>& staying, TimeNs now) const {
  NodeId best;
  const auto rank = [&](NodeId node) {
    const Peer& peer = peers_.at(node);
    return std::tuple(staying.contains(node), peer.match, peer.answered);
  };
  for (const auto& [node, peer] : peers_) {
    const auto votes = log_.votes().find(node);
    const bool may_lead = votes != log_.votes().end() && votes->second > 0 && StandingOf(node) == Standing::kFull;
    if (!may_lead || peer.answered + options_.election <= now) continue;
    if (best.value == 0 || rank(node) > rank(best)) best = node;
  }
  return best;
}

// --- The others' logs ---------------------------------------------------------------------------------------------------

// What there is for them, to all that have answered.
void Raft::SendAll(TimeNs now) {
  for (auto& [node, peer] : peers_) {
    const bool has_news = peer.next <= log_.last() || peer.commit < commit_ || node == handing_to_;
    if (!peer.waiting && has_news) SendTo(node, peer, now);
  }
}

void Raft::SendTo(NodeId to, Peer& peer, TimeNs now) {
  RaftMessage message;
  if (to == handing_to_ && peer.match == log_.last()) {
    message.kind = RaftMessage::Kind::kTakeOver;
    message.term = term_;
    if (!std::exchange(told_to_take_over_, true)) Send(to, std::move(message));
    return;
  }
  peer.waiting = true;
  peer.sent_at = peer.last_sent = now;
  message.term = term_;
  message.sent_at = now;
  if (peer.next <= log_.snapshot().index) return SendSnapshot(to, peer, std::move(message));
  message.kind = RaftMessage::Kind::kAppend;
  message.index = LogIndex(peer.next.value - 1);
  message.index_term = log_.TermOf(message.index);
  message.commit = commit_;
  message.entries = log_.From(peer.next, options_.message_bytes);
  peer.commit = commit_;
  if (HasLostVote(to, peer, now)) message.mark = peer.mark;
  Send(to, std::move(message));
}

// The next piece of it. That one is sent to its end, whatever is compacted meanwhile.
void Raft::SendSnapshot(NodeId to, Peer& peer, RaftMessage message) {
  if (peer.sending == nullptr) {
    peer.sending = std::make_shared<LogSnapshot>(log_.snapshot());
    peer.offset = 0;
  }
  const LogSnapshot& snapshot = *peer.sending;
  message.kind = RaftMessage::Kind::kSnapshot;
  message.index = snapshot.index;
  message.index_term = snapshot.term;
  message.votes = snapshot.votes;
  message.offset = std::min<uint64_t>(peer.offset, snapshot.state.size());
  message.bytes = snapshot.state.substr(message.offset, options_.message_bytes);
  message.is_last = message.offset + message.bytes.size() == snapshot.state.size();
  Send(to, std::move(message));
}

// Says that it leads, to one whose answer to something larger is still to come: that would only be sent twice.
void Raft::SendPulse(NodeId to, Peer& peer, TimeNs now) {
  RaftMessage pulse;
  pulse.kind = RaftMessage::Kind::kAppend;
  pulse.term = term_;
  pulse.sent_at = peer.last_sent = now;
  Send(to, std::move(pulse));
}

Standing Raft::StandingOf(NodeId member) const {
  const auto peer = peers_.find(member);
  return peer == peers_.end() ? Standing::kFull : peer->second.standing;
}

// Of a member with another disk: the members have no vote of it in the log, and a quorum of them has followed this leader since
// it said so. Nobody was elected before for a later term, who could have given the old disk a vote, and counted on it.
bool Raft::HasLostVote(NodeId node, const Peer& peer, TimeNs now) const {
  const auto votes = log_.votes().find(node);
  if (peer.standing != Standing::kMustLoseVote || votes == log_.votes().end() || votes->second > 0) return false;
  return AreVotesSettled() && QuorumOf(log_.votes(), now).value_or(0) > peer.standing_at;
}

// False: it is not what is waited for.
bool Raft::TakeAnswer(Peer& peer, const RaftMessage& message, TimeNs now) {
  if (message.standing != peer.standing || message.mark != peer.mark) {
    // What it had was another disk's, or did not count.
    peer.match = LogIndex();
    peer.standing = message.standing;
    peer.mark = message.mark;
    peer.standing_at = now;
  }
  // The old disk may have helped to elect a later leader: that the other follows this one says nothing.
  if (peer.standing != Standing::kMustLoseVote) {
    peer.answered = std::max(peer.answered, std::min(message.sent_at, peer.last_sent));
  }
  if (!peer.waiting || message.sent_at != peer.sent_at) return false;
  peer.waiting = false;
  return true;
}

void Raft::OnAppended(NodeId from, const RaftMessage& message, TimeNs now) {
  const auto found = peers_.find(from);
  if (role_ != Role::kLeader || found == peers_.end() || message.index > log_.last()) return;
  Peer& peer = found->second;
  const bool is_due = TakeAnswer(peer, message, now);
  if (message.yes) {
    peer.match = std::max(peer.match, message.index);
    peer.next = std::max(peer.next, LogIndex(peer.match.value + 1));
    if (peer.sending != nullptr && peer.match >= peer.sending->index) peer.sending.reset();
    AdvanceCommit(now);
    if (role_ == Role::kLeader) SendAll(now);
    return;
  }
  if (!is_due) return;
  if (message.index < peer.match) {  // It has lost what it had: nothing that keeps to the rules does.
    ++bad_messages_;
    return;
  }
  peer.next = std::min(LogIndex(peer.next.value - 1), LogIndex(message.index.value + 1));
  SendTo(from, peer, now);
}

void Raft::OnSnapshotTaken(NodeId from, const RaftMessage& message, TimeNs now) {
  const auto found = peers_.find(from);
  if (role_ != Role::kLeader || found == peers_.end()) return;
  Peer& peer = found->second;
  if (!TakeAnswer(peer, message, now) || peer.sending == nullptr || message.index != peer.sending->index) return;
  peer.offset = message.offset;
  SendTo(from, peer, now);
}

void Raft::AdvanceCommit(TimeNs now) {
  std::vector<std::pair<LogIndex, uint32_t>> ends;
  uint64_t all = 0;
  for (const auto& [node, votes] : log_.votes()) {
    all += votes;
    // The old disk may have helped to elect a later leader, which has none of this.
    if (StandingOf(node) == Standing::kMustLoseVote) continue;
    const auto peer = peers_.find(node);
    ends.emplace_back(node == options_.self ? durable_ : peer == peers_.end() ? LogIndex() : peer->second.match, votes);
  }
  std::sort(ends.begin(), ends.end(), std::greater<>());
  uint64_t have = 0;
  LogIndex end;
  for (const auto& [index, votes] : ends) {
    have += votes;
    if (2 * have <= all) continue;
    end = index;
    break;
  }
  if (end <= commit_ || (log_.TermOf(end) != term_ && !options_.bugs.commit_by_counting)) return;
  Commit(end);
  // Who has taken itself out leads until that is committed (chapter 4.2.2).
  if (commit_ >= log_.votes_at() && !HasVote(log_.votes())) BecomeFollower(term_, NodeId(), now);
}

// --- Time -------------------------------------------------------------------------------------------------------------

void Raft::TickLeader(TimeNs now) {
  if (handing_to_.value != 0 && now >= hand_over_ends_) {
    // A late word to take over must not find a leader that counts on its quorum: it counts anew, as somebody else's.
    if (told_to_take_over_) return BecomeFollower(term_, NodeId(), now);
    handing_to_ = NodeId();
  }
  const TimeNs since = std::max(QuorumOf(log_.votes(), now).value_or(led_since_), led_since_);
  if (since + options_.election < now) return BecomeFollower(term_, NodeId(), now);
  if (now < heartbeat_at_) return;
  heartbeat_at_ = now + options_.heartbeat;
  for (auto& [node, peer] : peers_) {
    const bool is_lost = now - peer.sent_at >= 2 * options_.heartbeat;
    peer.waiting && !is_lost ? SendPulse(node, peer, now) : SendTo(node, peer, now);
  }
}

std::optional<TimeNs> Raft::QuorumAt(TimeNs now) const {
  if (role_ != Role::kLeader || handing_to_.value != 0) return std::nullopt;
  return QuorumOf(log_.votes(), now);
}

std::optional<TimeNs> Raft::QuorumOf(const Votes& votes, TimeNs now) const {
  std::vector<std::pair<TimeNs, uint32_t>> times;
  uint64_t all = 0;
  for (const auto& [node, count] : votes) {
    const auto peer = peers_.find(node);
    times.emplace_back(node == options_.self ? now : peer == peers_.end() ? 0 : peer->second.answered, count);
    all += count;
  }
  std::sort(times.begin(), times.end(), std::greater<>());
  uint64_t have = 0;
  for (const auto& [time, count] : times) {
    have += count;
    if (2 * have > all) return time == 0 ? std::nullopt : std::optional(time);
  }
  return std::nullopt;
}

}  // namespace mangrove
