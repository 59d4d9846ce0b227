#include "tests/sim/scale.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "recovery/participant.h"
#include "tests/sim/heap.h"

namespace mangrove::sim {
namespace {

constexpr size_t kAnchorsOfScale = 3;
constexpr int kMostLevels = 9;  // Of groups.
constexpr DurationNs kWrite = 500 * kMicrosecond;
constexpr DurationNs kCalm = 3 * kSecond;
constexpr DurationNs kLimit = 10 * kSecond;

class ScaleWorld {
 public:
  ScaleWorld(const std::vector<NodeId>& nodes, uint64_t seed);
  ScaleResult Run();

 private:
  struct Node {
    NodeId id;
    std::unique_ptr<Participant> part;  // Null: killed.
    std::deque<AnchorOutput> outputs;
    bool writing = false;
    TimeNs tick_at = kForever;  // The event that is to come.
    uint64_t messages = 0;
    bool has_lease = false;
    Epoch epoch;  // Of the view that it knows.
  };
  struct Event {
    TimeNs at;
    uint64_t number;
    std::function<void()> run;
    bool operator>(const Event& other) const { return at != other.at ? at > other.at : number > other.number; }
  };

  void At(DurationNs delay, std::function<void()> run) { events_.push({now_ + delay, next_event_++, std::move(run)}); }
  bool RunUntil(const std::function<bool()>& condition, DurationNs limit);
  void Pump(Node& node);
  bool Write(Node& node);
  void Send(Node& node, const std::vector<std::pair<NodeId, RecoveryMessage>>& messages);
  void ArmTick(Node& node);
  Node& Find(NodeId id) { return nodes_[slots_.at(id)]; }
  Node* Leader();
  Node& Monitor();
  bool IsMonitor(const Node& node);
  // Returns how long it takes until the leader's view is without it.
  DurationNs Kill(Node& node, size_t& bytes, ScaleResult& result);

  std::mt19937_64 random_;
  TimeNs now_ = kSecond;
  uint64_t next_event_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::map<NodeId, size_t> slots_;
  std::vector<Node> nodes_;
  std::set<NodeId> anchors_;
  uint64_t messages_ = 0;
  uint64_t leases_ended_ = 0;
  std::map<Epoch, size_t> reached_;  // How many nodes know it, or a newer one.
};

// The first nodes of three groups, of the highest level that has three; of none, the first three nodes.
std::set<NodeId> AnchorsOf(const std::vector<NodeId>& nodes) {
  for (int bits = kMostLevels * kGroupBits; bits > 0; bits -= kGroupBits) {
    std::map<uint64_t, NodeId> first;
    for (NodeId node : nodes) first.emplace(node.value >> bits, node);
    if (first.size() < kAnchorsOfScale) continue;
    std::set<NodeId> anchors;
    for (const auto& [group, node] : first) {
      if (anchors.size() < kAnchorsOfScale) anchors.insert(node);
    }
    return anchors;
  }
  return {nodes.begin(), nodes.begin() + kAnchorsOfScale};
}

ScaleWorld::ScaleWorld(const std::vector<NodeId>& nodes, uint64_t seed) : random_(seed), anchors_(AnchorsOf(nodes)) {
  CHECK(kFewestScaled <= nodes.size() && nodes.size() <= kMostScaled);
  CHECK(std::is_sorted(nodes.begin(), nodes.end()));
  Roster all{.version = UINT64_MAX, .nodes = {}};
  for (NodeId id : nodes) {
    all.nodes[id] = {.name = absl::StrCat("node-", id.value),
                     .address = absl::StrCat("10.0.", id.value / 256, ".", id.value % 256, ":7400"),
                     .votes = anchors_.contains(id) ? 1u : 0u,
                     .last = {},
                     .left = {}};
  }
  Roster known{.version = UINT64_MAX, .nodes = {}};
  for (NodeId anchor : anchors_) known.nodes[anchor] = all.nodes.at(anchor);
  nodes_.resize(nodes.size());
  for (size_t slot = 0; slot < nodes.size(); ++slot) {
    Node& node = nodes_[slot];
    slots_[nodes[slot]] = slot;
    node.id = nodes[slot];
    // Each knows the anchors, and is told of no others: for so many rosters one process would need too much room. Those that are
    // measured know all.
    const bool is_last_group = GroupOf(node.id) == GroupOf(nodes.back());
    const size_t half = nodes.size() / 2;
    const bool is_measured =
        anchors_.contains(node.id) || is_last_group || (half <= slot && slot < half + kAnchorsOfScale + 2);
    Member::Options member{.self = {node.id, Incarnation(1)}, .roster = is_measured ? all : known, .timing = {}};
    std::optional<Anchor::Options> anchor;
    if (anchors_.contains(node.id)) {
      anchor.emplace(Anchor::Options{.self = member.self, .nodes = all.nodes, .seed = random_()});
    }
    node.part = std::make_unique<Participant>(member, std::move(anchor), AnchorRecords(), std::nullopt, now_);
    for (NodeId other : nodes) {
      if (other != node.id) node.part->PeerUp(other);
    }
    ArmTick(node);
  }
}

bool ScaleWorld::RunUntil(const std::function<bool()>& condition, DurationNs limit) {
  const TimeNs end = now_ + limit;
  while (!events_.empty() && events_.top().at <= end) {
    const Event event = events_.top();
    events_.pop();
    now_ = event.at;
    event.run();
    if (condition()) return true;
  }
  now_ = end;
  return false;
}

void ScaleWorld::ArmTick(Node& node) {
  const TimeNs at = std::max(node.part->next_tick(), now_);
  if (node.tick_at <= at) return;
  node.tick_at = at;
  At(at - now_, [this, &node, at] {
    if (node.part == nullptr || node.tick_at != at) return;
    node.tick_at = kForever;
    node.part->Tick(now_);
    Pump(node);
  });
}

void ScaleWorld::Pump(Node& node) {
  do {
    Send(node, node.part->TakeMessages());
    for (AnchorOutput output = node.part->TakeOutput(); !output.empty(); output = node.part->TakeOutput()) {
      node.outputs.push_back(std::move(output));
    }
  } while (Write(node));
  const bool has_lease = node.part->member().HasLease(now_);
  if (node.has_lease && !has_lease) ++leases_ended_;
  node.has_lease = has_lease;
  const Epoch epoch = node.part->member().view().epoch;
  for (Epoch reached(node.epoch.value + 1); reached <= epoch; ++reached.value) ++reached_[reached];
  node.epoch = epoch;
  ArmTick(node);
}

bool ScaleWorld::Write(Node& node) {
  bool has_sent = false;
  while (!node.writing && !node.outputs.empty()) {
    node.writing = !node.outputs.front().records.empty();
    const auto finish = [this, &node] {
      if (node.part == nullptr) return;
      AnchorOutput output = std::move(node.outputs.front());
      node.outputs.pop_front();
      if (output.number != 0) node.part->Persisted(output.number, now_);
      node.part->Sent(output.messages, now_);
      Send(node, output.messages);
    };
    if (!node.writing) {
      finish();
      has_sent = true;
      continue;
    }
    At(kWrite, [this, &node, finish] {
      node.writing = false;
      finish();
      if (node.part != nullptr) Pump(node);
    });
  }
  return has_sent;
}

void ScaleWorld::Send(Node& node, const std::vector<std::pair<NodeId, RecoveryMessage>>& messages) {
  for (const auto& [to, message] : messages) {
    ++messages_;
    ++node.messages;
    const auto delay = static_cast<DurationNs>(100 * kMicrosecond + random_() % (200 * kMicrosecond));
    At(delay, [this, from = NodeInstance{node.id, Incarnation(1)}, &receiver = Find(to), message = message] {
      if (receiver.part == nullptr) return;
      ++receiver.messages;
      receiver.part->Receive(from, message, now_);
      Pump(receiver);
    });
  }
}

ScaleWorld::Node* ScaleWorld::Leader() {
  Node* leader = nullptr;
  for (NodeId id : anchors_) {
    Node& node = Find(id);
    if (node.part == nullptr || !node.part->anchor()->leads()) continue;
    if (leader == nullptr || node.part->anchor()->raft()->term() > leader->part->anchor()->raft()->term())
      leader = &node;
  }
  return leader;
}

// Of the last group, or, of few nodes, the last node.
ScaleWorld::Node& ScaleWorld::Monitor() {
  const NodeId last = nodes_.back().id;
  const NodeId monitor = MonitorOf(Leader()->part->anchor()->database().view(), last, anchors_, kFewNodes);
  return monitor.value == 0 ? nodes_.back() : Find(monitor);
}

bool ScaleWorld::IsMonitor(const Node& node) {
  const View& view = Leader()->part->anchor()->database().view();
  return view.members.size() > kFewNodes && MonitorOf(view, node.id, anchors_, kFewNodes).value == 0;
}

DurationNs ScaleWorld::Kill(Node& node, size_t& bytes, ScaleResult& result) {
  const NodeId id = node.id;
  const TimeNs killed = now_;
  const uint64_t messages = messages_;
  const size_t before = HeapInUse();
  node.part.reset();
  bytes = before - HeapInUse();
  node.outputs.clear();
  for (Node& other : nodes_) {
    At(kMillisecond, [this, &other, id] {
      if (other.part == nullptr) return;
      other.part->PeerDown(id, now_);
      Pump(other);
    });
  }
  CHECK(
      RunUntil([&] { return Leader() != nullptr && !Leader()->part->anchor()->database().view().members.contains(id); },
               kLimit));
  const DurationNs took = now_ - killed;
  const Epoch epoch = Leader()->part->anchor()->database().view().epoch;
  size_t alive = 0;
  for (const Node& other : nodes_) alive += other.part != nullptr ? 1 : 0;
  const TimeNs known = now_;
  CHECK(RunUntil([&] { return reached_[epoch] == alive; }, kLimit));
  result.view_spreads = std::max(result.view_spreads, now_ - known);
  result.messages_of_a_change = std::max(result.messages_of_a_change, messages_ - messages);
  RunUntil([] { return false; }, 2 * kSecond);
  return took;
}

ScaleResult ScaleWorld::Run() {
  ScaleResult result;
  result.nodes = static_cast<int>(nodes_.size());
  size_t look = 0;
  const auto all_are_there = [&] {
    if (++look % 64 != 0) return false;
    return std::all_of(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.has_lease; });
  };
  CHECK(RunUntil(all_are_there, 10 * kLimit));
  RunUntil([] { return false; }, kSecond);
  for (Node& node : nodes_) node.messages = 0;
  leases_ended_ = 0;
  RunUntil([] { return false; }, kCalm);
  const double seconds = static_cast<double>(kCalm) / kSecond;
  double members = 0;
  for (const Node& node : nodes_) {
    const double rate = static_cast<double>(node.messages) / seconds;
    if (&node == Leader()) {
      result.messages_of_the_leader = rate;
    } else if (IsMonitor(node)) {
      result.messages_of_a_monitor = std::max(result.messages_of_a_monitor, rate);
    } else if (!anchors_.contains(node.id)) {
      result.messages_of_a_member += rate;
      ++members;
    }
  }
  result.messages_of_a_member /= std::max(members, 1.0);
  Node* member = &nodes_[nodes_.size() / 2];
  while (anchors_.contains(member->id) || IsMonitor(*member)) ++member;
  result.member_lost = Kill(*member, result.bytes_of_a_member, result);
  result.monitor_lost = Kill(Monitor(), result.bytes_of_a_monitor, result);
  result.leader_lost = Kill(*Leader(), result.bytes_of_the_leader, result);
  result.leases_ended = leases_ended_;
  return result;
}

}  // namespace

std::vector<NodeId> NodesInGroups(size_t count) {
  std::vector<NodeId> nodes;
  // But for place 0, which would be node 0 in the first group.
  for (uint64_t i = 0; i < count; ++i) {
    nodes.emplace_back((i / (kGroupNodes - 1)) * kGroupNodes + i % (kGroupNodes - 1) + 1);
  }
  return nodes;
}

std::vector<NodeId> NodesInGroups(const std::vector<size_t>& sizes) {
  std::vector<uint64_t> paths = {0};
  for (const size_t size : sizes) {
    CHECK(1 <= size && size <= kGroupNodes);
    std::vector<uint64_t> longer;
    for (const uint64_t path : paths) {
      for (uint64_t place = 0; place < size; ++place) longer.push_back(path << kGroupBits | place);
    }
    paths = std::move(longer);
  }
  std::vector<NodeId> nodes;
  for (const uint64_t path : paths) {
    if (path != 0) nodes.emplace_back(path);
  }
  return nodes;
}

ScaleResult RunScale(const std::vector<NodeId>& nodes, uint64_t seed) {
  return std::make_unique<ScaleWorld>(nodes, seed)->Run();
}

}  // namespace mangrove::sim
