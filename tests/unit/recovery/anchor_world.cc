#include "tests/unit/recovery/anchor_world.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr DurationNs kLook = 5 * kMillisecond;
constexpr int64_t kMostDriftPpm = 10'000;

}  // namespace

AnchorWorld::AnchorWorld(const Options& options) : options_(options), random_(options.seed), faults_(options.faults) {
  for (int i = 1; i <= options.nodes; ++i) {
    const NodeId id = IdOf(i);
    Node& node = nodes_[id];
    node.id = id;
    node.drift_ppm = Spread(-kMostDriftPpm, kMostDriftPpm);
    node.clock_offset = Spread(0, kSecond * 1000);
    records_[id] = {.name = absl::StrCat("n", i),
                    .address = absl::StrCat("a", i),
                    .votes = i <= options.anchors ? 1u : 0u,
                    .last = {}};
  }
  for (auto& [id, node] : nodes_) node.roster = node.older_roster = Configuration(id);
  for (auto& [id, node] : nodes_) At(Spread(0, 100 * kMillisecond), [this, id = id] { Start(id); });
  At(0, [this] { LookAtConnections(); });
  At(0, [this] { DoSomething(); });
}

NodeId AnchorWorld::IdOf(int i) const {
  const auto number = static_cast<uint64_t>(i);
  return options_.grouped ? NodeId(number % 3 * kGroupNodes + number) : NodeId(number);
}

void AnchorWorld::At(DurationNs delay, std::function<void()> event) {
  events_.emplace(std::pair(now_ + delay, next_event_++), std::move(event));
}

void AnchorWorld::OnNode(NodeId id, uint64_t incarnation, DurationNs delay, std::function<void(Node&)> event) {
  At(delay, [this, id, incarnation, event = std::move(event)] {
    Node& node = nodes_.at(id);
    if (node.part == nullptr || node.incarnation != incarnation) return;
    if (node.asleep_until > now_) {  // What has waited comes in any order.
      return OnNode(id, incarnation, node.asleep_until - now_ + Spread(0, kMillisecond), event);
    }
    event(node);
  });
}

DurationNs AnchorWorld::Spread(DurationNs least, DurationNs most) {
  return least + static_cast<DurationNs>(random_() % static_cast<uint64_t>(most - least + 1));
}

TimeNs AnchorWorld::Now(const Node& node) const { return node.clock_offset + now_ + now_ / 1'000'000 * node.drift_ppm; }

void AnchorWorld::Fail(const std::string& what) {
  if (failure_.empty()) failure_ = absl::StrCat("seed ", options_.seed, " at ", now_ / kMicrosecond, " us: ", what);
}

void AnchorWorld::RunFor(DurationNs span) {
  static_cast<void>(RunUntil([] { return false; }, span));
}

std::optional<DurationNs> AnchorWorld::RunUntil(const std::function<bool()>& condition, DurationNs limit) {
  const TimeNs begin = now_;
  while (failure_.empty() && !events_.empty() && events_.begin()->first.first <= begin + limit) {
    auto event = events_.extract(events_.begin());
    now_ = event.key().first;
    event.mapped()();
    Check();
    if (condition()) return now_ - begin;
  }
  now_ = std::max(now_, begin + limit);
  return std::nullopt;
}

// --- Nodes ------------------------------------------------------------------------------------------------------------

NodeInstance AnchorWorld::instance(NodeId node) const { return {node, Incarnation(nodes_.at(node).incarnation)}; }

bool AnchorWorld::HasLease(NodeId id) const {
  const Node& node = nodes_.at(id);
  return node.part != nullptr && node.part->member().HasLease(Now(node));
}

NodeId AnchorWorld::leader() const {
  NodeId leader;
  Term term;
  for (const auto& [id, node] : nodes_) {
    if (node.anchor() == nullptr || !node.anchor()->leads() || node.anchor()->raft()->term() <= term) continue;
    leader = id;
    term = node.anchor()->raft()->term();
  }
  return leader;
}

void AnchorWorld::Start(NodeId id) {
  Node& node = nodes_.at(id);
  if (node.part != nullptr) return;
  ++node.incarnation;
  // The last write may have been lost.
  if (faults_ && Chance(300)) node.roster = node.older_roster;
  Member::Options member{.self = instance(id), .roster = node.roster, .timing = timing_};
  if (options_.grouped) member.few_nodes = 0;
  std::optional<Anchor::Options> anchor;
  AnchorRecords records;
  std::optional<RaftDurable> durable;
  if (node.is_anchor() || !node.disk.empty()) {
    anchor = AnchorOptions(node);
    absl::StatusOr<std::optional<RaftDurable>> loaded = records.Load({node.disk.begin(), node.disk.end()});
    if (!loaded.ok()) return Fail(absl::StrCat("the log cannot be read: ", loaded.status().ToString()));
    durable = *std::move(loaded);
  }
  node.part =
      std::make_unique<Participant>(member, std::move(anchor), std::move(records), std::move(durable), Now(node));
  if (node.anchor() == nullptr && node.incarnation % 3 == 2) old_.insert(instance(id));
  if (faults_ && Chance(150)) blank_disks_.insert(instance(id));
  node.caught_up = faults_ && Chance(20);  // Too early: it counts when it is a member.
  node.moved = Epoch();
  SetDisk(node);
  Tick(node);
}

// What it had not written is lost; of the output that was being written, all of it or nothing.
void AnchorWorld::Crash(NodeId id) {
  Node& node = nodes_.at(id);
  if (node.writing && Chance(500)) WriteTo(node, node.outputs.front());
  node.part.reset();
  node.outputs.clear();
  node.writing = false;
  node.heard.clear();
  node.up.clear();
  node.asleep_until = 0;
  node.checked = LogIndex();
}

void AnchorWorld::HandOver(NodeId id) {
  Node& node = nodes_.at(id);
  if (node.anchor() == nullptr) return;
  static_cast<void>(node.part->HandOver(Now(node)));
  Pump(node);
}

void AnchorWorld::Leave(NodeId id) {
  Node& node = nodes_.at(id);
  if (node.asleep_until > now_ || node.part->member().leaves() || IsOld(instance(id))) return;
  leave_.insert(instance(id));
  node.part->Leave(Now(node));
  OnNode(id, node.incarnation, faults_ ? Spread(0, 600 * kMillisecond) : kSecond, [this](Node& n) { Crash(n.id); });
  node.part->Tick(Now(node));
  Pump(node);
}

void AnchorWorld::Pause(NodeId node, DurationNs span) { nodes_.at(node).asleep_until = now_ + span; }

void AnchorWorld::ReplaceDisk(NodeId id) {
  Node& node = nodes_.at(id);
  node.disk.clear();
  node.roster = node.older_roster = Configuration(id);
  ++disks_;
}

bool AnchorWorld::Connected(const Node& a, const Node& b) const {
  return a.part != nullptr && b.part != nullptr && !cut_.contains({a.id, b.id}) && !cut_.contains({b.id, a.id});
}

void AnchorWorld::LookAtConnections() {
  At(10 * kMillisecond, [this] { LookAtConnections(); });
  for (auto& [id, node] : nodes_) {
    if (node.part == nullptr || node.asleep_until > now_) continue;
    for (auto& [other, peer] : nodes_) {
      if (other == id) continue;
      const bool connected = Connected(node, peer);
      if (connected && node.heard[other] < peer.incarnation) {
        if (node.up.erase(other) > 0) node.part->PeerDown(other, Now(node));
        node.heard[other] = peer.incarnation;
      }
      if (connected == node.up.contains(other)) continue;
      if (connected) {
        node.up.insert(other);
        node.part->PeerUp(other);
      } else {
        node.up.erase(other);
        node.part->PeerDown(other, Now(node));
      }
    }
  }
}

void AnchorWorld::Tick(Node& node) {
  ChangeDisk(node);
  node.part->Tick(Now(node));
  Pump(node);
  OnNode(node.id, node.incarnation, kLook, [this](Node& n) { Tick(n); });
}

// Takes what there is to do, until there is nothing. Whoever has left the view starts anew.
void AnchorWorld::Pump(Node& node) {
  if (IsOut(node)) return Crash(node.id);
  if (node.part->member().is_gone()) {
    const NodeId id = node.id;
    ++restarts_;
    const View& known = node.part->member().view();
    if (known.epoch == newest_.epoch && known.Has(instance(id))) {
      Fail(absl::StrCat("M3: ", ToString(instance(id)), " takes itself for gone from the view that it is in"));
    }
    Crash(id);
    return At(Spread(kMillisecond, 200 * kMillisecond), [this, id] { Start(id); });
  }
  KeepRoster(node);
  do {
    Send(node, node.part->TakeMessages());
    for (AnchorOutput output = node.part->TakeOutput(); !output.empty(); output = node.part->TakeOutput()) {
      node.outputs.push_back(std::move(output));
    }
  } while (Write(node));
}

// Whether something was sent, of which something may follow.
bool AnchorWorld::Write(Node& node) {
  bool has_sent = false;
  while (!node.writing && !node.outputs.empty()) {
    if (node.outputs.front().records.empty()) {
      AnchorOutput output = std::move(node.outputs.front());
      node.outputs.pop_front();
      node.part->Sent(output.messages, Now(node));
      Send(node, output.messages);
      has_sent = true;
      continue;
    }
    node.writing = true;
    const DurationNs takes = Spread(50 * kMicrosecond, faults_ && Chance(20) ? 300 * kMillisecond : kMillisecond);
    OnNode(node.id, node.incarnation, takes, [this](Node& n) {
      AnchorOutput output = std::move(n.outputs.front());
      n.outputs.pop_front();
      n.writing = false;
      WriteTo(n, output);
      if (output.number != 0) n.part->Persisted(output.number, Now(n));
      n.part->Sent(output.messages, Now(n));
      Send(n, output.messages);
      Pump(n);
    });
  }
  return has_sent;
}

void AnchorWorld::WriteTo(Node& node, const AnchorOutput& output) {
  for (const AnchorRecords::Record& record : output.records) {
    if (record.value) {
      node.disk[record.key] = *record.value;
    } else {
      node.disk.erase(record.key);
    }
  }
}

void AnchorWorld::Send(Node& node, const std::vector<std::pair<NodeId, RecoveryMessage>>& messages) {
  for (const auto& [to, message] : messages) {
    CHECK(to != node.id);
    ++messages_;
    const int copies = faults_ && Chance(20) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      if (faults_ && Chance(20)) continue;
      const DurationNs delay = Spread(20 * kMicrosecond, faults_ && Chance(30) ? 2 * kSecond : kMillisecond);
      const NodeInstance from = instance(node.id);
      const uint64_t incarnation = nodes_.at(to).incarnation;
      OnNode(to, incarnation, delay, [this, from, said = IsOld(from) ? WithoutWeights(message) : message](Node& n) {
        Deliver(from, n.id, said);
      });
    }
  }
}

void AnchorWorld::Deliver(NodeInstance from, NodeId to, const RecoveryMessage& message) {
  Node& node = nodes_.at(to);
  if (cut_.contains({from.node, to}) || node.heard[from.node] > from.incarnation.value) return;
  node.heard[from.node] = from.incarnation.value;
  node.part->Receive(from, message, Now(node));
  Pump(node);
}

// One disk at a time: all others vote, and have their votes, for all that anybody knows. It takes two to give a vote back.
bool AnchorWorld::MayLoseDisk(NodeId node) const {
  const auto is_out = [&](NodeId id) { return removed_.contains(id); };
  size_t voters = 0;
  uint32_t votes_of_others = 0;
  uint32_t all_votes = 0;
  for (const auto& [id, record] : database_.nodes()) {
    all_votes += record.votes;
    if (id != node) votes_of_others += record.votes;
  }
  for (const auto& [id, other] : nodes_) {
    const NodeRecord* const record = database_.Find(id);
    if (id == node || record == nullptr || record->votes == 0 || is_out(id)) continue;
    ++voters;
    if (other.anchor() == nullptr || other.anchor()->raft() == nullptr) return false;
    const Raft& raft = *other.anchor()->raft();
    const Votes& votes = raft.log().votes();
    const auto is_as_wanted = [&](const auto& v) {
      const NodeRecord* const wanted = database_.Find(v.first);
      return is_out(v.first) || (wanted != nullptr && v.second == wanted->votes);
    };
    const bool all_vote = std::all_of(votes.begin(), votes.end(), is_as_wanted);
    if (raft.standing() != Standing::kFull || raft.commit() < raft.log().votes_at() || !all_vote) return false;
  }
  return voters > 1 && 2 * votes_of_others > all_votes && !is_out(node);
}

// --- What happens -----------------------------------------------------------------------------------------------------

void AnchorWorld::DoSomething() {
  At(Spread(10 * kMillisecond, 400 * kMillisecond), [this] { DoSomething(); });
  if (!faults_) return;
  const auto any = [&] { return AnyNode(); };
  const NodeId node = any();
  if (!IsUp(node)) {
    const bool is_anchor = nodes_.at(node).is_anchor();
    if (options_.replaces_disks && is_anchor && options_.anchors > 1 && MayLoseDisk(node) && Chance(300)) {
      ReplaceDisk(node);
    }
    if (Chance(600)) Start(node);
  } else if (Chance(80)) {
    Crash(node);
  } else if (Chance(150)) {
    Pause(node, Chance(500) ? Spread(0, kSecond) : Spread(0, 4 * kSecond));
  } else if (Chance(80)) {
    Cut(node, any());
  } else if (Chance(40)) {
    for (const auto& [other, unused] : nodes_) {
      if (Chance(500)) continue;
      Cut(node, other);
      Cut(other, node);
    }
  } else if (const NodeId leads = leader(); Chance(40) && leads.value != 0 && leads != node) {
    // It reaches nobody but the leader, which sleeps, and does not know yet that it leads no more when it wakes up.
    for (const auto& [other, unused] : nodes_) {
      if (other == leads || other == node) continue;
      Cut(node, other);
      Cut(other, node);
    }
    Pause(leads, Spread(kSecond, 3 * kSecond));
  } else if (Chance(20) && nodes_.at(node).anchor() != nullptr) {
    static_cast<void>(nodes_.at(node).part->HandOver(any(), Now(nodes_.at(node))));
    Pump(nodes_.at(node));
  } else if (Chance(80)) {
    if (Chance(700)) HandOver(node);
    if (IsUp(node)) Leave(node);
  }
  if (Chance(50)) AskForSomething();
  if (Chance(100)) Heal();
}

// --- Checks -----------------------------------------------------------------------------------------------------------

void AnchorWorld::Check() {
  for (auto& [id, node] : nodes_) {
    if (node.anchor() == nullptr || node.anchor()->applied() == node.checked) continue;
    node.checked = node.anchor()->applied();
    const auto [database, is_first] = databases_.try_emplace(node.checked, node.anchor()->database());
    if (!is_first && !(database->second == node.anchor()->database())) {
      Fail(absl::StrCat("W3: another database at ", node.checked.value));
    }
    const View& view = node.anchor()->database().view();
    const auto [known, is_new] = views_.try_emplace(view.epoch, view);
    if (!is_new && known->second != view) Fail(absl::StrCat("W2: two views ", view.epoch.value));
    if (node.checked == databases_.rbegin()->first) {
      CountVotes(node.anchor()->database());
      database_ = node.anchor()->database();
      CheckRemoved(database_);
    }
    if (view.epoch > newest_.epoch) MeetView(node.anchor()->database());
  }
  MeetNodes(database_);
  HearDisks();
  CheckRosters();
  for (const auto& [id, node] : nodes_) {
    if (node.part == nullptr) continue;
    if (HasLease(id) && !newest_.Has(instance(id))) {
      Fail(absl::StrCat("W1: ", ToString(instance(id)), " has a lease and is not in view ", newest_.epoch.value));
    }
    const View& view = node.part->member().view();
    if (view.epoch.value == 0) continue;
    const auto known = views_.find(view.epoch);
    if (known == views_.end() || known->second != view) Fail(absl::StrCat("W2: ", ToString(id), " knows another view"));
  }
}

void AnchorWorld::MeetView(const NodeDatabase& database) {
  const View& view = database.view();
  if (newest_.epoch.value == 0 || view.epoch.value == newest_.epoch.value + 1) {
    CheckDisks(newest_, view);
    CheckPlaces(newest_, view);
  } else {
    Fail(absl::StrCat("D1: view ", view.epoch.value, " after view ", newest_.epoch.value));
  }
  left_ += static_cast<uint64_t>(std::count_if(leave_.begin(), leave_.end(), [&](NodeInstance node) {
    return newest_.Has(node) && !view.members.contains(node.node);
  }));
  newest_ = view;
  std::erase_if(said_, [&](NodeInstance node) { return !newest_.Has(node); });
}

// W4. `view` follows `before`; `said_` is from before it.
void AnchorWorld::CheckDisks(const View& before, const View& view) {
  const auto behind = [](const View& v, NodeId node) {
    const auto found = v.behind.find(node);
    return found == v.behind.end() ? Epoch() : found->second;
  };
  for (const auto& [id, node] : nodes_) {
    const auto was = before.members.find(id);
    const auto is = view.members.find(id);
    const bool left = was != before.members.end() && is == view.members.end();
    const bool joins = is != view.members.end() && (was == before.members.end() || was->second != is->second);
    const bool stays = is != view.members.end() && !joins;
    Epoch expected = behind(before, id);
    if (left && expected.value == 0) expected = view.epoch;
    const bool is_blank = joins && blank_disks_.contains({id, is->second});
    if (is_blank) {
      expected = kBlankDisk;
      std::erase_if(said_moved_, [id = id](const auto& said) { return said.first == id; });
    }
    if (removed_.contains(id)) expected = Epoch();
    if (stays && expected.value != 0 && behind(view, id).value == 0 && said_.contains({id, is->second})) {
      expected = Epoch();
      ++caught_up_;
    }
    blank_ += is_blank ? 1 : 0;
    if (behind(view, id) == expected) continue;
    Fail(absl::StrCat("W4: in view ", view.epoch.value, " ", ToString(id), " is behind since ", behind(view, id).value,
                      ", expected ", expected.value));
  }
}

std::string AnchorWorld::Settle() {
  faults_ = false;
  Heal();
  RunFor(5 * kSecond);  // Who sleeps wakes up.
  for (auto& [id, node] : nodes_) {
    if (node.part == nullptr && !removed_.contains(id)) Start(id);
  }
  if (!RunUntil([&] { return IsSettled(); }, 20 * kSecond)) Fail("not every node has its lease and its place in time");
  RunFor(3 * kSecond);
  if (!IsSettled()) Fail("a node has lost its lease, or its place, without a fault");
  return failure_;
}

std::string AnchorWorld::Describe() const {
  std::string text = absl::StrCat("view ", newest_.epoch.value, ":");
  for (const auto& [node, incarnation] : newest_.members)
    absl::StrAppend(&text, " ", node.value, ".", incarnation.value);
  for (const auto& [name, nodes] : {std::pair("disks", &newest_.disks), std::pair("to keep pages", &newest_.next_disks),
                                    std::pair("moved", &newest_.moved), std::pair("draining", &newest_.draining),
                                    std::pair("lost", &newest_.lost), std::pair("removed", &removed_)}) {
    absl::StrAppend(&text, "; ", name);
    for (NodeId node : *nodes) absl::StrAppend(&text, " ", node.value);
  }
  absl::StrAppend(&text, "\n");
  for (const auto& [id, node] : nodes_) {
    absl::StrAppend(&text, id.value, ".", node.incarnation, ": ");
    if (node.part == nullptr) {
      absl::StrAppend(&text, "down\n");
      continue;
    }
    absl::StrAppend(&text, HasLease(id) ? "lease" : "no lease", ", view ", node.part->member().view().epoch.value,
                    ", leader ", node.part->member().leader().value, node.part->member().is_gone() ? ", gone" : "");
    if (node.anchor() != nullptr) {
      absl::StrAppend(&text, node.anchor()->leads() ? ", leads" : "", node.anchor()->has_log() ? "" : ", no log");
      if (const Raft* raft = node.anchor()->raft()) {
        absl::StrAppend(&text, ", term ", raft->term().value, ", standing ", static_cast<int>(raft->standing()),
                        ", log to ", raft->log().last().value, ", committed ", raft->commit().value, ", votes");
        for (const auto& [voter, votes] : raft->log().votes()) absl::StrAppend(&text, " ", voter.value, "=", votes);
      }
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace mangrove
