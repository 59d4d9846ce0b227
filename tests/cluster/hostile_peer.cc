#include "tests/cluster/hostile_peer.h"

#include <gtest/gtest.h>

#include "engine/node_config.h"
#include "recovery/codec.h"

namespace mangrove::cluster_test {
Impostor::Impostor(const Cluster& cluster, int node, Incarnation incarnation, uint16_t protocol_version) {
  const NodeConfig config = Take(LoadNodeConfig(cluster.config(node)));
  FabricTransportConfig fabric;
  fabric.cluster = ClusterIdOf(config.cluster_name);
  fabric.keys = Take(LoadClusterKeys(config.key_file));
  fabric.self = {config.self().id, incarnation};
  fabric.listen_address = config.self().address;
  fabric.protocol_version = protocol_version;
  for (const MemberConfig& member : config.members) fabric.members.push_back({member.id, member.name, member.address});
  transport_ = std::make_unique<FabricTransport>(std::move(fabric), &loop_, &entropy_);
  self_ = config.self().id;
  Member::Options options{.self = {config.self().id, incarnation}, .roster = {}, .timing = {}};
  for (const auto& [id, votes] : VotesOf(config)) options.roster.nodes[id].votes = votes;
  member_ = std::make_unique<Member>(std::move(options), loop_.Now());
  absl::Status started = transport_->Start(this);
  if (started.ok()) started = loop_.Start();
  if (!started.ok()) throw std::runtime_error(started.ToString());
  OnLoop([this] { Pulse(); });
}

void Impostor::Pulse() {
  member_->Tick(loop_.Now());
  SendPulses();
  loop_.CallAt(loop_.Now() + 10 * kMillisecond, [this] { Pulse(); });
}

void Impostor::SendPulses() {
  for (const auto& [to, message] : member_->TakeMessages()) {
    if (to == self_) continue;  // It is an anchor, but leads nobody.
    const std::string bytes = EncodeMessage(message);
    transport_->Send(to, Channel::kMembership, std::as_bytes(std::span(bytes)), {});
  }
  transport_->SetEpoch(member_->view().epoch);
  const std::lock_guard lock(mutex_);
  has_lease_ = member_->HasLease(loop_.Now());
  changed_.notify_all();
}

void Impostor::OnDelivery(const Delivery& delivery) {
  if (delivery.channel != Channel::kMembership) return;
  const absl::StatusOr<RecoveryMessage> message = DecodeMessage(delivery.message);
  if (!message.ok()) return;
  const TimeNs now = loop_.Now();
  if (const auto* answer = std::get_if<PulseAnswer>(&*message)) member_->Receive(delivery.from.node, *answer, now);
  if (const auto* part = std::get_if<ViewPart>(&*message)) member_->Receive(delivery.from.node, *part, now);
  if (const auto* change = std::get_if<ViewChange>(&*message)) member_->Receive(delivery.from.node, *change, now);
  SendPulses();
}

Impostor::~Impostor() { loop_.Stop(); }

void Impostor::OnLoop(absl::FunctionRef<void()> task) {
  Completion done;
  loop_.RunUntil(
      [&] {
        task();
        done.Set();
      },
      done);
}

bool Impostor::AwaitConnected(size_t peers) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return up_.size() >= peers; });
}

bool Impostor::AwaitLease() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return has_lease_; });
}

void Impostor::Send(int to, std::span<const std::byte> message, std::span<const PageBuffer> pages) {
  OnLoop([&] { transport_->Send(NodeId(static_cast<uint64_t>(to)), Channel::kPages, message, pages); });
}

TransportCounters Impostor::Counters() {
  TransportCounters counters;
  OnLoop([&] { counters = transport_->Counters(); });
  return counters;
}

std::vector<PeerStatus> Impostor::Peers() {
  std::vector<PeerStatus> peers;
  OnLoop([&] { peers = transport_->Peers(); });
  return peers;
}

void Impostor::OnPeerUp(NodeInstance peer) {
  member_->PeerUp(peer.node);
  const std::lock_guard lock(mutex_);
  up_.insert(peer.node);
  changed_.notify_all();
}

void Impostor::OnPeerDown(NodeInstance peer, const absl::Status&) {
  member_->PeerDown(peer.node, loop_.Now());
  const std::lock_guard lock(mutex_);
  up_.erase(peer.node);
  changed_.notify_all();
}

}  // namespace mangrove::cluster_test
