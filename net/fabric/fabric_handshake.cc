// The two sides prove themselves; see net/handshake.h for the steps.

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"
#include "net/little_endian.h"

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
  const HelloProof proof = ProofOf(*hello, facts, FindPeer(hello->from.node));
  const absl::Status status = CheckHello(*hello, proof, &reason);
  if (!status.ok() && reason != RefusalReason::kChallenge) {
    // Only what has proved itself may change what operators see of a member.
    return Refuse(info.get(), reason, status);
  }
  Peer* peer = FindPeer(hello->from.node);
  CHECK(peer != nullptr);
  if (!status.ok()) return Challenge(*peer, info.get());
  AcceptPeer(*peer, std::move(info), facts, KeysFor(hello->from.node)[proof.key]);
}

FabricCore::HelloProof FabricCore::ProofOf(const Hello& hello, const HandshakeFacts& facts, const Peer* peer) const {
  // Of a guest those of guests alone, and of a member none of these: I8.
  const std::vector<ClusterKey>& keys = KeysFor(hello.from.node);
  HandshakeFacts fresh = facts;
  fresh.acceptor_nonce = peer == nullptr ? 0 : peer->challenge;
  HelloProof proof{.key = FindKey(keys, HandshakeStep::kHello, fresh, hello.mac)};
  proof.is_fresh = proof.key < keys.size() && fresh.acceptor_nonce != 0;
  if (!proof.is_fresh) proof.key = FindKey(keys, HandshakeStep::kHello, facts, hello.mac);
  return proof;
}

// Whoever is told it can do nothing with it but with the key. Nothing is kept of it, and it is no news.
void FabricCore::Challenge(Peer& peer, fi_info* info) {
  if (peer.challenge == 0 || peer.hello_nonces.size() >= kHellosPerChallenge) {
    peer.challenge = std::max<uint64_t>(entropy_->Next(), 1);
    peer.hello_nonces.clear();
  }
  Refusal refusal = OwnView(RefusalReason::kChallenge);
  refusal.challenge = peer.challenge;
  const auto bytes = EncodeRefusal(refusal);
  fi_reject(listener_.get(), info->handle, bytes.data(), bytes.size());
}

absl::Status FabricCore::CheckHello(const Hello& hello, const HelloProof& proof, RefusalReason* reason) {
  const bool is_guest = hello.from.node == kGuestNode;
  const Peer* peer = is_guest ? &PeerOf(kGuestNode) : FindMember(hello.from.node);
  const bool holds_key = proof.key < KeysFor(hello.from.node).size();
  if (hello.version != config_.protocol_version) {
    *reason = RefusalReason::kVersion;
  } else if (hello.cluster_low != config_.cluster.low) {
    *reason = RefusalReason::kCluster;
  } else if (peer == nullptr) {
    *reason = RefusalReason::kUnknownNode;
  } else if (!holds_key) {
    *reason = is_guest ? RefusalReason::kToken : RefusalReason::kKey;
  } else if (peer->we_connect) {
    *reason = RefusalReason::kDirection;
  } else if (hello.from.incarnation.value == 0 ||
             (hello.from.incarnation < peer->newest && hello.from.incarnation > peer->expelled)) {
    *reason = RefusalReason::kOldIncarnation;
  } else if (!proof.is_fresh || peer->hello_nonces.size() >= kHellosPerChallenge) {
    *reason = RefusalReason::kChallenge;
  } else if (std::find(peer->hello_nonces.begin(), peer->hello_nonces.end(), hello.nonce) != peer->hello_nonces.end()) {
    *reason = RefusalReason::kRepeated;
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

void FabricCore::AcceptPeer(Peer& peer, Info info, const HandshakeFacts& facts, const ClusterKey& key) {
  if (peer.handshakes >= kMaxHandshakesPerPeer) DropOldestHandshake(peer);
  auto made = MakeConnection(peer, info.get(), false);
  if (!made.ok()) return Refuse(info.get(), RefusalReason::kBusy, made.status());
  Connection& connection = **made;
  ++peer.handshakes;
  peer.hello_nonces.push_back(facts.connector_nonce);
  connection.key = key;
  connection.facts = facts;
  connection.facts.acceptor = config_.self;
  connection.facts.acceptor_nonce = entropy_->Next();
  Accept accept;
  accept.from = config_.self;
  accept.nonce = connection.facts.acceptor_nonce;
  const HandshakeMac mac = ComputeMac(connection.key, HandshakeStep::kAccept, connection.facts, {});
  std::copy_n(mac.begin(), accept.mac.size(), accept.mac.begin());
  const auto bytes = EncodeAccept(config_.protocol_version, accept);
  // Room for the Proof and nothing else.
  absl::Status status = PostReceive(connection, 0, kFirstMessageBytes);
  if (status.ok()) {
    const int result = fi_accept(connection.endpoint.get(), bytes.data(), bytes.size());
    if (result != 0) status = FabricError(result, "the connection cannot be accepted");
  }
  if (!status.ok()) Fail(connection, std::move(status));
}

// I9: so they are never all taken for longer than one takes that comes.
void FabricCore::DropOldestHandshake(Peer& peer) {
  Connection* oldest = nullptr;
  for (auto& [serial, connection] : connections_) {
    const bool is_under_way = connection->peer == peer.member.id && !connection->connector &&
                              connection->state == ConnectionState::kAccepting;
    if (is_under_way && (oldest == nullptr || connection->serial < oldest->serial)) oldest = connection.get();
  }
  CHECK(oldest != nullptr);
  Fail(*oldest, absl::ResourceExhaustedError("its handshake was not done when others came"));
}

absl::Status FabricCore::FinishAccepting(Connection& connection) {
  Peer* peer = FindPeer(connection.peer);
  if (connection.facts.connector.incarnation <= peer->expelled) return SayExpelled(connection);
  if (connection.facts.connector.incarnation < peer->newest) {
    return absl::FailedPreconditionError("a newer incarnation of the peer came first");
  }
  // The connector is to find out as well where they cannot agree, from a Ready without slots, and closes.
  connection.verdict = Agree(connection);
  if (!connection.verdict.ok()) return SendFirst(connection, HandshakeStep::kReady);
  if (absl::Status status = PrepareMemory(connection); !status.ok()) return status;
  if (absl::Status status = PostReceives(connection, 0); !status.ok()) return status;
  if (absl::Status status = SendFirst(connection, HandshakeStep::kReady); !status.ok()) return status;
  if (absl::Status status = MakeSession(connection); !status.ok()) return status;
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
  const HandshakeMac mac = ComputeMac(connection.key, HandshakeStep::kAccept, connection.facts, {});
  if (!SameMac(accept->mac, std::span(mac).first(accept->mac.size()))) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat("the node there does not hold the ", connection.of_guest ? "token" : "cluster", "'s key"));
  }
  const bool is_expelled = accept->from.incarnation <= peer->expelled;
  if (accept->from.incarnation < peer->newest && !is_expelled) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat(ToString(accept->from), " answered, but incarnation ", peer->newest.value, " has been seen"));
  }
  connection.state = ConnectionState::kProving;
  if (is_expelled) return SayExpelled(connection);
  return SendFirst(connection, HandshakeStep::kProof);
}

// --- Both -------------------------------------------------------------------------------------------------------------

// Whether both sides want the same, and what they will speak.
absl::Status FabricCore::Agree(Connection& connection) {
  absl::Status status;
  if (connection.theirs.security != connection.own.security) {
    status = absl::PermissionDeniedError(absl::StrCat("this node's connections are ", Name(connection.own.security),
                                                      ", the other's ", Name(connection.theirs.security)));
  } else if (connection.theirs.lease_ms != connection.own.lease_ms) {
    status = absl::PermissionDeniedError(absl::StrCat("lease_ms of this node is ", connection.own.lease_ms,
                                                      ", of the other one ", connection.theirs.lease_ms,
                                                      ": it has to be the same on all nodes of a cluster"));
  } else if (const int own = connection.own.system_replicas, theirs = connection.theirs.system_replicas;
             own != 0 && theirs != 0 && own != theirs) {
    status = absl::PermissionDeniedError(
        absl::StrCat("system_replicas of this node is ", own, ", of the other one ", theirs,
                     ": it has to be as the cluster was made with on all nodes; where it is not set it is `replicas`"));
  } else {
    auto levels = CommonLevels(connection.own.levels, connection.theirs.levels);
    if (levels.ok()) connection.levels = *levels;
    status = levels.status();
  }
  if (!status.ok()) ++counters_.peers_refused;
  return status;
}

absl::Status FabricCore::SendFirst(Connection& connection, HandshakeStep step) {
  FirstMessage message;
  message.step = step;
  HandshakeOffer& offer = message.offer;
  if (step != HandshakeStep::kExpelled) {
    for (size_t i = 0; i < connection.exchange.size(); i += sizeof(uint64_t)) {
      StoreLittle<uint64_t>(connection.exchange.data() + i, entropy_->Next());
    }
    connection.own.exchange = PublicKeyOf(connection.exchange);
    if (connection.slot_registration) {
      connection.own.pool.base = virtual_addresses_ ? reinterpret_cast<uintptr_t>(connection.slots()) : 0;
      connection.own.pool.key = fi_mr_key(connection.slot_registration.get());
      connection.own.pool.slots = kPageSlots;
    }
    offer = connection.own;
  }
  message.mac = ComputeMac(connection.key, step, connection.facts, offer);
  const auto bytes = EncodeFirstMessage(message);
  const ssize_t result = fi_inject(connection.endpoint.get(), bytes.data(), bytes.size(), 0);
  if (result != 0) return FabricError(static_cast<int>(result), "the handshake's message cannot be sent");
  return absl::OkStatus();
}

// To an incarnation that has left the view, instead of Proof or Ready. It closes the connection; or the deadline does.
absl::Status FabricCore::SayExpelled(Connection& connection) {
  ++counters_.peers_refused;
  connection.verdict = absl::PermissionDeniedError(
      absl::StrCat(ToString(connection.peer_instance()), " has left the view, and is not let in again"));
  return SendFirst(connection, HandshakeStep::kExpelled);
}

absl::Status FabricCore::OnFirst(Connection& connection, std::span<const std::byte> bytes) {
  // Nothing counts from who has been told that it is expelled; it could be our own word, sent back.
  if (!connection.verdict.ok()) return connection.verdict;
  const HandshakeStep expected = connection.connector ? HandshakeStep::kReady : HandshakeStep::kProof;
  const std::optional<FirstMessage> message = ParseFirstMessage(bytes);
  // A guest is in no view, and has no say in who is.
  const bool is_expelled = message && message->step == HandshakeStep::kExpelled && !connection.of_guest;
  if (!message || (message->step != expected && !is_expelled)) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("its handshake message is not what this version expects");
  }
  if (!SameMac(message->mac, ComputeMac(connection.key, message->step, connection.facts, message->offer))) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat("it did not prove that it holds the ", connection.of_guest ? "token" : "cluster", "'s key"));
  }
  if (is_expelled) {
    const NodeInstance by = connection.peer_instance();
    events_->OnExpelled(by);
    return absl::PermissionDeniedError(absl::StrCat(ToString(by), " says that this incarnation has left the view"));
  }
  connection.theirs = message->offer;
  if (connection.connector) {
    if (absl::Status status = Agree(connection); !status.ok()) return status;
  }
  if (connection.theirs.pool.slots != kPageSlots) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError(
        absl::StrCat("it has ", connection.theirs.pool.slots, " slots for pages, expected ", kPageSlots));
  }
  if (!connection.connector) {
    connection.proved = true;
    // The proof may overtake the event.
    return connection.connected ? FinishAccepting(connection) : absl::OkStatus();
  }
  CHECK(connection.state == ConnectionState::kProving);
  // Since the Accept; the next attempt tells it.
  if (connection.facts.acceptor.incarnation <= FindPeer(connection.peer)->expelled) {
    return absl::PermissionDeniedError(absl::StrCat(ToString(connection.facts.acceptor), " has left the view"));
  }
  if (absl::Status status = MakeSession(connection); !status.ok()) return status;
  if (absl::Status status = PostReceive(connection, 0, kMaxWireBytes); !status.ok()) return status;
  BringUp(connection);
  return absl::OkStatus();
}

absl::Status FabricCore::MakeSession(Connection& connection) {
  const auto shared = SharedSecretOf(connection.exchange, connection.theirs.exchange);
  if (!shared) {
    ++counters_.peers_refused;
    return absl::PermissionDeniedError("its handshake message has a public key that nobody has");
  }
  const HandshakeOffer& connector = connection.connector ? connection.own : connection.theirs;
  const HandshakeOffer& acceptor = connection.connector ? connection.theirs : connection.own;
  const SessionSecrets secrets = DeriveSession(connection.key, *shared, connection.facts, connector, acceptor);
  const DirectionSecrets& sending = connection.connector ? secrets.from_connector : secrets.from_acceptor;
  const DirectionSecrets& receiving = connection.connector ? secrets.from_acceptor : secrets.from_connector;
  connection.session.emplace(connection.own.security, sending, receiving);
  connection.exchange.fill(std::byte{0});
  return absl::OkStatus();
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
    LogInfo("lost ", NameOf(*peer, *old), ": ", old->failure.message());
    if (peer->member.id != kGuestNode) events_->OnPeerDown(old->peer_instance(), old->failure);
    old->was_up = false;
  }
  connection.state = ConnectionState::kUp;
  connection.was_up = true;
  connection.up_since = loop_->Now();
  connection.silence.Reset(connection.up_since, 0);
  peer->up = &connection;
  peer->last_error.clear();
  peer->refusal.reset();
  const std::string who = NameOf(*peer, connection);
  connection.said_up = log_once_.Log(LogLevel::kInfo, absl::StrCat(peer->member.name, ": up ", who),
                                     absl::StrCat("connected with ", who));
  // Guests are nobody's successors, and nobody hears of them.
  if (peer->member.id == kGuestNode) return;
  peer->newest = connection.peer_instance().incarnation;
  events_->OnPeerUp(connection.peer_instance());
  // The keys may have changed while this one was under way.
  if (peer->dialing == nullptr && IsToBeDialled(*peer)) DialLater(*peer);
}

}  // namespace mangrove
