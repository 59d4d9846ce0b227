// Anchors step by step, for the tests that say what happens.

#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "recovery/raft.h"

namespace mangrove {

// Anchors whose disks and network take no time.
class RaftTest : public testing::Test {
 protected:
  void Begin(int anchors) {
    Votes votes;
    for (int i = 1; i <= anchors; ++i) votes[NodeId(static_cast<uint64_t>(i))] = 1;
    for (const auto& [id, count] : votes) {
      RaftDurable durable;
      durable.snapshot.votes = votes;
      Add(id.value, durable);
    }
  }
  void Add(uint64_t id, RaftDurable durable) {
    nodes_[NodeId(id)] = std::make_unique<Raft>(RaftOptions{.self = NodeId(id), .message_bytes = 40, .seed = id},
                                                std::move(durable), now_);
  }
  Raft& At(uint64_t id) { return *nodes_.at(NodeId(id)); }

  // Until nothing is under way.
  void Deliver() {
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& [id, node] : nodes_) {
        const RaftOutput output = node->TakeOutput();
        for (const auto& [index, entry] : output.committed) {
          if (entry.kind == LogEntry::Kind::kCommand) applied_[id].push_back(entry.command);
        }
        if (output.is_news) loaded_[id] = output.snapshot->state;
        if (output.writes) node->Persisted(output.number, now_);
        for (const auto& [to, message] : output.messages) {
          moved = true;
          if (silent_.contains(id) || silent_.contains(to) || !nodes_.contains(to)) continue;
          nodes_.at(to)->Receive(id, message, now_);
        }
        moved = moved || output.writes;
      }
    }
  }
  void RunFor(DurationNs span) {
    for (const TimeNs until = now_ + span; now_ < until; now_ += kMillisecond) {
      for (auto& [id, node] : nodes_) {
        if (now_ >= node->next_tick()) node->Tick(now_);
      }
      Deliver();
    }
  }
  uint64_t Leader() {
    for (auto& [id, node] : nodes_) {
      if (!silent_.contains(id) && node->role() == Raft::Role::kLeader) return id.value;
    }
    return 0;
  }

  TimeNs now_ = 10 * kSecond;
  std::map<NodeId, std::unique_ptr<Raft>> nodes_;
  std::set<NodeId> silent_;  // Cut off.
  std::map<NodeId, std::vector<std::string>> applied_;
  std::map<NodeId, std::string> loaded_;
};

inline RaftMessage VoteRequest(Term term, const RaftLog& log, bool pre_vote = false) {
  RaftMessage request;
  request.kind = RaftMessage::Kind::kVoteRequest;
  request.term = term;
  request.index = log.last();
  request.index_term = log.last_term();
  request.pre_vote = pre_vote;
  return request;
}

}  // namespace mangrove
