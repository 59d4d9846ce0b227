// Connections come: the event queue, dialling, endpoints and their memory.

#include <cstdlib>
#include <cstring>
#include <utility>

#include <netinet/in.h>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/fabric/fabric_core.h"
#include "net/fabric_error.h"

namespace mangrove {
namespace {

// Each look at the event queue is a system call, and connections change rarely: while the loop spins, one look in so many
// turns will do.
constexpr uint32_t kTurnsPerEventPoll = 64;
constexpr int kMaxEventsPerPoll = 32;
constexpr size_t kMaxEventData = 256;

}  // namespace

bool FabricCore::Source::MaySleep() { return fi_trywait(core_->fabric_.get(), &queue, 1) == 0; }

bool FabricCore::EventSource::Poll() {
  if (++turns_ < kTurnsPerEventPoll) return false;
  turns_ = 0;
  return core_->PollEvents();
}

// The event queue's descriptor stays readable as long as there is something to read, so that, unlike for completions,
// nothing is missed without fi_trywait: it is called now and then only, since each call costs two system calls and a
// caller that drives the loop for one message goes through here each time.
bool FabricCore::EventSource::MaySleep() {
  turns_ += kTurnsPerEventPoll / 8;
  if (turns_ < kTurnsPerEventPoll) return true;
  if (core_->PollEvents()) return false;
  turns_ = 0;
  return Source::MaySleep();
}

bool FabricCore::PollEvents() {
  ++depth_;
  bool any = false;
  for (int i = 0; i < kMaxEventsPerPoll; ++i) {
    alignas(fi_eq_cm_entry) std::array<std::byte, sizeof(fi_eq_cm_entry) + kMaxEventData> buffer;
    uint32_t event = 0;
    const ssize_t length = fi_eq_read(event_queue_.get(), &event, buffer.data(), buffer.size(), 0);
    if (length == -FI_EAGAIN || length == 0) break;
    any = true;
    if (length == -FI_EAVAIL) {
      OnEventError();
      continue;
    }
    if (length < 0) {
      LogWarning("the event queue cannot be read: ", FabricError(static_cast<int>(length), "fi_eq_read").message());
      break;
    }
    if (static_cast<size_t>(length) < sizeof(fi_eq_cm_entry)) continue;
    fi_eq_cm_entry entry;
    std::memcpy(&entry, buffer.data(), sizeof(entry));
    OnEvent(event, entry, std::span(buffer).subspan(sizeof(entry), static_cast<size_t>(length) - sizeof(entry)));
  }
  --depth_;
  if (any) Reap();
  return any;
}

void FabricCore::OnEvent(uint32_t event, const fi_eq_cm_entry& entry, std::span<const std::byte> data) {
  if (event == FI_CONNREQ) {
    OnConnectRequest(Info(entry.info), data);
    return;
  }
  auto it = serial_of_.find(entry.fid);
  if (it == serial_of_.end()) return;
  Connection* connection = FindConnection(it->second);
  CHECK(connection != nullptr);
  if (event == FI_CONNECTED) {
    OnConnected(*connection, data);
  } else if (event == FI_SHUTDOWN) {
    const bool proving = connection->state != ConnectionState::kUp;
    Fail(*connection, absl::UnavailableError(proving ? "the peer closed the connection during the handshake; its "
                                                       "cluster key may be another"
                                                     : "the peer closed the connection or died"));
  }
}

void FabricCore::OnEventError() {
  fi_eq_err_entry error{};
  std::array<std::byte, kMaxEventData> data;
  error.err_data = data.data();
  error.err_data_size = data.size();
  if (fi_eq_readerr(event_queue_.get(), &error, 0) < 0) return;
  auto it = serial_of_.find(error.fid);
  if (it == serial_of_.end()) return;
  Connection* connection = FindConnection(it->second);
  CHECK(connection != nullptr);
  absl::Status why = FabricError(error.err, "the connection failed");
  std::optional<RefusalReason>& said = FindPeer(connection->peer)->refusal;
  said.reset();
  if (error.err_data != nullptr && error.err_data_size > 0 && connection->connector) {
    const auto* bytes = static_cast<const std::byte*>(error.err_data);
    if (auto refusal = ParseRefusal(std::span(bytes, error.err_data_size))) {
      NoteRefusal(*connection, *refusal);
      why = absl::PermissionDeniedError(
          absl::StrCat("the peer refused this node: ", ExplainRefusal(*refusal, OwnView(refusal->reason))));
    }
  }
  Fail(*connection, std::move(why));
}

// The next hello proves the challenge, if this one has asked for it. Of one that was proved, and is old, or of another boot, the acceptor
// does not know the key either: the next hello asks, and tells which it was.
void FabricCore::NoteRefusal(Connection& connection, const Refusal& refusal) {
  Peer& peer = *FindPeer(connection.peer);
  const bool has_asked = connection.facts.acceptor_nonce == 0;
  const bool is_of_key = refusal.reason == RefusalReason::kKey || refusal.reason == RefusalReason::kToken;
  if (refusal.reason == RefusalReason::kChallenge) {
    peer.their_challenge = refusal.challenge;
    connection.challenged = has_asked;
  } else if (has_asked || !is_of_key) {
    peer.refusal = refusal.reason;
  }
}

// --- Dialling ---------------------------------------------------------------------------------------------------------

void FabricCore::Dial(Peer& peer) {
  peer.retry = 0;
  CHECK(peer.we_connect);
  if (peer.dialing != nullptr || !IsToBeDialled(peer)) return;
  Info info(fi_dupinfo(info_.get()));
  CHECK(info != nullptr);
  // From any port: the listener has ours.
  std::free(info->src_addr);
  info->src_addr = nullptr;
  info->src_addrlen = 0;
  std::free(info->dest_addr);
  info->dest_addr = std::malloc(peer.address.bytes);
  CHECK(info->dest_addr != nullptr);
  std::memcpy(info->dest_addr, &peer.address.storage, peer.address.bytes);
  info->dest_addrlen = peer.address.bytes;
  auto made = MakeConnection(peer, info.get(), true);
  if (!made.ok()) {
    peer.last_error = std::string(made.status().message());
    log_once_.Log(LogLevel::kWarning, absl::StrCat(peer.member.name, ": down ", peer.last_error),
                  absl::StrCat("no connection with ", NameOf(peer), ": ", peer.last_error));
    DialLater(peer);
    return;
  }
  Connection& connection = **made;
  peer.dialing = &connection;
  connection.facts.connector = config_.self;
  connection.facts.connector_nonce = entropy_->Next();
  Hello hello;
  hello.version = config_.protocol_version;
  hello.cluster_low = config_.cluster.low;
  hello.from = config_.self;
  hello.nonce = connection.facts.connector_nonce;
  connection.key = keys_.front();
  connection.facts.acceptor_nonce = std::exchange(peer.their_challenge, 0);
  const HandshakeMac mac = ComputeMac(connection.key, HandshakeStep::kHello, connection.facts, {});
  std::copy_n(mac.begin(), hello.mac.size(), hello.mac.begin());
  const auto bytes = EncodeHello(hello);
  absl::Status status = PrepareMemory(connection);
  if (status.ok()) status = PostReceives(connection, 0);
  if (status.ok()) {
    const int result = fi_connect(connection.endpoint.get(), info->dest_addr, bytes.data(), bytes.size());
    if (result != 0) status = FabricError(result, "the connection cannot be opened");
  }
  if (!status.ok()) Fail(connection, std::move(status));
}

// Without a connection, or beside one that is to be replaced since it was proved with another key.
bool FabricCore::IsToBeDialled(const Peer& peer) const {
  return peer.is_member && peer.we_connect && peer.address.bytes > 0 &&
         (peer.up == nullptr || peer.up->key != keys_.front());
}

void FabricCore::DialLater(Peer& peer) {
  if (peer.retry != 0) return;
  // Somewhere in the upper half of the back-off, so that nodes that lost the same peer do not come back in step.
  const DurationNs half = peer.backoff / 2;
  const DurationNs wait = half + static_cast<DurationNs>(entropy_->Next() % static_cast<uint64_t>(half + 1));
  peer.backoff = std::min(peer.backoff * 2, kLastBackoff);
  peer.retry = loop_->CallAt(loop_->Now() + wait, [this, raw = &peer] { Dial(*raw); });
}

// At once, also where an attempt would have waited for its turn.
void FabricCore::DialSoon(Peer& peer) {
  if (events_ == nullptr || peer.dialing != nullptr || !IsToBeDialled(peer)) return;
  loop_->Cancel(peer.retry);
  peer.retry = loop_->CallAt(loop_->Now(), [this, raw = &peer] { Dial(*raw); });
}

// --- Endpoints and their memory ---------------------------------------------------------------------------------------

absl::StatusOr<Connection*> FabricCore::MakeConnection(Peer& peer, fi_info* info, bool connector) {
  auto connection = std::make_unique<Connection>();
  connection->serial = next_serial_++;
  connection->peer = peer.member.id;
  connection->connector = connector;
  connection->state = connector ? ConnectionState::kConnecting : ConnectionState::kAccepting;
  connection->handshake_deadline = loop_->Now() + kHandshakeDeadline;
  connection->facts.version = config_.protocol_version;
  connection->facts.cluster = config_.cluster;
  connection->of_guest = IsGuest() || connection->peer == kGuestNode;
  connection->own.security = connection->of_guest ? Security::kEncrypted : config_.security;
  connection->own.levels = config_.levels;
  if (!connection->of_guest) {
    connection->own.lease_ms = config_.lease_ms;
    connection->own.system_replicas = config_.system_replicas;
  }
  // The acceptor of a dialled connection, until Accept names its incarnation.
  if (connector) connection->facts.acceptor.node = peer.member.id;
  connection->memory = MappedMemory(kReceiveBuffers * kMaxWireBytes + kPageSlots * kPageBytes);
  if (connection->memory.data() == nullptr) return absl::ResourceExhaustedError("no memory for a connection");
  fid_ep* endpoint = nullptr;
  int result = fi_endpoint(domain_.get(), info, &endpoint, nullptr);
  if (result != 0) return FabricError(result, "an endpoint cannot be made");
  connection->endpoint.reset(endpoint);
  result = fi_ep_bind(endpoint, &event_queue_->fid, 0);
  if (result == 0) result = fi_ep_bind(endpoint, &completion_queue_->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION);
  if (result == 0) result = fi_ep_bind(endpoint, &completion_queue_->fid, FI_RECV);
  if (result == 0) result = fi_enable(endpoint);
  if (result != 0) return FabricError(result, "an endpoint cannot be enabled");
  Connection* raw = connection.get();
  serial_of_[&endpoint->fid] = raw->serial;
  connections_[raw->serial] = std::move(connection);
  return raw;
}

// Registers what the peer writes to and, where the provider asks, what it sends to.
absl::Status FabricCore::PrepareMemory(Connection& connection) {
  if (connection.slot_registration) return absl::OkStatus();
  fid_mr* made = nullptr;
  if (local_registration_) {
    const int result = fi_mr_reg(domain_.get(), connection.memory.data(), kReceiveBuffers * kMaxWireBytes, FI_RECV, 0,
                                 entropy_->Next(), 0, &made, nullptr);
    if (result != 0) return FabricError(result, "receive buffers cannot be registered");
    connection.receive_registration.reset(made);
  }
  // A key that is taken, by chance, is refused: the next one will not be.
  int result = -FI_ENOKEY;
  for (int attempt = 0; result == -FI_ENOKEY && attempt < 4; ++attempt) {
    result = fi_mr_reg(domain_.get(), connection.slots(), kPageSlots * kPageBytes, FI_REMOTE_WRITE, 0, entropy_->Next(),
                       0, &made, nullptr);
  }
  if (result != 0) return FabricError(result, "page slots cannot be registered");
  connection.slot_registration.reset(made);
  return absl::OkStatus();
}

absl::Status FabricCore::PostReceive(Connection& connection, size_t index, size_t bytes) {
  void* descriptor = connection.receive_registration ? fi_mr_desc(connection.receive_registration.get()) : nullptr;
  const ssize_t result = fi_recv(connection.endpoint.get(), connection.receive_buffer(index), bytes, descriptor, 0,
                                 MakeContext(connection.serial, kReceiveContext | index));
  if (result != 0) return FabricError(static_cast<int>(result), "a receive buffer cannot be posted");
  return absl::OkStatus();
}

absl::Status FabricCore::PostReceives(Connection& connection, size_t first) {
  for (size_t index = first; index < kReceiveBuffers; ++index) {
    if (absl::Status status = PostReceive(connection, index, kMaxWireBytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace mangrove
