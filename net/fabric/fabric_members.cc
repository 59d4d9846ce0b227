// Who may be talked to: the members, their addresses, and what is remembered of those that were.

#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"

namespace mangrove {
namespace {

absl::Status CheckMembers(const std::vector<FabricMember>& members) {
  absl::flat_hash_map<NodeId, std::string> names;
  for (const FabricMember& member : members) {
    if (member.id.value == 0) {
      return absl::InvalidArgumentError(absl::StrCat("the member ", member.name, " has the node id 0"));
    }
    if (member.id == kGuestNode) {
      return absl::InvalidArgumentError(
          absl::StrCat("the member ", member.name, " has the node id ", member.id.value, ", which is that of guests"));
    }
    auto [it, added] = names.emplace(member.id, member.name);
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat("the members ", it->second, " and ", member.name, " are both ", ToString(member.id)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HostAndPort> SplitAddress(const std::string& address, const std::string& whose) {
  const size_t colon = address.rfind(':');
  std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const bool number = !port.empty() && port.find_first_not_of("0123456789") == std::string::npos && port.size() <= 5;
  if (host.empty() || !number || std::stoi(port) < 1 || std::stoi(port) > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("the address of ", whose, " is \"", address, "\", expected \"host:port\""));
  }
  return HostAndPort{std::move(host), port};
}

absl::StatusOr<SocketAddress> FabricCore::Resolve(const FabricMember& member) const {
  auto split = SplitAddress(member.address, absl::StrCat("the member ", member.name));
  if (!split.ok()) return split.status();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = info_->addr_format == FI_SOCKADDR_IN6 ? AF_INET6 : AF_INET;
  addrinfo* found = nullptr;
  const int result = getaddrinfo(split->host.c_str(), split->port.c_str(), &hints, &found);
  if (result != 0) {
    return absl::UnavailableError(absl::StrCat("the address \"", member.address, "\" of the member ", member.name,
                                               " cannot be resolved: ", gai_strerror(result)));
  }
  SocketAddress address;
  CHECK(found->ai_addrlen <= sizeof(address.storage));
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.bytes = found->ai_addrlen;
  freeaddrinfo(found);
  return address;
}

absl::Status FabricCore::SetMembers(const std::vector<FabricMember>& members) {
  CHECK(info_ != nullptr);
  if (absl::Status status = CheckMembers(members); !status.ok()) return status;
  if (IsGuest() && members.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a guest has ", members.size(), " members, expected the one that made its token"));
  }
  // All of them before anything changes; but a known one's only when it is another text.
  std::vector<SocketAddress> addresses;
  absl::Status unknown;
  for (const FabricMember& member : members) {
    const Peer* known = FindMember(member.id);
    const bool is_known = known != nullptr && known->member.address == member.address && known->address.bytes > 0;
    if (member.id == config_.self.node || is_known) {
      addresses.push_back(known == nullptr ? SocketAddress() : known->address);
      continue;
    }
    auto resolved = Resolve(member);
    if (absl::IsInvalidArgument(resolved.status())) return resolved.status();
    if (!resolved.ok() && unknown.ok()) unknown = resolved.status();
    addresses.push_back(resolved.ok() ? *resolved : SocketAddress());
  }
  std::vector<Peer*> order;
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i].id != config_.self.node) order.push_back(&Admit(members[i], addresses[i]));
  }
  for (auto& peer : peers_) {
    if (peer->is_member && std::find(order.begin(), order.end(), peer.get()) == order.end()) Remove(*peer);
  }
  members_ = std::move(order);
  return unknown;
}

Peer& FabricCore::PeerOf(NodeId id) {
  CHECK(id != config_.self.node);
  Peer*& peer = peer_of_[id];
  if (peer == nullptr) {
    peers_.push_back(std::make_unique<Peer>());
    peer = peers_.back().get();
    peer->member.id = id;
    if (id == kGuestNode) peer->member.name = "guest";
    peer->we_connect = config_.self.node > id;
  }
  return *peer;
}

Peer& FabricCore::Admit(const FabricMember& member, const SocketAddress& address) {
  Peer& peer = PeerOf(member.id);
  const bool same = peer.is_member && peer.member.address == member.address;
  peer.member = member;
  peer.address = address;
  peer.is_member = true;
  if (same) return peer;
  // What was said of another place is to be said again, and nothing is waited for that was learned there.
  log_once_.Forget(absl::StrCat(member.name, ": "));
  peer.backoff = kFirstBackoff;
  DialSoon(peer);
  return peer;
}

void FabricCore::Remove(Peer& peer) {
  peer.is_member = false;
  loop_->Cancel(std::exchange(peer.retry, 0));
  const absl::Status why = absl::FailedPreconditionError(absl::StrCat(NameOf(peer), " is no member any more"));
  for (auto& [serial, connection] : connections_) {
    if (connection->peer == peer.member.id) Fail(*connection, why);
  }
}

std::vector<PeerStatus> FabricCore::Peers() const {
  std::vector<PeerStatus> all;
  for (const Peer* peer : members_) {
    PeerStatus status;
    status.instance = {peer->member.id, peer->newest};
    status.connected = peer->up != nullptr && peer->up->state == ConnectionState::kUp;
    status.address = peer->member.address;
    status.last_error = peer->last_error;
    if (status.connected) {
      status.key = FingerprintOf(peer->up->key);
      status.levels = peer->up->levels;
    }
    all.push_back(std::move(status));
  }
  return all;
}

// --- Guests -------------------------------------------------------------------------------------------------------------

void FabricCore::SetGuestKeys(std::vector<ClusterKey> keys) {
  CHECK(!IsGuest());
  guest_keys_ = std::move(keys);
  CloseUnproved();
}

std::optional<ClusterKey> FabricCore::GuestKey() const {
  const Peer* guest = FindPeer(kGuestNode);
  if (guest == nullptr || guest->up == nullptr || guest->up->state != ConnectionState::kUp) return std::nullopt;
  return guest->up->key;
}

std::optional<RefusalReason> FabricCore::RefusedBy(NodeId peer) const {
  const Peer* known = FindMember(peer);
  return known == nullptr ? std::nullopt : known->refusal;
}

// --- Who is who -------------------------------------------------------------------------------------------------------

uint8_t FabricCore::LevelOf(NodeId peer, Subsystem subsystem) const {
  const Peer* known = FindMember(peer);
  if (known == nullptr || known->up == nullptr) return 0;
  return known->up->levels[static_cast<size_t>(subsystem)];
}

Peer* FabricCore::FindPeer(NodeId id) const {
  auto it = peer_of_.find(id);
  return it == peer_of_.end() ? nullptr : it->second;
}

Peer* FabricCore::FindMember(NodeId id) const {
  Peer* peer = FindPeer(id);
  return peer == nullptr || !peer->is_member ? nullptr : peer;
}

// Whoever may be sent something on `channel`: I8.
Peer* FabricCore::FindReceiver(NodeId id, Channel channel) const {
  if (id != kGuestNode) return FindMember(id);
  return channel == Channel::kJoin ? FindPeer(id) : nullptr;
}

}  // namespace mangrove
