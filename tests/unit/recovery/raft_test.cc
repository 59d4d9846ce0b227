// The anchors' log step by step: what the random world is too wild for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/recovery/raft_steps.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

TEST_F(RaftTest, TheFounderLeadsByItself) {
  Add(7, Raft::Founder(NodeId(7)));
  RunFor(2 * kSecond);
  ASSERT_EQ(Leader(), 7u);
  ASSERT_TRUE(At(7).Propose("first", now_).ok());
  Deliver();
  EXPECT_THAT(applied_[NodeId(7)], testing::ElementsAre("first"));
  EXPECT_EQ(At(7).QuorumAt(now_), now_);
}

TEST_F(RaftTest, WhoDoesNotLeadSaysWhoDoes) {
  Begin(3);
  EXPECT_EQ(At(1).Propose("x", now_).status().code(), absl::StatusCode::kFailedPrecondition);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  ASSERT_NE(leader, 0u);
  for (uint64_t id = 1; id <= 3; ++id) {
    if (id == leader) continue;
    const absl::Status status = At(id).Propose("x", now_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(ToString(NodeId(leader))));
    EXPECT_FALSE(At(id).QuorumAt(now_).has_value());
  }
}

TEST_F(RaftTest, ALeaderWithoutItsQuorumEndsAndAnotherFollows) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t first = Leader();
  silent_ = {NodeId(first)};
  const TimeNs cut_at = now_;
  RunFor(3 * kSecond);
  EXPECT_NE(At(first).role(), Raft::Role::kLeader);
  const uint64_t second = Leader();
  ASSERT_NE(second, 0u);
  ASSERT_NE(second, first);
  ASSERT_TRUE(At(second).Propose("while it was away", now_).ok());
  EXPECT_GT(*At(second).QuorumAt(now_), cut_at);
  silent_.clear();
  const Term term = At(second).term();
  RunFor(kSecond);
  EXPECT_EQ(Leader(), second);  // Who comes back disturbs nobody.
  EXPECT_EQ(At(second).term(), term);
  EXPECT_THAT(applied_[NodeId(first)], testing::ElementsAre("while it was away"));
}

TEST_F(RaftTest, AMemberIsBroughtUpToDateBeforeItVotes) {
  Begin(1);
  RunFor(2 * kSecond);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(At(1).Propose("command " + std::to_string(i), now_).ok());
  Deliver();
  At(1).Compact(At(1).commit(), std::string(300, 's'));  // In several pieces.
  ASSERT_TRUE(At(1).Propose("behind the snapshot", now_).ok());
  Add(2, {});
  ASSERT_TRUE(At(1).ProposeVotes(NodeId(2), 0, now_).ok());
  RunFor(kSecond);
  EXPECT_EQ(loaded_[NodeId(2)], std::string(300, 's'));
  EXPECT_THAT(applied_[NodeId(2)], testing::ElementsAre("behind the snapshot"));
  EXPECT_EQ(At(2).role(), Raft::Role::kFollower);
  ASSERT_TRUE(At(1).ProposeVotes(NodeId(2), 1, now_).ok());
  Deliver();
  EXPECT_EQ(At(2).log().votes(), (Votes{{NodeId(1), 1}, {NodeId(2), 1}}));
}

TEST_F(RaftTest, VotesChangeByOneAndOneAfterTheOther) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  EXPECT_EQ(leader.ProposeVotes(NodeId(2), 3, now_).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(leader.ProposeVotes(NodeId(2), 2, now_).ok());
  EXPECT_EQ(leader.ProposeVotes(NodeId(3), 2, now_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(leader.ProposeVotes(NodeId(2), std::nullopt, now_).status().code(), absl::StatusCode::kInvalidArgument);
  Deliver();
  EXPECT_TRUE(leader.ProposeVotes(NodeId(3), 0, now_).ok());
}

TEST_F(RaftTest, TheLastVoteStays) {
  Begin(1);
  RunFor(2 * kSecond);
  const absl::Status status = At(1).ProposeVotes(NodeId(1), 0, now_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no anchor has a vote"));
}

TEST_F(RaftTest, ALeaderTakesItselfOut) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  ASSERT_TRUE(At(leader).ProposeVotes(NodeId(leader), std::nullopt, now_).ok());
  RunFor(3 * kSecond);
  ASSERT_NE(Leader(), 0u);
  EXPECT_NE(Leader(), leader);
  EXPECT_EQ(At(Leader()).log().votes().size(), 2u);
}

TEST_F(RaftTest, LeadershipIsHandedOver) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  const uint64_t next = leader % 3 + 1;
  ASSERT_TRUE(At(leader).HandOver(NodeId(next), now_).ok());
  EXPECT_EQ(At(leader).Propose("x", now_).status().code(), absl::StatusCode::kUnavailable);
  Deliver();  // At once.
  EXPECT_EQ(Leader(), next);
  EXPECT_EQ(At(leader).HandOver(NodeId(9), now_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(At(next).HandOver(NodeId(9), now_).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RaftTest, WhoCannotTakeOverLeavesTheLeaderWhereItWas) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  const uint64_t next = leader % 3 + 1;
  silent_ = {NodeId(next)};
  ASSERT_TRUE(At(leader).Propose("not there yet", now_).ok());
  ASSERT_TRUE(At(leader).HandOver(NodeId(next), now_).ok());
  RunFor(kSecond);
  EXPECT_EQ(Leader(), leader);
  EXPECT_TRUE(At(leader).Propose("x", now_).ok());
}

TEST_F(RaftTest, NothingIsForgottenByARestart) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  ASSERT_TRUE(At(leader).Propose("kept", now_).ok());
  RunFor(kSecond);
  // Everybody, with what is on the disks.
  std::map<NodeId, RaftDurable> disks;
  for (auto& [id, node] : nodes_) {
    disks[id] = {.term = node->term(),
                 .vote = {},
                 .snapshot = node->log().snapshot(),
                 .entries = node->log().From(node->log().first(), SIZE_MAX)};
  }
  applied_.clear();
  for (auto& [id, disk] : disks) Add(id.value, disk);
  RunFor(3 * kSecond);
  ASSERT_NE(Leader(), 0u);
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_THAT(applied_[NodeId(id)], testing::ElementsAre("kept"));
}

// One that has most of the votes could lead before its vote is on its disk, crash, and give the same term's vote to another.
TEST_F(RaftTest, ItsOwnVoteCountsWhenItIsDurable) {
  RaftDurable durable;
  durable.snapshot.votes = {{NodeId(1), 2}, {NodeId(2), 1}};
  Raft raft({.self = NodeId(1)}, durable, now_);
  now_ += 5 * kSecond;
  raft.Tick(now_);
  RaftOutput output = raft.TakeOutput();
  ASSERT_TRUE(output.writes);
  EXPECT_EQ(output.term, Term(1));
  EXPECT_EQ(output.vote, NodeId(1));
  EXPECT_EQ(raft.role(), Raft::Role::kCandidate);
  raft.Persisted(output.number, now_);
  EXPECT_EQ(raft.role(), Raft::Role::kLeader);
}

// The leader whose votes were taken is needed to get that committed, if nobody else has it.
TEST_F(RaftTest, WhoLosesItsVoteStandsUntilThatIsCommitted) {
  Begin(2);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  const uint64_t other = 3 - leader;
  silent_ = {NodeId(other)};
  ASSERT_TRUE(At(leader).ProposeVotes(NodeId(leader), std::nullopt, now_).ok());
  RunFor(3 * kSecond);
  EXPECT_EQ(At(leader).role(), Raft::Role::kPreCandidate);
  silent_.clear();
  RunFor(5 * kSecond);
  EXPECT_EQ(Leader(), other);
  EXPECT_EQ(At(other).log().votes(), (Votes{{NodeId(other), 1}}));
  EXPECT_EQ(At(leader).role(), Raft::Role::kFollower);
}

// --- What a quorum's knowledge rests on -------------------------------------------------------------------------------

// Of the last output; nothing if it has not answered.
std::optional<bool> VoteIn(const RaftOutput& output) {
  for (const auto& [to, message] : output.messages) {
    if (message.kind == RaftMessage::Kind::kVoteAnswer) return message.yes;
  }
  return std::nullopt;
}

TEST_F(RaftTest, WhoHasJustStartedElectsNobodyForAnElectionTime) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  const uint64_t other = Leader() % 3 + 1;
  Add(other, {.term = leader.term(),
              .vote = {},
              .snapshot = leader.log().snapshot(),
              .entries = leader.log().From(leader.log().first(), SIZE_MAX)});
  const NodeId third(6 - leader.leader().value - other);
  now_ += RaftOptions{}.election - kMillisecond;
  At(other).Receive(third, VoteRequest(Term(leader.term().value + 1), leader.log()), now_);
  EXPECT_EQ(VoteIn(At(other).TakeOutput()), std::nullopt);
  now_ += 2 * kMillisecond;
  At(other).Receive(third, VoteRequest(Term(leader.term().value + 1), leader.log()), now_);
  EXPECT_EQ(VoteIn(At(other).TakeOutput()), true);
}

TEST_F(RaftTest, ALeaderThatWasDeposedElectsNobodyForAnElectionTime) {
  Begin(3);
  RunFor(3 * kSecond);
  const NodeId self(Leader());
  Raft& leader = At(self.value);
  ASSERT_TRUE(leader.QuorumAt(now_).has_value());
  const Term later(leader.term().value + 1);
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kAppended;
  answer.term = later;
  leader.Receive(NodeId(self.value % 3 + 1), answer, now_);
  EXPECT_EQ(leader.role(), Raft::Role::kFollower);
  leader.Receive(NodeId(self.value % 3 + 1), VoteRequest(later, leader.log()), now_);
  EXPECT_EQ(VoteIn(leader.TakeOutput()), false);
  now_ += RaftOptions{}.election + kMillisecond;
  leader.Receive(NodeId(self.value % 3 + 1), VoteRequest(later, leader.log()), now_);
  EXPECT_EQ(VoteIn(leader.TakeOutput()), true);
}

TEST_F(RaftTest, WhoHearsFromALeaderElectsNobodyInALaterTermThatItHasHeardOf) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t other = Leader() % 3 + 1;
  Raft& follower = At(other);
  const Term later(follower.term().value + 2);
  RaftMessage no;
  no.kind = RaftMessage::Kind::kVoteAnswer;
  no.term = later;
  follower.Receive(NodeId(other % 3 + 1), no, now_);
  EXPECT_EQ(follower.term(), later);
  follower.Receive(NodeId(other % 3 + 1), VoteRequest(later, follower.log()), now_);
  EXPECT_EQ(VoteIn(follower.TakeOutput()), false);
}

TEST_F(RaftTest, AnAnswerToAnEarlierPreVoteDoesNotCount) {
  RaftDurable durable;
  durable.snapshot.votes = {{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}};
  Raft raft({.self = NodeId(1)}, durable, now_);
  now_ += 2 * kSecond;
  raft.Tick(now_);
  const TimeNs first = raft.TakeOutput().messages.at(0).second.sent_at;
  now_ += 2 * kSecond;
  raft.Tick(now_);
  const TimeNs second = raft.TakeOutput().messages.at(0).second.sent_at;
  RaftMessage yes;
  yes.kind = RaftMessage::Kind::kVoteAnswer;
  yes.term = Term(1);
  yes.pre_vote = yes.yes = true;
  yes.sent_at = first;
  raft.Receive(NodeId(2), yes, now_);
  EXPECT_EQ(raft.role(), Raft::Role::kPreCandidate);
  yes.sent_at = second;
  raft.Receive(NodeId(2), yes, now_);
  EXPECT_EQ(raft.role(), Raft::Role::kCandidate);
}

TEST_F(RaftTest, WhoHandsOverCountsOnNothingAnyMore) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  silent_ = {NodeId(leader % 3 + 1)};
  ASSERT_TRUE(At(leader).QuorumAt(now_).has_value());
  ASSERT_TRUE(At(leader).HandOver(NodeId(leader % 3 + 1), now_).ok());
  EXPECT_FALSE(At(leader).QuorumAt(now_).has_value());
}

// --- What nobody may do -----------------------------------------------------------------------------------------------

TEST_F(RaftTest, WhoDoesNotAnswerGetsNoVote) {
  Begin(1);
  RunFor(2 * kSecond);
  EXPECT_EQ(At(1).ProposeVotes(NodeId(2), 1, now_).status().code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(At(1).ProposeVotes(NodeId(2), 0, now_).ok());
  RunFor(kSecond);
  EXPECT_EQ(At(1).ProposeVotes(NodeId(2), 1, now_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Leader(), 1u);
}

TEST_F(RaftTest, NobodyTakesOutWhoIsNeeded) {
  Begin(3);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  const NodeId dead(leader % 3 + 1);
  silent_ = {dead};
  RunFor(kSecond);
  const NodeId alive(6 - leader - dead.value);
  EXPECT_EQ(At(leader).ProposeVotes(alive, std::nullopt, now_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(At(leader).ProposeVotes(dead, std::nullopt, now_).ok());
}

TEST_F(RaftTest, ACommandThatIsTooLongIsRefused) {
  Begin(1);
  RunFor(2 * kSecond);
  const absl::Status status = At(1).Propose(std::string(5000, 'x'), now_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5000 bytes"));
}

TEST_F(RaftTest, PiecesOfTwoLeadersSnapshotsAreNotJoined) {
  Raft raft({.self = NodeId(3)}, {}, now_);
  RaftMessage piece;
  piece.kind = RaftMessage::Kind::kSnapshot;
  piece.term = Term(4);
  piece.index = LogIndex(10);
  piece.index_term = Term(3);
  piece.votes = {{NodeId(1), 1}, {NodeId(2), 1}};
  piece.bytes = "first half, ";
  raft.Receive(NodeId(1), piece, now_);
  piece.term = Term(5);  // Another leader, at the same place.
  piece.offset = piece.bytes.size();
  piece.bytes = "second half";
  piece.is_last = true;
  raft.Receive(NodeId(2), piece, now_);
  RaftOutput output = raft.TakeOutput();
  EXPECT_FALSE(output.snapshot.has_value());
  EXPECT_EQ(output.messages.back().second.offset, 0u);  // From the beginning.
  piece.offset = 0;
  piece.bytes = "all of it";
  raft.Receive(NodeId(2), piece, now_);
  output = raft.TakeOutput();
  ASSERT_TRUE(output.snapshot.has_value());
  EXPECT_EQ(output.snapshot->state, "all of it");
  EXPECT_EQ(raft.commit(), LogIndex(10));
}

TEST_F(RaftTest, WhatNoAnchorSendsIsIgnored) {
  Begin(3);
  RunFor(3 * kSecond);
  silent_ = {NodeId(Leader())};
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  Raft& follower = At(6 - leader - silent_.begin()->value);
  const Term term = follower.term();
  ASSERT_GE(term.value, 2u);
  RaftMessage append;
  append.kind = RaftMessage::Kind::kAppend;
  append.term = term;
  append.index = follower.log().last();
  append.index_term = follower.log().last_term();
  const auto bad = [&](auto change) {
    RaftMessage message = append;
    change(message);
    const uint64_t before = follower.bad_messages();
    follower.Receive(NodeId(leader), message, now_);
    return follower.bad_messages() == before + 1 && follower.term() == term && follower.TakeOutput().messages.empty();
  };
  EXPECT_TRUE(bad([](RaftMessage& m) { m.term = Term(UINT64_MAX); }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.term = Term(); }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.index = LogIndex(UINT64_MAX); }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.index_term = Term(m.term.value + 1); }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.entries = {{.term = Term(m.term.value + 1)}}; }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.entries = {{.term = m.term}, {.term = Term(m.term.value - 1)}}; }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.entries = {{.term = m.term, .kind = LogEntry::Kind::kVotes}}; }));
  EXPECT_TRUE(bad([](RaftMessage& m) {
    m.entries = {{.term = m.term, .kind = LogEntry::Kind::kVotes, .votes = {{NodeId(1), 0}}}};
  }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.standing = static_cast<Standing>(3); }));
  EXPECT_TRUE(bad([](RaftMessage& m) { m.kind = RaftMessage::Kind::kSnapshot; }));
  EXPECT_TRUE(bad([](RaftMessage& m) {
    m.kind = RaftMessage::Kind::kSnapshot;
    m.votes = {{NodeId(1), 1}};
    m.offset = UINT64_MAX - 3;
  }));
  // What is committed is not replaced.
  ASSERT_LT(follower.log().TermOf(LogIndex(1)), term);
  EXPECT_TRUE(bad([&](RaftMessage& m) {
    m.index = LogIndex();
    m.index_term = Term();
    m.entries = {{.term = term, .kind = LogEntry::Kind::kCommand, .command = "other"}};
  }));
}

}  // namespace
}  // namespace mangrove
