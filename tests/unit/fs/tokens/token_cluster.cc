#include "tests/unit/fs/tokens/token_cluster.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace mangrove::fs {

namespace {
constexpr TokenSet kTimesShared(TokenClass::kTimes, TokenLevel::kSharedWrite);
constexpr TokenSet kTimesRead(TokenClass::kTimes, TokenLevel::kRead);
constexpr TokenSet kSizeRead(TokenClass::kSize, TokenLevel::kRead);
constexpr TokenSet kSizeWrite(TokenClass::kSize, TokenLevel::kWrite);
constexpr TokenSet kNameRead(TokenClass::kName, TokenLevel::kRead);
constexpr TokenSet kNameWrite(TokenClass::kName, TokenLevel::kWrite);
constexpr TokenSet kValuesWrite =
    TokenSet(TokenClass::kTimes, TokenLevel::kWrite) | TokenSet(TokenClass::kSize, TokenLevel::kWrite);
constexpr TokenSet kExtentsRead(TokenClass::kExtents, TokenLevel::kRead);
constexpr TokenSet kExtentsWrite(TokenClass::kExtents, TokenLevel::kWrite);
constexpr TokenSet kExists(TokenClass::kExistence, TokenLevel::kRead);
}  // namespace

TokenCluster::TokenCluster(Options options) : options_(options), random_(options.seed) {
  nodes_.resize(size_t(options.nodes));
  for (size_t i = 0; i < nodes_.size(); ++i) {
    nodes_[i].instance = {NodeId(i + 1), Incarnation(++incarnations_)};
    nodes_[i].client = std::make_unique<TokenClient>(
        TokenClient::Options{.resend_ms = 60, .most_idle = options.most_idle, .bug = options.bug});
  }
  NewView();
}

void TokenCluster::NewView() {
  ++view_;
  next_view_ms_ = -1;
  std::vector<NodeInstance> live;
  for (Node& node : nodes_) {
    if (!node.client) {
      if (Below(2) == 0) continue;
      node = {};
      node.instance = {NodeId(uint64_t(&node - nodes_.data()) + 1), Incarnation(++incarnations_)};
      node.client = std::make_unique<TokenClient>(
          TokenClient::Options{.resend_ms = 60, .most_idle = options_.most_idle, .bug = options_.bug});
    }
    node.away = std::exchange(node.lease_over, false);
    if (node.away) {
      next_view_ms_ = now_ + 30 + int64_t(Below(50));
      continue;
    }
    node.view_at_ms = now_ + int64_t(Below(20));
    live.push_back(node.instance);
  }
  const bool there = server_ && std::find(live.begin(), live.end(), server_at_) != live.end();
  if (!there || Below(3) == 0) {
    const NodeInstance at = live[Below(live.size())];
    if (!server_ || at != server_at_) {
      server_at_ = at;
      changes_.clear();
      server_ = std::make_unique<TokenServer>(TokenServer::Options{.resend_ms = 60, .bug = options_.bug},
                                              [this](const TokenObject& object) { return disk_[object]; });
      counts_.moves += 1;
    }
  }
  server_view_at_ms_ = now_ + int64_t(Below(20));
}

TokenSet TokenCluster::AnySet() {
  static constexpr TokenSet kSets[] = {kBufferedReadTokens | kSizeRead,
                                       kBufferedWriteTokens | kTimesShared | kSizeWrite,
                                       kDirectReadTokens | kTimesShared,
                                       kDirectWriteTokens | kTimesShared,
                                       kTimesRead | kSizeRead,
                                       kNameRead | kExists,
                                       kNameWrite,
                                       kBufferedReadTokens | kExtentsRead,
                                       kBufferedWriteTokens | kExtentsRead,
                                       kValuesWrite,
                                       kTimesRead,
                                       kSizeWrite,
                                       kSizeRead};
  return kSets[Below(std::size(kSets))];
}

void TokenCluster::Begin(Node& node) {
  TokenClient::Output out;
  if (Below(6) == 0) {
    const TokenObject object = AnyObject();
    static constexpr TokenSet kNeeds[] = {kNameWrite, kNameWrite | kExists, kValuesWrite, kExtentsWrite | kSizeWrite};
    const TokenSet need = kNeeds[Below(std::size(kNeeds))];
    const uint64_t operation = ++operations_;
    if (node.client->BeginChange(operation, object, need, now_, out)) node.changing.insert(object);
    return Do(node, std::move(out));
  }
  if (node.works.size() >= 3) return;
  std::map<TokenObject, TokenSet> wanted;
  for (uint64_t i = 1 + Below(3); i-- > 0;) wanted[AnyObject()] = AnySet();
  Work work;
  for (const auto& [object, set] : wanted) work.wanted.push_back({object, set});
  const uint64_t operation = ++operations_;
  node.works[operation] = work;
  node.client->Acquire(operation, work.wanted, Below(4) == 0 ? now_ + int64_t(Below(300)) : INT64_MAX, Below(4) == 0,
                       now_, out);
  Do(node, std::move(out));
}

// One that uses tokens has a change made that needs what comes after these.
void TokenCluster::ChangeOf(Node& node, uint64_t operation) {
  Work& work = node.works.at(operation);
  const auto& [object, set] = work.wanted.back();
  const TokenSet need =
      set.AllBefore(kValuesWrite | kExtentsWrite) && Below(2) == 0 ? kValuesWrite | kExtentsWrite : kExtentsWrite;
  if (work.changing || !set.AllBefore(need)) return;
  TokenClient::Output out;
  work.changing = node.client->BeginChange(operation, object, need, now_, out);
  if (work.changing) {
    node.changing.insert(object);
    counts_.pinning_changes += 1;
  }
  Do(node, std::move(out));
}

void TokenCluster::Use(Node& node, uint64_t operation, const Work& work) {
  for (const auto& [object, set] : work.wanted) {
    Truth& truth = truth_[object];
    if (set.Covers(kTimesShared)) {
      const int64_t time = int64_t(++written_);
      if (!node.client->Touch(operation, object, {.access = time, .modify = time, .change = time}))
        Break("not touched");
      truth.times_high = time;
      truth.times_low = time;
    } else if (set.Covers(kTimesRead)) {
      counts_.times_read += 1;
      const int64_t time = node.client->TimesOf(operation, object).value_or(TokenTimes()).modify;
      if (time < truth.times_low || time > truth.times_high) {
        Break("times of " + std::to_string(object.inode) + " are " + std::to_string(time) + ", not " +
              std::to_string(truth.times_low) + " to " + std::to_string(truth.times_high));
      }
      truth.times_low = time;
    }
    if (set.Covers(kSizeRead)) {
      counts_.sizes_read += 1;
      const uint64_t size = node.client->SizeOf(operation, object).value_or(0);
      if (!truth.sizes.contains(size)) {
        Break("size of " + std::to_string(object.inode) + " is " + std::to_string(size) + ", not " +
              std::to_string(*truth.sizes.begin()));
      }
      truth.sizes = {size};
    }
    if (set.Covers(kSizeWrite)) {
      if (!node.client->SetSize(operation, object, ++written_)) Break("no size set");
      truth.sizes = {written_};
    }
  }
}

void TokenCluster::Do(Node& node, TokenClient::Output out) {
  Post(node.instance, out.send);
  for (const TokenEvent& event : out.events) {
    switch (event.kind) {
      case TokenEventKind::kReady: {
        Work& work = node.works.at(event.operation);
        work.ready = true;
        work.end_ms = now_ + int64_t(Below(20));
        for (const auto& [object, set] : work.wanted) node.memory[object] |= set;
        counts_.ready += 1;
        Use(node, event.operation, work);
        break;
      }
      case TokenEventKind::kFailed:
        node.works.erase(event.operation);
        counts_.timed_out += event.why == TokenFailure::kTimedOut ? 1 : 0;
        break;
      case TokenEventKind::kInvalidate: node.invalidations.emplace_back(now_ + int64_t(Below(15)), event); break;
      case TokenEventKind::kChanged: {
        node.changing.erase(event.object);
        const auto work = node.works.find(event.operation);
        if (work != node.works.end()) work->second.changing = false;
        break;
      }
      case TokenEventKind::kLost:
        if (!node.lease_over) Break("lost without the end of a lease");
        node.memory.erase(event.object);
        break;
    }
  }
}

void TokenCluster::Do(TokenServer::Output out) {
  for (const auto& [object, values] : out.store) disk_[object] = values;
  for (const TokenChangeId& change : out.begin) {
    changes_[change] = {now_ + int64_t(Below(20)), needs_.at(change)};
    counts_.changes += 1;
  }
  for (const auto& [object, refused] : out.conditional) {
    counts_.conditional += 1;
    counts_.refused += refused ? 1 : 0;
  }
  Post(server_at_, out.send);
}

void TokenCluster::Post(NodeInstance from, const std::vector<TokenSend>& sends) {
  for (const TokenSend& send : sends) {
    if (send.message.kind == TokenMessageKind::kLend) {
      for (const TokenEntry& e : send.message.entries) needs_[{from, e.object, e.number}] = e.set;
    }
    const int times = !lossy_                                    ? 1
                      : int(Below(100)) < options_.loss_percent  ? 0
                      : int(Below(100)) < options_.twice_percent ? 2
                                                                 : 1;
    for (int i = 0; i < times; ++i) {
      const int64_t late = lossy_ && Below(20) == 0 ? 300 : 0;
      network_.emplace(now_ + 1 + int64_t(Below(uint64_t(lossy_ ? options_.most_delay_ms : 5))) + late,
                       Packet{from, send.to, EncodeTokenMessage(send.message)});
    }
  }
}

void TokenCluster::Deliver(const Packet& packet) {
  const auto message = DecodeTokenMessage(packet.bytes);
  if (!message.ok()) return Break("what was sent is not understood");
  if (message->kind <= TokenMessageKind::kRegister) {
    TokenServer::Output out;
    if (!server_ || packet.to != server_at_ || server_view_at_ms_ >= 0) return;
    server_->OnMessage(packet.from, *message, now_, out);
    return Do(std::move(out));
  }
  for (Node& node : nodes_) {
    if (!node.client || node.instance != packet.to) continue;
    TokenClient::Output out;
    node.client->OnMessage(packet.from, *message, now_, out);
    Do(node, std::move(out));
  }
}

void TokenCluster::Proceed(Node& node) {
  TokenClient::Output out;
  if (node.view_at_ms >= 0 && node.view_at_ms <= now_) {
    node.view_at_ms = -1;
    node.client->OnView(Epoch(view_), server_at_, now_, out);
  }
  for (size_t i = 0; i < node.invalidations.size();) {
    if (node.invalidations[i].first > now_) {
      ++i;
      continue;
    }
    const TokenEvent event = node.invalidations[i].second;
    node.invalidations.erase(node.invalidations.begin() + std::ptrdiff_t(i));
    node.memory[event.object] = node.memory[event.object].Without(event.set);
    node.client->Invalidated({event.invalidation}, now_, out);
  }
  Do(node, std::move(out));
  std::vector<uint64_t> over;
  for (const auto& [operation, work] : node.works) {
    if (work.ready ? work.end_ms <= now_ && !work.changing : lossy_ && Below(2000) == 0) over.push_back(operation);
  }
  for (const uint64_t operation : over) {
    TokenClient::Output ended;
    const bool ready = node.works.at(operation).ready;
    node.works.erase(operation);
    if (ready) {
      node.client->Release(operation, now_, ended);
    } else {
      counts_.cancelled += node.client->Cancel(operation, now_, ended) ? 1 : 0;
    }
    Do(node, std::move(ended));
  }
  std::vector<uint64_t> using_tokens;
  for (const auto& [operation, work] : node.works) {
    if (lossy_ && work.ready && Below(40) == 0) using_tokens.push_back(operation);
  }
  for (const uint64_t operation : using_tokens) ChangeOf(node, operation);
  if (lossy_ && !node.changing.empty() && Below(300) == 0) {
    TokenClient::Output cancelled;
    node.client->CancelChange(*node.changing.begin(), now_, cancelled);
    Do(node, std::move(cancelled));
  }
}

// The node is gone, with what it alone knew.
void TokenCluster::Crash() {
  Node& node = nodes_[Below(nodes_.size())];
  const auto live = std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.client != nullptr; });
  if (!node.client || node.away || node.lease_over || live <= 2) return;
  counts_.crashes += 1;
  if (node.instance == server_at_) {
    server_.reset();
    changes_.clear();
  }
  Loosen();
  node.client.reset();
  node.memory.clear();
  node.works.clear();
  next_view_ms_ = now_ + 30 + int64_t(Below(50));
}

void TokenCluster::Loosen() {
  for (auto& [object, truth] : truth_) {
    truth.sizes.insert(disk_[object].size);
    truth.times_low = std::min(truth.times_low, disk_[object].times.modify);
  }
}

// The node goes on, and is a member again after a view without it. What it was dropping from memory then, it goes on to drop.
void TokenCluster::EndLease() {
  Node& node = nodes_[Below(nodes_.size())];
  const auto live = std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.client && !n.away; });
  if (!node.client || node.away || node.lease_over || node.instance == server_at_ || live <= 2) return;
  counts_.leases_ended += 1;
  Loosen();
  node.lease_over = true;
  node.view_at_ms = -1;
  TokenClient::Output out;
  node.client->OnLeaseEnd(out);
  Do(node, std::move(out));
  node.memory.clear();
  next_view_ms_ = now_ + 30 + int64_t(Below(50));
}

void TokenCluster::EndChange(const TokenChangeId& change, TokenSet made) {
  TokenServer::Output out;
  if (made.Covers(kValuesWrite)) {
    // Also to an earlier moment, and to a smaller size.
    Truth& truth = truth_[change.object];
    const int64_t time = int64_t(++written_ / 2);
    truth.times_low = truth.times_high = time;
    truth.sizes = {written_};
    server_->SetValues(change.object, TokenTimes{time, time, time}, written_, out);
    counts_.values_set += 1;
  }
  server_->EndChange(change, now_, out);
  Do(std::move(out));
}

void TokenCluster::Serve(bool faults) {
  std::vector<TokenChangeId> made;
  for (const auto& [change, until] : changes_) {
    if (until.first <= now_) made.push_back(change);
  }
  for (const TokenChangeId& change : made) {
    const TokenSet need = changes_.at(change).second;
    changes_.erase(change);
    EndChange(change, need);
  }
  TokenServer::Output out;
  if (now_ % 10 == 0) server_->Tick(now_, out);
  if (faults && Below(200) == 0) {
    server_->RecallConditionally(AnyObject(), TokenSet(TokenClass::kExistence, TokenLevel::kWrite), now_, out);
  }
  if (faults && Below(150) == 0) {
    const TokenChangeId change{.client = {}, .object = AnyObject(), .number = ++own_changes_};
    needs_[change] = Below(2) == 0 ? kValuesWrite : kNameWrite;
    server_->BeginChange(change.object, change.number, needs_[change], now_, out);
    counts_.own_changes += 1;
  }
  Do(std::move(out));
}

void TokenCluster::OneMillisecond(bool faults) {
  ++now_;
  while (!network_.empty() && network_.begin()->first <= now_) {
    const Packet packet = std::move(network_.begin()->second);
    network_.erase(network_.begin());
    Deliver(packet);
    Check();
  }
  if (server_ && server_view_at_ms_ >= 0 && server_view_at_ms_ <= now_) {
    server_view_at_ms_ = -1;
    TokenServer::Members members;
    for (const Node& node : nodes_) {
      if (node.client && !node.away) members.insert(node.instance);
    }
    TokenServer::Output out;
    server_->OnView(Epoch(view_), members, now_, out);
    Do(std::move(out));
  }
  for (Node& node : nodes_) {
    if (!node.client) continue;
    Proceed(node);
    if (faults && Below(8) == 0) Begin(node);
    if (now_ % 10 == 0) {
      TokenClient::Output out;
      node.client->Tick(now_, out);
      Do(node, std::move(out));
    }
  }
  if (server_ && server_view_at_ms_ < 0) Serve(faults);
  Check();
  if (faults && options_.crashes && next_view_ms_ < 0 && Below(400) == 0) Crash();
  if (faults && options_.crashes && next_view_ms_ < 0 && Below(400) == 0) EndLease();
  if (faults && next_view_ms_ < 0 && Below(600) == 0) next_view_ms_ = now_;
  if (next_view_ms_ >= 0 && next_view_ms_ <= now_) NewView();
}

void TokenCluster::Check() {
  for (const Node& a : nodes_) {
    if (!a.client) continue;
    for (int inode = 1; inode <= options_.objects; ++inode) {
      const TokenObject object{.inode = uint64_t(inode), .generation = 1};
      const auto kept = a.memory.find(object);
      if (kept != a.memory.end() && !a.client->Held(object).Covers(kept->second)) {
        Break("node " + std::to_string(a.instance.node.value) + " keeps what it has no right to");
      }
      for (const auto& [change, made] : changes_) {
        if (change.object == object && a.client->Usable(object).ConflictsWith(made.second)) {
          Break("a change is made of what node " + std::to_string(a.instance.node.value) + " uses");
        }
      }
      for (const Node& b : nodes_) {
        if (!b.client || &a >= &b) continue;
        const auto other = b.memory.find(object);
        const bool both =
            kept != a.memory.end() && other != b.memory.end() && kept->second.ConflictsWith(other->second);
        if (both || a.client->Held(object).ConflictsWith(b.client->Held(object))) {
          Break("nodes " + std::to_string(a.instance.node.value) + " and " + std::to_string(b.instance.node.value) +
                " hold object " + std::to_string(inode) + " against each other");
        }
      }
    }
  }
}

void TokenCluster::Run(int64_t duration_ms) {
  for (const int64_t end = now_ + duration_ms; now_ < end && broken_.empty();) OneMillisecond(true);
}

bool TokenCluster::Heal(int64_t bound_ms) {
  lossy_ = false;
  for (const int64_t end = now_ + bound_ms; now_ < end && broken_.empty();) {
    OneMillisecond(false);
    bool all = next_view_ms_ < 0 && server_ && server_view_at_ms_ < 0 && server_->Ready() && network_.empty();
    for (const Node& node : nodes_) {
      all = all && (!node.client || (node.works.empty() && node.changing.empty() && node.view_at_ms < 0));
    }
    if (all && server_->Waiting() == 0) return true;
  }
  return false;
}

}  // namespace mangrove::fs
