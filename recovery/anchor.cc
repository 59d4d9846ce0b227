#include "recovery/anchor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "recovery/codec.h"

namespace mangrove {
namespace {

constexpr DurationNs kAskAgain = 100 * kMillisecond;

RaftOptions RaftOptionsOf(const Anchor::Options& options) {
  RaftOptions raft;
  raft.self = options.self.node;
  raft.heartbeat = options.timing.heartbeat;
  raft.election = options.timing.election;
  raft.seed = options.seed;
  raft.is_command = [](std::string_view bytes) { return DecodeCommand(bytes).ok(); };
  raft.is_state = [](std::string_view bytes) { return DecodeDatabase(bytes).ok(); };
  raft.bugs = options.raft_bugs;
  return raft;
}

}  // namespace

absl::Status Anchor::Check(const RaftDurable& durable) {
  absl::Status status;
  if (!durable.snapshot.state.empty()) status = DecodeDatabase(durable.snapshot.state).status();
  for (const LogEntry& entry : durable.entries) {
    if (status.ok() && entry.kind == LogEntry::Kind::kCommand) status = DecodeCommand(entry.command).status();
  }
  if (status.ok()) return status;
  return absl::DataLossError(
      absl::StrCat("the anchors' log on this disk holds what this version cannot apply: ", status.message()));
}

Anchor::Anchor(Options options, AnchorRecords records, std::optional<RaftDurable> durable, TimeNs now)
    : options_(std::move(options)),
      records_(std::move(records)),
      ask_at_(now),
      keeper_(options_.timing, options_.view_bugs) {
  if (!durable) {
    Tick(now);
    return;
  }
  applied_ = durable->snapshot.index;
  if (!durable->snapshot.state.empty()) {
    absl::StatusOr<NodeDatabase> database = DecodeDatabase(durable->snapshot.state);
    CHECK(database.ok());
    database_ = *std::move(database);
    history_.Reset(database_.view());
  }
  raft_.emplace(RaftOptionsOf(options_), *std::move(durable), now);
}

TimeNs Anchor::next_tick() const {
  if (!raft_) return ask_at_;
  return leads() ? std::min(raft_->next_tick(), reconcile_at_) : raft_->next_tick();
}

// --- The first start --------------------------------------------------------------------------------------------------

std::vector<NodeId> Anchor::awaited() const {
  std::vector<NodeId> nodes;
  for (const auto& [node, record] : options_.nodes) {
    if (!raft_ && record.votes > 0 && node != options_.self.node && !fresh_.contains(node)) nodes.push_back(node);
  }
  return nodes;
}

// Or may have, on a disk that is gone.
bool Anchor::has_voted() const { return raft_ && (raft_->term().value > 0 || raft_->standing() != Standing::kFull); }

void Anchor::BeginLog(RaftDurable durable, TimeNs now) {
  begins_ = durable;
  raft_.emplace(RaftOptionsOf(options_), std::move(durable), now);
}

// That of others. What this disk was given votes for, it does not know.
void Anchor::JoinLog(TimeNs now) {
  RaftDurable durable;
  durable.standing = Standing::kMustLoseVote;
  BeginLog(std::move(durable), now);
}

// By the log, or by what this node knows beside it.
bool Anchor::IsAnchor(NodeId node) const {
  const auto configured = options_.nodes.find(node);
  const NodeRecord* const record = database_.Find(node);
  if (known_anchors_.contains(node)) return true;
  return (configured != options_.nodes.end() && configured->second.votes > 0) ||
         (record != nullptr && record->votes > 0) || (raft_ && raft_->log().votes().contains(node));
}

void Anchor::OnGreeting(NodeId from, const Greeting& greeting, TimeNs now) {
  if (!IsAnchor(from)) return;
  if (greeting.asks) output_.messages.emplace_back(from, Greeting{.has_voted = has_voted(), .asks = false});
  if (raft_) return;
  if (greeting.has_voted) return JoinLog(now);
  fresh_.insert(from);
  if (!awaited().empty() || !options_.may_found) return;
  RaftDurable durable;
  for (const auto& [node, configured] : options_.nodes) {
    if (configured.votes > 0) durable.snapshot.votes[node] = configured.votes;
  }
  BeginLog(std::move(durable), now);
}

// --- In ---------------------------------------------------------------------------------------------------------------

void Anchor::Tick(TimeNs now) {
  if (raft_) {
    raft_->Tick(now);
  } else if (now >= ask_at_) {
    ask_at_ = now + kAskAgain;
    if (options_.has_joined) {
      JoinLog(now);
      return FollowRole(now);
    }
    for (NodeId node : awaited()) output_.messages.emplace_back(node, Greeting{.has_voted = false, .asks = true});
    // With no other anchor there is nobody to ask.
    if (awaited().empty() && fresh_.empty() && options_.may_found) {
      RaftDurable durable;
      durable.snapshot.votes = {{options_.self.node, options_.nodes.at(options_.self.node).votes}};
      BeginLog(std::move(durable), now);
    }
  }
  FollowRole(now);
}

void Anchor::Receive(NodeInstance from, const RecoveryMessage& message, TimeNs now) {
  if (const auto* greeting = std::get_if<Greeting>(&message)) {
    OnGreeting(from.node, *greeting, now);
  } else if (const auto* pulse = std::get_if<Pulse>(&message)) {
    OnPulse(from, *pulse, now);
  } else if (const auto* batch = std::get_if<PulseBatch>(&message)) {
    OnPulses(from, *batch, now);
  } else if (const auto* request = std::get_if<NodeRequest>(&message)) {
    if (IsReady()) OnRequest(*request);  // Who asks does so again, of whom it then takes for the leader.
  } else if (const auto* of_log = std::get_if<RaftMessage>(&message)) {
    // From anchors alone: the log's word counts for everybody.
    if (!IsAnchor(from.node)) {
      ++strays_;
    } else if (raft_) {
      raft_->Receive(from.node, *of_log, now);
    }
  } else {
    ++bad_messages_;  // It is for members.
  }
  FollowRole(now);
}

void Anchor::Persisted(uint64_t number, TimeNs now) {
  raft_->Persisted(number, now);
  FollowRole(now);
}

absl::Status Anchor::HandOver(NodeId to, TimeNs now) {
  if (!raft_) return absl::UnavailableError("the anchors' log has not begun yet");
  const absl::Status status = raft_->HandOver(to, now);
  FollowRole(now);
  return status;
}

absl::Status Anchor::HandOver(std::set<NodeId> staying, TimeNs now) {
  const View& view = database_.view();
  std::erase_if(staying, [&](NodeId node) {
    const auto member = view.members.find(node);
    return member == view.members.end() || keeper_.HasLeft({node, member->second});
  });
  const NodeId to = leads() ? raft_->Successor(staying, now) : NodeId();
  if (to.value == 0) return absl::UnavailableError("no other anchor has answered of late");
  return HandOver(to, now);
}

// --- Pulses -----------------------------------------------------------------------------------------------------------

void Anchor::OnPulse(NodeInstance from, const Pulse& pulse, TimeNs now) {
  keeper_.OnPulse(from, pulse, database_.view(), now);
  monitors_.erase(from.node);
  if (pulse.leaves) reconcile_at_ = now;
  SendRoster(from.node, pulse.roster);
  // Who is in the view is answered when its lease can be given.
  const bool waits = IsReady() && database_.view().Has(from) && pulse.epoch == database_.view().epoch;
  if (!waits) SendAnswer(from);
}

// Of a group, by its monitor, which brings it up to the view as well.
void Anchor::OnPulses(NodeInstance from, const PulseBatch& batch, TimeNs now) {
  AnswerBatch answers{.epoch = database_.view().epoch, .leader = leader(), .answers = {}};
  for (const RelayedPulse& relayed : batch.pulses) {
    if (GroupOf(relayed.from.node) != GroupOf(from.node)) continue;
    SendRoster(relayed.from.node, relayed.pulse.roster);
    if (database_.view().Has(relayed.from)) {  // Who joins comes itself.
      const bool is_news = keeper_.OnPulse(relayed.from, relayed.pulse, database_.view(), now);
      if (is_news) monitors_[relayed.from.node] = from.node;
      continue;
    }
    if (!IsReady()) continue;
    answers.answers.push_back({.to = relayed.from, .lease_from = 0, .is_gone = AnswerTo(relayed.from).is_gone});
  }
  if (!answers.answers.empty()) output_.messages.emplace_back(from.node, answers);
}

void Anchor::GiveLeases(TimeNs now) {
  std::map<NodeId, AnswerBatch> batches;
  for (NodeInstance node : keeper_.Confirm(raft_->QuorumAt(now))) {
    const auto monitor = monitors_.find(node.node);
    if (monitor == monitors_.end()) {
      SendAnswer(node);
      continue;
    }
    const PulseAnswer answer = AnswerTo(node);
    AnswerBatch& batch = batches[monitor->second];
    batch.epoch = answer.epoch;
    batch.leader = answer.leader;
    batch.answers.push_back({.to = node, .lease_from = answer.lease_from, .is_gone = answer.is_gone});
    if (batch.answers.size() < AnswerBatch::kMostAnswers) continue;
    output_.messages.emplace_back(monitor->second, std::move(batch));
    batches.erase(monitor->second);
  }
  for (auto& [to, batch] : batches) output_.messages.emplace_back(to, std::move(batch));
}

PulseAnswer Anchor::AnswerTo(NodeInstance to) {
  PulseAnswer answer;
  if (IsReady()) answer = keeper_.AnswerTo(to, database_);
  // One that is there all the same may be needed until its votes are gone.
  answer.is_removed = answer.is_removed && !HasVotes(to.node);
  answer.leader = leads() && !IsReady() ? NodeId() : leader();
  answer.to = to.incarnation;
  return answer;
}

void Anchor::SendAnswer(NodeInstance to) {
  // The view first: a lease counts with the view under which it was given.
  if (IsReady()) SendView(to);
  output_.messages.emplace_back(to.node, AnswerTo(to));
}

// Whether it leads or not: what is committed stays so, and a node may know of no anchor that leads. Before the first view the
// nodes are not all in the database, and who is not there yet would seem to be none.
void Anchor::SendRoster(NodeId to, uint64_t known) {
  if (database_.view().epoch.value == 0 || known >= database_.roster_version()) return;
  output_.messages.emplace_back(to, PartSince(database_.nodes(), known));
}

void Anchor::SendView(NodeInstance to) {
  for (RecoveryMessage& message : history_.Since(keeper_.KnownTo(to))) {
    output_.messages.emplace_back(to.node, std::move(message));
  }
  keeper_.NoteTold(to.node, history_.view().epoch);
}

// Everybody hears of a view at once, also who is not in it any more; of those behind a monitor that one.
void Anchor::TellView(const View& before) {
  const View& view = database_.view();
  for (const auto& [node, incarnation] : view.members) {
    const NodeInstance member{node, incarnation};
    const auto monitor = monitors_.find(node);
    if (monitor == monitors_.end() || !view.members.contains(monitor->second)) SendAnswer(member);
  }
  for (const auto& [node, incarnation] : before.members) {
    if (!view.members.contains(node)) SendAnswer({node, incarnation});
  }
}

// --- The log ----------------------------------------------------------------------------------------------------------

void Anchor::Apply(const RaftOutput& output) {
  std::optional<View> before;
  const auto changes = [&] {
    if (!before) before = database_.view();
  };
  if (output.is_news) {
    changes();
    absl::StatusOr<NodeDatabase> database = DecodeDatabase(output.snapshot->state);
    CHECK(database.ok());
    database_ = *std::move(database);
    history_.Reset(database_.view());
    applied_ = output.snapshot->index;
  }
  for (const auto& [index, entry] : output.committed) {
    CHECK(index.value == applied_.value + 1);  // A2
    applied_ = index;
    ready_ |= leads() && entry.term == raft_->term();
    if (entry.kind != LogEntry::Kind::kCommand) continue;
    const absl::StatusOr<DatabaseCommand> command = DecodeCommand(entry.command);
    CHECK(command.ok());
    const bool is_view = command->kind == DatabaseCommand::Kind::kChangeView;
    if (command->kind != DatabaseCommand::Kind::kSetNode) changes();
    // What does not fit any more is refused in the same way everywhere.
    if (!database_.Apply(*command).ok()) continue;
    if (is_view) history_.Apply(command->view);
    // A view that a removal makes is told whole.
    if (history_.view().epoch != database_.view().epoch) history_.Reset(database_.view());
  }
  if (IsReady() && before && *before != database_.view()) TellView(*before);
}

void Anchor::FollowRole(TimeNs now) {
  if (!leads()) {
    ready_ = false;
    return;
  }
  if (led_in_ != raft_->term()) {
    led_in_ = raft_->term();
    keeper_.Elected(now);
    monitors_.clear();
    ready_ = false;
    proposed_ = LogIndex();
    changes_.clear();
    reconcile_at_ = now;
  }
  if (IsReady()) GiveLeases(now);
  const bool is_through = proposed_.value != 0 && proposed_ <= applied_;
  if (now >= reconcile_at_ || is_through) Reconcile(now);
}

// --- Out --------------------------------------------------------------------------------------------------------------

AnchorOutput Anchor::TakeOutput(TimeNs now) {
  if (raft_) {
    RaftOutput output = raft_->TakeOutput();
    Apply(output);
    FollowRole(now);
    if (begins_) output_.records = records_.Begin(*std::exchange(begins_, std::nullopt));
    if (output.writes) {
      output_.number = output.number;
      const std::vector<AnchorRecords::Record> more = records_.Write(output);
      output_.records.insert(output_.records.end(), more.begin(), more.end());
    }
    for (auto& [to, message] : output.messages) output_.messages.emplace_back(to, std::move(message));
    if (applied_.value > raft_->log().snapshot().index.value + options_.compact_after) {
      raft_->Compact(applied_, EncodeDatabase(database_));
    }
  }
  return std::exchange(output_, {});
}

}  // namespace mangrove
