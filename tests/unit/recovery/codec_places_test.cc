// The wire form of what is about the disks that keep pages, and of who leaves for good.
// Covers: C06

#include <capnp/any.h>
#include <capnp/message.h>
#include <capnp/schema.h>
#include <capnp/serialize.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "recovery/codec.h"
#include "recovery/messages.capnp.h"
#include "tests/unit/recovery/codec_expect.h"

namespace mangrove {
namespace {

namespace wire = recovery_wire;

constexpr size_t kCommandBytes = RaftOptions{}.command_bytes;
constexpr auto kLists = {&ViewChange::place, &ViewChange::unplace, &ViewChange::moved,
                         &ViewChange::drain, &ViewChange::undrain, &ViewChange::lost};

// --- Samples ----------------------------------------------------------------------------------------------------------

DatabaseCommand Command(const ViewChange& change) {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kChangeView;
  command.view = change;
  return command;
}

ViewChange FullChange() {
  ViewChange change;
  change.epoch = Epoch(5);
  change.place = {NodeId(12), NodeId(11)};
  change.unplace = {NodeId(13)};
  change.moved = {NodeId(14), NodeId(11)};
  change.placed = true;
  change.drain = {NodeId(15)};
  change.undrain = {NodeId(16), NodeId(17)};
  change.lost = {NodeId(18)};
  change.weigh = {{NodeId(12), 16}, {NodeId(11), 1}};
  return change;
}

std::vector<ViewPart::Node> EachFlag() {
  std::vector<ViewPart::Node> nodes(6);
  for (size_t i = 0; i < nodes.size(); ++i) nodes[i].node = NodeId(i + 1);
  nodes[0].is_disk = true;
  nodes[1].is_next_disk = true;
  nodes[2].is_next_disk = nodes[2].has_moved = true;
  nodes[3].is_draining = true;
  nodes[4].is_lost = true;
  nodes[5] = {.node = NodeId(6),
              .incarnation = Incarnation(7),
              .behind = Epoch(8),
              .is_disk = true,
              .is_next_disk = true,
              .has_moved = true,
              .is_draining = true,
              .is_lost = true,
              .weight = 15,
              .next_weight = 1};
  return nodes;
}

ViewPart FullPart() {
  return {.epoch = Epoch(9), .first = 0, .is_last = true, .nodes = EachFlag(), .root = NodeId(6), .move = Epoch(9)};
}

// Pages move from 1 and 2 to 2 and 3; 4 was removed, 5 has never been there.
NodeDatabase FullDatabase() {
  std::map<NodeId, NodeRecord> nodes;
  for (uint64_t node = 1; node <= 5; ++node) {
    nodes[NodeId(node)] = {.name = "n" + std::to_string(node), .address = "host:1", .votes = 0, .last = Incarnation(6)};
  }
  nodes[NodeId(4)].is_removed = true;
  nodes[NodeId(5)].last = Incarnation();
  View view;
  view.epoch = Epoch(9);
  for (uint64_t node = 1; node <= 3; ++node) view.members[NodeId(node)] = Incarnation(6);
  view.root = NodeId(1);
  view.disks = {NodeId(1), NodeId(2)};
  view.next_disks = {NodeId(2), NodeId(3)};
  view.move = Epoch(8);
  view.moved = {NodeId(3)};
  view.weights = {{NodeId(1), 4}};
  view.next_weights = {{NodeId(2), 12}, {NodeId(3), 1}};
  view.draining = {NodeId(1)};
  view.lost = {NodeId(5)};
  return {nodes, view};
}

void ExpectCommandReadBack(const DatabaseCommand& command) {
  const std::string bytes = EncodeCommand(command);
  EXPECT_LE(bytes.size(), kCommandBytes);
  const auto decoded = DecodeCommand(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == command);
}

template <typename Change>
void ExpectDatabaseRefused(Change change, const std::string& text) {
  ExpectRefused(DecodeDatabase(Changed<wire::Database>(EncodeDatabase(FullDatabase()), change)), text);
}

template <typename Change>
void ExpectChangeRefused(const ViewChange& sample, Change change, const std::string& text) {
  const auto command = [&](wire::Command::Builder c) { change(c.getChangeView()); };
  ExpectRefused(DecodeCommand(Changed<wire::Command>(EncodeCommand(Command(sample)), command)), text);
  ExpectMessageRefused(
      sample, [&](wire::Message::Builder m) { change(m.getViewChange()); }, text);
}

// --- Round trips ------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecPlaces, WhatNodesAndAnchorsSayIsReadBack) {
  Pulse pulse;
  pulse.moved = Epoch(UINT64_MAX);
  pulse.knows_weights = true;
  pulse.disk = {.mib = UINT32_MAX, .used = DiskSize::kAllUsed};
  ExpectReadBack(pulse);
  pulse.leaves = true;
  ExpectReadBack(pulse);
  PulseAnswer answer;
  answer.is_removed = true;
  ExpectReadBack(answer);
  ExpectReadBack(PulseBatch{.pulses = {{.from = {NodeId(3), Incarnation(4)}, .pulse = pulse}}});
}

TEST(RecoveryCodecPlaces, RequestsOfEachKindHaveTheSchemasNamesAndAreReadBack) {
  using Kind = NodeRequest::Kind;
  const std::vector<std::pair<Kind, std::string>> kinds = {{Kind::kDrain, "drain"},
                                                           {Kind::kUndrain, "undrain"},
                                                           {Kind::kGiveUp, "giveUp"},
                                                           {Kind::kAdd, "add"},
                                                           {Kind::kSet, "set"}};
  const auto enumerants = capnp::Schema::from<wire::NodeRequest::Kind>().getEnumerants();
  ASSERT_EQ(enumerants.size(), kinds.size());
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto& [kind, name] = kinds[i];
    NodeRequest request{.kind = kind, .node = NodeId(UINT64_MAX - i)};
    if (kind == Kind::kAdd) request.node = NodeId();
    if (kind == Kind::kAdd || kind == Kind::kSet) {
      request.record = {.name = "n", .address = "a:1", .votes = 7, .identity = {.space = 8, .time = 9}};
      request.group = 6;
    }
    ExpectReadBack(request);
    // The words are the message's, so that a reader of the schema sees that kind.
    EXPECT_EQ(enumerants[static_cast<unsigned>(i)].getProto().getName().cStr(), name);
    Changed<wire::Message>(EncodeMessage(request), [&, i](wire::Message::Builder m) {
      EXPECT_EQ(static_cast<size_t>(m.getNodeRequest().getKind()), i);
    });
  }
}

TEST(RecoveryCodecPlaces, EachPartOfAViewIsReadBack) {
  ExpectReadBack(FullPart());
  for (const ViewPart::Node& node : EachFlag()) {
    ExpectReadBack(ViewPart{.epoch = Epoch(9), .first = 7, .is_last = false, .nodes = {node}, .root = {}, .move = {}});
  }
}

TEST(RecoveryCodecPlaces, EachListOfAChangeIsReadBack) {
  ExpectReadBack(FullChange());
  ExpectCommandReadBack(Command(FullChange()));
  ViewChange placed;
  placed.epoch = Epoch(4);
  placed.placed = true;
  ExpectReadBack(placed);
  ExpectCommandReadBack(Command(placed));
  for (const auto list : kLists) {
    ViewChange change;
    change.epoch = Epoch(4);
    change.*list = {NodeId(7), NodeId(6)};
    ExpectReadBack(change);
    ExpectCommandReadBack(Command(change));
  }
}

// As one joins or leaves, it may be named by others.
TEST(RecoveryCodecPlaces, ANodeMayBeInSeveralLists) {
  ViewChange change;
  change.epoch = Epoch(4);
  change.joins = {{NodeId(7), Incarnation(8)}};
  for (const auto list : kLists) change.*list = {NodeId(7)};
  ExpectReadBack(change);
}

TEST(RecoveryCodecPlaces, ADatabaseIsReadBackWithItsPlaces) {
  const auto decoded = DecodeDatabase(EncodeDatabase(FullDatabase()));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == FullDatabase());
}

TEST(RecoveryCodecPlaces, ACommandDoesNotSayThatANodeIsRemoved) {
  DatabaseCommand command;
  command.node = NodeId(1);
  command.record.name = "n1";
  const auto removed = [](wire::Command::Builder c) { c.getSetNode().setIsRemoved(true); };
  EXPECT_TRUE(DecodeCommand(Changed<wire::Command>(EncodeCommand(command), removed)).value() == command);
  DatabaseCommand says_so = command;
  says_so.record.is_removed = true;
  EXPECT_TRUE(DecodeCommand(EncodeCommand(says_so)).value() == command);
}

// --- Sizes ------------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecPlaces, TheLargestChangesFitIntoAnEntry) {
  for (const auto list : kLists) {
    ViewChange change;
    change.epoch = Epoch(UINT64_MAX);
    for (uint64_t i = 1; i <= ViewChange::kMostNodes; ++i) (change.*list).push_back(NodeId(~i));
    ExpectCommandReadBack(Command(change));
    ExpectFits(change);
  }
  ViewChange change;
  change.epoch = Epoch(UINT64_MAX);
  for (uint64_t i = 1; change.size() < ViewChange::kMostNodes; ++i) {
    change.joins.push_back({NodeId(~i), Incarnation(~i)});
    change.blank.push_back(NodeId(~i));
    change.place.push_back(NodeId(~i));
  }
  ExpectCommandReadBack(Command(change));
}

TEST(RecoveryCodecPlaces, TheLongestPartFits) {
  ViewPart part{.epoch = Epoch(UINT64_MAX), .first = 0, .is_last = true, .nodes = {}, .root = {}, .move = Epoch(7)};
  for (uint64_t i = 1; i <= ViewPart::kMostNodes; ++i) {
    ViewPart::Node node = EachFlag().back();
    node.node = NodeId(i << 54);
    part.nodes.push_back(node);
  }
  ExpectFits(part);
}

TEST(RecoveryCodecPlaces, TheMostWeightsFitIntoAnEntry) {
  ViewChange change;
  change.epoch = Epoch(UINT64_MAX);
  for (uint64_t i = 1; i <= ViewChange::kMostNodes; ++i) change.weigh.push_back({NodeId(~i), 7});
  ExpectCommandReadBack(Command(change));
  ExpectFits(change);
}

// Who is of an earlier level refuses what is shorter than it knows it, and so does this one: what was added has found room.
TEST(RecoveryCodecPlaces, PulsesOfEachLevelAreOfOneLength) {
  EXPECT_EQ(wire::Pulse::_capnpPrivate::dataWordSize, 5);
  EXPECT_EQ(wire::Pulse::_capnpPrivate::pointerCount, 1);
}

// --- Level 1 ----------------------------------------------------------------------------------------------------------

// Logs and messages of that level have no weights. What has grown since is one list of a change; the rest has found room.
TEST(RecoveryCodecPlaces, WhatIsOfLevel1IsReadBackWithoutWeights) {
  ViewChange change = FullChange();
  change.weigh.clear();
  const std::string bytes = EncodeCommand(Command(change));
  capnp::FlatArrayMessageReader reader(
      kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.data()), bytes.size() / sizeof(capnp::word)));
  const wire::Command::Reader command = reader.getRoot<wire::Command>();
  const capnp::AnyStruct::Reader parts[] = {command, command.getChangeView()};
  // The same in a struct of two words and ten pointers, as level 1 has it.
  capnp::MallocMessageBuilder builder;
  const auto words_of = [](capnp::AnyStruct::Reader in) { return in.getDataSection().size() / sizeof(capnp::word); };
  auto root = builder.initRoot<capnp::AnyPointer>().initAsAnyStruct(static_cast<uint16_t>(words_of(parts[0])), 1);
  auto old = root.getPointerSection()[0].initAsAnyStruct(2, 10);
  ASSERT_EQ(words_of(parts[1]), 2U);
  std::memcpy(root.getDataSection().begin(), parts[0].getDataSection().begin(), parts[0].getDataSection().size());
  std::memcpy(old.getDataSection().begin(), parts[1].getDataSection().begin(), parts[1].getDataSection().size());
  for (unsigned i = 0; i < 10; ++i) old.getPointerSection()[i].set(parts[1].getPointerSection()[i]);
  const auto flat = capnp::messageToFlatArray(builder);
  const auto decoded = DecodeCommand({reinterpret_cast<const char*>(flat.asBytes().begin()), flat.asBytes().size()});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == Command(change));
}

TEST(RecoveryCodecPlaces, PulsesAndViewsAreAsLargeAsAtLevel1) {
  EXPECT_EQ(wire::Pulse::_capnpPrivate::dataWordSize, 5U);
  EXPECT_EQ(wire::ViewNode::_capnpPrivate::dataWordSize, 4U);
  EXPECT_EQ(wire::ViewPart::_capnpPrivate::pointerCount, 1U);
  EXPECT_EQ(wire::Database::_capnpPrivate::pointerCount, 2U);
}

// --- Refusals ---------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecPlaces, RequestsThatAreNoneAreRefused) {
  const NodeRequest request{.kind = NodeRequest::Kind::kDrain, .node = NodeId(7)};
  ExpectMessageRefused(
      request, [](wire::Message::Builder m) { m.getNodeRequest().setKind(static_cast<wire::NodeRequest::Kind>(5)); },
      "NodeRequest is of the unknown kind 5");
  ExpectMessageRefused(
      request, [](wire::Message::Builder m) { m.getNodeRequest().setNode(0); }, "NodeRequest of kind 0 names node 0");
  const NodeRequest add{.kind = NodeRequest::Kind::kAdd, .node = NodeId(), .record = {.name = "new"}, .group = 3};
  ExpectMessageRefused(
      add, [](wire::Message::Builder m) { m.getNodeRequest().setNode(4); }, "NodeRequest of kind 3 names node 4");
  ExpectMessageRefused(
      add, [](wire::Message::Builder m) { m.getNodeRequest().getRecord().setName(""); },
      "NodeRequest has a name of 0 bytes");
  ExpectMessageRefused(
      add, [](wire::Message::Builder m) { m.getNodeRequest().getRecord().setVotes(101); }, "101 votes");
  ExpectMessageRefused(
      add, [](wire::Message::Builder m) { m.getNodeRequest().disownRecord(); }, "NodeRequest lacks fields");
  std::string bytes = EncodeMessage(request);
  std::memset(bytes.data() + 24, 0, 8);  // The only pointer of the message, behind its only word of data.
  ExpectRefused(DecodeText(bytes), "NodeRequest lacks fields");
}

TEST(RecoveryCodecPlaces, PartsThatContradictThemselvesAreRefused) {
  ExpectMessageRefused(
      FullPart(), [](wire::Message::Builder m) { m.getViewPart().setMove(10); },
      "ViewPart of view 9 moves since view 10");
  ExpectMessageRefused(
      FullPart(), [](wire::Message::Builder m) { m.getViewPart().getNodes()[2].setIsNextDisk(false); },
      "ViewPart has node 3, which has moved pages and is to keep none");
  for (unsigned i : {0, 1, 3, 4}) {
    const auto nothing = [i](wire::Message::Builder m) {
      auto node = m.getViewPart().getNodes()[i];
      node.setIsDisk(false);
      node.setIsNextDisk(false);
      node.setIsDraining(false);
      node.setIsLost(false);
    };
    ExpectMessageRefused(FullPart(), nothing, "and says nothing of it");
  }
}

TEST(RecoveryCodecPlaces, ListsWithNodesThatAreNoneOrTwiceThereAreRefused) {
  using Change = wire::ViewChange::Builder;
  using List = capnp::List<uint64_t>::Builder;
  const std::vector<std::function<List(Change&, unsigned)>> lists = {
      [](Change& c, unsigned n) { return c.initPlace(n); },   [](Change& c, unsigned n) { return c.initUnplace(n); },
      [](Change& c, unsigned n) { return c.initMoved(n); },   [](Change& c, unsigned n) { return c.initDrain(n); },
      [](Change& c, unsigned n) { return c.initUndrain(n); }, [](Change& c, unsigned n) { return c.initLost(n); }};
  ViewChange sample;
  sample.epoch = Epoch(4);
  sample.leaves = {NodeId(3)};
  for (const auto& list : lists) {
    ExpectChangeRefused(
        sample, [&](Change c) { list(c, 1); }, "a change of the view names node 0");
    const auto twice = [&](Change c) {
      List nodes = list(c, 3);
      for (unsigned i = 0; i < 3; ++i) nodes.set(i, 7 + i % 2);
    };
    ExpectChangeRefused(sample, twice, "a change of the view names node 7 twice");
    ExpectChangeRefused(
        sample, [&](Change c) { list(c, 128); }, "is of 129 nodes, expected 1 to 128");
  }
}

TEST(RecoveryCodecPlaces, WeightsThatAreNoneAreRefused) {
  using Change = wire::ViewChange::Builder;
  for (const uint8_t weight : {0, 17, 255}) {
    ExpectChangeRefused(
        FullChange(), [&](Change c) { c.getWeigh()[0].setWeight(weight); }, "gives node 12 the weight ");
  }
  ExpectChangeRefused(
      FullChange(), [](Change c) { c.getWeigh()[0].setNode(11); }, "a change of the view names node 11 twice");
  ExpectChangeRefused(
      FullChange(), [](Change c) { c.getWeigh()[0].setNode(0); }, "a change of the view names node 0");
  ExpectChangeRefused(
      FullChange(), [](Change c) { c.initWeigh(128); }, "expected 1 to 128");
  const auto part = [](unsigned i, uint8_t weight, uint8_t next) {
    return [=](wire::Message::Builder m) {
      auto node = m.getViewPart().getNodes()[i];
      node.setWeight(weight);
      node.setNextWeight(next);
    };
  };
  ExpectMessageRefused(FullPart(), part(5, 16, 0), "node 6 with the weights 16 and 0");
  ExpectMessageRefused(FullPart(), part(5, 0, 200), "node 6 with the weights 0 and 200");
  ExpectMessageRefused(FullPart(), part(0, 0, 3), "of disks alone");
  ExpectMessageRefused(FullPart(), part(1, 3, 0), "of disks alone");
}

TEST(RecoveryCodecPlaces, TheEndOfAMoveCounts) {
  ViewChange full;
  full.epoch = Epoch(4);
  for (uint64_t i = 1; i <= ViewChange::kMostNodes; ++i) full.moved.push_back(NodeId(i));
  ExpectChangeRefused(
      full, [](wire::ViewChange::Builder c) { c.setPlaced(true); }, "is of 129 nodes");
  ViewChange placed;
  placed.epoch = Epoch(4);
  placed.placed = true;
  ExpectChangeRefused(
      placed, [](wire::ViewChange::Builder c) { c.setPlaced(false); }, "is of 0 nodes");
}

TEST(RecoveryCodecPlaces, DatabasesWhoseMovesContradictThemselvesAreRefused) {
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.setMove(10); },
                        "view 9 moves pages to 2 disks since view 10");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.setMove(0); }, "view 9 moves pages to 2 disks since view 0");
  const auto nowhere = [](wire::Database::Builder d) {
    for (auto node : d.getView()) {
      node.setIsNextDisk(false);
      node.setHasMoved(false);
      node.setNextWeight(0);
    }
  };
  ExpectDatabaseRefused(nowhere, "view 9 moves pages to 0 disks since view 8");
  ExpectDatabaseRefused(
      [](wire::Database::Builder d) { d.getView()[1].setHasMoved(true), d.getView()[1].setIsNextDisk(false); },
      "the view has node 2, which has moved pages and is to keep none");
}

// D4, D5
TEST(RecoveryCodecPlaces, DatabasesWhoseDisksAreOfNobodyAreRefused) {
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[3].setNode(4); },
                        "the view has node 4, which was removed");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[3].setNode(6); },
                        "the view has node 6, which the cluster does not have");
  // Of who was removed nothing is asked.
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getNodes()[3].setIsRemoved(false); },
                        "node 4 is not in the view any more, and not behind");
}

}  // namespace
}  // namespace mangrove
