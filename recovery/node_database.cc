#include "recovery/node_database.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "recovery/raft.h"

namespace mangrove {

NodeDatabase::NodeDatabase(std::map<NodeId, NodeRecord> nodes, View view)
    : nodes_(std::move(nodes)), view_(std::move(view)) {
  for (const auto& [node, record] : nodes_) roster_version_ = std::max(roster_version_, record.changed);
}

const NodeRecord* NodeDatabase::Find(NodeId node) const {
  const auto found = nodes_.find(node);
  return found == nodes_.end() ? nullptr : &found->second;
}

bool NodeDatabase::Has(NodeId node) const {
  const NodeRecord* const record = Find(node);
  return record != nullptr && !record->is_removed;
}

absl::Status NodeDatabase::Check(const DatabaseCommand& command) const {
  switch (command.kind) {
    case DatabaseCommand::Kind::kSetNode: {
      const NodeRecord& record = command.record;
      if (command.node.value == 0 || record.name.empty() || record.name.size() > kMostTextBytes ||
          record.address.size() > kMostTextBytes || record.votes > Raft::kMaxVotes) {
        return absl::InvalidArgumentError(absl::StrCat(
            ToString(command.node), ": a record with a name of ", record.name.size(), " bytes, an address of ",
            record.address.size(), " and ", record.votes, " votes; expected 1 to ", kMostTextBytes, " bytes, at most ",
            kMostTextBytes, " and at most ", Raft::kMaxVotes));
      }
      if (nodes_.contains(command.node) && !Has(command.node)) {
        return absl::FailedPreconditionError(
            absl::StrCat(ToString(command.node), " was removed, and does not come back"));
      }
      if (!nodes_.contains(command.node) && nodes_.size() >= kMostNodes) {
        return absl::FailedPreconditionError(
            absl::StrCat("the cluster has ", kMostNodes, " nodes, and can have no more"));
      }
      return absl::OkStatus();
    }
    case DatabaseCommand::Kind::kRemoveNode:
      if (!Has(command.node)) {
        return absl::FailedPreconditionError(absl::StrCat(ToString(command.node), " is not in the cluster"));
      }
      if (view_.disks.contains(command.node) || view_.next_disks.contains(command.node)) {
        return absl::FailedPreconditionError(absl::StrCat(ToString(command.node), " keeps pages, or is to"));
      }
      if (view_.members.contains(command.node)) {
        return absl::FailedPreconditionError(absl::StrCat(ToString(command.node), " is in the view"));
      }
      return absl::OkStatus();
    case DatabaseCommand::Kind::kChangeView: return CheckViewChange(command.view);
  }
  return absl::InvalidArgumentError(absl::StrCat("a command of kind ", static_cast<int>(command.kind)));
}

absl::Status NodeDatabase::CheckViewChange(const ViewChange& change) const {
  if (change.empty() || change.size() > ViewChange::kMostNodes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a change of ", change.size(), " nodes, expected 1 to ", ViewChange::kMostNodes));
  }
  std::set<NodeId> joining;
  for (const NodeInstance& joins : change.joins) {
    joining.insert(joins.node);
    if (joins.node.value == 0 || joins.incarnation.value == 0) {
      return absl::InvalidArgumentError(absl::StrCat(ToString(joins), " cannot join: there is none"));
    }
  }
  for (NodeId blank : change.blank) {
    if (joining.erase(blank) > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(ToString(blank), " cannot have a blank disk: it does not join, or is named twice"));
  }
  for (const DiskWeight& disk : change.weigh) {
    if (disk.weight >= 1 && disk.weight <= kFullDiskWeight) continue;
    return absl::InvalidArgumentError(absl::StrCat(ToString(disk.node), " cannot have the weight ", int{disk.weight},
                                                   ", expected 1 to ", int{kFullDiskWeight}));
  }
  if (!view_.IsNext(change.epoch)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a change to view ", change.epoch.value, ", behind view ", view_.epoch.value));
  }
  if (absl::Status status = CheckNodes(change); !status.ok()) return status;
  return CheckPlaces(change);
}

// D4
absl::Status NodeDatabase::CheckPlaces(const ViewChange& change) const {
  for (const auto* nodes : {&change.place, &change.drain, &change.lost}) {
    for (NodeId node : *nodes) {
      if (!Has(node)) return absl::FailedPreconditionError(absl::StrCat(ToString(node), " is not in the cluster"));
    }
  }
  const auto joins = [&change](NodeId node) {
    return std::any_of(change.joins.begin(), change.joins.end(),
                       [node](const NodeInstance& other) { return other.node == node; });
  };
  for (NodeId node : change.lost) {
    if (view_.members.contains(node) || joins(node)) {
      return absl::FailedPreconditionError(absl::StrCat(ToString(node), " is not lost: it is in the view, or joins"));
    }
  }
  for (NodeId node : change.moved) {
    if (!view_.next_disks.contains(node) || !view_.members.contains(node)) {
      return absl::FailedPreconditionError(absl::StrCat(ToString(node), " has no pages to move"));
    }
  }
  std::set<NodeId> wanted = change.placed ? view_.next_disks : view_.wanted_disks();
  wanted.insert(change.place.begin(), change.place.end());
  for (NodeId node : change.unplace) wanted.erase(node);
  if (!change.unplace.empty() && wanted.empty()) return absl::FailedPreconditionError("nobody is to keep pages");
  for (const DiskWeight& disk : change.weigh) {
    if (wanted.contains(disk.node)) continue;
    return absl::FailedPreconditionError(absl::StrCat(ToString(disk.node), " is to keep no pages, and has no weight"));
  }
  if (!change.placed) return absl::OkStatus();
  if (view_.next_disks.empty()) return absl::FailedPreconditionError("no pages move");
  const auto is_named = [](const std::vector<NodeId>& nodes, NodeId node) {
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  };
  for (NodeId node : view_.next_disks) {
    const bool has_moved = view_.moved.contains(node) || is_named(change.moved, node);
    const bool is_current = !view_.behind.contains(node) || is_named(change.caught_up, node);
    const bool stays = view_.members.contains(node) && !is_named(change.leaves, node) && !joins(node);
    if (has_moved && is_current && stays) continue;
    return absl::FailedPreconditionError(absl::StrCat(ToString(node), " does not have all of its pages yet"));
  }
  return absl::OkStatus();
}

// Against those that are there.
absl::Status NodeDatabase::CheckNodes(const ViewChange& change) const {
  std::set<NodeId> named;
  for (const NodeInstance& joins : change.joins) {
    const NodeRecord* record = Find(joins.node);
    const bool is_there = view_.Has(joins);
    if (!Has(joins.node) || view_.lost.contains(joins.node) || joins.incarnation <= record->last ||
        !named.insert(joins.node).second) {
      return absl::FailedPreconditionError(absl::StrCat(
          ToString(joins), " cannot join: ",
          !Has(joins.node)                  ? "the node is not in the cluster"
          : view_.lost.contains(joins.node) ? "the node was given up"
                                            : absl::StrCat("incarnation ", record->last.value,
                                                           is_there ? " is in the view" : " has been in a view")));
    }
  }
  for (NodeId leaves : change.leaves) {
    if (!view_.members.contains(leaves) || !named.insert(leaves).second) {
      return absl::FailedPreconditionError(absl::StrCat(ToString(leaves), " cannot leave: it is not in the view"));
    }
  }
  for (NodeId node : change.caught_up) {
    const bool is_behind = view_.behind.contains(node);
    if (!is_behind || !view_.members.contains(node) || !named.insert(node).second) {
      return absl::FailedPreconditionError(absl::StrCat(
          ToString(node),
          " cannot have caught up: ", is_behind ? "it does not stay in the view as it is" : "its disk is not behind"));
    }
  }
  return absl::OkStatus();
}

absl::Status NodeDatabase::Apply(const DatabaseCommand& command) {
  if (absl::Status status = Check(command); !status.ok()) return status;
  switch (command.kind) {
    case DatabaseCommand::Kind::kSetNode: {
      NodeRecord& record = nodes_[command.node];
      const NodeRecord before = record;
      record = command.record;
      record.last = before.last;
      record.is_removed = false;
      record.left = before.left;
      if (before.identity != NodeIdentity{}) record.identity = before.identity;
      record.changed = roster_version_ = std::max(roster_version_ + 1, command.record.changed);
      break;
    }
    case DatabaseCommand::Kind::kRemoveNode: {
      NodeRecord& record = nodes_.at(command.node);
      record.is_removed = true;
      record.votes = 0;
      record.changed = ++roster_version_;
      const size_t named =
          view_.behind.erase(command.node) + view_.lost.erase(command.node) + view_.draining.erase(command.node);
      if (named > 0) ++view_.epoch.value;
      break;
    }
    case DatabaseCommand::Kind::kChangeView:
      view_.Apply(command.view);
      for (const NodeInstance& joins : command.view.joins) nodes_.at(joins.node).last = joins.incarnation;
      for (NodeId leaves : command.view.leaves) nodes_.at(leaves).left = view_.epoch;
      break;
  }
  return absl::OkStatus();
}

}  // namespace mangrove
