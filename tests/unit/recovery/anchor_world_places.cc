// Disks, moves and who leaves for good in an AnchorWorld: what nodes say and ask for, and W5 and W6.

#include <algorithm>

#include <iterator>

#include "absl/strings/str_cat.h"
#include "tests/unit/recovery/anchor_world.h"

namespace mangrove {
namespace {

constexpr int64_t kFewestNodes = 3;  // That are neither to leave nor lost, as far as that is asked for.

}  // namespace

// --- What happens -----------------------------------------------------------------------------------------------------

void AnchorWorld::SetDisk(Node& node) {
  node.part->SetDisk(
      {.blank = blank_disks_.contains(instance(node.id)), .caught_up = node.caught_up, .moved = node.moved});
  // Without faults of one size.
  constexpr uint32_t kRoomMib = 1000;
  constexpr uint64_t kSizes = 8;
  if (options_.faults) {
    node.part->SetDiskSize(
        {.mib = static_cast<uint32_t>(kRoomMib >> ((node.id.value * 5 + node.incarnation) % kSizes)), .used = 100});
  }
}

// As an earlier version says it.
RecoveryMessage AnchorWorld::WithoutWeights(RecoveryMessage message) {
  const auto forget = [](Pulse& pulse) {
    pulse.knows_weights = false;
    pulse.disk = {};
  };
  if (auto* pulse = std::get_if<Pulse>(&message)) forget(*pulse);
  if (auto* batch = std::get_if<PulseBatch>(&message)) {
    for (RelayedPulse& relayed : batch->pulses) forget(relayed.pulse);
  }
  return message;
}

// Whether it really has caught up, or moved, is all the same here; without faults it has at once.
void AnchorWorld::ChangeDisk(Node& node) {
  const View& view = node.part->member().view();
  const bool had_caught_up = node.caught_up;
  const Epoch had_moved = node.moved;
  if (!faults_) {
    node.caught_up = view.Has(instance(node.id));
    node.moved = view.move;
  } else {
    if (Chance(node.caught_up ? 1 : 5)) node.caught_up = !node.caught_up;
    // Of the next one too early; otherwise what it has said of an earlier one stays.
    if (Chance(5)) node.moved = Chance(800) ? std::max(node.moved, view.move) : Epoch(view.epoch.value + 1);
    if (Chance(1)) node.moved = Epoch();
  }
  if (node.caught_up != had_caught_up || node.moved != had_moved) SetDisk(node);
}

// Of whom the asking node takes for the leader.
void AnchorWorld::AskForSomething() {
  const NodeId asker = AnyNode();
  NodeRequest request{.kind = static_cast<NodeRequest::Kind>(1 + random_() % 3), .node = AnyNode()};
  const auto stay = std::count_if(nodes_.begin(), nodes_.end(), [&](const auto& node) {
    return !removed_.contains(node.first) && !newest_.draining.contains(node.first) &&
           !newest_.lost.contains(node.first);
  });
  if (Chance(400)) {
    request = AnyChange();
  } else if (request.kind != NodeRequest::Kind::kUndrain && stay <= kFewestNodes) {
    return;
  }
  const NodeId leader = IsUp(asker) ? member(asker).leader() : NodeId();
  if (leader.value == 0 || !IsUp(leader)) return;
  OnNode(leader, nodes_.at(leader).incarnation, Spread(0, kSecond),
         [this, from = instance(asker), request](Node& node) { Deliver(from, node.id, request); });
}

// It keeps no pages any more, has no votes, and is to leave: its operator stops it.
bool AnchorWorld::IsDone(NodeId node) const {
  const View& view = member(node).view();
  const Anchor* const anchor = nodes_.at(node).anchor();
  if (anchor != nullptr) {
    if (anchor->raft() == nullptr) return false;
    const RaftLog& log = anchor->raft()->log();
    const auto votes = log.votes().find(node);
    const bool has_votes = votes == log.votes().end() || votes->second > 0;
    if (has_votes || anchor->raft()->commit() < log.votes_at()) return false;
  }
  return view.draining.contains(node) && !view.disks.contains(node) && !view.next_disks.contains(node);
}

bool AnchorWorld::IsOut(const Node& node) {
  if (!node.part->member().is_removed()) return IsDone(node.id);
  if (!removed_.contains(node.id) && !newest_.lost.contains(node.id)) {
    Fail(absl::StrCat("W6: ", ToString(instance(node.id)), " is told that it is out of the cluster"));
  }
  return true;
}

void AnchorWorld::HearDisks() {
  for (const auto& [id, node] : nodes_) {
    if (node.part == nullptr || !newest_.Has(instance(id))) continue;
    const View& view = node.part->member().view();
    if (!view.Has(instance(id))) continue;
    if (node.caught_up) said_.insert(instance(id));
    if (node.moved.value != 0 && node.moved == view.move) said_moved_.insert({id, view.move});
  }
}

// --- Checks -----------------------------------------------------------------------------------------------------------

// `view` follows `before`; what was said is from before it.
void AnchorWorld::CheckPlaces(const View& before, const View& view) {
  const auto fail = [&](const auto&... what) { Fail(absl::StrCat("view ", view.epoch.value, ": ", what...)); };
  if (view.disks.empty()) fail("W5: nobody keeps pages");
  if (view.next_disks.empty() != (view.move.value == 0)) fail("W5: a move to nowhere");
  if (view.move != before.move && view.move.value != 0 && view.move != view.epoch) fail("W5: a move of another view");
  for (NodeId node : view.moved) {
    if (!view.next_disks.contains(node)) fail("W5: ", ToString(node), " has moved, and is to keep nothing");
    if (!said_moved_.contains({node, view.move})) fail("W5: ", ToString(node), " has not said that it has moved");
  }
  for (NodeId node : view.lost) {
    if (view.members.contains(node)) fail("W6: ", ToString(node), " is lost, and there");
    if (!before.lost.contains(node) && before.members.contains(node)) fail("W6: ", ToString(node), " was there");
  }
  for (NodeId node : before.lost) {
    if (!view.lost.contains(node) && !removed_.contains(node)) fail("W6: ", ToString(node), " is lost no more");
  }
  for (const auto& [node, incarnation] : view.members) {
    const bool has_weights = !view.weights.empty() || !view.next_weights.empty();
    if (has_weights && IsOld({node, incarnation})) fail("W5: ", ToString(node), " does not know weights");
  }
  if (before.epoch.value == 0 || (view.disks == before.disks && view.weights == before.weights)) return;
  ++moves_;
  if (view.weights != before.weights) ++weighed_;
  if (view.disks != before.next_disks) fail("W5: pages are where they were not to be");
  if (view.weights != before.next_weights) fail("W5: pages are as they were not to be weighed");
  for (NodeId node : view.disks) {
    const auto was = before.members.find(node);
    const bool stays = was != before.members.end() && view.Has({node, was->second});
    if (!stays || view.behind.contains(node)) fail("W5: ", ToString(node), " is not current");
    if (!said_moved_.contains({node, before.move})) fail("W5: ", ToString(node), " does not have what it is to keep");
  }
}

// Of the newest database; `newest_` is the view before, or the same.
void AnchorWorld::CheckRemoved(const NodeDatabase& database) {
  const View& view = database.view();
  for (NodeId node : removed_) {
    if (database.Has(node)) Fail(absl::StrCat("W6: ", ToString(node), " is back"));
  }
  for (const auto& [id, record] : database.nodes()) {
    if (!record.is_removed) continue;
    const bool is_news = removed_.insert(id).second;
    const bool had_pages = newest_.disks.contains(id) || newest_.next_disks.contains(id);
    if (is_news && (had_pages || newest_.members.contains(id))) {
      Fail(absl::StrCat("W6: ", ToString(id), " is removed, and was in use"));
    }
    if (view.members.contains(id) || view.disks.contains(id) || view.next_disks.contains(id)) {
      Fail(absl::StrCat("W6: ", ToString(id), " is removed, and in use"));
    }
  }
}

bool AnchorWorld::IsSettled() const {
  const std::set<NodeId>& disks = newest_.disks;
  const bool is_still = newest_.move.value == 0 && newest_.draining.empty() && newest_.lost.empty();
  return is_still && disks.size() == newest_.members.size() &&
         std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& node) {
           const auto& [id, state] = node;
           if (removed_.contains(id)) return !disks.contains(id);
           return HasLease(id) && state.part->member().view() == newest_ && disks.contains(id) &&
                  !newest_.behind.contains(id) && state.part->member().roster().version == database_.roster_version();
         });
}

}  // namespace mangrove
