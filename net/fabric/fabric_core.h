// The inside of FabricTransport, and the only header that knows libfabric. Its functions are in files by the event of the
// data path: fabric_open.cc (once), fabric_members.cc (who is let in), fabric_connect.cc (connections come), fabric_handshake.cc (prove themselves),
// fabric_send.cc and fabric_receive.cc (carry messages), fabric_close.cc (go).
//
// Invariants:
//  I1  A peer has at most one connection that is up; `Peer::up` names it, and only its messages are delivered.
//  I2  Before a connection is up nothing is read of it but one FirstMessage, and the peer has no key to our memory. After
//      that nothing is read of it but what opens under the connection's own secrets, in its place in the sequence.
//  I3  A connection is destroyed only by Reap, which runs when no callback of the transport is on the stack; until then
//      a failed one is only marked. So every pointer to a connection is good for as long as a callback runs.
//  I4  Completions name their connection by serial number, never by pointer: one that comes late finds nobody.
//  I5  Slots are used in the order of a ring, and returned in that order, by both sides: taken - freed <= kPageSlots.
//  I6  Completions of one connection's sends come in the order of the sends (asked for at Start).
//  I7  A peer is not forgotten when it is removed, since T4 holds for it all the same; but then nobody is let in as it, and every
//      connection with it has failed.
//  I9  libfabric reads nothing of a connection, but its request, before the request has proved this peer's challenge, which is of this
//      boot, and no request is taken twice. A peer's oldest handshake gives its place to one that comes when there are as many as may be.
//  I8  A guest is a peer that is no member: the keys of guests count for kGuestNode alone, and the cluster's for all others. No event
//      but deliveries is about it, and these are on Channel::kJoin, on which those of members never are.

#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "net/envelope.h"
#include "net/fabric/silence.h"
#include "net/fabric_transport.h"
#include "net/handshake.h"
#include "net/log.h"
#include "net/runtime/loop.h"
#include "net/sealing.h"
#include "net/session_keys.h"
#include "net/transport.h"

namespace mangrove {

constexpr DurationNs kHandshakeDeadline = 2 * kSecond;
constexpr DurationNs kSendDeadline = 5 * kSecond;
constexpr DurationNs kTickInterval = 250 * kMillisecond;
constexpr DurationNs kFirstBackoff = 5 * kMillisecond;
constexpr DurationNs kLastBackoff = 500 * kMillisecond;
// A connection that breaks sooner may break again at once: the back-off goes on, and the log does not say it again.
constexpr DurationNs kSettledAfter = kSecond;

// Posted per connection. Half a message's memory is what a connection costs: see net/README.md.
constexpr size_t kReceiveBuffers = 16;
// Messages with at most this many pages carry them inline, where they fit: one operation instead of two.
constexpr size_t kMaxInlinePages = 3;
// Pieces of one write, at most: pages that lie side by side are one.
constexpr size_t kMaxWriteParts = 4;
// What may wait for one peer, T5.
constexpr size_t kMaxQueuedMessages = 8192;
constexpr size_t kMaxQueuedBytes = 1024 * 1024;
constexpr size_t kMaxQueuedPages = 8192;
// Operations of one connection that libfabric may hold.
constexpr uint32_t kMaxOutstandingOps = 192;
// Most messages tell nothing when they are out: a completion has to be read, and may wake who sleeps on the queue. So many
// operations at most go before one that asks for a completion, and so many pages, which are held as long.
constexpr uint32_t kOpsPerCompletion = 32;
constexpr size_t kPagesPerCompletion = 16;
// Handshakes that one peer may have under way towards us.
constexpr int kMaxHandshakesPerPeer = 4;
// Hellos of a peer under one challenge, none of which is taken again. The next challenge makes all of them worthless.
constexpr size_t kHellosPerChallenge = 256;

struct FidCloser {
  template <typename T>
  void operator()(T* fid) const {
    fi_close(&fid->fid);
  }
};
template <typename T>
using Fid = std::unique_ptr<T, FidCloser>;

struct InfoFreer {
  void operator()(fi_info* info) const { fi_freeinfo(info); }
};
using Info = std::unique_ptr<fi_info, InfoFreer>;

// Anonymous memory that costs nothing until it is touched.
class MappedMemory {
 public:
  MappedMemory() = default;
  explicit MappedMemory(size_t bytes);
  ~MappedMemory();
  MappedMemory(MappedMemory&& other) noexcept;
  MappedMemory& operator=(MappedMemory&& other) noexcept;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A message between Send and its completion.
struct OutMessage {
  std::vector<std::byte> head;  // Envelope, message, and zeros up to inline pages or the tag over those in slots.
  // Encrypted: what goes out instead of `head` and inline pages, and instead of pages for slots.
  std::vector<std::byte> sealed_head;
  std::unique_ptr<std::byte[]> sealed_pages;
  bool slots_sealed = false;  // The tag over the pages for slots is in `head`.
  absl::InlinedVector<PageBuffer, 2> pages;
  absl::InlinedVector<Fid<fid_mr>, 1> registrations;  // Where the provider wants them.
  Channel channel = Channel::kPages;
  Epoch epoch;  // When it was to be sent.
  uint32_t message_bytes = 0;
  uint32_t pages_written = 0;  // Into the peer's slots, so far.
  bool inline_pages = false;
  TimeNs since = 0;  // When it was queued.
};

using OutMessages = absl::InlinedVector<std::unique_ptr<OutMessage>, 1>;

// What one completion of a send stands for.
struct InFlight {
  OutMessages messages;  // Larger ones that are out now, with those before it that told nothing.
  uint32_t ops = 0;      // Operations that it completes, likewise.
  TimeNs since = 0;
};

enum class ConnectionState {
  kConnecting,  // We asked; no answer yet.
  kProving,     // We are the connector and have sent our Proof: Ready is to come.
  kAccepting,   // We are the acceptor: Proof is to come.
  kUp,
  kFailed,  // Waits for Reap.
};

// The secrets of a connection at work.
struct Session {
  Session(Security security, const DirectionSecrets& sending, const DirectionSecrets& receiving)
      : seal_messages(security, Sealer::Role::kSeal, sending.messages),
        seal_pages(security, Sealer::Role::kSeal, sending.pages),
        open_messages(security, Sealer::Role::kOpen, receiving.messages),
        open_pages(security, Sealer::Role::kOpen, receiving.pages) {}
  Sealer seal_messages;
  Sealer seal_pages;
  Sealer open_messages;
  Sealer open_pages;
};

struct Connection {
  uint32_t serial = 0;
  NodeId peer;
  bool connector = false;  // We are.
  bool of_guest = false;   // One of the two is a guest.
  ConnectionState state = ConnectionState::kConnecting;
  bool was_up = false;
  TimeNs up_since = 0;
  bool said_up = false;  // In the log.
  bool settled = false;  // Has been up for kSettledAfter.
  absl::Status failure;
  // During the handshake: why it will not be up. The other side is told, or finds out by itself, and closes.
  absl::Status verdict;
  HandshakeFacts facts;
  ClusterKey key{};  // That both hold.
  HandshakeOffer own;
  HandshakeOffer theirs;
  ExchangeSecret exchange{};  // Of `own`; gone when the session is there.
  Levels levels{};
  std::optional<Session> session;
  TimeNs handshake_deadline = 0;
  bool challenged = false;  // It was refused with a challenge that it had not had: there is nothing wrong.
  bool connected = false;   // The event has come.
  bool proved = false;      // By the connector, to us.

  // Destroyed in the reverse order: the endpoint first, then registrations, then what libfabric could still read or write.
  MappedMemory memory;  // Receive buffers, then slots.
  std::deque<InFlight> in_flight;
  std::deque<std::unique_ptr<OutMessage>> queue;
  Fid<fid_mr> receive_registration;
  Fid<fid_mr> slot_registration;
  Fid<fid_ep> endpoint;

  Silence silence;
  uint64_t messages_sent = 0;    // Neither credits nor questions.
  uint64_t sent_when_heard = 0;  // Of these, when something came last.

  // Receiving.
  uint64_t next_receive_sequence = 0;
  uint64_t next_slots_opened = 0;  // Messages with pages in slots.
  uint32_t slots_received = 0;     // All that were filled have also been handed on and are free again, between calls.
  uint32_t slots_announced = 0;    // Returned to the peer, in some envelope.

  // Sending.
  uint64_t next_send_sequence = 0;
  uint64_t next_slots_sealed = 0;  // As above.
  uint32_t slots_taken = 0;
  uint32_t slots_freed = 0;
  uint32_t outstanding_ops = 0;
  uint32_t silent_ops = 0;  // Of these, the last ones, for which no completion has been asked.
  TimeNs silent_since = 0;
  OutMessages silent_messages;  // Their larger messages.
  size_t silent_pages = 0;
  size_t queued_bytes = 0;
  size_t queued_pages = 0;

  std::byte* receive_buffer(size_t index) const { return memory.data() + index * kMaxWireBytes; }
  std::byte* slots() const { return memory.data() + kReceiveBuffers * kMaxWireBytes; }
  NodeInstance peer_instance() const { return connector ? facts.acceptor : facts.connector; }
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

struct Peer {
  FabricMember member;
  bool is_member = false;  // Now, see I7.
  bool we_connect = false;
  SocketAddress address;
  Incarnation newest;    // That has proved itself.
  Incarnation expelled;  // This one and those before it have left the view: they are not let in.
  Connection* up = nullptr;
  Connection* dialing = nullptr;
  Clock::TimerId retry = 0;
  DurationNs backoff = kFirstBackoff;
  int handshakes = 0;                  // Of connections that it opened.
  uint64_t challenge = 0;              // That its hellos have to prove here; 0: it has had none.
  std::vector<uint64_t> hello_nonces;  // Of those that were taken under it.
  uint64_t their_challenge = 0;        // For our next hello to it, once; 0: that asks for one.
  std::string last_error;
  std::optional<RefusalReason> refusal;  // Of us, by the last attempt to connect.
};

// "alpha (node 3)": as operators name it, and as errors do.
inline std::string NameOf(const Peer& peer) {
  if (peer.member.id == kGuestNode) return ToString(kGuestNode);
  return absl::StrCat(peer.member.name, " (", ToString(peer.member.id), ")");
}
// "alpha (node 3 incarnation 5)"; what tells guests apart is their token's key.
inline std::string NameOf(const Peer& peer, const Connection& connection) {
  if (peer.member.id == kGuestNode) return absl::StrCat("a guest with the key ", FingerprintOf(connection.key));
  return absl::StrCat(peer.member.name, " (", ToString(connection.peer_instance()), ")");
}

struct HostAndPort {
  std::string host;  // Without brackets.
  std::string port;
};
// Of "host:port" or "[IPv6 address]:port". InvalidArgument says that it is the address of `whose`.
absl::StatusOr<HostAndPort> SplitAddress(const std::string& address, const std::string& whose);

class FabricCore {
 public:
  FabricCore(FabricTransportConfig config, Loop* loop, Entropy* entropy);
  ~FabricCore();

  absl::Status Start(TransportEvents* events);
  void Send(NodeId to, Channel channel, std::span<const std::byte> message, std::span<const PageBuffer> pages);
  void SetEpoch(Epoch epoch) { epoch_ = epoch; }
  void Expel(NodeInstance node);
  uint8_t LevelOf(NodeId peer, Subsystem subsystem) const;
  std::vector<PeerStatus> Peers() const;
  const TransportCounters& Counters() const { return counters_; }
  TransportSecurity SecurityInUse() const;
  void SetKeys(std::vector<ClusterKey> keys);
  absl::Status SetMembers(const std::vector<FabricMember>& members);
  void SetGuestKeys(std::vector<ClusterKey> keys);
  std::optional<ClusterKey> GuestKey() const;
  std::optional<RefusalReason> RefusedBy(NodeId peer) const;
  FabricTransportGauges Gauges() const;

 private:
  // One of libfabric's queues, as the loop sees it.
  class Source : public PollSource {
   public:
    explicit Source(FabricCore* core) : core_(core) {}
    int WaitFd() const override { return fd; }
    bool MaySleep() override;
    fid_t queue = nullptr;
    int fd = -1;

   protected:
    FabricCore* const core_;
  };
  class CompletionSource final : public Source {
   public:
    using Source::Source;
    bool Poll() override { return core_->PollCompletions(); }
    bool MayHaveQueued() const override { return core_->unseen_; }
  };
  class EventSource final : public Source {
   public:
    using Source::Source;
    bool Poll() override;
    bool MaySleep() override;

   private:
    uint32_t turns_ = 0;
  };

  // fabric_open.cc
  absl::Status CheckConfig() const;
  absl::Status OpenFabric();
  absl::Status CheckProvider() const;
  absl::Status OpenQueues();
  void LeaveSignalUnread();
  absl::Status Listen();

  // fabric_members.cc
  absl::StatusOr<SocketAddress> Resolve(const FabricMember& member) const;
  Peer& PeerOf(NodeId id);
  Peer& Admit(const FabricMember& member, const SocketAddress& address);
  void Remove(Peer& peer);
  Peer* FindPeer(NodeId id) const;
  Peer* FindMember(NodeId id) const;
  Peer* FindReceiver(NodeId id, Channel channel) const;
  const std::vector<ClusterKey>& KeysFor(NodeId peer) const { return peer == kGuestNode ? guest_keys_ : keys_; }
  void CloseUnproved();
  bool IsGuest() const { return config_.self.node == kGuestNode; }

  // fabric_connect.cc
  bool PollEvents();
  void OnEvent(uint32_t event, const fi_eq_cm_entry& entry, std::span<const std::byte> data);
  void OnEventError();
  void NoteRefusal(Connection& connection, const Refusal& refusal);
  void OnConnectRequest(Info info, std::span<const std::byte> data);
  void OnConnected(Connection& connection, std::span<const std::byte> data);
  void Dial(Peer& peer);
  void DialLater(Peer& peer);
  void DialSoon(Peer& peer);
  bool IsToBeDialled(const Peer& peer) const;
  absl::StatusOr<Connection*> MakeConnection(Peer& peer, fi_info* info, bool connector);
  absl::Status PrepareMemory(Connection& connection);
  absl::Status PostReceive(Connection& connection, size_t index, size_t bytes);
  absl::Status PostReceives(Connection& connection, size_t first);

  // fabric_handshake.cc
  struct HelloProof {
    size_t key = 0;         // The place of the key that it is proved with; that behind the last: it is not.
    bool is_fresh = false;  // It proves the challenge.
  };
  HelloProof ProofOf(const Hello& hello, const HandshakeFacts& facts, const Peer* peer) const;
  absl::Status CheckHello(const Hello& hello, const HelloProof& proof, RefusalReason* reason);
  void Challenge(Peer& peer, fi_info* info);
  void DropOldestHandshake(Peer& peer);
  void Refuse(fi_info* info, RefusalReason reason, const absl::Status& why);
  void AcceptPeer(Peer& peer, Info info, const HandshakeFacts& facts, const ClusterKey& key);
  absl::Status OnAccept(Connection& connection, std::span<const std::byte> data);
  absl::Status Agree(Connection& connection);
  absl::Status SendFirst(Connection& connection, HandshakeStep step);
  absl::Status OnFirst(Connection& connection, std::span<const std::byte> bytes);
  absl::Status SayExpelled(Connection& connection);
  absl::Status MakeSession(Connection& connection);
  absl::Status FinishAccepting(Connection& connection);
  void BringUp(Connection& connection);

  // fabric_send.cc
  enum class Outcome { kDone, kBlocked, kFailed };
  Outcome SendSmall(Connection& connection, EnvelopeKind kind, Channel channel, std::span<const std::byte> message);
  Outcome SendHead(Connection& connection, OutMessage& message, bool tell);
  void NoteSent(Connection& connection, bool told);
  Outcome Submit(Connection& connection, std::unique_ptr<OutMessage>& message);
  void SealPages(Connection& connection, OutMessage& message);
  Outcome WritePages(Connection& connection, OutMessage& message);
  void SealHead(Connection& connection, OutMessage& message, const Envelope& envelope);
  bool HasRoom(const Connection& connection, uint32_t ops, uint32_t slots) const;
  Envelope NextEnvelope(const Connection& connection, EnvelopeKind kind, Channel channel, size_t message_bytes) const;
  void CountSent(Connection& connection, const Envelope& envelope);
  void Enqueue(Connection& connection, std::unique_ptr<OutMessage> message);
  void Drain(Connection& connection);
  Outcome SendBare(Connection& connection, EnvelopeKind kind);
  void SendCredit(Connection& connection) { SendBare(connection, EnvelopeKind::kCredit); }
  void ReturnSlots(Connection& connection);
  Outcome OutcomeOf(Connection& connection, ssize_t result, const char* what);
  void* Register(OutMessage& message, const void* data, size_t bytes);
  std::unique_ptr<OutMessage> NewMessage(Channel channel, std::span<const std::byte> message,
                                         std::span<const PageBuffer> pages);
  void Recycle(std::unique_ptr<OutMessage> message);
  void OnSendCompleted(Connection& connection);

  // fabric_receive.cc
  bool PollCompletions();
  void OnCompletionError();
  void OnReceived(Connection& connection, size_t index, size_t bytes);
  absl::Status OnWire(Connection& connection, std::span<std::byte> wire);
  absl::Status OnMessage(Connection& connection, const ParsedMessage& parsed);
  absl::Status OpenSlots(Connection& connection, const ParsedMessage& parsed);

  // fabric_close.cc
  void Fail(Connection& connection, absl::Status why);
  void Reap();
  void Destroy(Connection& connection);
  void Settle(Connection& connection);
  void MindSilence(Connection& connection, TimeNs now, bool stood_still);
  void Tick();

  Connection* FindConnection(uint64_t serial);
  Refusal OwnView(RefusalReason reason) const;

  const FabricTransportConfig config_;
  std::vector<ClusterKey> keys_;        // The first is used, each is taken.
  std::vector<ClusterKey> guest_keys_;  // Likewise of guests.
  Loop* const loop_;
  Entropy* const entropy_;
  TransportEvents* events_ = nullptr;
  Epoch epoch_;
  TransportCounters counters_;
  LogOnce log_once_;

  bool local_registration_ = false;
  bool virtual_addresses_ = false;
  size_t inject_bytes_ = 0;
  uint32_t max_ops_ = kMaxOutstandingOps;
  size_t iov_limit_ = 1;

  Info info_;
  Fid<fid_fabric> fabric_;
  Fid<fid_eq> event_queue_;
  Fid<fid_domain> domain_;
  Fid<fid_cq> completion_queue_;
  Fid<fid_pep> listener_;
  CompletionSource completion_source_{this};
  EventSource event_source_{this};
  bool sources_added_ = false;
  bool unseen_ = false;  // Something was sent, or read, since the completion queue was last seen empty.

  std::vector<std::unique_ptr<Peer>> peers_;  // Members, and who was or may become one.
  std::vector<Peer*> members_;                // In the order of SetMembers.
  absl::flat_hash_map<NodeId, Peer*> peer_of_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Connection>> connections_;  // By serial.
  absl::flat_hash_map<fid_t, uint64_t> serial_of_;
  uint32_t next_serial_ = 1;
  std::vector<uint64_t> failed_;  // Serials that wait for Reap.
  int depth_ = 0;                 // Of the transport's callbacks on the stack.
  Clock::TimerId reap_timer_ = 0;
  Clock::TimerId tick_timer_ = 0;
  TimeNs last_tick_ = 0;
  std::vector<std::unique_ptr<OutMessage>> spare_messages_;
};

// The contexts that libfabric hands back, see I4.
constexpr uint64_t kReceiveContext = 0x80;
inline void* MakeContext(uint64_t serial, uint64_t low) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>((serial << 8) | low));
}

}  // namespace mangrove
