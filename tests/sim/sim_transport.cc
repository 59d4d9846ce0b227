#include "tests/sim/sim_transport.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {

struct SimNetwork::Wire {
  int from = 0;
  int to = 0;
  NodeInstance sender;
  Incarnation receiver;  // That was connected at the send.
  Epoch epoch;
  Channel channel = Channel::kPages;
  uint64_t connection = 0;
  std::vector<std::byte> message;
  std::vector<PageBuffer> pages;
  uint64_t digest = 0;
};

SimTransport::~SimTransport() {
  if (network_->transport(slot_) == this) network_->Detach(slot_);
}

absl::Status SimTransport::Start(TransportEvents* events) {
  CHECK(events != nullptr && events_ == nullptr);
  events_ = events;
  if (network_->transport(slot_) == this) network_->Started(slot_);
  return absl::OkStatus();
}

void SimTransport::Send(NodeId to, Channel channel, std::span<const std::byte> message,
                        std::span<const PageBuffer> pages) {
  CHECK(message.size() <= kMaxMessageBytes && pages.size() <= kMaxMessagePages);
  const int slot = SlotOfNode(to);
  CHECK(slot != slot_ && slot >= 0);
  if (slot >= network_->nodes_) {
    ++counters_.messages_dropped;
    return;
  }
  if (network_->transport(slot_) == this && events_ != nullptr) network_->Send(this, slot, channel, message, pages);
}

void SimTransport::Expel(NodeInstance node) {
  const int slot = SlotOfNode(node.node);
  CHECK(slot != slot_ && slot >= 0);
  // Who has no slot never connects.
  if (slot >= network_->nodes_) return;
  if (network_->transport(slot_) == this) network_->Expel(slot_, slot, node.incarnation);
}

uint8_t SimTransport::LevelOf(NodeId peer, Subsystem subsystem) const {
  const int slot = SlotOfNode(peer);
  const bool is_up = slot < network_->nodes_ && network_->side(slot_, slot).up;
  return is_up ? kOwnLevels[static_cast<size_t>(subsystem)].high : 0;
}

std::vector<PeerStatus> SimTransport::Peers() const {
  std::vector<PeerStatus> result;
  for (int peer = 0; peer < network_->nodes_; ++peer) {
    if (peer == slot_) continue;
    const SimNetwork::Side& side = network_->side(slot_, peer);
    result.push_back({.instance = {NodeOfSlot(peer), side.known},
                      .connected = side.up,
                      .address = absl::StrCat("simulated:", peer + 1),
                      .last_error = side.last_error,
                      .key = {}});
  }
  return result;
}

SimNetwork::SimNetwork(SimWorld* world, int nodes) : world_(world), nodes_(nodes), random_(world->Fork("network")) {
  CHECK(nodes > 0 && nodes <= kMaxNodes);
}

SimNetwork::Pair& SimNetwork::pair(int a, int b) {
  return pairs_[static_cast<size_t>(std::min(a, b))][static_cast<size_t>(std::max(a, b))];
}

bool SimNetwork::IsStarted(int slot) const {
  const SimTransport* t = transports_[static_cast<size_t>(slot)];
  return t != nullptr && t->events_ != nullptr;
}

std::unique_ptr<SimTransport> SimNetwork::Attach(int slot, NodeInstance self) {
  CHECK(slot < nodes_ && transport(slot) == nullptr);
  for (int peer = 0; peer < nodes_; ++peer) side(slot, peer) = {};
  auto result = std::make_unique<SimTransport>(this, slot, self);
  transports_[static_cast<size_t>(slot)] = result.get();
  return result;
}

void SimNetwork::Detach(int slot) {
  CHECK(transport(slot) != nullptr);
  transports_[static_cast<size_t>(slot)] = nullptr;
  for (int peer = 0; peer < nodes_; ++peer) {
    if (peer == slot || !side(peer, slot).up || !IsStarted(peer)) continue;
    const uint64_t luck = random_.Below(10);
    if (luck == 0) continue;  // Nobody ever hears of it.
    const DurationNs delay =
        luck < 7 ? random_.Spread(100 * kMicrosecond, 2 * kMillisecond) : random_.Spread(2 * kMillisecond, 2 * kSecond);
    world_->After(delay, peer, EventKind::kPeerDown, [this, peer, slot, connection = side(peer, slot).connection] {
      GoDown(peer, slot, connection, "connection reset");
    });
  }
}

void SimNetwork::Started(int slot) {
  for (int peer = 0; peer < nodes_; ++peer) {
    if (peer != slot && IsStarted(peer)) ScheduleConnect(slot, peer);
  }
}

void SimNetwork::ScheduleConnect(int a, int b) {
  Pair& p = pair(a, b);
  if (p.connecting) return;
  p.connecting = true;
  // Most often at once, sometimes only when an attempt has timed out: then one peer knows of a new life long before others.
  const DurationNs delay = random_.PerMille(850) ? random_.Spread(200 * kMicrosecond, 20 * kMillisecond)
                                                 : random_.Spread(20 * kMillisecond, kSecond);
  world_->After(delay, kNoNode, EventKind::kConnect, [this, a, b] { Connect(a, b); });
}

void SimNetwork::Connect(int a, int b) {
  Pair& p = pair(a, b);
  p.connecting = false;
  // Started and Heal try again.
  if (!IsStarted(a) || !IsStarted(b) || link(a, b).cut || link(b, a).cut) return;
  if (TellExpelled(a, b) || TellExpelled(b, a)) return;
  if (random_.PerMille(500)) std::swap(a, b);
  const Incarnation first = transport(a)->self_.incarnation;
  const Incarnation second = transport(b)->self_.incarnation;
  p.connection = ++next_connection_;
  const uint64_t id = p.connection;
  world_->After(0, a, EventKind::kPeerUp, [this, a, b, id, second] { ComeUp(a, b, id, second); });
  world_->After(Delay(), b, EventKind::kPeerUp, [this, a, b, id, first] { ComeUp(b, a, id, first); });
}

void SimNetwork::ComeUp(int slot, int peer, uint64_t connection, Incarnation incarnation) {
  if (pair(slot, peer).connection != connection) return;  // A newer one is on its way.
  Side& s = side(slot, peer);
  if (incarnation <= s.expelled) return ScheduleConnect(slot, peer);  // Since it was made.
  CHECK(s.known <= incarnation);
  s.connection = connection;
  s.up = true;
  s.known = incarnation;
  s.last_error.clear();
  world_->Trace("node ", slot + 1, ": ", NodeInstance{NodeOfSlot(peer), incarnation}, " is up");
  transport(slot)->events_->OnPeerUp({NodeOfSlot(peer), incarnation});
  // The peer may have died meanwhile, when nobody listened here.
  const SimTransport* other = transport(peer);
  if (other == nullptr || other->self_.incarnation != incarnation) {
    world_->After(random_.Spread(kMillisecond, kSecond), slot, EventKind::kPeerDown,
                  [this, slot, peer, connection] { GoDown(slot, peer, connection, "connection reset"); });
  }
}

// `slot` has heard that `peer` has left the view as this incarnation. The peer learns it when it connects again.
void SimNetwork::Expel(int slot, int peer, Incarnation incarnation) {
  Side& s = side(slot, peer);
  s.expelled = std::max(s.expelled, incarnation);
  if (!s.up || s.known > incarnation) return;
  const auto end = [this](int at, int other, DurationNs delay) {
    world_->After(delay, at, EventKind::kPeerDown, [this, at, other, connection = side(at, other).connection] {
      GoDown(at, other, connection, "expelled");
    });
  };
  end(slot, peer, 0);
  if (IsStarted(peer) && side(peer, slot).up) end(peer, slot, Delay());
}

// Whether `slot` has expelled what `peer` is now; then that one hears of it.
bool SimNetwork::TellExpelled(int slot, int peer) {
  const Incarnation told = transport(peer)->self_.incarnation;
  if (told > side(slot, peer).expelled) return false;
  const NodeInstance by = transport(slot)->self_;
  world_->After(Delay(), peer, EventKind::kPeerDown, [this, peer, told, by] {
    if (IsStarted(peer) && transport(peer)->self_.incarnation == told) transport(peer)->events_->OnExpelled(by);
  });
  return true;
}

void SimNetwork::GoDown(int slot, int peer, uint64_t connection, const std::string& reason) {
  Side& s = side(slot, peer);
  if (!s.up || s.connection != connection) return;
  s.up = false;
  s.last_error = reason;
  world_->Trace("node ", slot + 1, ": ", NodeInstance{NodeOfSlot(peer), s.known}, " seems down");
  ScheduleConnect(slot, peer);
  transport(slot)->events_->OnPeerDown({NodeOfSlot(peer), s.known}, absl::UnavailableError(reason));
}

void SimNetwork::Cut(int from, int to) {
  if (link(from, to).cut) return;
  link(from, to).cut = true;
  // Each side finds out by itself, late or never.
  for (const auto& [slot, peer] : {std::pair(from, to), std::pair(to, from)}) {
    if (!IsStarted(slot) || !side(slot, peer).up || random_.PerMille(400)) continue;
    world_->After(random_.Spread(20 * kMillisecond, 2 * kSecond), slot, EventKind::kPeerDown,
                  [this, slot = slot, peer = peer, healed = healed_, connection = side(slot, peer).connection] {
                    if (healed == healed_) GoDown(slot, peer, connection, "timed out");
                  });
  }
}

void SimNetwork::Heal(int from, int to) {
  if (!link(from, to).cut) return;
  link(from, to).cut = false;
  if (IsStarted(from) && IsStarted(to)) {
    const bool broken = !side(from, to).up || !side(to, from).up ||
                        side(from, to).known != transport(to)->self_.incarnation ||
                        side(to, from).known != transport(from)->self_.incarnation;
    if (broken) ScheduleConnect(from, to);
  }
}

void SimNetwork::HealAll() {
  ++healed_;
  for (int from = 0; from < nodes_; ++from) {
    for (int to = 0; to < nodes_; ++to) Heal(from, to);
  }
}

void SimNetwork::FalseAlarm(int slot, int peer) {
  if (!IsStarted(slot) || !side(slot, peer).up) return;
  world_->After(0, slot, EventKind::kPeerDown, [this, slot, peer, connection = side(slot, peer).connection] {
    GoDown(slot, peer, connection, "simulated false alarm");
  });
}

DurationNs SimNetwork::Delay(bool with_pages) {
  const uint32_t late = with_pages ? weather_.late_pages_per_mille : weather_.late_per_mille;
  if (late != 0 && random_.PerMille(late)) {
    return random_.Spread(weather_.max_delay, std::max(weather_.max_delay, weather_.late_delay));
  }
  return random_.Spread(weather_.min_delay, weather_.max_delay);
}

void SimNetwork::Send(SimTransport* from, int to, Channel channel, std::span<const std::byte> message,
                      std::span<const PageBuffer> pages) {
  const Side& s = side(from->slot_, to);
  ++from->counters_.messages_sent;
  from->counters_.pages_sent += pages.size();
  if (!s.up) {
    ++from->counters_.messages_dropped;
    return;
  }
  auto wire = std::make_shared<Wire>();
  wire->from = from->slot_;
  wire->to = to;
  wire->sender = from->self_;
  wire->receiver = s.known;
  wire->epoch = from->epoch_;
  wire->channel = channel;
  wire->connection = s.connection;
  wire->message.assign(message.begin(), message.end());
  // In one piece, as they mostly come, or each by itself.
  const bool in_one_piece = from->counters_.messages_sent % 4 != 0;
  const auto piece = std::make_shared<std::vector<PageBytes>>(in_one_piece ? pages.size() : 0);
  for (size_t i = 0; i < pages.size(); ++i) {
    CHECK(pages[i] != nullptr);
    if (in_one_piece) (*piece)[i] = *pages[i];
    wire->pages.push_back(in_one_piece ? PageBuffer(piece, &(*piece)[i])
                                       : std::make_shared<const PageBytes>(*pages[i]));
  }
  wire->digest = 0xcbf29ce484222325u ^ static_cast<uint64_t>(channel);
  for (const std::byte b : message) wire->digest = (wire->digest ^ static_cast<uint64_t>(b)) * 0x100000001b3u;
  const int copies = random_.PerMille(weather_.double_per_mille) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (!random_.PerMille(weather_.lose_per_mille)) Transmit(wire);
  }
}

void SimNetwork::Transmit(const std::shared_ptr<Wire>& wire) {
  Link& l = link(wire->from, wire->to);
  if (l.cut) return;
  TimeNs time = world_->now() + Delay(!wire->pages.empty());
  if (!random_.PerMille(weather_.overtake_per_mille)) time = l.last_delivery = std::max(time, l.last_delivery + 1);
  world_->At(time, wire->to, EventKind::kDelivery, [this, wire] { Deliver(wire); });
}

void SimNetwork::Deliver(const std::shared_ptr<Wire>& wire) {
  SimTransport* to = transport(wire->to);
  if (to == nullptr || to->events_ == nullptr || link(wire->from, wire->to).cut) return;
  if (to->self_.incarnation != wire->receiver) return;  // T1
  const Side& s = side(wire->to, wire->from);
  if (s.known > wire->sender.incarnation || s.expelled >= wire->sender.incarnation) return;  // T4
  if (s.known < wire->sender.incarnation) {  // T4: this side of the connection is not up yet.
    if (pair(wire->to, wire->from).connection != wire->connection) return;
    world_->After(20 * kMicrosecond, wire->to, EventKind::kDelivery, [this, wire] { Deliver(wire); });
    return;
  }
  ++to->counters_.messages_received;
  to->counters_.pages_received += wire->pages.size();
  ++delivered_;
  world_->Note(wire->digest, wire->pages.size());
  // Copies that end with the handler: what keeps a pointer into a delivery is seen by the sanitizers.
  const std::vector<std::byte> message = wire->message;
  std::vector<const std::byte*> pages;
  pages.reserve(wire->pages.size());
  for (const PageBuffer& page : wire->pages) pages.push_back(page->bytes.data());
  to->events_->OnDelivery({wire->sender, wire->epoch, wire->channel, message, pages});
}

}  // namespace mangrove::sim
