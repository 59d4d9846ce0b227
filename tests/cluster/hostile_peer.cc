#include "tests/cluster/hostile_peer.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/node_config.h"
#include "recovery/codec.h"

namespace mangrove::cluster_test {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

// --- Impostor ---------------------------------------------------------------------------------------------------------

Impostor::Impostor(const Cluster& cluster, int node, Incarnation incarnation, uint16_t protocol_version) {
  const NodeConfig config = Take(LoadNodeConfig(cluster.config(node)));
  FabricTransportConfig fabric;
  fabric.cluster = ClusterIdOf(config.cluster_name);
  fabric.key = Take(LoadClusterKey(config.key_file));
  fabric.self = {config.self().id, incarnation};
  fabric.listen_address = config.self().address;
  fabric.protocol_version = protocol_version;
  for (const MemberConfig& member : config.members) fabric.members.push_back({member.id, member.name, member.address});
  transport_ = std::make_unique<FabricTransport>(std::move(fabric), &loop_, &entropy_);
  self_ = config.self().id;
  Member::Options options{.self = {config.self().id, incarnation}, .anchors = {}, .timing = {}};
  for (const auto& [id, votes] : VotesOf(config)) {
    if (votes > 0) options.anchors.push_back(id);
  }
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

// --- Wire -------------------------------------------------------------------------------------------------------------

int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in to = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
    close(fd);
    return -1;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

Wire::Wire(int to_port, Alter alter) : to_port_(to_port), alter_(std::move(alter)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at = Loopback(0);
  socklen_t length = sizeof(at);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&at), length) != 0 || listen(listener_, 16) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &length) != 0) {
    throw std::runtime_error("no port for a wire");
  }
  port_ = ntohs(at.sin_port);
  thread_ = std::thread([this] { Run(); });
}

Wire::~Wire() {
  ending_ = true;
  thread_.join();
  close(listener_);
  for (const Pair& pair : pairs_) {
    close(pair.ends[0]);
    close(pair.ends[1]);
  }
}

void Wire::Run() {
  while (!ending_) {
    std::vector<pollfd> fds{{listener_, POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      for (const int fd : pair.ends) fds.push_back({fd, POLLIN, 0});
    }
    if (poll(fds.data(), fds.size(), 50) <= 0) continue;
    for (size_t i = pairs_.size(); i-- > 0;) {
      bool open = true;
      for (const int from : {0, 1}) {
        if (open && fds[1 + 2 * i + static_cast<size_t>(from)].revents != 0) open = Forward(pairs_[i], from);
      }
      if (open) continue;
      for (const int fd : pairs_[i].ends) close(fd);
      pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (fds[0].revents != 0) Accept();
  }
}

void Wire::Accept() {
  const int from = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (from < 0) return;
  const int to = ConnectTo(to_port_);
  if (to < 0) {
    close(from);
    return;
  }
  pairs_.push_back({{from, to}});
}

// False: the connection has ended.
bool Wire::Forward(const Pair& pair, int from) {
  std::string bytes(size_t{64} << 10, '\0');
  const ssize_t got = recv(pair.ends[from], bytes.data(), bytes.size(), 0);
  if (got <= 0) return false;
  bytes.resize(static_cast<size_t>(got));
  const bool go_on = alter_(bytes);
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(pair.ends[1 - from], bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return go_on;
}

}  // namespace mangrove::cluster_test
