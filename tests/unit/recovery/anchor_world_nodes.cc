// Who the nodes of an AnchorWorld are: what their disks and configurations say of that, nodes that come, votes that change, and W7.

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "tests/unit/recovery/anchor_world.h"

namespace mangrove {
namespace {

constexpr size_t kMostNodes = 10;
constexpr uint32_t kMostVotes = 2;

}  // namespace

NodeId AnchorWorld::AnyNode() {
  return std::next(nodes_.begin(), static_cast<std::ptrdiff_t>(random_() % nodes_.size()))->first;
}

// As its operator writes it when the node is made, or its disk replaced: the anchors that there are then, and the node itself.
Roster AnchorWorld::Configuration(NodeId node) const {
  Roster roster{.version = 0, .nodes = records_};
  if (database_.roster_version() == 0) return roster;
  roster.nodes.clear();
  for (const auto& [id, record] : database_.nodes()) {
    if (record.is_removed || (record.votes == 0 && id != node)) continue;
    roster.nodes[id] = {.name = record.name, .address = record.address, .votes = record.votes, .last = {}};
  }
  return roster;
}

std::optional<Anchor::Options> AnchorWorld::AnchorOptions(const Node& node) {
  Anchor::Options anchor{.self = instance(node.id), .nodes = {}, .timing = timing_, .seed = random_()};
  for (const auto& [id, record] : node.part == nullptr ? node.roster.nodes : node.part->member().roster().nodes) {
    if (!record.is_removed) anchor.nodes[id] = record;
  }
  anchor.compact_after = 10;
  anchor.raft_bugs = options_.raft_bugs;
  anchor.view_bugs = options_.view_bugs;
  return anchor;
}

void AnchorWorld::KeepRoster(Node& node) {
  const Roster& known = node.part->member().roster();
  if (known.version != node.roster.version) {
    node.older_roster = node.roster;
    node.roster = known;
  }
  if (node.anchor() == nullptr && node.is_anchor()) MakeAnchor(node);
}

void AnchorWorld::MakeAnchor(Node& node) {
  old_.erase(instance(node.id));
  AnchorRecords records;
  absl::StatusOr<std::optional<RaftDurable>> loaded = records.Load({node.disk.begin(), node.disk.end()});
  if (!loaded.ok()) return Fail(absl::StrCat("the log cannot be read: ", loaded.status().ToString()));
  node.part->BecomeAnchor(*AnchorOptions(node), std::move(records), *std::move(loaded), Now(node));
}

NodeRequest AnchorWorld::AnyChange() {
  if (nodes_.size() < kMostNodes && Chance(300)) {
    const std::string name = absl::StrCat("x", nodes_.size());
    NodeRequest request{.kind = NodeRequest::Kind::kAdd, .record = {.name = name, .address = name + "a", .votes = 0}};
    if (Chance(300)) request.record.votes = 1;
    if (Chance(500)) request.group = random_() % 3;
    return request;
  }
  NodeRequest request{.kind = NodeRequest::Kind::kSet, .node = AnyNode(), .record = {.name = "nobody"}};
  if (const NodeRecord* const record = database_.Find(request.node)) request.record = *record;
  request.record.votes = static_cast<uint32_t>(random_() % (kMostVotes + 1));
  if (Chance(100)) request.record.address = absl::StrCat("b", random_() % 5);
  return request;
}

// Whoever is new comes some time, or never.
void AnchorWorld::MeetNodes(const NodeDatabase& database) {
  for (const auto& [id, record] : database.nodes()) {
    if (record.is_removed || nodes_.contains(id)) continue;
    ++added_;
    Node& node = nodes_[id];
    node.id = id;
    node.drift_ppm = Spread(-1000, 1000);
    node.clock_offset = Spread(0, kSecond * 1000);
    node.roster = node.older_roster = Configuration(id);
    At(Spread(0, 10 * kSecond), [this, id = id] { Start(id); });
  }
}

void AnchorWorld::CountVotes(const NodeDatabase& next) {
  for (const auto& [id, record] : next.nodes()) {
    const NodeRecord* const before = database_.Find(id);
    if (before != nullptr && !record.is_removed && before->votes != record.votes) ++vote_changes_;
  }
}

void AnchorWorld::CheckRosters() {
  for (const auto& [id, node] : nodes_) {
    if (node.part == nullptr) continue;
    for (const auto& [other, known] : node.part->member().roster().nodes) {
      const NodeRecord* const record = database_.Find(other);
      if (known.changed == 0 || record == nullptr || known.changed != record->changed) continue;
      const bool is_same = known.name == record->name && known.address == record->address &&
                           known.votes == record->votes && known.is_removed == record->is_removed;
      if (!is_same) Fail(absl::StrCat("W7: ", ToString(id), " knows another ", ToString(other)));
    }
  }
}

}  // namespace mangrove
