// A leader's decisions step by step, for the tests that say what happens.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "recovery/view_keeper.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {

// A leader since long ago. No member's clock is its own.
class ViewKeeperTest : public testing::Test {
 protected:
  void SetUp() override { keeper_.Elected(now_ - 100 * kSecond); }

  // In the database.
  void Add(uint64_t node, uint32_t votes = 0) {
    nodes_[NodeId(node)].name = "n" + std::to_string(node);
    nodes_[NodeId(node)].votes = votes;
  }
  // And in the view.
  void AddMember(uint64_t node, uint64_t incarnation = 1, uint32_t votes = 0) {
    Add(node, votes);
    nodes_[NodeId(node)].last = Incarnation(incarnation);
    view_.members[NodeId(node)] = Incarnation(incarnation);
  }
  void Leave(uint64_t node) {
    ++view_.epoch.value;
    view_.members.erase(NodeId(node));
    nodes_[NodeId(node)].left = view_.epoch;
    view_.behind.try_emplace(NodeId(node), view_.epoch);
  }
  NodeDatabase Database() const { return {nodes_, view_}; }
  // Those of the database, but for who was never brought up to date.
  Votes VotesInLog() const {
    Votes votes;
    for (const auto& [node, record] : nodes_) votes[node] = never_here_.contains(node) ? 0 : record.votes;
    return votes;
  }

  static TimeNs ClockOf(uint64_t node, TimeNs time) { return time + static_cast<TimeNs>(node) * 1000 * kSecond; }
  void Hear(NodeInstance from, Pulse pulse) {
    if (pulse.sent_at == 0) pulse.sent_at = ClockOf(from.node.value, now_);
    keeper_.OnPulse(from, pulse, view_, now_);
  }
  // Who knows the view and reaches all but some.
  void Hear(uint64_t node, uint64_t incarnation = 1, const std::vector<uint64_t>& unreachable = {}) {
    Pulse pulse = {.sent_at = 0, .epoch = view_.epoch, .unreachable = {}};
    for (uint64_t other : unreachable) pulse.unreachable.push_back(NodeId(other));
    Hear(Instance(node, incarnation), pulse);
  }
  TimeNs LeaseOf(uint64_t node, uint64_t incarnation = 1) {
    return keeper_.AnswerTo(Instance(node, incarnation), Database()).lease_from;
  }
  // From a pulse that comes now.
  void GiveLease(uint64_t node) {
    Hear(node);
    keeper_.Confirm(now_);
    ASSERT_EQ(LeaseOf(node), ClockOf(node, now_));
  }
  ViewChange Decide() {
    ViewChange change = keeper_.Decide(Database(), VotesInLog(), now_);
    EXPECT_EQ(change.epoch.value, view_.epoch.value + 1);
    return change;
  }
  std::vector<NodeId> Leaves() {
    const ViewChange change = Decide();
    EXPECT_THAT(change.joins, testing::IsEmpty());
    return change.leaves;
  }
  std::vector<NodeInstance> Joins() {
    const ViewChange change = Decide();
    EXPECT_THAT(change.leaves, testing::IsEmpty());
    return change.joins;
  }
  // Those that leave in the end, while all are heard as they are now.
  std::vector<NodeId> Misfits(const std::map<uint64_t, std::vector<uint64_t>>& unreachable) {
    now_ += timing_.pulse;
    for (const auto& [node, incarnation] : view_.members) {
      const auto found = unreachable.find(node.value);
      Hear(node.value, incarnation.value, found == unreachable.end() ? std::vector<uint64_t>() : found->second);
    }
    return Leaves();
  }

  const RecoveryTiming timing_ = {.reweigh_after = 600 * kSecond};
  TimeNs now_ = 500 * kSecond;
  std::map<NodeId, NodeRecord> nodes_;
  std::set<NodeId> never_here_;
  View view_ = {.epoch = Epoch(7), .members = {}};
  ViewKeeper keeper_{timing_, {}};
};

}  // namespace mangrove
