// A log that comes back from its records as it was, and records that are no log.

#include "recovery/anchor_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "recovery/codec.h"
#include "recovery/raft.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

using Disk = std::map<std::string, std::string>;

void Put(Disk& disk, const std::vector<AnchorRecords::Record>& records) {
  for (const AnchorRecords::Record& record : records) {
    EXPECT_THAT(record.key, testing::StartsWith(AnchorRecords::kPrefix));
    if (record.value) {
      disk[record.key] = *record.value;
    } else {
      EXPECT_EQ(disk.erase(record.key), 1u) << record.key;
    }
  }
}

absl::StatusOr<std::optional<RaftDurable>> Load(AnchorRecords& records, const Disk& disk) {
  return records.Load({disk.begin(), disk.end()});
}

// --- What a log writes ------------------------------------------------------------------------------------------------

// Three anchors that lose, double and delay messages, are cut off, and start anew; each with a disk that takes no time.
class LogsOnDisks {
 public:
  explicit LogsOnDisks(uint64_t seed) : random_(seed) {
    for (uint64_t id = 1; id <= 3; ++id) {
      RaftDurable durable;
      durable.snapshot.votes = {{NodeId(1), 1}, {NodeId(2), 1}, {NodeId(3), 1}};
      Node& node = nodes_[NodeId(id)];
      Put(node.disk, node.records.Begin(durable));
      Start(NodeId(id));
    }
  }

  void Step() {
    now_ += static_cast<TimeNs>(random_() % 20) * kMillisecond;
    if (Chance(20)) cut_off_ = Chance(500) ? NodeId() : Anybody();
    if (Chance(10)) Start(Anybody());
    for (auto& [id, node] : nodes_) {
      node.raft->Tick(now_);
      if (Chance(200)) {
        const std::string command(1 + random_() % 30, static_cast<char>('a' + random_() % 26));
        static_cast<void>(node.raft->Propose(command, now_));
      }
      if (Chance(40) && node.applied > node.raft->log().snapshot().index) {
        node.raft->Compact(node.applied, "state at " + std::to_string(node.applied.value));
      }
      Take(id, node);
    }
    std::vector<Sent> sent = std::exchange(sent_, {});
    for (const Sent& message : sent) Deliver(message);
  }

  int outputs = 0;
  int truncations = 0;
  int compactions = 0;
  int installed = 0;

 private:
  struct Node {
    Disk disk;
    AnchorRecords records;
    std::unique_ptr<Raft> raft;
    LogIndex applied;
    LogIndex last;  // As written.
  };
  struct Sent {
    NodeId from;
    NodeId to;
    RaftMessage message;
  };

  bool Chance(uint64_t per_mille) { return random_() % 1000 < per_mille; }
  NodeId Anybody() { return NodeId(1 + random_() % 3); }

  void Start(NodeId id) {
    Node& node = nodes_.at(id);
    node.records = AnchorRecords();
    absl::StatusOr<std::optional<RaftDurable>> durable = Load(node.records, node.disk);
    ASSERT_TRUE(durable.ok()) << durable.status();
    ASSERT_TRUE(durable->has_value());
    node.applied = (*durable)->snapshot.index;
    const RaftOptions options = {.self = id, .message_bytes = 100, .seed = random_()};
    node.raft = std::make_unique<Raft>(options, **std::move(durable), now_);
  }

  void Take(NodeId id, Node& node) {
    const RaftOutput output = node.raft->TakeOutput();
    if (output.is_news) node.applied = output.snapshot->index;
    if (!output.committed.empty()) node.applied = output.committed.back().first;
    if (output.writes) {
      ++outputs;
      truncations += output.entries_at.value != 0 && output.entries_at <= node.last ? 1 : 0;
      compactions += output.snapshot && !output.is_news ? 1 : 0;
      installed += output.is_news ? 1 : 0;
      Put(node.disk, node.records.Write(output));
      node.last = node.raft->log().last();
      Compare(node, output);
      node.raft->Persisted(output.number, now_);
    }
    for (const auto& [to, message] : output.messages) sent_.push_back({id, to, message});
  }

  static void Compare(const Node& node, const RaftOutput& output) {
    AnchorRecords records;
    const absl::StatusOr<std::optional<RaftDurable>> durable = Load(records, node.disk);
    ASSERT_TRUE(durable.ok()) << durable.status();
    ASSERT_TRUE(durable->has_value());
    const RaftLog& log = node.raft->log();
    EXPECT_EQ((*durable)->term, output.term);
    EXPECT_EQ((*durable)->vote, output.vote);
    EXPECT_EQ((*durable)->standing, output.standing);
    EXPECT_EQ((*durable)->snapshot, log.snapshot());
    EXPECT_EQ((*durable)->entries, log.From(log.first(), SIZE_MAX));
    EXPECT_EQ(node.disk.size(), 2 + (*durable)->entries.size());
  }

  void Deliver(const Sent& sent) {
    if (sent.from == cut_off_ || sent.to == cut_off_ || Chance(20)) return;
    if (Chance(100)) return sent_.push_back(sent);  // Later.
    nodes_.at(sent.to).raft->Receive(sent.from, sent.message, now_);
    if (Chance(20)) sent_.push_back(sent);
  }

  std::mt19937_64 random_;
  TimeNs now_ = kSecond;
  std::map<NodeId, Node> nodes_;
  NodeId cut_off_;
  std::vector<Sent> sent_;
};

TEST(AnchorRecords, ALogComesBackAsItWasAtEveryStep) {
  int truncations = 0;
  int compactions = 0;
  int installed = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    LogsOnDisks logs(seed);
    for (int i = 0; i < 2000 && !testing::Test::HasFailure(); ++i) logs.Step();
    ASSERT_FALSE(testing::Test::HasFailure());
    EXPECT_GT(logs.outputs, 300);
    truncations += logs.truncations;
    compactions += logs.compactions;
    installed += logs.installed;
  }
  EXPECT_GT(truncations, 5);
  EXPECT_GT(compactions, 20);
  EXPECT_GT(installed, 5);
}

TEST(AnchorRecords, NothingIsWhereNeverALogWas) {
  AnchorRecords records;
  const absl::StatusOr<std::optional<RaftDurable>> durable = records.Load({});
  ASSERT_TRUE(durable.ok());
  EXPECT_FALSE(durable->has_value());
}

TEST(AnchorRecords, ALogBeginsWithItsStateAndItsSnapshot) {
  RaftDurable durable;
  durable.term = Term(4);
  durable.vote = NodeId(2);
  durable.standing = Standing::kMustLoseVote;
  durable.snapshot = {.index = LogIndex(9), .term = Term(3), .votes = {{NodeId(2), 1}}, .state = "so far"};
  Disk disk;
  AnchorRecords records;
  Put(disk, records.Begin(durable));
  EXPECT_EQ(disk.size(), 2u);
  const absl::StatusOr<std::optional<RaftDurable>> loaded = Load(records, disk);
  ASSERT_TRUE(loaded.ok());
  ASSERT_TRUE(loaded->has_value());
  EXPECT_EQ((*loaded)->term, durable.term);
  EXPECT_EQ((*loaded)->vote, durable.vote);
  EXPECT_EQ((*loaded)->standing, durable.standing);
  EXPECT_EQ((*loaded)->snapshot, durable.snapshot);
  EXPECT_TRUE((*loaded)->entries.empty());
}

// --- Damage -----------------------------------------------------------------------------------------------------------

// A log of term 6: a snapshot up to 9, and entries 10 to 13, of the terms 3, 3, 5 and 6.
class AnchorRecordsDamageTest : public testing::Test {
 protected:
  void SetUp() override {
    RaftDurable durable;
    durable.snapshot = {.index = LogIndex(9), .term = Term(3), .votes = {{NodeId(1), 1}}, .state = "so far"};
    durable.term = Term(3);
    AnchorRecords records;
    Put(disk_, records.Begin(durable));
    RaftOutput output;
    output.writes = true;
    output.term = Term(6);
    output.entries_at = LogIndex(10);
    for (uint64_t term : {3, 3, 5, 6}) output.entries.push_back({.term = Term(term), .kind = LogEntry::Kind::kNothing});
    Put(disk_, records.Write(output));
    ASSERT_TRUE(Load(records, disk_).ok());
    ASSERT_EQ(disk_.size(), 6u);
  }
  static std::string Entry(uint64_t index) {
    const std::string digits = std::to_string(index);
    return "anchor/entry/" + std::string(20 - digits.size(), '0') + digits;
  }
  static std::string EntryOf(uint64_t term) {
    return EncodeEntry({.term = Term(term), .kind = LogEntry::Kind::kNothing});
  }
  void IsDamaged(const std::string& key) const {
    AnchorRecords records;
    const absl::Status status = Load(records, disk_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
  Disk disk_;
};

TEST_F(AnchorRecordsDamageTest, EntriesHaveTheirPlacesInTheirKeys) {
  for (uint64_t index = 10; index <= 13; ++index) EXPECT_TRUE(disk_.contains(Entry(index)));
}

TEST_F(AnchorRecordsDamageTest, AMissingEntryIsDamage) {
  for (uint64_t index = 10; index <= 12; ++index) {
    const std::string value = disk_.at(Entry(index));
    disk_.erase(Entry(index));
    IsDamaged(Entry(index));
    disk_[Entry(index)] = value;
  }
}

TEST_F(AnchorRecordsDamageTest, AnEntryThatIsInTheSnapshotIsDamage) {
  disk_[Entry(9)] = EntryOf(3);
  IsDamaged(Entry(9));
}

TEST_F(AnchorRecordsDamageTest, AnEntryBehindAGapIsDamage) {
  disk_[Entry(15)] = EntryOf(6);
  IsDamaged(Entry(14));
}

TEST_F(AnchorRecordsDamageTest, AMissingStateIsDamage) {
  disk_.erase("anchor/state");
  IsDamaged("anchor/state");
}

TEST_F(AnchorRecordsDamageTest, AMissingSnapshotIsDamage) {
  disk_.erase("anchor/snapshot");
  IsDamaged("anchor/snapshot");
}

TEST_F(AnchorRecordsDamageTest, AnUnknownKeyIsDamage) {
  for (const std::string key : {"anchor/other", "anchor/statement", "anchor/", "anchor/entr", "anchor/snapshot2"}) {
    disk_[key] = "something";
    IsDamaged(key);
    disk_.erase(key);
  }
}

TEST_F(AnchorRecordsDamageTest, AKeyOfAnEntryThatIsNoPlaceIsDamage) {
  for (const std::string key : {"anchor/entry/", "anchor/entry/10", "anchor/entry/0000000000000000001x"}) {
    disk_[key] = EntryOf(6);
    IsDamaged(key);
    disk_.erase(key);
  }
}

TEST_F(AnchorRecordsDamageTest, BadBytesAreDamage) {
  for (const std::string& key : {std::string("anchor/state"), std::string("anchor/snapshot"), Entry(10), Entry(13)}) {
    const std::string value = disk_.at(key);
    for (const std::string& bad : {std::string(), std::string("bad"), value.substr(0, value.size() - 8)}) {
      disk_[key] = bad;
      IsDamaged(key);
    }
    disk_[key] = value;
  }
}

TEST_F(AnchorRecordsDamageTest, TermsOutOfOrderAreDamage) {
  disk_[Entry(12)] = EntryOf(2);  // Before the one before it.
  IsDamaged(Entry(12));
  disk_[Entry(12)] = EntryOf(5);
  disk_[Entry(13)] = EntryOf(4);
  IsDamaged(Entry(13));
  disk_[Entry(13)] = EntryOf(6);
  disk_[Entry(10)] = EntryOf(2);  // Before the snapshot's.
  IsDamaged(Entry(10));
}

TEST_F(AnchorRecordsDamageTest, AnEntryOfALaterTermThanTheLogsIsDamage) {
  disk_[Entry(13)] = EntryOf(7);
  IsDamaged(Entry(13));
}

TEST_F(AnchorRecordsDamageTest, ASnapshotOfALaterTermThanTheLogsIsDamage) {
  for (uint64_t index = 10; index <= 13; ++index) disk_.erase(Entry(index));
  disk_["anchor/state"] = EncodeLogState({.term = Term(2), .vote = NodeId(1), .standing = Standing::kFull});
  IsDamaged("anchor/snapshot");
}

}  // namespace
}  // namespace mangrove
