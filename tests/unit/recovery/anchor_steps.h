// Anchors step by step, for the tests that say what happens.

#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "recovery/anchor.h"
#include "recovery/codec.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {

// Anchors whose disks and network take no time; nodes that do nothing but pulse.
class AnchorTest : public testing::Test {
 protected:
  // Of the configuration.
  void Configure(uint64_t node, uint32_t votes) {
    nodes_[NodeId(node)].name = "n" + std::to_string(node);
    nodes_[NodeId(node)].address = "n" + std::to_string(node) + ":1";
    nodes_[NodeId(node)].votes = votes;
  }
  void Start(uint64_t node) {
    AnchorRecords records;
    const std::map<std::string, std::string>& disk = disks_[NodeId(node)];
    absl::StatusOr<std::optional<RaftDurable>> durable = records.Load({disk.begin(), disk.end()});
    ASSERT_TRUE(durable.ok()) << durable.status();
    const Anchor::Options options = {
        .self = Instance(node), .nodes = nodes_, .timing = {}, .seed = node, .compact_after = compact_after_};
    anchors_[NodeId(node)] = std::make_unique<Anchor>(options, std::move(records), *std::move(durable), now_);
  }
  // Three anchors that have a leader.
  void BeginThree() {
    for (uint64_t node : {1, 2, 3}) Configure(node, 1);
    for (uint64_t node : {1, 2, 3}) Start(node);
    RunFor(2 * kSecond);
    ASSERT_NE(Leader(), 0u);
  }
  Anchor& At(uint64_t node) { return *anchors_.at(NodeId(node)); }
  uint64_t Leader() const {
    for (const auto& [id, anchor] : anchors_) {
      if (!silent_.contains(id) && anchor->leads()) return id.value;
    }
    return 0;
  }

  void Write(NodeId id, const AnchorOutput& output) {
    std::map<std::string, std::string>& disk = disks_[id];
    for (const AnchorRecords::Record& record : output.records) {
      record.value ? void(disk[record.key] = *record.value) : void(disk.erase(record.key));
    }
  }
  AnchorOutput Take(NodeId id) {
    Anchor& anchor = *anchors_.at(id);
    AnchorOutput output = anchor.TakeOutput(now_);
    Write(id, output);
    if (!output.messages.empty()) CheckDisk(anchor, disks_[id]);
    if (output.number != 0) anchor.Persisted(output.number, now_);
    return output;
  }
  // A1: the disk has all that the messages may tell of. A4: one change at a time.
  static void CheckDisk(const Anchor& anchor, const std::map<std::string, std::string>& disk) {
    if (!anchor.has_log()) return;
    AnchorRecords records;
    const auto durable = records.Load({disk.begin(), disk.end()});
    ASSERT_TRUE(durable.ok()) << durable.status();
    ASSERT_TRUE(durable->has_value());
    const RaftLog& log = anchor.raft()->log();
    EXPECT_EQ((*durable)->term, anchor.raft()->term());
    EXPECT_EQ((*durable)->standing, anchor.raft()->standing());
    // What is committed is written; what was wished for since the output was taken is not.
    const uint64_t written = (*durable)->snapshot.index.value + (*durable)->entries.size();
    EXPECT_GE(written, anchor.raft()->commit().value);
    EXPECT_LE(written, log.last().value);
    if (!anchor.leads()) return;
    int wishes = 0;
    for (LogIndex index(anchor.applied().value + 1); index <= log.last(); ++index.value) {
      const LogEntry& entry = log.At(index);
      const bool is_node = entry.kind == LogEntry::Kind::kCommand &&
                           DecodeCommand(entry.command).value().kind == DatabaseCommand::Kind::kSetNode;
      wishes += entry.term == anchor.raft()->term() && entry.kind != LogEntry::Kind::kNothing && !is_node ? 1 : 0;
    }
    EXPECT_LE(wishes, 1);
  }
  void Request(const NodeRequest& request) { At(Leader()).Receive(Instance(Leader()), request, now_); }
  // Until nothing is under way.
  void Deliver() {
    for (bool moved = true; moved;) {
      moved = false;
      std::vector<NodeId> ids;
      for (const auto& [id, anchor] : anchors_) ids.push_back(id);
      for (NodeId id : ids) {
        const AnchorOutput output = Take(id);
        moved = moved || !output.records.empty() || !output.messages.empty();
        for (const auto& [to, message] : output.messages) Send(id, to, message);
      }
    }
  }
  void Send(NodeId from, NodeId to, const RecoveryMessage& message) {
    if (silent_.contains(from) || silent_.contains(to) || cut_.contains({from, to})) return;
    if (std::holds_alternative<PulseAnswer>(message) || std::holds_alternative<ViewPart>(message) ||
        std::holds_alternative<ViewChange>(message) || std::holds_alternative<AnswerBatch>(message) ||
        std::holds_alternative<RosterPart>(message)) {
      told_[to].emplace_back(from, message);
    } else if (anchors_.contains(to)) {
      anchors_.at(to)->Receive(Instance(from.value), message, now_);
    }
  }
  void RunFor(DurationNs span) {
    for (const TimeNs until = now_ + span; now_ < until; now_ += kMillisecond) {
      if (now_ % (100 * kMillisecond) == 0) PulseAll();
      for (auto& [id, anchor] : anchors_) {
        if (now_ >= anchor->next_tick()) anchor->Tick(now_);
        const auto found = anchor->raft() == nullptr ? Votes() : anchor->raft()->log().votes();
        if (anchor->leads() && found.contains(NodeId(3))) votes_of_three_.insert(found.at(NodeId(3)));
      }
      Deliver();
    }
  }
  void RunUntil(const std::function<bool()>& condition) {
    for (const TimeNs limit = now_ + 10 * kSecond; !condition(); RunFor(kMillisecond)) ASSERT_LT(now_, limit);
  }
  // By everybody that pulses, to every anchor; they know the view.
  void PulseAll() {
    Epoch epoch;
    for (const auto& [id, anchor] : anchors_) epoch = std::max(epoch, anchor->database().view().epoch);
    for (NodeInstance node : pulsing_) {
      for (const auto& [id, anchor] : anchors_) PulseTo(id.value, node, epoch);
    }
  }
  void PulseTo(uint64_t anchor, NodeInstance from, Epoch epoch) {
    if (silent_.contains(NodeId(anchor))) return;
    At(anchor).Receive(from, Pulse{.sent_at = now_, .epoch = epoch, .unreachable = {}, .roster = UINT64_MAX}, now_);
  }
  // The last that a node was told; nothing: it was not.
  std::optional<PulseAnswer> LastAnswer(uint64_t node) const {
    const auto found = told_.find(NodeId(node));
    if (found == told_.end()) return std::nullopt;
    for (auto it = found->second.rbegin(); it != found->second.rend(); ++it) {
      if (const auto* answer = std::get_if<PulseAnswer>(&it->second)) return *answer;
    }
    return std::nullopt;
  }
  Votes VotesIn(uint64_t node) { return At(node).raft()->log().votes(); }
  // On a disk: what every later start finds.
  void PutLog(uint64_t node, const NodeDatabase& database) {
    RaftDurable durable;
    durable.term = Term(2);
    durable.snapshot = {.index = LogIndex(5), .term = Term(2), .votes = {{NodeId(node), 1}}, .state = {}};
    durable.snapshot.state = EncodeDatabase(database);
    AnchorRecords records;
    for (const AnchorRecords::Record& record : records.Begin(durable)) disks_[NodeId(node)][record.key] = *record.value;
  }

  static inline const Votes kThree = {{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}};
  TimeNs now_ = 1000 * kSecond;
  uint64_t compact_after_ = 256;
  std::map<NodeId, NodeRecord> nodes_;
  std::map<NodeId, std::map<std::string, std::string>> disks_;
  std::map<NodeId, std::unique_ptr<Anchor>> anchors_;
  std::set<NodeInstance> pulsing_;
  std::set<NodeId> silent_;                  // Cut off.
  std::set<std::pair<NodeId, NodeId>> cut_;  // From, to.
  std::map<NodeId, std::vector<std::pair<NodeId, RecoveryMessage>>> told_;
  std::set<uint32_t> votes_of_three_;  // That a leader's log has given node 3.
};

}  // namespace mangrove
