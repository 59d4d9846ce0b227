// The two sides prove themselves; see net/handshake.h for the steps.

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"

namespace mangrove {
namespace {

// Without the port, which is another one at each attempt.
std::string HostOf(const fi_info& info) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (info.dest_addr == nullptr) return "an unknown address";
  const auto* address = static_cast<const sockaddr*>(info.dest_addr);
  const void* bytes = &static_cast<const sockaddr_in*>(info.dest_addr)->sin_addr;
  if (address->sa_family == AF_INET6) bytes = &static_cast<const sockaddr_in6*>(info.dest_addr)->sin6_addr;
  if (inet_ntop(address->sa_family, bytes, text.data(), text.size()) == nullptr) return "an unknown address";
  return text.data();
}

}  // namespace

Refusal FabricCore::OwnView(RefusalReason reason) const {
  return {reason, config_.protocol_version, config_.cluster.low};
}

// --- The acceptor's side ----------------------------------------------------------------------------------------------

void FabricCore::OnConnectRequest(Info info, std::span<const std::byte> data) {
  const std::optional<Hello> hello = ParseHello(data);
  if (!hello) {
    const Refusal own = OwnView(RefusalReason::kNonsense);
    return Refuse(info.get(), own.reason, absl::PermissionDeniedError(ExplainRefusal(own, own)));
  }
  HandshakeFacts facts;
  facts.version = config_.protocol_version;
  facts.cluster = config_.cluster;
  facts.connector = hello->from;
  facts.acceptor.node = config_.self.node;
  facts.connector_nonce = hello->nonce;
  RefusalReason reason{};
  if (absl::Status status = CheckHello(*hello, facts, &reason); !status.ok()) {
    // Only what has proved itself may change what operators see of a member.
    return Refuse(info.get(), reason, status);
  }
  Peer* peer = FindPeer(hello->from.node);
  CHECK(peer != nullptr);
  AcceptPeer(*peer, std::move(info), facts);
}

absl::Status FabricCore::CheckHello(const Hello& hello, const HandshakeFacts& facts, RefusalReason* reason) {
  const Peer* peer = FindPeer(hello.from.node);
  const HandshakeMac mac = ComputeMac(config_.key, HandshakeStep::kHello, facts, {});
  if (hello.version != config_.protocol_version) {
    *reason = RefusalReason::kVersion;
  } else if (hello.cluster_low != config_.cluster.low) {
    *reason = RefusalReason::kCluster;
  } else if (peer == nullptr) {
    *reason = RefusalReason::kUnknownNode;
  } else if (!SameMac(hello.mac, std::span(mac).first(hello.mac.size()))) {
    *reason = RefusalReason::kKey;
  } else if (peer->we_connect) {
    *reason = RefusalReason::kDirection;
  } else if (hello.from.incarnation < peer->newest || hello.from.incarnation.value == 0) {
    *reason = RefusalReason::kOldIncarnation;
  } else if (peer->handshakes >= kMaxHandshakesPerPeer) {
    *reason = RefusalReason::kBusy;
  } else {
    return absl::OkStatus();
  }
  const Refusal theirs{*reason, hello.version, hello.cluster_low};
  return absl::PermissionDeniedError(
      absl::StrCat("it says that it is ", ToString(hello.from), "; ", ExplainRefusal(OwnView(*reason), theirs)));
}

void FabricCore::Refuse(fi_info* info, RefusalReason reason, const absl::Status& why) {
  ++counters_.peers_refused;
  const std::string host = HostOf(*info);
  log_once_.Log(LogLevel::kWarning, absl::StrCat("refused ", host, " ", static_cast<int>(reason)),
                absl::StrCat("refused a connection from ", host, ": ", why.message()));
  const auto bytes = EncodeRefusal(OwnView(reason));
  fi_reject(listener_.get(), info->handle, bytes.data(), bytes.size());
}

void FabricCore::AcceptPeer(Peer& peer, Info info, const HandshakeFacts& facts) {
  auto made = MakeConnection(peer, info.get(), false);
  if (!made.ok()) return Refuse(info.get(), RefusalReason::kBusy, made.status());
  Connection& connection = **made;
  ++peer.handshakes;
  connection.facts = facts;
  connection.facts.acceptor = config_.self;
  connection.facts.acceptor_nonce = entropy_->Next();
  Accept accept;
  accept.from = config_.self;
  accept.nonce = connection.facts.acceptor_nonce;
  accept.mac = ComputeMac(config_.key, HandshakeStep::kAccept, connection.facts, {});
  const auto bytes = EncodeAccept(config_.protocol_version, accept);
  // Room for the Proof and nothing else.
  absl::Status status = PostReceive(connection, 0, kPoolOfferBytes);
  if (status.ok()) {
    const int result = fi_accept(connection.endpoint.get(), bytes.data(), bytes.size());
    if (result != 0) status = FabricError(result, "the connection cannot be accepted");
  }
  if (!status.ok()) Fail(connection, std::move(status));
}

absl::Status FabricCore::FinishAccepting(Connection& connection) {
  Peer* peer = FindPeer(connection.peer);
  if (connection.facts.connector.incarnation < peer->newest) {
    return absl::FailedPreconditionError("a newer incarnation of the peer came first");
  }
  if (absl::Status status = PrepareMemory(connection); !status.ok()) return status;
  if (absl::Status status = PostReceives(connection, 0); !status.ok()) return status;
  if (absl::Status status = SendPoolOffer(connection, HandshakeStep::kReady); !status.ok()) return status;
  BringUp(connection);
  return absl::OkStatus();
}

// --- The connector's side ---------------------------------------------------------------------------------------------

void FabricCore::OnConnected(Connection& connection, std::span<const std::byte> data) {
  if (connection.state == ConnectionState::kFailed || connection.connected) return;
  connection.connected = true;
  absl::Status status;
  if (connection.connector) {
    status = OnAccept(connection, data);
  } else if (connection.proved) {
    status = FinishAccepting(connection);
  }
  if (!status.ok()) Fail(connection, std::move(status));
}

absl::Status FabricCore::OnAccept(Connection& connection, std::span<const std::byte> data) {
  const std::optional<Accept> accept = ParseAccept(config_.protocol_version, data);
  Peer* peer = FindPeer(connection.peer);
  CHECK(peer != nullptr);
  if (!accept) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("what answered there is not a node of this protocol version");
  }
  if (accept->from.node != connection.peer) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat("at the address of ", ToString(connection.peer), " is ", ToString(accept->from)));
  }
  connection.facts.acceptor = accept->from;
  connection.facts.acceptor_nonce = accept->nonce;
  if (!SameMac(accept->mac, ComputeMac(config_.key, HandshakeStep::kAccept, connection.facts, {}))) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("the node there does not hold the cluster's key");
  }
  if (accept->from.incarnation < peer->newest) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat(ToString(accept->from), " answered, but incarnation ", peer->newest.value, " has been seen"));
  }
  connection.state = ConnectionState::kProving;
  return SendPoolOffer(connection, HandshakeStep::kProof);
}

// --- Both -------------------------------------------------------------------------------------------------------------

absl::Status FabricCore::SendPoolOffer(Connection& connection, HandshakeStep step) {
  PoolOffer offer;
  offer.step = step;
  offer.pool.base = virtual_addresses_ ? reinterpret_cast<uintptr_t>(connection.slots()) : 0;
  offer.pool.key = fi_mr_key(connection.slot_registration.get());
  offer.pool.slots = kPageSlots;
  offer.mac = ComputeMac(config_.key, step, connection.facts, offer.pool);
  const auto bytes = EncodePoolOffer(offer);
  const ssize_t result = fi_inject(connection.endpoint.get(), bytes.data(), bytes.size(), 0);
  if (result != 0) return FabricError(static_cast<int>(result), "the handshake's message cannot be sent");
  return absl::OkStatus();
}

absl::Status FabricCore::OnPoolOffer(Connection& connection, std::span<const std::byte> message) {
  const HandshakeStep expected = connection.connector ? HandshakeStep::kReady : HandshakeStep::kProof;
  const std::optional<PoolOffer> offer = ParsePoolOffer(message);
  if (!offer || offer->step != expected || offer->pool.slots != kPageSlots) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("its handshake message is not what this version expects");
  }
  if (!SameMac(offer->mac, ComputeMac(config_.key, expected, connection.facts, offer->pool))) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("it did not prove that it holds the cluster's key");
  }
  connection.remote = offer->pool;
  if (connection.connector) {
    CHECK(connection.state == ConnectionState::kProving);
    if (absl::Status status = PostReceive(connection, 0, kMaxWireBytes); !status.ok()) return status;
    BringUp(connection);
    return absl::OkStatus();
  }
  connection.proved = true;
  // The proof may overtake the event.
  return connection.connected ? FinishAccepting(connection) : absl::OkStatus();
}

void FabricCore::BringUp(Connection& connection) {
  Peer* peer = FindPeer(connection.peer);
  CHECK(connection.peer_instance().incarnation >= peer->newest);
  if (!connection.connector) --peer->handshakes;
  if (peer->dialing == &connection) peer->dialing = nullptr;
  if (Connection* old = peer->up; old != nullptr && old != &connection) {
    Fail(*old, absl::UnavailableError(absl::StrCat(ToString(connection.peer_instance()), " took its place")));
    // T4: before the OnPeerUp. The old connection itself goes when the stack is empty, see I3.
    peer->up = nullptr;
    LogInfo("lost ", peer->member.name, " (", ToString(old->peer_instance()), "): ", old->failure.message());
    events_->OnPeerDown(old->peer_instance(), old->failure);
    old->was_up = false;
  }
  connection.state = ConnectionState::kUp;
  connection.was_up = true;
  connection.up_since = loop_->Now();
  peer->up = &connection;
  peer->newest = connection.peer_instance().incarnation;
  peer->last_error.clear();
  const std::string who = absl::StrCat(peer->member.name, " (", ToString(connection.peer_instance()), ")");
  connection.said_up = log_once_.Log(LogLevel::kInfo, absl::StrCat(peer->member.name, ": up ", who),
                                     absl::StrCat("connected with ", who));
  events_->OnPeerUp(connection.peer_instance());
}

}  // namespace mangrove
