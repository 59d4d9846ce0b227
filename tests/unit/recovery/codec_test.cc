#include "recovery/codec.h"

#include <capnp/schema.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/transport.h"
#include "recovery/messages.capnp.h"
#include "tests/unit/recovery/codec_expect.h"

namespace mangrove {
namespace {

namespace wire = recovery_wire;

constexpr size_t kMessageBytes = RaftOptions{}.message_bytes;
constexpr size_t kCommandBytes = RaftOptions{}.command_bytes;

// --- Samples: every field that counts differs from its default, and from the others -----------------------------------

LogEntry Nothing(uint64_t term) { return {Term(term), LogEntry::Kind::kNothing}; }
LogEntry Command(uint64_t term, std::string command) {
  return {Term(term), LogEntry::Kind::kCommand, std::move(command)};
}
LogEntry SetVotes(uint64_t term, Votes votes) { return {Term(term), LogEntry::Kind::kVotes, {}, std::move(votes)}; }

Votes MostVotes() {
  Votes votes;
  for (uint64_t node = 1; node <= Raft::kMaxMembers; ++node) votes[NodeId(UINT64_MAX - node)] = Raft::kMaxVotes;
  return votes;
}

RaftMessage FullRaft() {
  RaftMessage m;
  m.kind = RaftMessage::Kind::kSnapshotTaken;
  m.term = Term(UINT64_MAX);
  m.index = LogIndex(11);
  m.index_term = Term(12);
  m.commit = LogIndex(13);
  m.entries = {Nothing(14), Command(15, std::string("a\0b", 3)), SetVotes(16, {{NodeId(17), 18}, {NodeId(19), 0}})};
  m.votes = {{NodeId(20), 21}, {NodeId(22), Raft::kMaxVotes}};
  m.offset = 23;
  m.bytes = std::string("\0piece", 6);
  m.is_last = m.pre_vote = m.hand_over = m.yes = true;
  m.sent_at = INT64_MAX;
  m.standing = Standing::kMayGainVote;
  m.mark = UINT64_MAX - 1;
  return m;
}

Pulse FullPulse() { return {31, Epoch(32), {NodeId(34), NodeId(33)}, true, true}; }
PulseAnswer FullAnswer() { return {41, Epoch(42), NodeId(43), true, Incarnation(44)}; }
ViewPart FullPart() {
  return {Epoch(51),
          52,
          true,
          {{NodeId(53), Incarnation(54), {}},
           {NodeId(55), Incarnation(UINT64_MAX), Epoch(50)},
           {NodeId(56), {}, Epoch(51)},
           {NodeId(57), {}, kBlankDisk}},
          NodeId(53)};
}

DatabaseCommand SetNode() {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kSetNode;
  command.node = NodeId(61);
  command.record = {"the node's name", "host:62", 63, {}, {}};
  return command;
}

DatabaseCommand RemoveNode() {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kRemoveNode;
  command.node = NodeId(64);
  return command;
}

DatabaseCommand ChangeView() {
  DatabaseCommand command;
  command.kind = DatabaseCommand::Kind::kChangeView;
  command.view = {Epoch(65),
                  {{NodeId(67), Incarnation(66)}, {NodeId(68), Incarnation(69)}},
                  {NodeId(71), NodeId(70)},
                  {NodeId(68)},
                  {NodeId(73), NodeId(72)}};
  return command;
}

NodeDatabase FullDatabase() {
  return {{{NodeId(81), {"one", "host:1", 82, Incarnation(83)}},
           {NodeId(84), {std::string("t\0o", 3), "", 0, Incarnation()}},
           {NodeId(85), {"three", "host:3", 1, Incarnation(86)}},
           {NodeId(88), {"four", "host:4", 0, Incarnation(89), Epoch(87)}}},
          {Epoch(87),
           {{NodeId(81), Incarnation(83)}, {NodeId(85), Incarnation(80)}},
           NodeId(85),
           {{NodeId(85), kBlankDisk}, {NodeId(88), Epoch(87)}}}};
}

LogState FullState() { return {Term(91), NodeId(92), Standing::kMustLoseVote}; }
LogSnapshot FullSnapshot() {
  return {LogIndex(93), Term(94), {{NodeId(95), 96}, {NodeId(97), 98}}, std::string("st\0te", 5)};
}

// --- Help -------------------------------------------------------------------------------------------------------------

void ExpectCommandReadBack(const DatabaseCommand& command) {
  const auto decoded = DecodeCommand(EncodeCommand(command));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == command);
}

template <typename Change>
void ExpectCommandRefused(const DatabaseCommand& command, Change change, const std::string& text) {
  ExpectRefused(DecodeCommand(Changed<wire::Command>(EncodeCommand(command), change)), text);
}

template <typename Change>
void ExpectDatabaseRefused(Change change, const std::string& text) {
  ExpectRefused(DecodeDatabase(Changed<wire::Database>(EncodeDatabase(FullDatabase()), change)), text);
}

// Changes the words that the frame says to have to those that are there.
void MendFrame(std::string& bytes) {
  if (bytes.size() < 8) return;
  const auto words = static_cast<uint32_t>(bytes.size() / 8 - 1);
  std::memcpy(bytes.data() + 4, &words, sizeof(words));
}

// --- Round trips ------------------------------------------------------------------------------------------------------

TEST(RecoveryCodec, MessagesWithAllFieldsAreReadBack) {
  ExpectReadBack(FullRaft());
  ExpectReadBack(FullPulse());
  ExpectReadBack(FullAnswer());
  ExpectReadBack(FullPart());
  ExpectReadBack(Greeting{true, false});
  ExpectReadBack(Greeting{false, true});
  ExpectReadBack(Stopping{.flushes = true});
}

TEST(RecoveryCodec, MessagesOfDefaultsAreReadBack) {
  ExpectReadBack(RaftMessage());
  ExpectReadBack(Pulse());
  ExpectReadBack(PulseAnswer());
  ExpectReadBack(ViewPart());
  ExpectReadBack(Greeting());
}

TEST(RecoveryCodec, EachFieldOfRaftAloneIsReadBack) {
  const RaftMessage full = FullRaft();
  const std::vector<std::function<void(RaftMessage&)>> fields = {
      [&](RaftMessage& m) { m.term = full.term; },
      [&](RaftMessage& m) { m.index = full.index; },
      [&](RaftMessage& m) { m.index_term = full.index_term; },
      [&](RaftMessage& m) { m.commit = full.commit; },
      [&](RaftMessage& m) { m.entries = full.entries; },
      [&](RaftMessage& m) { m.votes = full.votes; },
      [&](RaftMessage& m) { m.offset = full.offset; },
      [&](RaftMessage& m) { m.bytes = full.bytes; },
      [&](RaftMessage& m) { m.is_last = true; },
      [&](RaftMessage& m) { m.pre_vote = true; },
      [&](RaftMessage& m) { m.hand_over = true; },
      [&](RaftMessage& m) { m.yes = true; },
      [&](RaftMessage& m) { m.sent_at = full.sent_at; },
      [&](RaftMessage& m) { m.standing = Standing::kMustLoseVote; },
      [&](RaftMessage& m) { m.standing = Standing::kMayGainVote; },
      [&](RaftMessage& m) { m.mark = full.mark; },
  };
  for (const auto& set : fields) {
    RaftMessage message;
    set(message);
    EXPECT_FALSE(message == RaftMessage());
    ExpectReadBack(message);
  }
}

TEST(RecoveryCodec, EveryKindOfRaftHasTheSchemasNameAndIsReadBack) {
  using Kind = RaftMessage::Kind;
  const std::vector<std::pair<Kind, std::string>> kinds = {
      {Kind::kVoteRequest, "voteRequest"}, {Kind::kVoteAnswer, "voteAnswer"}, {Kind::kAppend, "append"},
      {Kind::kAppended, "appended"},       {Kind::kSnapshot, "snapshot"},     {Kind::kSnapshotTaken, "snapshotTaken"},
      {Kind::kTakeOver, "takeOver"},
  };
  const auto enumerants = capnp::Schema::from<wire::Raft::Kind>().getEnumerants();
  ASSERT_EQ(enumerants.size(), kinds.size());
  for (const auto& [kind, name] : kinds) {
    EXPECT_EQ(enumerants[static_cast<unsigned>(kind)].getProto().getName().cStr(), name);
    RaftMessage message;
    message.kind = kind;
    ExpectReadBack(message);
  }
}

TEST(RecoveryCodec, CommandsWithAllFieldsAreReadBack) {
  ExpectCommandReadBack(SetNode());
  ExpectCommandReadBack(RemoveNode());
  ExpectCommandReadBack(ChangeView());
}

TEST(RecoveryCodec, ACommandCarriesWhatItsKindNamesAlone) {
  DatabaseCommand command = SetNode();
  command.record.last = Incarnation(7);
  command.view = ChangeView().view;
  EXPECT_TRUE(DecodeCommand(EncodeCommand(command)).value() == SetNode());
  EXPECT_TRUE(DecodeCommand(Changed<wire::Command>(EncodeCommand(command), [](wire::Command::Builder c) {
                c.getSetNode().setLast(7);
              })).value() == SetNode());
}

TEST(RecoveryCodec, DatabasesAreReadBack) {
  EXPECT_TRUE(DecodeDatabase(EncodeDatabase(FullDatabase())).value() == FullDatabase());
  EXPECT_TRUE(DecodeDatabase(EncodeDatabase(NodeDatabase())).value() == NodeDatabase());
}

TEST(RecoveryCodec, RecordsOfALogAreReadBack) {
  for (const LogState& state : {FullState(), LogState(), LogState{Term(1), NodeId(2), Standing::kMayGainVote}}) {
    EXPECT_TRUE(DecodeLogState(EncodeLogState(state)).value() == state);
  }
  for (const LogEntry& entry : {Nothing(1), Command(2, "do it"), Command(3, ""), SetVotes(4, MostVotes())}) {
    EXPECT_TRUE(DecodeEntry(EncodeEntry(entry)).value() == entry);
  }
  for (const LogSnapshot& snapshot : {FullSnapshot(), LogSnapshot(), Raft::Founder(NodeId(5)).snapshot}) {
    EXPECT_TRUE(DecodeSnapshot(EncodeSnapshot(snapshot)).value() == snapshot);
  }
}

TEST(RecoveryCodec, BytesMayLieAnywhere) {
  const std::string bytes = "x" + EncodeMessage(FullRaft());
  const auto decoded = DecodeText(std::string_view(bytes).substr(1));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == RecoveryMessage(FullRaft()));
}

// --- Sizes ------------------------------------------------------------------------------------------------------------

TEST(RecoveryCodec, TheEntriesThatALeaderTakesFit) {
  for (const LogEntry& entry : {Nothing(1), Command(1, ""), Command(1, "x"), Command(1, std::string(57, 'x')),
                                Command(1, std::string(1000, 'x')), Command(1, std::string(kCommandBytes, 'x')),
                                SetVotes(1, {{NodeId(1), 1}}), SetVotes(1, MostVotes())}) {
    RaftMessage message = FullRaft();
    message.votes = {};
    message.bytes = {};
    message.entries = RaftLog({}, std::vector<LogEntry>(1000, entry)).From(LogIndex(1), kMessageBytes);
    ExpectFits(message);
  }
}

TEST(RecoveryCodec, TheLargestPieceOfASnapshotFits) {
  RaftMessage message = FullRaft();
  message.entries = {};
  message.votes = MostVotes();
  message.bytes = std::string(kMessageBytes, 'x');
  ExpectFits(message);
}

TEST(RecoveryCodec, TheLongestListsFit) {
  ViewPart part{Epoch(UINT64_MAX), 2, true, {}};
  for (uint64_t i = 1; i <= ViewPart::kMostNodes; ++i)
    part.nodes.push_back({NodeId(i << 54), Incarnation(~i), Epoch(~i)});
  ExpectFits(part);
  Pulse pulse{1, Epoch(2), {}};
  for (uint64_t i = 1; i <= Pulse::kMostUnreachable; ++i) pulse.unreachable.emplace_back(~i);
  ExpectFits(pulse);
}

TEST(RecoveryCodec, AMessageTooLongForTheTransportIsABug) {
  RaftMessage message;
  message.bytes = std::string(kMaxMessageBytes, 'x');
  ExpectBug([&] { EncodeMessage(message); });
}

TEST(RecoveryCodec, WhatAReaderWouldRefuseIsABug) {
  ExpectBug([&] { EncodeMessage(Pulse{1, Epoch(2), {NodeId(3), NodeId(3)}}); });
  ExpectBug([&] { EncodeEntry({Term(1), LogEntry::Kind::kNothing, "a command"}); });
  ExpectBug([&] { EncodeEntry({Term(1), LogEntry::Kind::kCommand, "", {{NodeId(1), 1}}}); });
}

TEST(RecoveryCodec, TheLargestCommandsFitIntoAnEntry) {
  NodeDatabase database;
  DatabaseCommand set = SetNode();
  set.record.name = std::string(NodeDatabase::kMostTextBytes, 'n');
  set.record.address = std::string(NodeDatabase::kMostTextBytes, 'a');
  set.record.votes = Raft::kMaxVotes;
  set.view.joins.resize(1000);  // Which its kind does not name.
  DatabaseCommand change;
  change.kind = DatabaseCommand::Kind::kChangeView;
  change.view.epoch = Epoch(2);
  for (uint64_t i = 1; i <= ViewChange::kMostNodes; ++i) {
    set.node = NodeId(i << 56);
    ASSERT_TRUE(database.Apply(set).ok());
    change.view.joins.push_back({set.node, Incarnation(~i)});
    change.view.blank.push_back(set.node);
  }
  ASSERT_TRUE(database.Check(change).ok());
  for (const DatabaseCommand& command : {set, change}) EXPECT_LE(EncodeCommand(command).size(), kCommandBytes);
  ExpectCommandReadBack(change);
  ASSERT_TRUE(database.Apply(change).ok());

  DatabaseCommand leave;
  leave.kind = DatabaseCommand::Kind::kChangeView;
  leave.view.epoch = Epoch(3);
  for (const auto& [node, incarnation] : database.view().members) leave.view.leaves.push_back(node);
  DatabaseCommand caught_up = leave;
  caught_up.view.caught_up = std::exchange(caught_up.view.leaves, {});
  for (const DatabaseCommand& command : {leave, caught_up}) {
    ASSERT_TRUE(database.Check(command).ok());
    EXPECT_LE(EncodeCommand(command).size(), kCommandBytes);
    ExpectCommandReadBack(command);
  }
}

TEST(RecoveryCodec, TheLargestDatabaseIsReadBackAlsoFromASnapshot) {
  std::map<NodeId, NodeRecord> nodes;
  View view{Epoch(UINT64_MAX), {}, NodeId(1)};
  for (uint64_t i = 1; i <= NodeDatabase::kMostNodes; ++i) {
    const std::string text(NodeDatabase::kMostTextBytes, static_cast<char>('a' + i % 26));
    nodes[NodeId(i)] = {text, text, Raft::kMaxVotes, Incarnation(i + 5), Epoch(i + 6)};
    view.members[NodeId(i)] = Incarnation(i + 5);
    view.behind[NodeId(i)] = Epoch(i);
  }
  const NodeDatabase database(std::move(nodes), std::move(view));
  const LogSnapshot snapshot{LogIndex(1), Term(2), MostVotes(), EncodeDatabase(database)};
  EXPECT_LT(snapshot.state.size(), size_t{3'000'000});
  const auto decoded = DecodeSnapshot(EncodeSnapshot(snapshot));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == snapshot);
  EXPECT_TRUE(DecodeDatabase(decoded->state).value() == database);
}

// --- Refusals: the frame ----------------------------------------------------------------------------------------------

TEST(RecoveryCodec, BytesThatAreNoFrameAreRefused) {
  const std::string good = EncodeMessage(FullPulse());
  ExpectRefused(DecodeText(""), "bad message: 0 bytes, with nothing in them");
  ExpectRefused(DecodeText(good.substr(0, 8)), "8 bytes, with nothing in them");
  ExpectRefused(DecodeText(good.substr(0, 15)), "15 bytes, not a multiple of 8");
  ExpectRefused(DecodeText(std::string(kMaxMessageBytes + 8, '\0')), "12296 bytes, more than 12288");
  ExpectRefused(DecodeCommand(std::string(kCommandBytes + 8, '\0')), "bad command: 4104 bytes, more than 4096");
  std::string segments = good;
  segments[0] = 2;
  ExpectRefused(DecodeText(segments), "3 segments instead of 1");
}

TEST(RecoveryCodec, TrailingAndMissingBytesAreRefused) {
  const std::string good = EncodeMessage(Greeting());
  ExpectRefused(DecodeText(good + std::string(8, '\0')), "5 words instead of the 4 that it says to have");
  ExpectRefused(DecodeText(good.substr(0, good.size() - 8)), "3 words instead of the 4 that it says to have");
  std::string cut = good.substr(0, good.size() - 8);
  MendFrame(cut);
  ExpectRefused(DecodeText(cut), "bad message: ");
}

TEST(RecoveryCodec, MissingFieldsAreRefused) {
  // The root's pointer is the second word; its upper half tells how many words of data, and how many pointers, there are.
  std::string less_data = EncodeLogState(FullState());
  --less_data[12];
  ExpectRefused(DecodeLogState(less_data), "bad log state: it lacks fields");
  std::string fewer_pointers = EncodeSnapshot(FullSnapshot());
  --fewer_pointers[14];
  ExpectRefused(DecodeSnapshot(fewer_pointers), "bad snapshot: it lacks fields");
  std::string nothing(16, '\0');
  MendFrame(nothing);
  ExpectRefused(DecodeText(nothing), "bad message: it lacks fields");
  ExpectRefused(DecodeCommand(nothing), "bad command: it lacks fields");
  ExpectRefused(DecodeDatabase(nothing), "bad database: it lacks fields");
  ExpectRefused(DecodeEntry(nothing), "bad entry: an entry lacks fields");
}

TEST(RecoveryCodec, AMessageWithoutItsContentIsRefused) {
  const std::vector<std::pair<RecoveryMessage, std::string>> messages = {{FullRaft(), "Raft lacks fields"},
                                                                         {FullPulse(), "Pulse lacks fields"},
                                                                         {FullAnswer(), "PulseAnswer lacks fields"},
                                                                         {FullPart(), "ViewPart lacks fields"},
                                                                         {Greeting(), "Greeting lacks fields"}};
  for (const auto& [message, text] : messages) {
    std::string bytes = EncodeMessage(message);
    std::memset(bytes.data() + 24, 0, 8);  // The only pointer of the message, behind its only word of data.
    ExpectRefused(DecodeText(bytes), text);
  }
}

// The same words in several places would make much out of little.
TEST(RecoveryCodec, WordsThatAreReadTwiceAreRefused) {
  RaftMessage message;
  message.entries = {Command(1, std::string(2000, 'x')), Command(2, "y")};
  std::string bytes = EncodeMessage(message);
  // A pointer to data: the way there in words, behind two bits; then its kind and length.
  const uint64_t length = (uint64_t{2000} << 35) | (uint64_t{2} << 32) | 1;
  uint64_t pointer = 0;
  size_t at = 8;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::memcpy(&pointer, bytes.data() + at, 8);
    if ((pointer & 0xFFFFFFFF00000003) == length) break;
  }
  ASSERT_LT(at + 8, bytes.size());
  constexpr size_t kEntryWords = wire::Entry::_capnpPrivate::dataWordSize + wire::Entry::_capnpPrivate::pointerCount;
  pointer -= kEntryWords << 2;
  std::memcpy(bytes.data() + at + kEntryWords * 8, &pointer, 8);
  ExpectRefused(DecodeText(bytes), "bad message: Exceeded message traversal limit");
}

// --- Refusals: what is in it ------------------------------------------------------------------------------------------

TEST(RecoveryCodec, UnknownKindsAndStandingsAreRefused) {
  std::string message = EncodeMessage(Greeting());
  message[16] = 11;  // The discriminant.
  ExpectRefused(DecodeText(message), "bad message: it is of the unknown kind 11");
  std::string command = EncodeCommand(RemoveNode());
  const size_t which = command.find('\1', 16);
  ASSERT_LT(which, command.size());
  command[which] = 3;
  ExpectRefused(DecodeCommand(command), "bad command: it is of the unknown kind 3");
  std::string entry = EncodeEntry(Command(7, "do"));
  ASSERT_EQ(entry[24], 1);
  entry[24] = 3;
  ExpectRefused(DecodeEntry(entry), "bad entry: an entry is of the unknown kind 3");
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().setKind(static_cast<wire::Raft::Kind>(7)); },
      "Raft is of the unknown kind 7");
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().setStanding(static_cast<wire::Standing>(3)); },
      "Raft has the unknown standing 3");
  ExpectRefused(DecodeLogState(Changed<wire::LogState>(
                    EncodeLogState(FullState()),
                    [](wire::LogState::Builder s) { s.setStanding(static_cast<wire::Standing>(256)); })),
                "it has the unknown standing 256");
}

TEST(RecoveryCodec, NegativeTimesAreRefused) {
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().setSentAtNs(-1); }, "Raft is of the time -1");
  ExpectMessageRefused(
      FullPulse(), [](wire::Message::Builder m) { m.getPulse().setSentAtNs(-2); }, "Pulse is of the time -2");
  ExpectMessageRefused(
      FullAnswer(), [](wire::Message::Builder m) { m.getPulseAnswer().setLeaseFromNs(INT64_MIN); },
      "PulseAnswer is of the time -9223372036854775808");
}

TEST(RecoveryCodec, ListsThatAreTooLongAreRefused) {
  ExpectMessageRefused(
      FullPulse(), [](wire::Message::Builder m) { m.getPulse().initUnreachable(65); },
      "Pulse has 65 entries, more than 64");
  ExpectMessageRefused(
      FullPart(), [](wire::Message::Builder m) { m.getViewPart().initNodes(341); },
      "ViewPart has 341 entries, more than 340");
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().initVotes(65); },
      "Raft's votes has 65 entries, more than 64");
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().getEntries()[2].initVotes(65); },
      "an entry of votes has 65 entries, more than 64");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().initLeaves(125); }, "of 129 nodes");
  const auto nothing = [](wire::Command::Builder c) {
    c.getChangeView().initJoins(0);
    c.getChangeView().initLeaves(0);
    c.getChangeView().initCaughtUp(0);
  };
  ExpectCommandRefused(ChangeView(), nothing, "of 0 nodes");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.initNodes(4097); }, "nodes' list has 4097 entries");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.initView(4097); }, "the view has 4097 entries");
}

TEST(RecoveryCodec, NodesThatAreNoneOrTwiceThereOrOutOfOrderAreRefused) {
  for (const auto& [node, text] :
       std::vector<std::pair<uint64_t, std::string>>{{0, "Pulse names node 0"}, {33, "Pulse names node 33 twice"}}) {
    ExpectMessageRefused(
        FullPulse(), [n = node](wire::Message::Builder m) { m.getPulse().getUnreachable().set(0, n); }, text);
  }
  const auto member = [](unsigned i, uint64_t node) {
    return [=](wire::Message::Builder m) { m.getViewPart().getNodes()[i].setNode(node); };
  };
  ExpectMessageRefused(FullPart(), member(0, 0), "ViewPart names node 0");
  ExpectMessageRefused(FullPart(), member(1, 53), "ViewPart names node 53 twice");
  ExpectMessageRefused(FullPart(), member(1, 52), "ViewPart names node 52 behind node 53");
  const auto vote = [](unsigned i, uint64_t node) {
    return [=](wire::Message::Builder m) { m.getRaft().getVotes()[i].setNode(node); };
  };
  ExpectMessageRefused(FullRaft(), vote(0, 0), "Raft's votes names node 0");
  ExpectMessageRefused(FullRaft(), vote(1, 20), "Raft's votes names node 20 twice");
  ExpectMessageRefused(FullRaft(), vote(1, 19), "Raft's votes names node 19 behind node 20");
  ExpectRefused(DecodeSnapshot(Changed<wire::Snapshot>(EncodeSnapshot(FullSnapshot()),
                                                       [](wire::Snapshot::Builder s) { s.getVotes()[1].setNode(95); })),
                "its votes names node 95 twice");
  ExpectMessageRefused(
      FullPart(), [](wire::Message::Builder m) { m.getViewPart().getNodes()[0].setIncarnation(0); },
      "ViewPart names node 53 and says nothing of it");
}

TEST(RecoveryCodec, DisksThatAreBehindSinceAViewThatIsYetToComeAreRefused) {
  const auto behind = [](unsigned i, uint64_t since) {
    return [=](wire::Message::Builder m) { m.getViewPart().getNodes()[i].setBehind(since); };
  };
  ExpectMessageRefused(FullPart(), behind(2, 52), "ViewPart of view 51 has node 56 behind since view 52");
  ExpectMessageRefused(FullPart(), behind(1, 51), "ViewPart of view 51 has node 55, a member, behind since view 51");
  ExpectMessageRefused(FullPart(), behind(2, 0), "ViewPart names node 56 and says nothing of it");
  const auto database = [](unsigned i, uint64_t since) {
    return [=](wire::Database::Builder d) { d.getView()[i].setBehind(since); };
  };
  ExpectDatabaseRefused(database(2, 88), "the view of view 87 has node 88 behind since view 88");
  ExpectDatabaseRefused(database(1, 87), "node 85, a member, behind since view 87");
}

TEST(RecoveryCodec, ABlankDiskIsOfWhoJoins) {
  const auto blank = [](uint64_t node) {
    return [=](wire::Command::Builder c) { c.getChangeView().getBlank().set(0, node); };
  };
  ExpectCommandRefused(ChangeView(), blank(71), "has node 71 with a blank disk, and not joining");
  ExpectCommandRefused(ChangeView(), blank(0), "has node 0 with a blank disk, and not joining");
  const auto twice = [](wire::Command::Builder c) {
    auto list = c.getChangeView().initBlank(2);
    list.set(0, 67);
    list.set(1, 67);
  };
  ExpectCommandRefused(ChangeView(), twice, "names node 67 twice");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().initBlank(3); },
      "a change of the view has 3 entries, more than 2");
}

TEST(RecoveryCodec, WhoHasCaughtUpNeitherJoinsNorLeaves) {
  const auto caught_up = [](uint64_t node) {
    return [=](wire::Command::Builder c) { c.getChangeView().getCaughtUp().set(1, node); };
  };
  for (const uint64_t node : {67, 70, 73}) {
    ExpectCommandRefused(ChangeView(), caught_up(node), "names node " + std::to_string(node) + " twice");
  }
  ExpectCommandRefused(ChangeView(), caught_up(0), "names node 0");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().initCaughtUp(125); }, "of 129 nodes");
}

TEST(RecoveryCodec, TooManyVotesAreRefused) {
  ExpectMessageRefused(
      FullRaft(), [](wire::Message::Builder m) { m.getRaft().getVotes()[1].setVotes(101); },
      "node 22 has 101 votes, more than 100");
  ExpectCommandRefused(
      SetNode(), [](wire::Command::Builder c) { c.getSetNode().setVotes(101); }, "node 61 has 101 votes");
}

TEST(RecoveryCodec, CommandsThatCouldNeverBeAppliedAreRefused) {
  const std::string long_text(NodeDatabase::kMostTextBytes + 1, 'x');
  ExpectCommandRefused(
      SetNode(), [](wire::Command::Builder c) { c.getSetNode().setNode(0); }, "a record is of node 0");
  ExpectCommandRefused(
      SetNode(), [](wire::Command::Builder c) { c.getSetNode().setName(""); }, "a name of 0 bytes");
  ExpectCommandRefused(
      SetNode(), [&](wire::Command::Builder c) { c.getSetNode().setName(long_text.c_str()); }, "a name of 301 bytes");
  ExpectCommandRefused(
      SetNode(), [&](wire::Command::Builder c) { c.getSetNode().setAddress(long_text.c_str()); },
      "an address of 301 bytes");
  ExpectCommandRefused(
      RemoveNode(), [](wire::Command::Builder c) { c.setRemoveNode(0); }, "a removal names node 0");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().getJoins()[0].setNode(0); }, "names node 0");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().getLeaves().set(1, 67); }, "names node 67 twice");
  ExpectCommandRefused(
      ChangeView(), [](wire::Command::Builder c) { c.getChangeView().getJoins()[0].setIncarnation(0); },
      "names node 67 incarnation 0");
}

TEST(RecoveryCodec, DatabasesThatContradictThemselvesAreRefused) {
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getNodes()[1].setNode(81); }, "names node 81 twice");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getNodes()[1].setNode(80); }, "node 80 behind node 81");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[1].setNode(81); }, "view names node 81 twice");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[2].setNode(99); },
                        "the view has node 99, which the cluster does not have");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[1].setIncarnation(87); },
                        "the view has node 85 incarnation 87, newer than its last, 86");
  ExpectDatabaseRefused(
      [](wire::Database::Builder d) {
        d.getView()[1].setBehind(0);
        d.getView()[2].setIncarnation(1);
        d.getView()[2].setBehind(0);
        d.setEpoch(0);
      },
      "view 0 has 3 nodes");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getView()[2].setNode(84); }, "names node 84 behind node 85");
}

// D3
TEST(RecoveryCodec, DatabasesWhoseDisksContradictTheViewsAreRefused) {
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getNodes()[3].setLast(0); },
                        "node 88 is behind, and was never in a view");
  ExpectDatabaseRefused([](wire::Database::Builder d) { d.getNodes()[1].setLast(7); },
                        "node 84 is not in the view any more, and not behind");
}

}  // namespace
}  // namespace mangrove
