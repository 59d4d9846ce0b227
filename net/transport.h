// The door to other nodes: messages, with pages attached, between node incarnations.
//
// Contract, for the real transport and the simulated one:
//  T1  A delivery comes from the incarnation that it names, which has proved that it holds the cluster's key, and was
//      addressed to this incarnation; nobody on its way has changed it. Nothing else of a peer is parsed before that.
//  T2  A message arrives whole, with all its pages, or not at all.
//  T3  A message may be lost, when its connection breaks or its deadline passes. The real transport neither reorders
//      nor doubles messages of one connection; the simulated one does, and no protocol may rely on the order.
//  T4  `OnPeerUp` comes before the first delivery of an incarnation. After an `OnPeerUp` of a newer incarnation nothing
//      of an older one is delivered. That a peer is down is a hint: it may be cut off, or only slow. That a newer
//      incarnation is up proves that the older one is gone for ever.
//      Of an incarnation that was expelled nothing is delivered any more, whatever has come in.
//      A guest (T6) comes and goes without a word; it is delivered of as long as it is connected.
//  T5  Nothing blocks. Memory for a peer that does not drain its messages is bounded: past it messages are dropped
//      (T3), and counted. So is what is sent to a node that is no member: who they are changes while a cluster runs, and is not
//      learned everywhere at once.
//  T6  kGuestNode is no peer. A delivery from it comes from who has proved to hold the key of a token that is open here, not the
//      cluster's; it came encrypted, on Channel::kJoin, and nothing else of a guest is ever delivered. Nor is what a member sends
//      on that channel. What is sent to kGuestNode goes to the guest that is connected, on that channel alone.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "net/ids.h"
#include "net/levels.h"
#include "net/page_buffer.h"
#include "net/sealing.h"

namespace mangrove {

// A message without its pages is at most this long.
constexpr size_t kMaxMessageBytes = 12 * 1024;
// A message carries at most this many pages.
constexpr size_t kMaxMessagePages = 64;

// The parts of a node that share a transport, each of which hears only its like on other nodes. On the wire: numbers keep
// their meaning.
enum class Channel : uint8_t {
  kPages = 0,       // The engine.
  kMembership = 1,  // Who belongs to the cluster.
  kJoin = 2,        // A guest and the node that made its token, see T6.
};
constexpr size_t kChannels = 3;

struct Delivery {
  NodeInstance from;
  Epoch epoch;  // The sender's view.
  Channel channel = Channel::kPages;
  std::span<const std::byte> message;
  // Each points to kPageBytes. Valid, as `message` is, until the handler returns.
  std::span<const std::byte* const> pages;
};

// Implemented by the owner of a transport. Called on the loop.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  virtual void OnDelivery(const Delivery& delivery) = 0;
  virtual void OnPeerUp(NodeInstance peer) = 0;
  // A hint, see T4. `reason` is for people.
  virtual void OnPeerDown(NodeInstance peer, const absl::Status& reason) = 0;
  // `by`, which holds the key, has said that this incarnation has left the view: see Transport::Expel.
  virtual void OnExpelled(NodeInstance /*by*/) {}
};

struct PeerStatus {
  NodeInstance instance;  // Incarnation 0 while the peer has never been up.
  bool connected = false;
  std::string address;
  std::string last_error;  // Of the last failure; empty if there was none.
  std::string key;         // The fingerprint of that which the connection was proved with; empty without one.
  Levels levels{};         // Of the connection.
};

struct TransportSecurity {
  Security security = Security::kAuthenticated;
  std::vector<std::string> keys;  // Their fingerprints; the first is used, each is taken.
};

struct TransportCounters {
  uint64_t messages_sent = 0;
  uint64_t messages_received = 0;
  uint64_t messages_dropped = 0;  // T5, no connection, or no member.
  uint64_t pages_sent = 0;
  uint64_t pages_received = 0;
  uint64_t peers_refused = 0;  // Wrong key, cluster, version, or nonsense.
};

// Owned by the loop.
class Transport {
 public:
  virtual ~Transport() = default;

  // Begins to accept and to open connections, to keep on trying while a peer is away, and to call `events`, which must
  // outlive this object. An error names what of the configuration cannot be used.
  virtual absl::Status Start(TransportEvents* events) = 0;

  // Sends `message` (REQUIRES: at most kMaxMessageBytes) with `pages` (REQUIRES: at most kMaxMessagePages) on `channel` to
  // whatever incarnation of `to` is connected. Copies `message`; holds `pages` until they are sent. REQUIRES: `to` is another
  // node.
  virtual void Send(NodeId to, Channel channel, std::span<const std::byte> message,
                    std::span<const PageBuffer> pages) = 0;

  // The epoch that is stamped on what is sent from now on.
  virtual void SetEpoch(Epoch epoch) = 0;

  // The view has gone on without this incarnation of another node, and those before it: its connection is closed, and it is
  // not let in again but for being told so. A newer incarnation is. That holds also where it is no member, and becomes one.
  virtual void Expel(NodeInstance node) = 0;

  // The level of `subsystem` to use towards `peer`: that of the connection, or 0 while there is none, as with who is no member.
  virtual uint8_t LevelOf(NodeId peer, Subsystem subsystem) const = 0;

  // Of the members.
  virtual std::vector<PeerStatus> Peers() const = 0;
  virtual TransportCounters Counters() const = 0;
  virtual TransportSecurity SecurityInUse() const = 0;
};

}  // namespace mangrove
