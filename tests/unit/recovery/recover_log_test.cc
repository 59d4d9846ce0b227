// A log that is begun anew from a survivor's, what is refused, and what anchors make of it.
// Covers: C15

#include "recovery/recover_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "recovery/anchor.h"
#include "recovery/codec.h"
#include "tests/unit/recovery/anchor_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

using Disk = std::map<std::string, std::string>;

absl::StatusOr<RecoveredLog> Recover(const Disk& disk, uint64_t self = 1) {
  return RecoverLog(NodeId(self), {disk.begin(), disk.end()});
}

void Put(Disk& disk, const std::vector<AnchorRecords::Record>& records) {
  for (const AnchorRecords::Record& record : records) {
    record.value ? void(disk[record.key] = *record.value) : void(disk.erase(record.key));
  }
}

RaftDurable LoadFrom(const Disk& disk) {
  AnchorRecords records;
  absl::StatusOr<std::optional<RaftDurable>> durable = records.Load({disk.begin(), disk.end()});
  EXPECT_TRUE(durable.ok()) << durable.status();
  return durable.ok() && *durable ? **std::move(durable) : RaftDurable();
}

NodeDatabase DatabaseIn(const RaftDurable& durable) { return DecodeDatabase(durable.snapshot.state).value(); }

DatabaseCommand Named(uint64_t node, uint32_t votes) {
  DatabaseCommand command{.kind = DatabaseCommand::Kind::kSetNode, .node = NodeId(node), .record = {}, .view = {}};
  command.record = {.name = "n" + std::to_string(node), .address = {}, .votes = votes};
  return command;
}

DatabaseCommand Joining(uint64_t epoch, uint64_t node) {
  DatabaseCommand command{.kind = DatabaseCommand::Kind::kChangeView, .node = {}, .record = {}, .view = {}};
  command.view.epoch = Epoch(epoch);
  command.view.joins = {Instance(node)};
  return command;
}

LogEntry Entry(uint64_t term, const DatabaseCommand& command) {
  return {.term = Term(term), .kind = LogEntry::Kind::kCommand, .command = EncodeCommand(command)};
}

// A log of term 8 with three anchors: a snapshot up to 9 that has nodes 1 and 2 in view 100, and entries 10 to 13, up to term 7.
class RecoverLogTest : public testing::Test {
 protected:
  void SetUp() override {
    NodeDatabase database;
    for (uint64_t node : {1, 2, 3}) ASSERT_TRUE(database.Apply(Named(node, 1)).ok());
    ASSERT_TRUE(database.Apply(Joining(100, 1)).ok());
    Begin({{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}}, EncodeDatabase(database));
    Append({Entry(5, Joining(101, 2)), Entry(5, Joining(101, 3)), {.term = Term(7)}, Entry(7, Named(4, 0))});
  }
  void Begin(const Votes& votes, const std::string& state) {
    RaftDurable durable;
    durable.term = Term(5);
    durable.snapshot = {.index = LogIndex(9), .term = Term(5), .votes = votes, .state = state};
    disk_.clear();
    Put(disk_, records_.Begin(durable));
    last_ = 9;
  }
  void Append(std::vector<LogEntry> entries) {
    RaftOutput output;
    output.writes = true;
    output.term = Term(8);
    output.vote = NodeId(2);
    output.entries_at = LogIndex(last_ + 1);
    last_ += entries.size();
    output.entries = std::move(entries);
    Put(disk_, records_.Write(output));
  }

  AnchorRecords records_;
  Disk disk_;
  uint64_t last_ = 0;
};

// --- What comes of it -------------------------------------------------------------------------------------------------

TEST_F(RecoverLogTest, AllEntriesAreAppliedAndWhatDoesNotFitIsPassedOver) {
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(log->Position(), "7.13");
  EXPECT_EQ(log->entries, 4u);
  EXPECT_EQ(log->passed_over, 1u);  // The second view 101.
  EXPECT_EQ(log->votes, (Votes{{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}}));
  EXPECT_EQ(log->database.view().epoch, Epoch(101));
  EXPECT_THAT(log->database.view().members,
              ElementsAre(Pair(NodeId(1), Incarnation(1)), Pair(NodeId(2), Incarnation(1))));
  EXPECT_TRUE(log->database.Has(NodeId(4)));
}

TEST_F(RecoverLogTest, TheNewLogIsASnapshotAlonePastEveryOldOne) {
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  Put(disk_, log->records);
  EXPECT_EQ(disk_.size(), 2u);  // The old entries are gone.
  const RaftDurable begun = LoadFrom(disk_);
  EXPECT_EQ(begun.term, Term(8 + kRecoveryStep));
  EXPECT_EQ(begun.vote, NodeId());
  EXPECT_EQ(begun.standing, Standing::kFull);
  EXPECT_EQ(begun.snapshot.index, LogIndex(13 + kRecoveryStep));
  EXPECT_EQ(begun.snapshot.term, begun.term);
  EXPECT_EQ(begun.snapshot.votes, (Votes{{NodeId(1), 1}}));
  EXPECT_TRUE(Anchor::Check(begun).ok());
  EXPECT_EQ(log->new_term, begun.term);
  EXPECT_EQ(log->new_last, begun.snapshot.index);
}

TEST_F(RecoverLogTest, TheViewStaysButForItsEpochAndTheOthersAreNoAnchors) {
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  Put(disk_, log->records);
  const NodeDatabase database = DatabaseIn(LoadFrom(disk_));
  View view = log->database.view();
  view.epoch.value += kRecoveryEpochs;
  EXPECT_EQ(database.view(), view);
  EXPECT_EQ(log->new_epoch, view.epoch);
  ASSERT_EQ(database.nodes().size(), 4u);
  for (const auto& [node, record] : database.nodes()) {
    EXPECT_EQ(record.votes, node == NodeId(1) ? 1u : 0u) << ToString(node);
    EXPECT_EQ(record.name, log->database.Find(node)->name);
    EXPECT_EQ(record.last, log->database.Find(node)->last);
    EXPECT_GT(record.changed, log->database.roster_version() + kRecoveryEpochs);  // Nobody has heard of it.
  }
}

TEST_F(RecoverLogTest, NothingIsWrittenOutsideTheLogsRecords) {
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  for (const AnchorRecords::Record& record : log->records) {
    EXPECT_THAT(record.key, testing::StartsWith(AnchorRecords::kPrefix));
  }
}

TEST_F(RecoverLogTest, AReplacedDiskThatWasBroughtUpToDateHasFullStandingAfterwards) {
  disk_["anchor/state"] = EncodeLogState({.term = Term(8), .vote = {}, .standing = Standing::kMustLoseVote});
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  Put(disk_, log->records);
  EXPECT_EQ(LoadFrom(disk_).standing, Standing::kFull);
}

// --- What is refused --------------------------------------------------------------------------------------------------

TEST_F(RecoverLogTest, WhereThereIsNoLogItIsRefused) {
  const absl::Status status = Recover({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("there is no anchors' log on this disk"));
}

TEST_F(RecoverLogTest, ALogThatHasNoViewIsRefused) {
  Begin({{NodeId(1), 1}, {NodeId(2), 1}}, "");
  Append({Entry(6, Named(1, 1))});
  const absl::Status status = Recover(disk_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("1 entries and no view"));
}

TEST_F(RecoverLogTest, WhoHasMostOfTheVotesIsRefused) {
  // Votes that were written last count, committed or not.
  Append({{.term = Term(8), .kind = LogEntry::Kind::kVotes, .votes = {{NodeId(1), 2}, {NodeId(2), 1}}}});
  const absl::Status status = Recover(disk_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("node 1 has 2 of the anchors' 3 votes"));
  EXPECT_TRUE(Recover(disk_, 2).ok());
}

TEST_F(RecoverLogTest, HalfOfTheVotesIsNotMostOfThem) {
  Append({{.term = Term(8), .kind = LogEntry::Kind::kVotes, .votes = {{NodeId(1), 1}, {NodeId(2), 1}}}});
  EXPECT_TRUE(Recover(disk_).ok());
}

TEST_F(RecoverLogTest, ASecondRunFindsThatNothingIsLost) {
  const absl::StatusOr<RecoveredLog> log = Recover(disk_);
  ASSERT_TRUE(log.ok()) << log.status();
  Put(disk_, log->records);
  EXPECT_THAT(Recover(disk_).status().message(), HasSubstr("nothing is lost; just start it"));
}

TEST_F(RecoverLogTest, ARunThatWroteNothingIsRepeatedWithTheSameOutcome) {
  const absl::StatusOr<RecoveredLog> first = Recover(disk_);
  const absl::StatusOr<RecoveredLog> second = Recover(disk_);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->Position(), second->Position());
  EXPECT_EQ(first->new_epoch, second->new_epoch);
}

TEST_F(RecoverLogTest, WhoWasGivenUpIsRefused) {
  DatabaseCommand lost{.kind = DatabaseCommand::Kind::kChangeView, .node = {}, .record = {}, .view = {}};
  lost.view.epoch = Epoch(102);
  lost.view.lost = {NodeId(3)};
  Append({Entry(8, lost)});
  const absl::Status status = Recover(disk_, 3).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("node 3 has left the cluster for good"));
}

TEST_F(RecoverLogTest, DamagedRecordsAreDataLossAndNameTheRecord) {
  Disk damaged = disk_;
  damaged.erase("anchor/entry/00000000000000000011");
  EXPECT_EQ(Recover(damaged).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Recover(damaged).status().message(), HasSubstr("anchor/entry/00000000000000000011"));
  damaged = disk_;
  damaged["anchor/snapshot"] = "bad";
  EXPECT_EQ(Recover(damaged).status().code(), absl::StatusCode::kDataLoss);
  Begin({{NodeId(1), 1}, {NodeId(2), 1}}, "no database");
  EXPECT_EQ(Recover(disk_).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(RecoverLogTest, ItIsRefusedWhenEpochsWouldNotFitTheNumbersOfTransactions) {
  const NodeDatabase before = DatabaseIn(LoadFrom(disk_));
  View view = before.view();
  view.epoch = Epoch(kMostRecoveredEpoch.value - kRecoveryEpochs);
  Begin({{NodeId(1), 1}, {NodeId(2), 1}}, EncodeDatabase(NodeDatabase(before.nodes(), view)));
  EXPECT_TRUE(Recover(disk_).ok());
  ++view.epoch.value;
  Begin({{NodeId(1), 1}, {NodeId(2), 1}}, EncodeDatabase(NodeDatabase(before.nodes(), view)));
  EXPECT_EQ(Recover(disk_).status().code(), absl::StatusCode::kOutOfRange);
}

// --- What anchors make of it ------------------------------------------------------------------------------------------

// Three anchors that have worked, with their nodes in the view; then all have ended.
class RecoveredAnchorTest : public AnchorTest {
 protected:
  void SetUp() override {
    BeginThree();
    for (uint64_t node : {1, 2, 3}) pulsing_.insert(Instance(node));
    RunUntil([&] { return At(Leader()).database().view().members.size() == 3; });
    RunFor(kSecond);
  }
  void End(uint64_t node) {
    anchors_.erase(NodeId(node));
    std::erase_if(pulsing_, [&](NodeInstance n) { return n.node == NodeId(node); });
  }
  void RecoverAt(uint64_t node) {
    const absl::StatusOr<RecoveredLog> log = Recover(disks_[NodeId(node)], node);
    ASSERT_TRUE(log.ok()) << log.status();
    before_ = log->database;
    Put(disks_[NodeId(node)], log->records);
  }
  // As an operator asks for it, of the recovered anchor.
  void Want(uint64_t node) {
    RunUntil([&] { return At(3).leads() && At(3).database().view().Has(Instance(3, 2)); });
    NodeRecord record = *At(3).database().Find(NodeId(node));
    record.votes = 1;
    At(3).Receive(Instance(3, 2), NodeRequest{.kind = NodeRequest::Kind::kSet, .node = NodeId(node), .record = record},
                  now_);
    RunFor(100 * kMillisecond);
  }
  void StartAnew(uint64_t node) {
    Start(node);
    pulsing_.insert(Instance(node, 2));
  }

  NodeDatabase before_;
};

TEST_F(RecoveredAnchorTest, ItLeadsAloneAndKeepsNodesAndView) {
  for (uint64_t node : {1, 2, 3}) End(node);
  RecoverAt(3);
  StartAnew(3);
  EXPECT_EQ(At(3).database().view().members, before_.view().members);
  EXPECT_EQ(At(3).database().view().disks, before_.view().disks);
  EXPECT_EQ(At(3).database().nodes().size(), 3u);
  RunUntil([&] { return At(3).leads(); });
  // Its own new start joins, and those who are away leave.
  RunUntil([&] {
    return At(3).database().view().members == std::map<NodeId, Incarnation>{{NodeId(3), Incarnation(2)}};
  });
  EXPECT_GT(At(3).database().view().epoch.value, before_.view().epoch.value + kRecoveryEpochs);
  RunUntil([&] { return LastAnswer(3)->lease_from > 0; });
  // They get no vote before they are there, though they are to have one.
  for (uint64_t node : {1, 2}) Want(node);
  RunFor(kSecond);
  EXPECT_TRUE(At(3).leads());
  for (uint64_t node : {1, 2}) EXPECT_EQ(VotesIn(3)[NodeId(node)], 0u);
}

TEST_F(RecoveredAnchorTest, OthersJoinItWithEmptyDisksAndVote) {
  for (uint64_t node : {1, 2, 3}) End(node);
  RecoverAt(3);
  for (uint64_t node : {1, 2}) disks_[NodeId(node)].clear();
  for (uint64_t node : {1, 2, 3}) StartAnew(node);
  for (uint64_t node : {1, 2}) Want(node);
  RunUntil([&] { return VotesIn(3) == kThree; });
  RunUntil([&] { return At(3).database().view().members.size() == 3 && At(1).database() == At(3).database(); });
  for (uint64_t node : {1, 2}) {
    EXPECT_EQ(At(node).raft()->log().votes(), kThree);
    EXPECT_EQ(At(node).raft()->standing(), Standing::kFull);
  }
  End(3);  // Now it can be done without.
  RunUntil([&] { return Leader() == 1 || Leader() == 2; });
}

// Two of five are left; the one with the older log was recovered, against the advice.
TEST_F(RecoveredAnchorTest, AnotherSurvivorTakesTheNewLogInPlaceOfItsOwnHoweverNewThatIs) {
  End(3);
  // Meanwhile the others go on, and drop their logs' beginnings.
  compact_after_ = 1;
  for (uint64_t node : {1, 2}) {
    anchors_.erase(NodeId(node));
    Start(node);
  }
  RunUntil([&] { return Leader() != 0; });
  for (int i = 0; i < 5; ++i) {
    NodeRecord record = *At(Leader()).database().Find(NodeId(1));
    record.address = "host:" + std::to_string(i);
    Request({.kind = NodeRequest::Kind::kSet, .node = NodeId(1), .record = record});
    RunFor(2 * kSecond);
  }
  ASSERT_GT(At(1).applied().value, LoadFrom(disks_[NodeId(3)]).snapshot.index.value);
  for (uint64_t node : {1, 2}) End(node);
  ASSERT_GT(LoadFrom(disks_[NodeId(1)]).term, LoadFrom(disks_[NodeId(3)]).term);
  RecoverAt(3);
  StartAnew(1);
  StartAnew(3);
  RunUntil([&] { return At(3).leads(); });
  Want(1);
  RunUntil([&] { return VotesIn(3)[NodeId(1)] == 1; });
  RunUntil([&] { return At(1).applied() == At(3).applied() && At(1).database() == At(3).database(); });
  EXPECT_EQ(Leader(), 3u);
}

}  // namespace
}  // namespace mangrove
