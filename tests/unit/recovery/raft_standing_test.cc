// A disk in the place of another: when its anchor votes again, and what is counted until then.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/recovery/raft_steps.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

class RaftDisks : public RaftTest {
 protected:
  // Anchor 3 with another disk, following anchor 1 and hearing of a log of its votes: 1 from the beginning on, then 0.
  void BeginAlone(Standing standing) {
    RaftDurable durable;
    durable.standing = standing;
    raft_ = std::make_unique<Raft>(RaftOptions{.self = NodeId(3), .seed = 5}, durable, now_);
    append_.kind = RaftMessage::Kind::kAppend;
    append_.term = Term(4);
    append_.entries = {{.term = Term(1), .kind = LogEntry::Kind::kVotes, .votes = With(1)},
                       {.term = Term(4), .kind = LogEntry::Kind::kVotes, .votes = With(0)}};
  }
  static Votes With(uint32_t votes) { return {{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), votes}}; }
  // What it answers to `append_`, with so much committed and this mark.
  RaftMessage Answer(uint64_t commit, uint64_t mark) {
    append_.commit = LogIndex(commit);
    append_.mark = mark;
    raft_->Receive(NodeId(1), append_, now_);
    last_ = raft_->TakeOutput();
    EXPECT_EQ(last_.standing, raft_->standing());
    return last_.messages.at(0).second;
  }
  // Replaces the disk of a follower.
  uint64_t Replace() {
    const uint64_t id = Leader() % nodes_.size() + 1;
    RaftDurable durable;
    durable.standing = Standing::kMustLoseVote;
    Add(id, durable);
    return id;
  }

  std::unique_ptr<Raft> raft_;
  RaftMessage append_;
  RaftOutput last_;
};

TEST_F(RaftDisks, WhoMustLoseItsVoteTakesNoPartInElections) {
  RaftDurable durable;
  durable.snapshot.votes = With(1);
  durable.standing = Standing::kMustLoseVote;
  Raft raft({.self = NodeId(3)}, durable, now_);
  now_ += 5 * kSecond;
  raft.Tick(now_);
  EXPECT_EQ(raft.role(), Raft::Role::kFollower);
  raft.Receive(NodeId(1), VoteRequest(Term(5), raft.log(), /*pre_vote=*/true), now_);
  raft.Receive(NodeId(1), VoteRequest(Term(5), raft.log()), now_);
  EXPECT_TRUE(raft.TakeOutput().messages.empty());
  RaftMessage message;
  message.term = Term(5);
  raft.Receive(NodeId(1), message, now_);
  message.kind = RaftMessage::Kind::kTakeOver;
  raft.Receive(NodeId(1), message, now_);
  EXPECT_EQ(raft.leader(), NodeId(1));
  EXPECT_EQ(raft.role(), Raft::Role::kFollower);
}

// Its vote may be needed before it hears that it has one: the change counts at once.
TEST_F(RaftDisks, WhoMayGainAVoteElectsWhoHasGivenItOne) {
  Begin(2);
  RunFor(3 * kSecond);
  const uint64_t leader = Leader();
  const NodeId other(Replace());
  RunFor(RaftOptions{}.election / 2);
  ASSERT_TRUE(At(leader).ProposeVotes(other, 0, now_).ok());
  RunFor(kSecond);
  ASSERT_EQ(At(leader).StandingOf(other), Standing::kMayGainVote);
  silent_ = {other};
  ASSERT_TRUE(At(leader).ProposeVotes(other, 1, now_).ok());
  RunFor(3 * kSecond);
  EXPECT_EQ(Leader(), 0u);
  EXPECT_EQ(At(other.value).standing(), Standing::kMayGainVote);
  silent_.clear();
  RunFor(3 * kSecond);
  EXPECT_EQ(Leader(), leader);
  EXPECT_EQ(At(other.value).standing(), Standing::kFull);
}

TEST_F(RaftDisks, AnotherDiskIsOfFullStandingWhenItsVotesWereTakenAndGivenAgain) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  ASSERT_TRUE(leader.Propose("from before", now_).ok());
  Deliver();
  const uint64_t other = Replace();
  applied_.clear();
  RunFor(kSecond);
  EXPECT_THAT(applied_[NodeId(other)], testing::ElementsAre("from before"));  // It has lost it, and gets it again.
  EXPECT_EQ(leader.bad_messages(), 0u);
  EXPECT_EQ(leader.StandingOf(NodeId(other)), Standing::kMustLoseVote);
  EXPECT_EQ(leader.HandOver(NodeId(other), now_).code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(leader.ProposeVotes(NodeId(other), 0, now_).ok());
  RunFor(kSecond);
  EXPECT_EQ(At(other).standing(), Standing::kMayGainVote);
  EXPECT_EQ(leader.StandingOf(NodeId(other)), Standing::kMayGainVote);
  ASSERT_TRUE(leader.ProposeVotes(NodeId(other), 1, now_).ok());
  RunFor(kSecond);
  EXPECT_EQ(At(other).standing(), Standing::kFull);
  EXPECT_EQ(leader.StandingOf(NodeId(other)), Standing::kFull);
  EXPECT_TRUE(leader.HandOver(NodeId(other), now_).ok());
  Deliver();
  EXPECT_EQ(Leader(), other);
}

// The old disk may have helped to elect a later leader, which the one that counts has not heard of.
TEST_F(RaftDisks, WhatAnotherDiskHasAndAnswersIsNotCounted) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  const uint64_t other = Replace();
  silent_ = {NodeId(6 - Leader() - other)};
  const TimeNs cut_at = now_;
  ASSERT_TRUE(leader.Propose("x", now_).ok());
  RunFor(RaftOptions{}.election / 2);
  EXPECT_EQ(At(other).log().last(), leader.log().last());
  EXPECT_LT(leader.commit(), leader.log().last());
  EXPECT_LE(*leader.QuorumAt(now_), cut_at);
  RunFor(2 * RaftOptions{}.election);
  EXPECT_NE(leader.role(), Raft::Role::kLeader);
}

// What it says of itself from then on is all that counts.
TEST_F(RaftDisks, WhatTheOldDiskHadIsForgottenWhenAnotherIsHeardOf) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(leader.Propose("x", now_).ok());
  const NodeId other(Leader() % 3 + 1);
  ASSERT_TRUE(leader.ProposeVotes(other, 0, now_).ok());
  Deliver();
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kAppended;
  answer.term = leader.term();
  answer.yes = true;
  for (const Standing standing : {Standing::kMustLoseVote, Standing::kMayGainVote}) {
    answer.standing = standing;
    leader.Receive(other, answer, now_);
    EXPECT_EQ(leader.StandingOf(other), standing);
  }
  const absl::Status status = leader.ProposeVotes(other, 1, now_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("has not the whole log"));
}

// How it once came without a vote and got one, say.
TEST_F(RaftDisks, WhatTheLogTellsOfTheOldDiskGivesNoStanding) {
  BeginAlone(Standing::kMustLoseVote);
  append_.entries[0].votes.swap(append_.entries[1].votes);
  EXPECT_EQ(Answer(1, 0).standing, Standing::kMustLoseVote);
  const uint64_t mark = Answer(2, 0).mark;
  EXPECT_NE(mark, 0u);
  EXPECT_EQ(Answer(2, mark).standing, Standing::kMustLoseVote);  // It has a vote.
}

TEST_F(RaftDisks, ALeadersWordToThisDiskCountsWhenItHasWhatThatLeaderHad) {
  BeginAlone(Standing::kMustLoseVote);
  const uint64_t mark = Answer(0, 0).mark;
  EXPECT_EQ(Answer(2, mark + 2).standing, Standing::kMustLoseVote);  // To another.
  BeginAlone(Standing::kMustLoseVote);
  EXPECT_EQ(Answer(5, mark).standing, Standing::kMustLoseVote);  // More is to come.
  BeginAlone(Standing::kMustLoseVote);
  const RaftMessage answer = Answer(2, mark);
  EXPECT_TRUE(last_.writes);
  EXPECT_EQ(answer.standing, Standing::kMayGainVote);
  EXPECT_EQ(answer.mark, 0u);
}

TEST_F(RaftDisks, AVoteCountsForStandingWhenItIsCommitted) {
  BeginAlone(Standing::kMayGainVote);
  EXPECT_EQ(Answer(2, 0).standing, Standing::kMayGainVote);
  append_.entries.push_back({.term = Term(4), .kind = LogEntry::Kind::kVotes, .votes = With(1)});
  EXPECT_EQ(Answer(2, 0).standing, Standing::kMayGainVote);
  EXPECT_EQ(Answer(3, 0).standing, Standing::kFull);
  EXPECT_TRUE(last_.writes);
}

TEST_F(RaftDisks, ASnapshotTellsOfTheVotesToo) {
  BeginAlone(Standing::kMayGainVote);
  append_.kind = RaftMessage::Kind::kSnapshot;
  append_.index = LogIndex(9);
  append_.index_term = Term(4);
  append_.entries.clear();
  append_.votes = With(1);
  append_.is_last = true;
  const RaftMessage answer = Answer(0, 0);
  EXPECT_EQ(answer.kind, RaftMessage::Kind::kAppended);
  EXPECT_EQ(answer.standing, Standing::kFull);
}

// Another may lead by then, elected by the old disk, and have given it a vote.
TEST_F(RaftDisks, ALeaderGivesItsWordWhenItsQuorumFollowsItStill) {
  Begin(3);
  RunFor(3 * kSecond);
  Raft& leader = At(Leader());
  const uint64_t other = Leader() % 3 + 1;
  ASSERT_TRUE(leader.ProposeVotes(NodeId(other), 0, now_).ok());
  RunFor(kSecond);
  silent_ = {NodeId(6 - Leader() - other)};
  Replace();
  RunFor(RaftOptions{}.election / 2);
  EXPECT_EQ(leader.StandingOf(NodeId(other)), Standing::kMustLoseVote);
  EXPECT_EQ(At(other).commit(), leader.commit());
  const absl::Status status = leader.ProposeVotes(NodeId(other), 1, now_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has another disk"));
  silent_.clear();
  RunFor(RaftOptions{}.election / 2);
  EXPECT_EQ(leader.StandingOf(NodeId(other)), Standing::kMayGainVote);
}

}  // namespace
}  // namespace mangrove
