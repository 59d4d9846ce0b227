// What an anchor must not take in, whoever sends it; and an election that nobody wins.

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/unit/recovery/raft_steps.h"

namespace mangrove {
namespace {

class RaftHostile : public RaftTest {
 protected:
  // An anchor of three whose log is a snapshot of ten entries of term 5, with nothing behind it.
  Raft WithSnapshot(RaftOptions options = {}) {
    RaftDurable durable;
    durable.term = Term(5);
    durable.snapshot = {LogIndex(10), Term(5), {{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}}, "state"};
    options.self = NodeId(1);
    return Raft(options, durable, now_);
  }
  static RaftMessage Append(uint64_t index, uint64_t index_term, std::vector<LogEntry> entries) {
    RaftMessage append;
    append.kind = RaftMessage::Kind::kAppend;
    append.term = Term(5);
    append.index = LogIndex(index);
    append.index_term = Term(index_term);
    append.entries = std::move(entries);
    return append;
  }
};

TEST_F(RaftHostile, EntriesThatContradictTheSnapshotAreNotTaken) {
  Raft raft = WithSnapshot();
  const LogEntry old{.term = Term(1)};
  raft.Receive(NodeId(2), Append(8, 1, {old, old, old}), now_);
  EXPECT_EQ(raft.bad_messages(), 1u);
  EXPECT_EQ(raft.log().last(), LogIndex(10));
  raft.Receive(NodeId(2), Append(10, 4, {{.term = Term(4)}}), now_);
  EXPECT_EQ(raft.bad_messages(), 2u);
  // What agrees with it is.
  raft.Receive(NodeId(2), Append(8, 1, {{.term = Term(4)}, {.term = Term(5)}, {.term = Term(5)}}), now_);
  EXPECT_EQ(raft.bad_messages(), 2u);
  EXPECT_EQ(raft.log().last(), LogIndex(11));
}

TEST_F(RaftHostile, ATermThatNoClusterComesToIsNotTaken) {
  Raft raft = WithSnapshot();
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kAppended;
  answer.term = Term(uint64_t{1} << 61);
  raft.Receive(NodeId(2), answer, now_);
  EXPECT_EQ(raft.term(), Term(5));
  EXPECT_EQ(raft.bad_messages(), 1u);
}

TEST_F(RaftHostile, WhatCannotBeAppliedDoesNotComeIntoTheLog) {
  RaftOptions options;
  options.is_command = [](std::string_view bytes) { return bytes == "good"; };
  options.is_state = [](std::string_view bytes) { return bytes == "good"; };
  Raft raft = WithSnapshot(options);
  const auto command = [](const char* text) {
    return LogEntry{.term = Term(5), .kind = LogEntry::Kind::kCommand, .command = text};
  };
  raft.Receive(NodeId(2), Append(10, 5, {command("good"), command("nonsense")}), now_);
  EXPECT_EQ(raft.log().last(), LogIndex(10));
  EXPECT_EQ(raft.bad_messages(), 1u);
  raft.Receive(NodeId(2), Append(10, 5, {command("good")}), now_);
  EXPECT_EQ(raft.log().last(), LogIndex(11));
  RaftMessage snapshot;
  snapshot.kind = RaftMessage::Kind::kSnapshot;
  snapshot.term = snapshot.index_term = Term(5);
  snapshot.index = LogIndex(20);
  snapshot.votes = {{NodeId(1), 1}, {NodeId(2), 1}};
  snapshot.is_last = true;
  snapshot.bytes = "nonsense";
  raft.Receive(NodeId(2), snapshot, now_);
  EXPECT_EQ(raft.commit(), LogIndex(10));
  EXPECT_EQ(raft.bad_messages(), 2u);
  snapshot.bytes = "good";
  raft.Receive(NodeId(2), snapshot, now_);
  EXPECT_EQ(raft.commit(), LogIndex(20));
}

TEST_F(RaftHostile, AnElectionThatNobodyWinsIsHeldAgainSoon) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  silent_ = {NodeId(leader)};
  Raft& one = At(leader == 1 ? 2 : 1);
  while (one.role() != Raft::Role::kCandidate) {
    now_ += kMillisecond;
    one.Tick(now_);
    for (const auto& [to, message] : one.TakeOutput().messages) {
      if (message.pre_vote && to != NodeId(leader)) {
        RaftMessage yes = message;
        yes.kind = RaftMessage::Kind::kVoteAnswer;
        yes.yes = true;
        one.Receive(to, yes, now_);
      }
    }
  }
  const TimeNs sent_at = now_;
  RaftMessage no;
  no.kind = RaftMessage::Kind::kVoteAnswer;
  no.term = one.term();
  no.sent_at = sent_at;
  one.Receive(NodeId(6 - leader - (leader == 1 ? 2 : 1)), no, now_);
  EXPECT_LE(one.next_tick(), now_ + 250 * kMillisecond);  // Half an election's time, of 500 ms.
  EXPECT_GT(one.next_tick(), now_);
}

}  // namespace
}  // namespace mangrove
