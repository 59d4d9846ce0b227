// What the anchors agree on, command by command: D1 to D3, and what is refused.

#include "recovery/node_database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "recovery/raft.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {
namespace {

using testing::HasSubstr;

DatabaseCommand SetNode(uint64_t node, const NodeRecord& record) {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kSetNode;
  command.node = NodeId(node);
  command.record = record;
  return command;
}

DatabaseCommand RemoveNode(uint64_t node) {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kRemoveNode;
  command.node = NodeId(node);
  return command;
}

DatabaseCommand ChangeView(uint64_t epoch, const std::vector<NodeInstance>& joins,
                           const std::vector<uint64_t>& leaves = {}) {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kChangeView;
  command.view.epoch = Epoch(epoch);
  command.view.joins = joins;
  for (uint64_t node : leaves) command.view.leaves.push_back(NodeId(node));
  return command;
}

DatabaseCommand ChangeDisks(uint64_t epoch, const std::vector<NodeInstance>& joins, const std::vector<uint64_t>& blank,
                            const std::vector<uint64_t>& caught_up) {
  DatabaseCommand command = ChangeView(epoch, joins);
  for (uint64_t node : blank) command.view.blank.push_back(NodeId(node));
  for (uint64_t node : caught_up) command.view.caught_up.push_back(NodeId(node));
  return command;
}

NodeRecord Record(const std::string& name, uint32_t votes = 0) {
  NodeRecord record;
  record.name = name;
  record.address = name + ":7000";
  record.votes = votes;
  return record;
}

class NodeDatabaseTest : public testing::Test {
 protected:
  // Nodes 1, 2 and 3; the first two are in view 2, as incarnations 5 and 6.
  void SetUp() override {
    for (uint64_t node = 1; node <= 3; ++node) Take(SetNode(node, Record("n" + std::to_string(node))));
    Take(ChangeView(2, {Instance(1, 5), Instance(2, 6)}));
  }
  void Take(const DatabaseCommand& command) {
    EXPECT_TRUE(database_.Check(command).ok()) << database_.Check(command);
    EXPECT_TRUE(database_.Apply(command).ok());
  }
  // Node 1 has left, and has come back.
  void Return() {
    Take(ChangeView(3, {}, {1}));
    Take(ChangeView(4, {Instance(1, 8)}));
    ASSERT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(3)}}));
  }
  // By Check and Apply alike, and nothing is changed.
  void Refused(const DatabaseCommand& command, absl::StatusCode code, const std::string& text = "") {
    const NodeDatabase before = database_;
    const absl::Status status = database_.Check(command);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_EQ(database_.Apply(command), status);
    EXPECT_EQ(database_, before);
  }

  using Behind = std::map<NodeId, Epoch>;
  static constexpr absl::StatusCode kNever = absl::StatusCode::kInvalidArgument;
  static constexpr absl::StatusCode kNotNow = absl::StatusCode::kFailedPrecondition;
  NodeDatabase database_;
};

TEST_F(NodeDatabaseTest, BeginsEmptyBeforeTheFirstView) {
  const NodeDatabase database;
  EXPECT_TRUE(database.nodes().empty());
  EXPECT_EQ(database.view(), View());
  EXPECT_EQ(database.Find(NodeId(1)), nullptr);
}

// --- Nodes ------------------------------------------------------------------------------------------------------------

TEST_F(NodeDatabaseTest, ASetNodeIsFound) {
  NodeRecord record = Record("somewhere", 3);
  Take(SetNode(9, record));
  ASSERT_NE(database_.Find(NodeId(9)), nullptr);
  record.changed = 4;
  EXPECT_EQ(*database_.Find(NodeId(9)), record);
  record.address.clear();
  record.votes = 0;
  Take(SetNode(9, record));
  record.changed = 5;
  EXPECT_EQ(*database_.Find(NodeId(9)), record);
}

TEST_F(NodeDatabaseTest, SetNodeTakesNothingOfLastAndLeft) {
  Take(ChangeView(3, {}, {1}));
  NodeRecord record = Record("renamed", 1);
  record.last = Incarnation(99);
  record.left = Epoch(98);
  Take(SetNode(1, record));
  EXPECT_EQ(database_.Find(NodeId(1))->name, "renamed");
  EXPECT_EQ(database_.Find(NodeId(1))->votes, 1u);
  EXPECT_EQ(database_.Find(NodeId(1))->last, Incarnation(5));
  EXPECT_EQ(database_.Find(NodeId(1))->left, Epoch(3));
  Take(SetNode(4, record));  // Nor of one that is not there yet.
  EXPECT_EQ(database_.Find(NodeId(4))->last, Incarnation());
  EXPECT_EQ(database_.Find(NodeId(4))->left, Epoch());
}

TEST_F(NodeDatabaseTest, SetNodeDoesNotTouchTheView) {
  const View before = database_.view();
  Take(SetNode(1, Record("renamed")));
  EXPECT_EQ(database_.view(), before);
}

TEST_F(NodeDatabaseTest, NodeZeroIsNone) { Refused(SetNode(0, Record("zero")), kNever); }

TEST_F(NodeDatabaseTest, ANodeHasANameOfBoundedLength) {
  Refused(SetNode(4, Record("")), kNever);
  NodeRecord record = Record("n4");
  record.name = std::string(NodeDatabase::kMostTextBytes, 'n');
  Take(SetNode(4, record));
  record.name += 'n';
  Refused(SetNode(4, record), kNever);
}

TEST_F(NodeDatabaseTest, AnAddressHasABoundedLength) {
  NodeRecord record = Record("n4");
  record.address = std::string(NodeDatabase::kMostTextBytes, 'a');
  Take(SetNode(4, record));
  record.address += 'a';
  Refused(SetNode(4, record), kNever);
}

TEST_F(NodeDatabaseTest, VotesAreBounded) {
  Take(SetNode(4, Record("n4", Raft::kMaxVotes)));
  Refused(SetNode(4, Record("n4", Raft::kMaxVotes + 1)), kNever);
}

TEST_F(NodeDatabaseTest, AFullClusterTakesNoFurtherNodeButKeepsOnChangingThose) {
  for (uint64_t node = 4; node <= NodeDatabase::kMostNodes; ++node) {
    ASSERT_TRUE(database_.Apply(SetNode(node, Record("n"))).ok());
  }
  ASSERT_EQ(database_.nodes().size(), NodeDatabase::kMostNodes);
  Refused(SetNode(NodeDatabase::kMostNodes + 1, Record("n")), kNotNow);
  Take(SetNode(7, Record("renamed")));
  Take(RemoveNode(8));  // It stays known, so that it does not come back.
  Refused(SetNode(NodeDatabase::kMostNodes + 1, Record("n")), kNotNow);
}

TEST_F(NodeDatabaseTest, ARemovedNodeIsGone) {
  Take(RemoveNode(3));
  EXPECT_FALSE(database_.Has(NodeId(3)));
  EXPECT_TRUE(database_.Find(NodeId(3))->is_removed);
  Refused(RemoveNode(3), kNotNow, "node 3");
}

TEST_F(NodeDatabaseTest, WhoIsInTheViewIsNotRemoved) {
  Refused(RemoveNode(1), kNotNow, "node 1");
  Take(ChangeView(3, {}, {1}));
  Take(RemoveNode(1));
}

TEST_F(NodeDatabaseTest, ACommandOfAnotherKindIsNone) {
  for (int kind : {0, 4}) {
    DatabaseCommand command;
    command.kind = static_cast<DatabaseCommand::Kind>(kind);
    Refused(command, kNever);
  }
}

// --- Views ------------------------------------------------------------------------------------------------------------

TEST_F(NodeDatabaseTest, D1EpochsGoUpByOne) {
  for (uint64_t epoch : {0, 1, 2, 4}) Refused(ChangeView(epoch, {Instance(3, 1)}), kNotNow);
  Take(ChangeView(3, {Instance(3, 1)}));
  EXPECT_EQ(database_.view().epoch, Epoch(3));
}

TEST_F(NodeDatabaseTest, D1TheFirstViewIsOfAnyEpochAboveThatOfABlankDisk) {
  database_ = NodeDatabase({{NodeId(1), NodeRecord{.name = "n1", .address = "h:1"}}}, {});
  Refused(ChangeView(0, {Instance(1, 5)}), kNotNow);
  Refused(ChangeView(1, {Instance(1, 5)}), kNotNow);
  Take(ChangeView(1000, {Instance(1, 5)}));
  Refused(ChangeView(1, {}, {1}), kNotNow);
  Take(ChangeView(1001, {}, {1}));
}

TEST_F(NodeDatabaseTest, TheRootStaysAsLongAsItsNodeDoes) {
  EXPECT_EQ(database_.view().root, NodeId(1));
  Take(ChangeView(3, {Instance(3, 7)}));
  EXPECT_EQ(database_.view().root, NodeId(1));
  Take(ChangeView(4, {Instance(1, 8)}));  // Another incarnation is another one.
  EXPECT_EQ(database_.view().root, NodeId(2));
  Take(ChangeView(5, {}, {2}));
  EXPECT_EQ(database_.view().root, NodeId(1));
  Take(ChangeView(6, {Instance(2, 9)}, {1, 3}));  // Nobody has been here before.
  EXPECT_EQ(database_.view().root, NodeId(2));
  Take(ChangeView(7, {}, {2}));
  EXPECT_EQ(database_.view().root, NodeId());
}

TEST_F(NodeDatabaseTest, AViewIsTheOneBeforeWithWhoJoinsAndWithoutWhoLeaves) {
  Take(ChangeView(3, {Instance(3, 7)}, {1}));
  const View expected = {.epoch = Epoch(3),
                         .members = {{NodeId(2), Incarnation(6)}, {NodeId(3), Incarnation(7)}},
                         .root = NodeId(2),
                         .behind = {{NodeId(1), Epoch(3)}}};
  EXPECT_EQ(database_.view(), expected);
  EXPECT_EQ(database_.Find(NodeId(3))->last, Incarnation(7));
  EXPECT_EQ(database_.Find(NodeId(3))->left, Epoch());
  EXPECT_EQ(database_.Find(NodeId(1))->last, Incarnation(5));
  EXPECT_EQ(database_.Find(NodeId(1))->left, Epoch(3));
  EXPECT_EQ(database_.Find(NodeId(2))->left, Epoch());
}

TEST_F(NodeDatabaseTest, AChangeOfNothingIsNone) { Refused(ChangeView(3, {}), kNever); }

TEST_F(NodeDatabaseTest, AChangeIsOfABoundedNumberOfNodes) {
  std::vector<NodeInstance> joins;
  for (uint64_t node = 10; joins.size() < ViewChange::kMostNodes; ++node) {
    Take(SetNode(node, Record("n")));
    joins.push_back(Instance(node, 1));
  }
  Refused(ChangeView(3, joins, {1}), kNever);
  Take(ChangeView(3, joins));
}

TEST_F(NodeDatabaseTest, D2WhoIsNotInTheDatabaseDoesNotJoin) {
  Refused(ChangeView(3, {Instance(4, 1)}), kNotNow, "node 4");
  Refused(ChangeView(3, {Instance(3, 1), Instance(4, 1)}), kNotNow, "node 4");
}

TEST_F(NodeDatabaseTest, D2AnOlderIncarnationDoesNotJoin) {
  Refused(ChangeView(3, {Instance(1, 4)}), kNotNow, "node 1 incarnation 4");  // Not in the place of a newer one,
  Take(ChangeView(3, {}, {1}));
  Refused(ChangeView(4, {Instance(1, 4)}), kNotNow, "node 1 incarnation 4");  // nor after it.
}

TEST_F(NodeDatabaseTest, D2ANewerIncarnationTakesThePlaceOfTheOlder) {
  Take(ChangeView(3, {Instance(1, 8)}));
  EXPECT_TRUE(database_.view().Has(Instance(1, 8)));
  EXPECT_FALSE(database_.view().Has(Instance(1, 5)));
  EXPECT_EQ(database_.view().members.size(), 2u);
  EXPECT_EQ(database_.Find(NodeId(1))->last, Incarnation(8));
}

TEST_F(NodeDatabaseTest, D2WhoIsInTheViewDoesNotJoin) { Refused(ChangeView(3, {Instance(1, 5)}), kNotNow, "node 1"); }

TEST_F(NodeDatabaseTest, D2WhoHasLeftComesBackAsAnotherIncarnation) {
  Take(ChangeView(3, {}, {1}));
  Refused(ChangeView(4, {Instance(1, 5)}), kNotNow, "incarnation 5 has been in a view");
  Take(ChangeView(4, {Instance(1, 6)}));
  EXPECT_TRUE(database_.view().Has(Instance(1, 6)));
  EXPECT_EQ(database_.Find(NodeId(1))->left, Epoch(3));  // That it has left stays known.
  Take(ChangeView(5, {}, {1}));
  EXPECT_EQ(database_.Find(NodeId(1))->left, Epoch(5));
}

TEST_F(NodeDatabaseTest, WhoIsNotInTheViewDoesNotLeave) {
  Refused(ChangeView(3, {}, {3}), kNotNow, "node 3");
  Refused(ChangeView(3, {}, {4}), kNotNow, "node 4");
  Refused(ChangeView(3, {}, {1, 4}), kNotNow, "node 4");
}

TEST_F(NodeDatabaseTest, ANodeIsNamedOnceInAChange) {
  Refused(ChangeView(3, {Instance(3, 1), Instance(3, 2)}), kNotNow);
  Refused(ChangeView(3, {}, {1, 1}), kNotNow);
  Refused(ChangeView(3, {Instance(1, 8)}, {1}), kNotNow);
}

// --- Disks ------------------------------------------------------------------------------------------------------------

TEST_F(NodeDatabaseTest, ADiskIsBehindFromTheViewOnThatItsNodeHasLeftUntilItHasCaughtUp) {
  EXPECT_EQ(database_.view().behind, Behind());
  Take(ChangeView(3, {}, {1}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(3)}}));
  Take(ChangeView(4, {Instance(1, 8)}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(3)}}));
  Take(ChangeView(5, {}, {2}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(3)}, {NodeId(2), Epoch(5)}}));
  Take(ChangeDisks(6, {}, {}, {1}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(2), Epoch(5)}}));
  EXPECT_EQ(database_.view().epoch, Epoch(6));
  EXPECT_TRUE(database_.view().Has(Instance(1, 8)));
}

TEST_F(NodeDatabaseTest, ADiskThatIsBehindWhenItsNodeLeavesIsBehindSinceTheFirstTime) {
  Return();
  Take(ChangeView(5, {}, {1}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(3)}}));
}

TEST_F(NodeDatabaseTest, WhoJoinsInThePlaceOfItsOlderIncarnationHasMissedNothing) {
  Take(ChangeView(3, {Instance(2, 7)}));
  EXPECT_EQ(database_.view().behind, Behind());
  Take(ChangeView(4, {}, {1}));
  Take(ChangeView(5, {Instance(1, 8)}));
  Take(ChangeView(6, {Instance(1, 9)}));  // Nor has it got anything.
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), Epoch(4)}}));
}

// As in a log that is founded anew.
TEST_F(NodeDatabaseTest, ADiskThatIsNotBlankOfWhoWasNeverInAViewIsCurrent) {
  Take(ChangeView(3, {Instance(3, 7)}));
  EXPECT_EQ(database_.view().behind, Behind());
}

TEST_F(NodeDatabaseTest, ABlankDiskIsBehindSinceBeforeAnyView) {
  Take(ChangeDisks(3, {Instance(3, 7), Instance(1, 8)}, {3}, {}));  // Never there before.
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(3), kBlankDisk}}));
  Take(ChangeDisks(4, {Instance(2, 7)}, {2}, {}));  // In the place of an older one that was current,
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(2), kBlankDisk}, {NodeId(3), kBlankDisk}}));
  Take(ChangeDisks(5, {}, {}, {2, 3}));
  Take(ChangeView(6, {}, {1}));
  Take(ChangeDisks(7, {Instance(1, 9)}, {1}, {}));  // and of one that was behind.
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), kBlankDisk}}));
  Take(ChangeView(8, {}, {1}));
  EXPECT_EQ(database_.view().behind, (Behind{{NodeId(1), kBlankDisk}}));
}

TEST_F(NodeDatabaseTest, ABlankDiskIsOfWhoJoinsAndNamedOnce) {
  Refused(ChangeDisks(3, {Instance(3, 7)}, {2}, {}), kNever, "node 2");
  Refused(ChangeDisks(3, {Instance(3, 7)}, {3, 3}, {}), kNever, "node 3");
  DatabaseCommand leaves = ChangeView(3, {}, {1});
  leaves.view.blank = {NodeId(1)};
  Refused(leaves, kNever, "node 1");
}

TEST_F(NodeDatabaseTest, WhoHasCaughtUpIsBehindAndStaysAsItIs) {
  Return();
  Refused(ChangeDisks(5, {}, {}, {2}), kNotNow, "node 2 cannot have caught up: its disk is not behind");
  Refused(ChangeDisks(5, {}, {}, {3}), kNotNow, "node 3");
  Refused(ChangeDisks(5, {}, {}, {1, 1}), kNotNow, "node 1");
  Refused(ChangeDisks(5, {Instance(1, 9)}, {}, {1}), kNotNow, "node 1 cannot have caught up: it does not stay");
  DatabaseCommand leaves = ChangeDisks(5, {}, {}, {1});
  leaves.view.leaves = {NodeId(1)};
  Refused(leaves, kNotNow, "node 1");
  Take(ChangeView(5, {}, {1}));
  Refused(ChangeDisks(6, {}, {}, {1}), kNotNow, "node 1");
}

TEST_F(NodeDatabaseTest, WhoHasCaughtUpCountsInAChange) {
  DatabaseCommand change = ChangeView(3, {});
  for (uint64_t node = 10; change.view.joins.size() < ViewChange::kMostNodes; ++node) {
    Take(SetNode(node, Record("n")));
    change.view.joins.push_back(Instance(node, 1));
    change.view.blank.push_back(NodeId(node));  // Does not count again.
  }
  Take(change);
  DatabaseCommand caught_up = ChangeView(4, {});
  caught_up.view.caught_up = change.view.blank;
  caught_up.view.leaves = {NodeId(1)};
  Refused(caught_up, kNever, "a change of 129 nodes");
  caught_up.view.leaves.clear();
  Take(caught_up);
  EXPECT_EQ(database_.view().behind, Behind());
}

// Views of one epoch are the same everywhere, and who was told of this one goes on from there.
TEST_F(NodeDatabaseTest, ARemovalOfWhoIsBehindMakesAView) {
  Take(RemoveNode(3));
  EXPECT_EQ(database_.view().epoch, Epoch(2));
  Take(ChangeView(3, {}, {1}));
  Take(RemoveNode(1));
  EXPECT_EQ(database_.view(),
            (View{.epoch = Epoch(4), .members = {{NodeId(2), Incarnation(6)}}, .root = NodeId(2), .behind = {}}));
}

// "0 is no incarnation" (net/ids.h), and no command with it can be encoded: what Check lets pass must be.
TEST_F(NodeDatabaseTest, IncarnationZeroIsNone) { Refused(ChangeView(3, {Instance(3, 0)}), kNever); }

// D5
TEST_F(NodeDatabaseTest, ARemovedNodeDoesNotComeBack) {
  DatabaseCommand anchor = SetNode(1, Record("n1"));
  anchor.record.votes = 3;
  Take(anchor);
  Take(ChangeView(3, {}, {1}));
  Take(RemoveNode(1));
  EXPECT_EQ(database_.view().behind, Behind());
  EXPECT_EQ(database_.Find(NodeId(1))->votes, 0u);
  Refused(SetNode(1, Record("another")), kNotNow, "node 1 was removed");
  Refused(ChangeView(5, {Instance(1, 9)}), kNotNow, "not in the cluster");
}

// --- D4: whose disks keep pages ---------------------------------------------------------------------------------------

class NodeDatabasePlaces : public NodeDatabaseTest {
 protected:
  using Nodes = std::set<NodeId>;
  // All three are members, the first two keep pages.
  void SetUp() override {
    NodeDatabaseTest::SetUp();
    DatabaseCommand command = ChangeView(3, {Instance(3, 7)});
    command.view.place = {NodeId(1), NodeId(2)};
    Take(command);
  }
  DatabaseCommand Next() const { return ChangeView(database_.view().epoch.value + 1, {}); }
  void Move(std::vector<NodeId> place, std::vector<NodeId> unplace) {
    DatabaseCommand command = Next();
    command.view.place = std::move(place);
    command.view.unplace = std::move(unplace);
    Take(command);
  }
  DatabaseCommand Moved(std::vector<NodeId> nodes, bool placed = false) const {
    DatabaseCommand command = Next();
    command.view.moved = std::move(nodes);
    command.view.placed = placed;
    return command;
  }
};

TEST_F(NodeDatabasePlaces, TheFirstPlacesAreAtOnce) {
  EXPECT_EQ(database_.view().disks, (Nodes{NodeId(1), NodeId(2)}));
  EXPECT_EQ(database_.view().next_disks, Nodes());
}

TEST_F(NodeDatabasePlaces, PagesMoveUntilAllThatAreToKeepAnyHaveThem) {
  Move({NodeId(3)}, {NodeId(1)});
  EXPECT_EQ(database_.view().disks, (Nodes{NodeId(1), NodeId(2)}));
  EXPECT_EQ(database_.view().next_disks, (Nodes{NodeId(2), NodeId(3)}));
  EXPECT_EQ(database_.view().move, database_.view().epoch);
  Refused(Moved({NodeId(3)}, true), kNotNow, "node 2");
  Refused(Moved({NodeId(1)}), kNotNow, "node 1");
  Take(Moved({NodeId(2)}));
  Take(Moved({NodeId(3)}, true));
  EXPECT_EQ(database_.view().disks, (Nodes{NodeId(2), NodeId(3)}));
  EXPECT_EQ(database_.view().next_disks, Nodes());
  EXPECT_EQ(database_.view().move, Epoch());
  EXPECT_EQ(database_.view().moved, Nodes());
}

TEST_F(NodeDatabasePlaces, AnotherMoveBeginsAnewAndBackIsNone) {
  Move({NodeId(3)}, {});
  Take(Moved({NodeId(1), NodeId(2)}));
  const Epoch first = database_.view().move;
  Move({}, {NodeId(1)});
  EXPECT_GT(database_.view().move, first);
  EXPECT_EQ(database_.view().moved, Nodes());
  Move({NodeId(1)}, {NodeId(3)});
  EXPECT_EQ(database_.view().next_disks, Nodes());
  EXPECT_EQ(database_.view().move, Epoch());
  Refused(Moved({}, true), kNotNow, "no pages move");
}

// Covers: G13
TEST_F(NodeDatabasePlaces, OtherWeightsComeWithAMove) {
  DatabaseCommand weigh = Next();
  weigh.view.weigh = {{NodeId(1), 4}};
  Take(weigh);
  EXPECT_EQ(database_.view().weights, DiskWeights());
  EXPECT_EQ(database_.view().next_weights, (DiskWeights{{NodeId(1), 4}}));
  EXPECT_EQ(database_.view().next_disks, database_.view().disks);
  EXPECT_EQ(database_.view().move, database_.view().epoch);
  Refused(Moved({NodeId(2)}, true), kNotNow, "node 1");
  Take(Moved({NodeId(1), NodeId(2)}, true));
  EXPECT_EQ(database_.view().weights, (DiskWeights{{NodeId(1), 4}}));
  EXPECT_EQ(database_.view().next_weights, DiskWeights());
  // Who stops keeping pages has none, and the full one is not said.
  DatabaseCommand next = Next();
  next.view.place = {NodeId(3)};
  next.view.unplace = {NodeId(1)};
  next.view.weigh = {{NodeId(3), kFullDiskWeight}, {NodeId(2), 7}};
  Take(next);
  EXPECT_EQ(database_.view().next_weights, (DiskWeights{{NodeId(2), 7}}));
}

TEST_F(NodeDatabasePlaces, WeightsAreOfDisksAndNeverNone) {
  DatabaseCommand command = Next();
  command.view.weigh = {{NodeId(3), 4}};
  Refused(command, kNotNow, "node 3 is to keep no pages");
  for (const uint8_t weight : {0, 17}) {
    command.view.weigh = {{NodeId(1), weight}};
    Refused(command, absl::StatusCode::kInvalidArgument, "expected 1 to 16");
  }
}

TEST_F(NodeDatabasePlaces, AMoveDoesNotEndWhileADiskIsBehindOrAway) {
  Move({NodeId(3)}, {});
  Take(Moved({NodeId(1), NodeId(2), NodeId(3)}));
  Take(ChangeView(database_.view().epoch.value + 1, {}, {3}));
  Refused(Moved({}, true), kNotNow, "node 3");
  Take(ChangeView(database_.view().epoch.value + 1, {Instance(3, 9)}));
  Refused(Moved({}, true), kNotNow, "node 3");
  DatabaseCommand end = Moved({}, true);
  end.view.caught_up = {NodeId(3)};
  Refused(end, kNotNow, "node 3");  // What it has said before it left counts no more.
  end.view.moved = {NodeId(3)};
  Take(end);
}

// What it had is gone.
TEST_F(NodeDatabasePlaces, ABlankDiskHasNotMovedAnyMore) {
  Move({NodeId(3)}, {});
  Take(Moved({NodeId(1), NodeId(2), NodeId(3)}));
  DatabaseCommand blank = ChangeView(database_.view().epoch.value + 1, {Instance(3, 9)});
  blank.view.blank = {NodeId(3)};
  Take(blank);
  EXPECT_EQ(database_.view().moved, (Nodes{NodeId(1), NodeId(2)}));
}

TEST_F(NodeDatabasePlaces, SomebodyKeepsPages) {
  DatabaseCommand command = Next();
  command.view.unplace = {NodeId(1), NodeId(2)};
  Refused(command, kNotNow, "nobody is to keep pages");
  command.view.place = {NodeId(2)};
  Refused(command, kNotNow, "nobody is to keep pages");
  command.view.place = {NodeId(3)};
  Take(command);
  command = Next();
  command.view.unplace = {NodeId(3)};
  Refused(command, kNotNow, "nobody is to keep pages");
}

TEST_F(NodeDatabasePlaces, WhoJoinsIsNotLost) {
  Take(ChangeView(database_.view().epoch.value + 1, {}, {3}));
  DatabaseCommand command = ChangeView(database_.view().epoch.value + 1, {Instance(3, 9)});
  command.view.lost = {NodeId(3)};
  Refused(command, kNotNow, "node 3 is not lost");
}

TEST_F(NodeDatabasePlaces, WhoLeavesInTheSameChangeHasNotMoved) {
  Move({NodeId(3)}, {});
  DatabaseCommand end = Moved({NodeId(1), NodeId(2), NodeId(3)}, true);
  end.view.leaves = {NodeId(3)};
  Refused(end, kNotNow, "node 3");
  end.view.leaves = {};
  end.view.joins = {Instance(3, 9)};
  Refused(end, kNotNow, "node 3");
  end.view.joins = {};
  Take(end);
}

// Who is not in the cluster, or was removed, is named by no list.
TEST_F(NodeDatabasePlaces, WhoIsNotInTheClusterIsNotPlaced) {
  for (const auto list : {&ViewChange::place, &ViewChange::drain, &ViewChange::lost}) {
    DatabaseCommand command = Next();
    command.view.*list = {NodeId(4)};
    Refused(command, kNotNow, "node 4 is not in the cluster");
  }
}

TEST_F(NodeDatabasePlaces, WhoKeepsPagesIsNotRemovedAndWhoIsLostDoesNotJoin) {
  Refused(
      [&] {
        DatabaseCommand lost = Next();
        lost.view.lost = {NodeId(1)};
        return lost;
      }(),
      kNotNow, "it is in the view");
  Take(ChangeView(database_.view().epoch.value + 1, {}, {1}));
  DatabaseCommand lost = Next();
  lost.view.lost = {NodeId(1)};
  Take(lost);
  Refused(RemoveNode(1), kNotNow, "keeps pages");
  Refused(ChangeView(database_.view().epoch.value + 1, {Instance(1, 9)}), kNotNow, "given up");
  Move({}, {NodeId(1)});
  Take(Moved({NodeId(2)}, true));
  Take(RemoveNode(1));
  EXPECT_EQ(database_.view().lost, Nodes());
}

TEST_F(NodeDatabaseTest, TheSameCommandsMakeTheSameDatabase) {
  NodeDatabase other;
  for (uint64_t node = 1; node <= 3; ++node) {
    ASSERT_TRUE(other.Apply(SetNode(node, Record("n" + std::to_string(node)))).ok());
  }
  Take(ChangeView(3, {Instance(3, 6)}));
  ASSERT_TRUE(other.Apply(ChangeView(2, {Instance(1, 5), Instance(2, 6)})).ok());
  ASSERT_FALSE(other.Apply(ChangeView(4, {Instance(3, 6)})).ok());
  EXPECT_FALSE(other == database_);
  ASSERT_TRUE(other.Apply(ChangeView(3, {Instance(3, 6)})).ok());
  EXPECT_EQ(other, database_);
  EXPECT_EQ(NodeDatabase(database_.nodes(), database_.view()), database_);
}

}  // namespace
}  // namespace mangrove
