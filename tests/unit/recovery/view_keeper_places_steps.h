// Members that keep pages, for the tests of what a leader decides about that.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <vector>

#include "recovery/node_database.h"
#include "tests/unit/recovery/view_keeper_steps.h"

namespace mangrove {

using Nodes = std::set<NodeId>;

inline Nodes Ids(const std::vector<uint64_t>& nodes) {
  Nodes ids;
  for (uint64_t node : nodes) ids.insert(NodeId(node));
  return ids;
}

class ViewKeeperPlacesTest : public ViewKeeperTest {
 protected:
  // Members that all keep pages. The first is an anchor.
  void Begin(const std::vector<uint64_t>& nodes) {
    for (uint64_t node : nodes) AddMember(node, 1, node == nodes.front() ? 1 : 0);
    view_.disks = Ids(nodes);
  }
  // Pages move to `next` from this view on; the other members drain.
  void Move(const std::vector<uint64_t>& next) {
    ++view_.epoch.value;
    view_.next_disks = Ids(next);
    view_.moved.clear();
    view_.move = view_.epoch;
    view_.draining.clear();
    for (const auto& [node, incarnation] : view_.members) {
      if (!view_.next_disks.contains(node)) view_.draining.insert(node);
    }
  }
  // Who knows the view says that it has all that it is to keep after that move.
  void HearMoved(uint64_t node, Epoch move, bool caught_up = false) {
    now_ += kMillisecond;
    Pulse pulse{.sent_at = 0, .epoch = view_.epoch, .unreachable = {}};
    pulse.moved = move;
    pulse.caught_up = caught_up;
    Hear({NodeId(node), view_.members.at(NodeId(node))}, pulse);
  }
  void HearMoved(uint64_t node) { HearMoved(node, view_.move); }
  // All members, as they are now; they say nothing of their disks.
  void HearAll() {
    for (const auto& [node, incarnation] : view_.members) Hear(node.value, incarnation.value);
  }
  // What comes after `span`, in which all members are heard.
  ViewChange DecideAfter(DurationNs span) {
    now_ += span;
    HearAll();
    return Decide();
  }
  // Makes the next view of what is decided, which the database takes, if anything is.
  ViewChange Follow(const ViewChange& change) {
    if (change.empty()) return change;
    DatabaseCommand command;
    command.kind = DatabaseCommand::Kind::kChangeView;
    command.view = change;
    NodeDatabase database = Database();
    const absl::Status status = database.Apply(command);
    EXPECT_TRUE(status.ok()) << status;
    nodes_ = database.nodes();
    view_ = database.view();
    return change;
  }
  void Ask(NodeRequest::Kind kind, uint64_t node) { keeper_.Request({.kind = kind, .node = NodeId(node)}); }
};

}  // namespace mangrove
