#include "recovery/anchor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "recovery/codec.h"

namespace mangrove {
namespace {

constexpr DurationNs kAskAgain = 100 * kMillisecond;
constexpr DurationNs kReconcile = 50 * kMillisecond;
constexpr size_t kNodesAtOnce = 64;  // Entered into the database.

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

// By the log, or by the configuration where the log does not know it yet.
bool Anchor::IsAnchor(NodeId node) const {
  const auto configured = options_.nodes.find(node);
  return (configured != options_.nodes.end() && configured->second.votes > 0) ||
         (raft_ && raft_->log().votes().contains(node));
}

void Anchor::OnGreeting(NodeId from, const Greeting& greeting, TimeNs now) {
  const auto record = options_.nodes.find(from);
  if (record == options_.nodes.end() || record->second.votes == 0) return;
  if (greeting.asks) output_.messages.emplace_back(from, Greeting{.has_voted = has_voted(), .asks = false});
  if (raft_) return;
  if (greeting.has_voted) {
    RaftDurable durable;
    durable.standing = Standing::kMustLoseVote;
    return BeginLog(std::move(durable), now);
  }
  fresh_.insert(from);
  if (!awaited().empty()) return;
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
    for (NodeId node : awaited()) output_.messages.emplace_back(node, Greeting{.has_voted = false, .asks = true});
    // With no other anchor there is nobody to ask.
    if (awaited().empty() && fresh_.empty()) {
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
    if (IsReady()) keeper_.Request(*request);  // Who asks does so again, of whom it then takes for the leader.
  } else if (const auto* of_log = std::get_if<RaftMessage>(&message)) {
    // From anchors alone: the log's word counts for everybody.
    if (!IsAnchor(from.node)) {
      ++bad_messages_;
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

// --- Pulses -----------------------------------------------------------------------------------------------------------

void Anchor::OnPulse(NodeInstance from, const Pulse& pulse, TimeNs now) {
  keeper_.OnPulse(from, pulse, database_.view(), now);
  monitors_.erase(from.node);
  // Who is in the view is answered when its lease can be given.
  const bool waits = IsReady() && database_.view().Has(from) && pulse.epoch == database_.view().epoch;
  if (!waits) SendAnswer(from);
}

// Of a group, by its monitor, which brings it up to the view as well.
void Anchor::OnPulses(NodeInstance from, const PulseBatch& batch, TimeNs now) {
  AnswerBatch answers{.epoch = database_.view().epoch, .leader = leader(), .answers = {}};
  for (const RelayedPulse& relayed : batch.pulses) {
    if (GroupOf(relayed.from.node) != GroupOf(from.node)) continue;
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
    reconcile_at_ = now;
  }
  if (IsReady()) GiveLeases(now);
  const bool is_through = proposed_.value != 0 && proposed_ <= applied_;
  if (now >= reconcile_at_ || is_through) Reconcile(now);
}

// --- A leader's wishes --------------------------------------------------------------------------------------------------

void Anchor::Reconcile(TimeNs now) {
  reconcile_at_ = now + kReconcile;
  if (!IsReady() || proposed_ > applied_) return;
  proposed_ = LogIndex();
  if (ReconcileNodes(now) || ReconcileVotes(now) || RemoveNodes(now)) return;
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kChangeView;
  command.view = keeper_.Decide(database_, now);
  // Above every view of an earlier log of this cluster, if its anchors' disks were lost: incarnations are never used again.
  if (database_.view().epoch.value == 0) {
    command.view.epoch = Epoch(std::max(options_.self.incarnation.value, kBlankDisk.value + 1));
  }
  if (!command.view.empty()) static_cast<void>(Propose(command, now));
}

bool Anchor::ReconcileNodes(TimeNs now) {
  size_t proposed = 0;
  for (const auto& [node, record] : options_.nodes) {
    if (proposed == kNodesAtOnce) break;
    DatabaseCommand command{.kind = DatabaseCommand::Kind::kSetNode, .node = node, .record = record, .view = {}};
    const NodeRecord* known = database_.Find(node);
    if (known != nullptr) {
      command.record.last = known->last;
      command.record.left = known->left;
      if (*known == command.record || known->is_removed) continue;
    }
    // One that the database would refuse must not keep all else from being done.
    if (database_.Check(command).ok() && Propose(command, now)) ++proposed;
  }
  return proposed > 0;
}

// The votes that count come to what the database says, one by one. A replaced disk loses its votes first, and has them again
// before anything else is changed: meanwhile a majority is harder to have.
bool Anchor::ReconcileVotes(TimeNs now) {
  const std::map<NodeId, NodeRecord>& nodes = database_.nodes();
  // Of those that are to have votes: others are not waited for.
  const auto is_replaced = [&](NodeId node) {
    return raft_->StandingOf(node) != Standing::kFull && nodes.at(node).votes > 0 && !HasLeft(node);
  };
  const bool any_is =
      std::any_of(nodes.begin(), nodes.end(), [&](const auto& node) { return is_replaced(node.first); });
  for (const auto& [node, record] : nodes) {
    if (any_is && !is_replaced(node)) continue;
    const auto found = raft_->log().votes().find(node);
    const bool is_member = found != raft_->log().votes().end();
    const uint32_t has = is_member ? found->second : 0;
    const bool must_lose = raft_->StandingOf(node) == Standing::kMustLoseVote;
    const uint32_t wanted = must_lose || HasLeft(node) ? 0 : record.votes;
    if (has == wanted && (is_member || wanted == 0)) continue;
    // Who is to vote is brought up to date without a vote first.
    const uint32_t next = !is_member ? 0 : has < wanted ? has + 1 : has - 1;
    const absl::StatusOr<LogIndex> index = raft_->ProposeVotes(node, next, now);
    if (!index.ok()) continue;  // It is tried again.
    proposed_ = *index;
    return true;
  }
  return false;
}

// For good: it keeps no pages any more, or never comes back.
bool Anchor::HasLeft(NodeId node) const {
  const View& view = database_.view();
  return view.lost.contains(node) ||
         (view.draining.contains(node) && !view.disks.contains(node) && !view.next_disks.contains(node));
}

bool Anchor::HasVotes(NodeId node) const {
  if (!raft_) return false;
  const auto votes = raft_->log().votes().find(node);
  const bool is_settled = raft_->commit() >= raft_->log().votes_at();
  return !is_settled || (votes != raft_->log().votes().end() && votes->second > 0);
}

bool Anchor::RemoveNodes(TimeNs now) {
  for (const auto& [node, record] : database_.nodes()) {
    const DatabaseCommand command{.kind = DatabaseCommand::Kind::kRemoveNode, .node = node, .record = {}, .view = {}};
    if (HasLeft(node) && !HasVotes(node) && database_.Check(command).ok() && Propose(command, now)) return true;
  }
  return false;
}

bool Anchor::Propose(const DatabaseCommand& command, TimeNs now) {
  const absl::StatusOr<LogIndex> index = raft_->Propose(EncodeCommand(command), now);
  if (index.ok()) proposed_ = *index;
  return index.ok();
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
