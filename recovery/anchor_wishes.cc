// What an anchor that leads brings about, one change at a time: the nodes, their votes, the views.

#include <algorithm>
#include <optional>
#include <utility>

#include "recovery/anchor.h"
#include "recovery/codec.h"

namespace mangrove {
namespace {

constexpr DurationNs kReconcile = 50 * kMillisecond;
constexpr size_t kNodesAtOnce = 64;  // Entered into the database.
constexpr size_t kMostChanges = 64;  // Of nodes, that wait.
constexpr int kFoundingShift = 20;
// As many as node numbers of 60 bits have.
constexpr uint64_t kMostGroups = uint64_t{1} << 54;

}  // namespace

// --- A leader's wishes --------------------------------------------------------------------------------------------------

void Anchor::Reconcile(TimeNs now) {
  reconcile_at_ = now + kReconcile;
  if (!IsReady() || proposed_ > applied_) return;
  proposed_ = LogIndex();
  if (FoundNodes(now) || ChangeNodes(now) || ReconcileVotes(now) || RemoveNodes(now)) return;
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kChangeView;
  command.view = keeper_.Decide(database_, raft_->log().votes(), now);
  // Above every view of an earlier log of this cluster, if its anchors' disks were lost: incarnations are never used again.
  if (database_.view().epoch.value == 0) {
    command.view.epoch = Epoch(std::max(options_.self.incarnation.value, kBlankDisk.value + 1));
  }
  if (!command.view.empty()) static_cast<void>(Propose(command, now));
}

// What the cluster is made with.
bool Anchor::FoundNodes(TimeNs now) {
  if (database_.view().epoch.value != 0) return false;
  size_t proposed = 0;
  for (const auto& [node, record] : options_.nodes) {
    if (proposed == kNodesAtOnce) break;
    DatabaseCommand command{.kind = DatabaseCommand::Kind::kSetNode, .node = node, .record = record, .view = {}};
    const NodeRecord* const known = database_.Find(node);
    const bool is_known = known != nullptr && known->name == record.name && known->address == record.address &&
                          known->votes == record.votes;
    if (is_known || (known != nullptr && known->is_removed)) continue;
    // As with the epochs of views: above every number of an earlier log.
    command.record.changed = options_.self.incarnation.value << kFoundingShift;
    // One that the database would refuse must not keep all else from being done.
    if (database_.Check(command).ok() && Propose(command, now)) ++proposed;
  }
  return proposed > 0;
}

// --- Nodes that come, and change ----------------------------------------------------------------------------------------

// Whoever asks does so again until it sees that it is done: one that does not fit is dropped here.
void Anchor::OnRequest(const NodeRequest& request) {
  const bool is_of_node = request.kind == NodeRequest::Kind::kAdd || request.kind == NodeRequest::Kind::kSet;
  if (!is_of_node) return keeper_.Request(request);
  if (changes_.size() < kMostChanges) changes_.push_back(request);
}

bool Anchor::ChangeNodes(TimeNs now) {
  if (database_.view().epoch.value == 0) return false;
  // One at a time: the next is looked at beside what this one makes.
  while (!changes_.empty()) {
    const std::optional<DatabaseCommand> command = CommandFor(changes_.front());
    changes_.pop_front();
    if (command && database_.Check(*command).ok() && Propose(*command, now)) return true;
  }
  return false;
}

std::optional<DatabaseCommand> Anchor::CommandFor(const NodeRequest& request) const {
  const NodeRecord& wanted = request.record;
  DatabaseCommand command{.kind = DatabaseCommand::Kind::kSetNode, .node = request.node, .record = wanted, .view = {}};
  const bool is_new = request.kind == NodeRequest::Kind::kAdd;
  uint32_t other_votes = 0;
  for (const auto& [node, record] : database_.nodes()) {
    if (record.is_removed || node == request.node) continue;
    if (record.address == wanted.address || record.name == wanted.name) return std::nullopt;
    // Those that count: one that is to have votes and was never here has none.
    const auto votes = raft_->log().votes().find(node);
    const bool has_votes = record.votes > 0 && votes != raft_->log().votes().end() && votes->second > 0;
    if (has_votes && !HasLeft(node) && !database_.view().draining.contains(node)) other_votes += votes->second;
  }
  if (is_new) {
    command.node = FreeNode(request.group);
    return command.node.value == 0 ? std::nullopt : std::optional(command);
  }
  const NodeRecord* const known = database_.Find(request.node);
  if (known == nullptr || known->is_removed || known->name != wanted.name) return std::nullopt;
  if (known->address == wanted.address && known->votes == wanted.votes) return std::nullopt;
  if (known->changed != wanted.changed) return std::nullopt;  // Who asks did not know it as it is.
  command.record.changed = 0;
  if (wanted.votes == 0 && known->votes > 0 && other_votes == 0) return std::nullopt;  // The last anchor.
  return command;
}

// Numbers are not used again, so a group is full when each of its places has had a node.
NodeId Anchor::FreeNode(uint64_t group) const {
  const auto& nodes = database_.nodes();
  const auto free_in = [&](uint64_t of) {
    for (uint64_t place = 0; place < kGroupNodes; ++place) {
      const NodeId node((of << kGroupBits) + place);
      if (node.value != 0 && !nodes.contains(node)) return node;
    }
    return NodeId();
  };
  if (group != NodeRequest::kAnyGroup) return group < kMostGroups ? free_in(group) : NodeId();
  for (uint64_t of = 0; of <= NodeDatabase::kMostNodes; ++of) {
    if (const NodeId node = free_in(of); node.value != 0) return node;
  }
  return NodeId();
}

// --- Votes, and who goes --------------------------------------------------------------------------------------------------

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

}  // namespace mangrove
