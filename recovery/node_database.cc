#include "recovery/node_database.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "recovery/raft.h"

namespace mangrove {

const NodeRecord* NodeDatabase::Find(NodeId node) const {
  const auto found = nodes_.find(node);
  return found == nodes_.end() ? nullptr : &found->second;
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
      if (!nodes_.contains(command.node) && nodes_.size() >= kMostNodes) {
        return absl::FailedPreconditionError(
            absl::StrCat("the cluster has ", kMostNodes, " nodes, and can have no more"));
      }
      return absl::OkStatus();
    }
    case DatabaseCommand::Kind::kRemoveNode:
      if (!nodes_.contains(command.node)) {
        return absl::FailedPreconditionError(absl::StrCat(ToString(command.node), " is not in the cluster"));
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
  if (!view_.IsNext(change.epoch)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a change to view ", change.epoch.value, ", behind view ", view_.epoch.value));
  }
  return CheckNodes(change);
}

// Against those that are there.
absl::Status NodeDatabase::CheckNodes(const ViewChange& change) const {
  std::set<NodeId> named;
  for (const NodeInstance& joins : change.joins) {
    const NodeRecord* record = Find(joins.node);
    const bool is_there = view_.Has(joins);
    if (record == nullptr || joins.incarnation < record->last || is_there || !named.insert(joins.node).second) {
      return absl::FailedPreconditionError(
          absl::StrCat(ToString(joins), " cannot join: ",
                       record == nullptr ? "the node is not in the cluster"
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
      const Incarnation last = record.last;
      const Epoch left = record.left;
      record = command.record;
      record.last = last;
      record.left = left;
      break;
    }
    case DatabaseCommand::Kind::kRemoveNode:
      nodes_.erase(command.node);
      if (view_.behind.erase(command.node) > 0) ++view_.epoch.value;
      break;
    case DatabaseCommand::Kind::kChangeView:
      view_.Apply(command.view);
      for (const NodeInstance& joins : command.view.joins) nodes_.at(joins.node).last = joins.incarnation;
      for (NodeId leaves : command.view.leaves) nodes_.at(leaves).left = view_.epoch;
      break;
  }
  return absl::OkStatus();
}

}  // namespace mangrove
