// The real transport: libfabric's connection endpoints, one connection per pair of node incarnations.
//
// The node with the higher id connects to the lower one and keeps on trying while it is away. See net/README.md for what
// happens to a message, docs/NET.md for what is on the wire, and net/fabric/ for the parts.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/handshake.h"
#include "net/ids.h"
#include "net/levels.h"
#include "net/runtime/entropy.h"
#include "net/runtime/loop.h"
#include "net/sealing.h"
#include "net/transport.h"

namespace mangrove {

// Of the handshake's own form: nodes of different versions do not talk. What they say afterwards has levels, see
// net/levels.h.
constexpr uint16_t kProtocolVersion = 7;

struct FabricMember {
  NodeId id;
  std::string name;     // For people.
  std::string address;  // "host:port" or "[IPv6 address]:port".
};

// Of a node; or of a guest: `self.node` is kGuestNode, in an incarnation that nobody else has, `keys` is the token's key alone,
// `members` the node that made it alone. A guest listens nowhere, and its connection is encrypted.
struct FabricTransportConfig {
  ClusterId cluster;
  std::vector<ClusterKey> keys;  // At least one. The first is used, each is taken.
  Security security = Security::kAuthenticated;
  LevelTable levels = kOwnLevels;
  uint32_t lease_ms = kUsualLeaseMs;  // Nodes with another one do not talk with this one; guests do.
  uint8_t system_replicas = 0;        // The same, where both say it; 0: not said.
  NodeInstance self;
  std::string listen_address;         // Of the same form.
  std::vector<FabricMember> members;  // `self` may be among them.
  std::string provider = "tcp";       // libfabric's name: "tcp", "verbs".
  uint16_t protocol_version = kProtocolVersion;
  // Registers what is sent, as verbs asks for, although the provider does not ask. For tests.
  bool force_local_registration = false;
};

struct FabricTransportGauges {
  uint64_t connections = 0;         // Up, or in their handshake.
  uint64_t queued_messages = 0;     // That wait for slots or queue entries.
  uint64_t in_flight_messages = 0;  // Given to libfabric, without completion yet.
};

// Owned by the loop. Start is called before the loop starts or on the loop, the destructor on the loop or after it has
// stopped.
class FabricTransport final : public Transport {
 public:
  // `loop` and `entropy` must outlive this object.
  FabricTransport(FabricTransportConfig config, Loop* loop, Entropy* entropy);
  // Closes every connection, without OnPeerDown.
  ~FabricTransport() override;

  absl::Status Start(TransportEvents* events) override;
  void Send(NodeId to, Channel channel, std::span<const std::byte> message, std::span<const PageBuffer> pages) override;
  void SetEpoch(Epoch epoch) override;
  void Expel(NodeInstance node) override;
  uint8_t LevelOf(NodeId peer, Subsystem subsystem) const override;
  std::vector<PeerStatus> Peers() const override;
  TransportCounters Counters() const override;
  TransportSecurity SecurityInUse() const override;

  // From now on, these are the members; `self` may be among them. REQUIRES: started. With those that are new there will be
  // connections. Those that are no longer there are closed, and what waited for such a peer is dropped; it is refused as
  // unknown. Another address of a known one is for the next attempt to connect: the connection that is up stays.
  // InvalidArgument names an address that is none, or an id that two have or that is none; then nothing has changed. Unavailable names
  // a host that is not found: it is a member, and not connected to before a later call finds it. A host's name is looked up here,
  // which takes its time, where it is new; numbers are not.
  absl::Status SetMembers(const std::vector<FabricMember>& members);

  // From now on; REQUIRES: at least one. Connections that were proved with a key that is not among them are closed. Those with
  // another than the first are replaced, as soon as both nodes hold it: the higher one's first key counts.
  void SetKeys(std::vector<ClusterKey> keys);

  // The keys of tokens by which guests are let in, from now on; none, to begin with. REQUIRES: this is no guest. A guest that was
  // let in with one that is not among them is closed.
  void SetGuestKeys(std::vector<ClusterKey> keys);
  // Which of them the guest has that is connected, and from which a delivery comes while it is handled. There is one guest at a
  // time: who comes takes the place of who was there.
  std::optional<ClusterKey> GuestKey() const;

  // Why the peer has refused this node, if that was the last thing that came of trying to connect. Anybody at its address may
  // have said so.
  std::optional<RefusalReason> RefusedBy(NodeId peer) const;

  FabricTransportGauges Gauges() const;

 private:
  std::unique_ptr<class FabricCore> core_;
};

}  // namespace mangrove
