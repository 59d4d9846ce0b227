#include "recovery/codec.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/check.h"
#include "net/transport.h"
#include "recovery/codec_frame.h"
#include "recovery/codec_log.h"
#include "recovery/codec_view.h"
#include "recovery/view_history.h"

namespace mangrove {
namespace {

namespace wire = recovery_wire;

// --- Encoding: messages -----------------------------------------------------------------------------------------------

void Fill(wire::Pulse::Builder out, const Pulse& pulse) {
  out.setSentAtNs(pulse.sent_at);
  out.setEpoch(pulse.epoch.value);
  out.setBlank(pulse.blank);
  out.setCaughtUp(pulse.caught_up);
  out.setMoved(pulse.moved.value);
  out.setRoster(pulse.roster);
  out.setKnowsWeights(pulse.knows_weights);
  out.setDiskMib(pulse.disk.mib);
  out.setLeaves(pulse.leaves);
  out.setDiskUsed(pulse.disk.used);
  if (!pulse.unreachable.empty()) FillIds(out.initUnreachable(SizeOf(pulse.unreachable)), pulse.unreachable);
}

void Fill(wire::PulseAnswer::Builder out, const PulseAnswer& answer) {
  out.setLeaseFromNs(answer.lease_from);
  out.setEpoch(answer.epoch.value);
  out.setLeader(answer.leader.value);
  out.setIsGone(answer.is_gone);
  out.setTo(answer.to.value);
  out.setIsRemoved(answer.is_removed);
}

void Fill(wire::PulseBatch::Builder out, const PulseBatch& batch) {
  if (batch.pulses.empty()) return;
  auto list = out.initPulses(SizeOf(batch.pulses));
  for (unsigned i = 0; i < batch.pulses.size(); ++i) {
    FillInstance(list[i].initFrom(), batch.pulses[i].from);
    Fill(list[i].initPulse(), batch.pulses[i].pulse);
  }
}

void Fill(wire::AnswerBatch::Builder out, const AnswerBatch& batch) {
  out.setEpoch(batch.epoch.value);
  out.setLeader(batch.leader.value);
  if (batch.answers.empty()) return;
  auto list = out.initAnswers(SizeOf(batch.answers));
  for (unsigned i = 0; i < batch.answers.size(); ++i) {
    const RelayedAnswer& answer = batch.answers[i];
    FillInstance(list[i].initTo(), answer.to);
    list[i].setLeaseFromNs(answer.lease_from);
    list[i].setIsGone(answer.is_gone);
  }
}

void Fill(wire::Node::Builder out, NodeId node, const NodeRecord& record) {
  out.setNode(node.value);
  out.setName(capnp::Text::Reader(record.name.c_str(), record.name.size()));
  if (!record.address.empty()) out.setAddress(capnp::Text::Reader(record.address.c_str(), record.address.size()));
  out.setVotes(record.votes);
  out.setIsRemoved(record.is_removed);
  out.setSpace(record.identity.space);
  out.setTime(record.identity.time);
  out.setChanged(record.changed);
}

bool HasRecord(NodeRequest::Kind kind) { return kind == NodeRequest::Kind::kAdd || kind == NodeRequest::Kind::kSet; }

void Fill(wire::NodeRequest::Builder out, const NodeRequest& request) {
  out.setKind(static_cast<wire::NodeRequest::Kind>(static_cast<int>(request.kind) - 1));
  out.setNode(request.node.value);
  out.setGroup(request.group);
  if (HasRecord(request.kind)) Fill(out.initRecord(), request.node, request.record);
}

void Fill(wire::RosterPart::Builder out, const RosterPart& part) {
  out.setAfter(part.after);
  out.setVersion(part.version);
  out.setIsLast(part.is_last);
  out.setOldest(part.oldest);
  auto nodes = out.initNodes(SizeOf(part.nodes));
  for (unsigned i = 0; i < part.nodes.size(); ++i) Fill(nodes[i], part.nodes[i].first, part.nodes[i].second);
}

void Fill(wire::Greeting::Builder out, const Greeting& greeting) {
  out.setHasVoted(greeting.has_voted);
  out.setAsks(greeting.asks);
}

// One for each kind: with a kind that is not known here this does not compile.
struct FillContent {
  void operator()(const RaftMessage& raft) { FillRaft(out.initRaft(), raft); }
  void operator()(const Pulse& pulse) { Fill(out.initPulse(), pulse); }
  void operator()(const PulseAnswer& answer) { Fill(out.initPulseAnswer(), answer); }
  void operator()(const ViewPart& part) { FillViewPart(out.initViewPart(), part); }
  void operator()(const ViewChange& change) { FillViewChange(out.initViewChange(), change); }
  void operator()(const PulseBatch& batch) { Fill(out.initPulseBatch(), batch); }
  void operator()(const AnswerBatch& batch) { Fill(out.initAnswerBatch(), batch); }
  void operator()(const NodeRequest& request) { Fill(out.initNodeRequest(), request); }
  void operator()(const Greeting& greeting) { Fill(out.initGreeting(), greeting); }
  void operator()(const RosterPart& part) { Fill(out.initRosterPart(), part); }
  void operator()(const Stopping& stopping) { out.initStopping().setFlushes(stopping.flushes); }

  wire::Message::Builder out;
};

void Fill(wire::Message::Builder out, const RecoveryMessage& message) { std::visit(FillContent{out}, message); }

// --- Encoding: what the log is about ----------------------------------------------------------------------------------

void Fill(wire::Command::Builder out, const DatabaseCommand& command) {
  switch (command.kind) {
    case DatabaseCommand::Kind::kSetNode: return Fill(out.initSetNode(), command.node, command.record);
    case DatabaseCommand::Kind::kRemoveNode: return out.setRemoveNode(command.node.value);
    case DatabaseCommand::Kind::kChangeView: return FillViewChange(out.initChangeView(), command.view);
  }
  CHECK(false);
}

void Fill(wire::Database::Builder out, const NodeDatabase& database) {
  unsigned i = 0;
  auto nodes = out.initNodes(SizeOf(database.nodes()));
  for (const auto& [node, record] : database.nodes()) {
    nodes[i].setLast(record.last.value);
    nodes[i].setLeft(record.left.value);
    Fill(nodes[i++], node, record);
  }
  out.setEpoch(database.view().epoch.value);
  out.setRoot(database.view().root.value);
  out.setMove(database.view().move.value);
  const std::vector<ViewPart::Node> view = NodesOf(database.view());
  FillViewNodes(out.initView(SizeOf(view)), view);
}

// --- Decoding: messages -----------------------------------------------------------------------------------------------

absl::Status Read(wire::Pulse::Reader in, Pulse& pulse) {
  if (absl::Status s = CheckWhole("Pulse", in); !s.ok()) return s;
  pulse.sent_at = in.getSentAtNs();
  if (absl::Status s = CheckTime("Pulse", pulse.sent_at); !s.ok()) return s;
  pulse.epoch = Epoch(in.getEpoch());
  pulse.blank = in.getBlank();
  pulse.caught_up = in.getCaughtUp();
  pulse.moved = Epoch(in.getMoved());
  pulse.roster = in.getRoster();
  pulse.knows_weights = in.getKnowsWeights();
  pulse.disk.mib = in.getDiskMib();
  pulse.leaves = in.getLeaves();
  pulse.disk.used = in.getDiskUsed();
  if (pulse.disk.used > DiskSize::kAllUsed) {
    return Bad("Pulse says that pages take ", pulse.disk.used, " of a disk, more than ", DiskSize::kAllUsed);
  }
  const auto unreachable = in.getUnreachable();
  if (absl::Status s = CheckLength("Pulse", unreachable, Pulse::kMostUnreachable); !s.ok()) return s;
  for (uint64_t node : unreachable) pulse.unreachable.emplace_back(node);
  return CheckDistinct("Pulse", pulse.unreachable);
}

absl::Status Read(wire::PulseAnswer::Reader in, PulseAnswer& answer) {
  if (absl::Status s = CheckWhole("PulseAnswer", in); !s.ok()) return s;
  answer = {in.getLeaseFromNs(), Epoch(in.getEpoch()),    NodeId(in.getLeader()),
            in.getIsGone(),      Incarnation(in.getTo()), in.getIsRemoved()};
  return CheckTime("PulseAnswer", answer.lease_from);
}

absl::Status Read(wire::RelayedPulse::Reader in, RelayedPulse& relayed) {
  if (absl::Status s = CheckWhole("RelayedPulse", in); !s.ok()) return s;
  if (absl::Status s = ReadInstance("RelayedPulse", in.getFrom(), relayed.from); !s.ok()) return s;
  return Read(in.getPulse(), relayed.pulse);
}

absl::Status Read(wire::PulseBatch::Reader in, PulseBatch& batch) {
  if (absl::Status s = CheckWhole("PulseBatch", in); !s.ok()) return s;
  const auto pulses = in.getPulses();
  if (absl::Status s = CheckLength("PulseBatch", pulses, PulseBatch::kMostPulses); !s.ok()) return s;
  size_t unreachable = 0;
  std::vector<NodeId> named;
  for (const wire::RelayedPulse::Reader pulse : pulses) {
    RelayedPulse& relayed = batch.pulses.emplace_back();
    if (absl::Status s = Read(pulse, relayed); !s.ok()) return s;
    named.push_back(relayed.from.node);
    unreachable += relayed.pulse.unreachable.size();
  }
  if (unreachable > PulseBatch::kMostUnreachable) {
    return Bad("PulseBatch has ", unreachable, " unreachable nodes, more than ", PulseBatch::kMostUnreachable);
  }
  return CheckDistinct("PulseBatch", std::move(named));
}

absl::Status Read(wire::RelayedAnswer::Reader in, RelayedAnswer& relayed) {
  if (absl::Status s = CheckWhole("RelayedAnswer", in); !s.ok()) return s;
  relayed.lease_from = in.getLeaseFromNs();
  relayed.is_gone = in.getIsGone();
  if (absl::Status s = CheckTime("RelayedAnswer", relayed.lease_from); !s.ok()) return s;
  return ReadInstance("RelayedAnswer", in.getTo(), relayed.to);
}

absl::Status Read(wire::AnswerBatch::Reader in, AnswerBatch& batch) {
  if (absl::Status s = CheckWhole("AnswerBatch", in); !s.ok()) return s;
  batch.epoch = Epoch(in.getEpoch());
  batch.leader = NodeId(in.getLeader());
  const auto answers = in.getAnswers();
  if (absl::Status s = CheckLength("AnswerBatch", answers, AnswerBatch::kMostAnswers); !s.ok()) return s;
  std::vector<NodeId> named;
  for (const wire::RelayedAnswer::Reader answer : answers) {
    RelayedAnswer& relayed = batch.answers.emplace_back();
    if (absl::Status s = Read(answer, relayed); !s.ok()) return s;
    named.push_back(relayed.to.node);
  }
  return CheckDistinct("AnswerBatch", std::move(named));
}

absl::Status Read(const char* what, wire::Node::Reader in, NodeRecord& record) {
  if (absl::Status s = CheckWhole(what, in); !s.ok()) return s;
  const capnp::Text::Reader name = in.getName();
  const capnp::Text::Reader address = in.getAddress();
  if (name.size() == 0 || name.size() > NodeDatabase::kMostTextBytes) {
    return Bad(what, " has a name of ", name.size(), " bytes, expected 1 to ", NodeDatabase::kMostTextBytes);
  }
  if (address.size() > NodeDatabase::kMostTextBytes) {
    return Bad(what, " has an address of ", address.size(), " bytes, more than ", NodeDatabase::kMostTextBytes);
  }
  record.name.assign(name.begin(), name.size());
  record.address.assign(address.begin(), address.size());
  record.votes = in.getVotes();
  record.last = Incarnation(in.getLast());
  record.left = Epoch(in.getLeft());
  record.is_removed = in.getIsRemoved();
  record.identity = {in.getSpace(), in.getTime()};
  record.changed = in.getChanged();
  return CheckVotes(NodeId(in.getNode()), record.votes);
}

absl::Status Read(wire::Node::Reader in, NodeId& node, NodeRecord& record) {
  node = NodeId(in.getNode());
  if (node.value == 0) return Bad("a record is of node 0");
  return Read(ToString(node).c_str(), in, record);
}

absl::Status Read(wire::NodeRequest::Reader in, NodeRequest& request) {
  if (absl::Status s = CheckWhole("NodeRequest", in); !s.ok()) return s;
  const auto kind = static_cast<int>(in.getKind());
  if (kind > static_cast<int>(wire::NodeRequest::Kind::SET)) return Bad("NodeRequest is of the unknown kind ", kind);
  request.kind = static_cast<NodeRequest::Kind>(kind + 1);
  request.node = NodeId(in.getNode());
  request.group = in.getGroup();
  if ((request.node.value == 0) != (request.kind == NodeRequest::Kind::kAdd)) {
    return Bad("NodeRequest of kind ", kind, " names ", ToString(request.node));
  }
  if (!HasRecord(request.kind)) return {};
  if (absl::Status s = Read("NodeRequest", in.getRecord(), request.record); !s.ok()) return s;
  request.record.last = Incarnation();
  request.record.left = Epoch();
  request.record.is_removed = false;
  return {};
}

absl::Status Read(wire::RosterPart::Reader in, RosterPart& part) {
  if (absl::Status s = CheckWhole("RosterPart", in); !s.ok()) return s;
  part.after = in.getAfter();
  part.version = in.getVersion();
  part.is_last = in.getIsLast();
  part.oldest = in.getOldest();
  const auto nodes = in.getNodes();
  if (absl::Status s = CheckLength("RosterPart", nodes, RosterPart::kMostNodes); !s.ok()) return s;
  uint64_t changed = part.after;
  std::vector<NodeId> named;
  for (const wire::Node::Reader entry : nodes) {
    auto& [node, record] = part.nodes.emplace_back();
    if (absl::Status s = Read(entry, node, record); !s.ok()) return s;
    if (record.changed <= changed) return Bad("RosterPart has change ", record.changed, " behind ", changed);
    changed = record.changed;
    record.last = Incarnation();
    record.left = Epoch();
    named.push_back(node);
  }
  if (nodes.size() > 0 && part.oldest > part.nodes.front().second.changed) {
    return Bad("RosterPart begins with change ", part.nodes.front().second.changed, ", and says that ", part.oldest,
               " is the oldest");
  }
  if (nodes.size() == 0 || changed != part.version) {
    return Bad("RosterPart goes to change ", changed, ", and says ", part.version, " of it");
  }
  return CheckDistinct("RosterPart", std::move(named));
}

absl::Status Read(wire::Greeting::Reader in, Greeting& greeting) {
  greeting = {in.getHasVoted(), in.getAsks()};
  return CheckWhole("Greeting", in);
}

absl::Status Read(wire::Stopping::Reader in, Stopping& stopping) {
  stopping.flushes = in.getFlushes();
  return CheckWhole("Stopping", in);
}

absl::Status Read(wire::Message::Reader in, RecoveryMessage& message) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  switch (in.which()) {
    case wire::Message::RAFT: return ReadRaft(in.getRaft(), message.emplace<RaftMessage>());
    case wire::Message::PULSE: return Read(in.getPulse(), message.emplace<Pulse>());
    case wire::Message::PULSE_ANSWER: return Read(in.getPulseAnswer(), message.emplace<PulseAnswer>());
    case wire::Message::VIEW_PART: return ReadViewPart(in.getViewPart(), message.emplace<ViewPart>());
    case wire::Message::VIEW_CHANGE: return ReadViewChange(in.getViewChange(), message.emplace<ViewChange>());
    case wire::Message::PULSE_BATCH: return Read(in.getPulseBatch(), message.emplace<PulseBatch>());
    case wire::Message::ANSWER_BATCH: return Read(in.getAnswerBatch(), message.emplace<AnswerBatch>());
    case wire::Message::NODE_REQUEST: return Read(in.getNodeRequest(), message.emplace<NodeRequest>());
    case wire::Message::GREETING: return Read(in.getGreeting(), message.emplace<Greeting>());
    case wire::Message::ROSTER_PART: return Read(in.getRosterPart(), message.emplace<RosterPart>());
    case wire::Message::STOPPING: return Read(in.getStopping(), message.emplace<Stopping>());
  }
  return Bad("it is of the unknown kind ", static_cast<unsigned>(in.which()));
}

// --- Decoding: what the log is about ----------------------------------------------------------------------------------

absl::Status Read(wire::Command::Reader in, DatabaseCommand& command) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  switch (in.which()) {
    case wire::Command::SET_NODE: {
      command.kind = DatabaseCommand::Kind::kSetNode;
      const absl::Status status = Read(in.getSetNode(), command.node, command.record);
      command.record.last = Incarnation();
      command.record.left = Epoch();
      command.record.is_removed = false;
      return status;
    }
    case wire::Command::REMOVE_NODE:
      command.kind = DatabaseCommand::Kind::kRemoveNode;
      command.node = NodeId(in.getRemoveNode());
      return CheckFollows("a removal", NodeId(), command.node);
    case wire::Command::CHANGE_VIEW:
      command.kind = DatabaseCommand::Kind::kChangeView;
      return ReadViewChange(in.getChangeView(), command.view);
  }
  return Bad("it is of the unknown kind ", static_cast<unsigned>(in.which()));
}

absl::Status ReadView(wire::Database::Reader in, const std::map<NodeId, NodeRecord>& nodes, View& view) {
  view.epoch = Epoch(in.getEpoch());
  std::vector<ViewPart::Node> list;
  if (absl::Status s = ReadViewNodes("the view", in.getView(), NodeDatabase::kMostNodes, view.epoch, list); !s.ok())
    return s;
  if (view.epoch.value == 0 && !list.empty()) return Bad("view 0 has ", list.size(), " nodes");
  for (const ViewPart::Node& node : list) {
    const auto found = nodes.find(node.node);
    if (found == nodes.end()) return Bad("the view has ", ToString(node.node), ", which the cluster does not have");
    if (node.incarnation > found->second.last) {
      return Bad("the view has ", ToString(NodeInstance{node.node, node.incarnation}), ", newer than its last, ",
                 found->second.last.value);
    }
    const bool was_there = found->second.last.value != 0;
    if (node.behind.value != 0 && !was_there) return Bad(ToString(node.node), " is behind, and was never in a view");
    if (found->second.is_removed) return Bad("the view has ", ToString(node.node), ", which was removed");
  }
  AddNodes(list, view);
  for (const auto& [node, record] : nodes) {
    const bool is_named = view.members.contains(node) || view.behind.contains(node);
    if (record.last.value == 0 || record.is_removed || is_named) continue;
    return Bad(ToString(node), " is not in the view any more, and not behind");
  }
  view.move = Epoch(in.getMove());
  if (view.move > view.epoch || (view.move.value == 0) != view.next_disks.empty()) {
    return Bad("view ", view.epoch.value, " moves pages to ", view.next_disks.size(), " disks since view ",
               view.move.value);
  }
  view.root = NodeId(in.getRoot());
  if (view.members.empty() ? view.root.value != 0 : !view.members.contains(view.root)) {
    return Bad("the view's root is ", ToString(view.root), ", which is not in it");
  }
  return {};
}

absl::Status Read(wire::Database::Reader in, NodeDatabase& database) {
  if (absl::Status s = CheckWhole("it", in); !s.ok()) return s;
  const auto list = in.getNodes();
  if (absl::Status s = CheckLength("the nodes' list", list, NodeDatabase::kMostNodes); !s.ok()) return s;
  std::map<NodeId, NodeRecord> nodes;
  std::set<uint64_t> changes;
  NodeId before;
  for (const wire::Node::Reader entry : list) {
    NodeId node;
    NodeRecord record;
    if (absl::Status s = Read(entry, node, record); !s.ok()) return s;
    if (absl::Status s = CheckFollows("the nodes' list", before, node); !s.ok()) return s;
    if (record.changed != 0 && !changes.insert(record.changed).second) {
      return Bad(ToString(node), " has change ", record.changed, ", as another node has");
    }
    nodes.emplace_hint(nodes.end(), node, std::move(record));
    before = node;
  }
  View view;
  if (absl::Status s = ReadView(in, nodes, view); !s.ok()) return s;
  database = NodeDatabase(std::move(nodes), std::move(view));
  return {};
}

constexpr Form<wire::Message, RecoveryMessage> kMessage{"message", Fill, Read, kMaxMessageBytes};
constexpr Form<wire::Command, DatabaseCommand> kCommand{"command", Fill, Read, RaftOptions{}.command_bytes};
constexpr Form<wire::Database, NodeDatabase> kDatabase{"database", Fill, Read};

}  // namespace

std::string EncodeMessage(const RecoveryMessage& message) { return kMessage.Encode(message); }

absl::StatusOr<RecoveryMessage> DecodeMessage(std::span<const std::byte> bytes) {
  return kMessage.Decode({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string EncodeCommand(const DatabaseCommand& command) { return kCommand.Encode(command); }

absl::StatusOr<DatabaseCommand> DecodeCommand(std::string_view bytes) { return kCommand.Decode(bytes); }

std::string EncodeDatabase(const NodeDatabase& database) { return kDatabase.Encode(database); }

absl::StatusOr<NodeDatabase> DecodeDatabase(std::string_view bytes) { return kDatabase.Decode(bytes); }

// A database without a view.
std::string EncodeRoster(const Roster& roster) {
  const NodeDatabase database(roster.nodes, View());
  CHECK(database.roster_version() == roster.version);
  return EncodeDatabase(database);
}

absl::StatusOr<Roster> DecodeRoster(std::string_view bytes) {
  const absl::StatusOr<NodeDatabase> database = DecodeDatabase(bytes);
  if (!database.ok()) return database.status();
  if (database->view() != View()) {
    return Bad("bad roster: it has view ", database->view().epoch.value, ", and a roster has none");
  }
  return Roster{.version = database->roster_version(), .nodes = database->nodes()};
}

}  // namespace mangrove
