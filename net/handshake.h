// How two nodes prove to each other that they hold the cluster's key, before anything else of either is read. Pure: the
// bytes and what they prove; who sends what when is in net/fabric/. Byte by byte in docs/NET.md.
//
//   connector                                   acceptor
//   Hello (with the connection request)   --->
//                                         <---  Refusal with a challenge
//   Hello, which proves the challenge too --->  version, cluster, member, key: or a Refusal
//                                         <---  Accept (with the acceptance)
//   Proof (first message, 112 bytes)      --->
//                                         <---  Ready (first message, 112 bytes)
//
// Each carries an HMAC-SHA256 over everything that both know by then, both nonces included, with a label of its own: what
// was recorded proves nothing in another connection, direction or step. The challenge is there since libfabric reads what comes over a
// connection that was accepted, before it has proved anything: who has only recorded a Hello never gets so far. Instead of Proof or Ready a node may say that the
// other one's incarnation has left the view (kExpelled); that too is proved.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "net/ids.h"
#include "net/levels.h"
#include "net/sealing.h"

namespace mangrove {

constexpr size_t kClusterKeyBytes = 32;
using ClusterKey = std::array<std::byte, kClusterKeyBytes>;

// Where the sender of a Proof or Ready lets its peer write pages.
struct SlotPool {
  uint64_t base = 0;  // Remote address of slot 0.
  uint64_t key = 0;   // Of the registration.
  uint32_t slots = 0;
  friend bool operator==(const SlotPool&, const SlotPool&) = default;
};

// What the two sides of one connection have told each other so far; fields that are not known yet are 0.
struct HandshakeFacts {
  uint16_t version = 0;
  ClusterId cluster;
  NodeInstance connector;
  NodeInstance acceptor;
  uint64_t connector_nonce = 0;
  uint64_t acceptor_nonce = 0;  // At Hello the acceptor's challenge; 0: the connector asks for it.
};

enum class HandshakeStep : uint8_t { kHello = 1, kAccept = 2, kProof = 3, kReady = 4, kExpelled = 5 };

using PublicKey = std::array<std::byte, 32>;  // X25519.

constexpr uint32_t kUsualLeaseMs = 1000;

// What the sender of a step says of itself beside the facts; what does not belong to the step is 0.
struct HandshakeOffer {
  Security security{};  // Proof, Ready.
  LevelTable levels{};  // The same.
  SlotPool pool;        // Proof, Ready.
  // The same: how long leases are, in milliseconds. On the wire the usual time is 0, as versions say that know no other.
  uint32_t lease_ms = kUsualLeaseMs;
  // The same: on how many disks the cluster's own pages are kept; 0: not said, as by guests and by versions that do not know of it.
  uint8_t system_replicas = 0;
  PublicKey exchange{};  // Proof, Ready; for this connection alone.
  friend bool operator==(const HandshakeOffer&, const HandshakeOffer&) = default;
};

constexpr size_t kMacInputBytes = 156;
std::array<std::byte, kMacInputBytes> MacInput(HandshakeStep step, const HandshakeFacts& facts,
                                               const HandshakeOffer& offer);
using HandshakeMac = std::array<std::byte, 32>;
HandshakeMac ComputeMac(const ClusterKey& key, HandshakeStep step, const HandshakeFacts& facts,
                        const HandshakeOffer& offer);

// The first of `keys` under which the first bytes of MAC(step) are `mac`; its place, or `keys.size()`.
size_t FindKey(std::span<const ClusterKey> keys, HandshakeStep step, const HandshakeFacts& facts,
               std::span<const std::byte> mac);

// The connection request's data. Short, since verbs gives it 55 bytes: half of the cluster's id, half of the MAC (which
// covers the whole id). Enough to turn strangers away; the proof proper follows.
struct Hello {
  uint16_t version = 0;
  uint64_t cluster_low = 0;
  NodeInstance from;
  uint64_t nonce = 0;
  std::array<std::byte, 16> mac{};
};
constexpr size_t kHelloBytes = 52;
std::array<std::byte, kHelloBytes> EncodeHello(const Hello& hello);
// Empty if these are not a hello's bytes at all.
std::optional<Hello> ParseHello(std::span<const std::byte> bytes);

// The acceptance's data, as short: half of the MAC.
struct Accept {
  NodeInstance from;
  uint64_t nonce = 0;
  std::array<std::byte, 16> mac{};
};
constexpr size_t kAcceptBytes = 44;
std::array<std::byte, kAcceptBytes> EncodeAccept(uint16_t version, const Accept& accept);
std::optional<Accept> ParseAccept(uint16_t version, std::span<const std::byte> bytes);

// Proof, Ready and Expelled.
struct FirstMessage {
  HandshakeStep step = HandshakeStep::kProof;
  HandshakeOffer offer;
  HandshakeMac mac{};
};
constexpr size_t kFirstMessageBytes = 112;
std::array<std::byte, kFirstMessageBytes> EncodeFirstMessage(const FirstMessage& message);
std::optional<FirstMessage> ParseFirstMessage(std::span<const std::byte> bytes);

enum class RefusalReason : uint8_t {
  kNonsense = 1,  // Not a hello.
  kVersion = 2,
  kCluster = 3,
  kUnknownNode = 4,
  kKey = 5,
  kOldIncarnation = 6,
  kDirection = 7,   // The lower node connects to the higher one.
  kBusy = 8,        // No connection can be made just now.
  kRepeated = 9,    // This very hello has come before.
  kToken = 10,      // To a guest: no token that is open here has its key.
  kChallenge = 11,  // All is well but that it does not prove the challenge, which is in the refusal.
};

// The refusal's data: why, and the refuser's own values.
struct Refusal {
  RefusalReason reason = RefusalReason::kNonsense;
  uint16_t version = 0;
  uint64_t cluster_low = 0;
  uint64_t challenge = 0;
};
constexpr size_t kRefusalBytes = 24;
std::array<std::byte, kRefusalBytes> EncodeRefusal(const Refusal& refusal);
std::optional<Refusal> ParseRefusal(std::span<const std::byte> bytes);

// For people: what `refuser` holds against a peer that says of itself what `theirs` says. Both values are in it.
std::string ExplainRefusal(const Refusal& refuser, const Refusal& theirs);

// In constant time. REQUIRES: the sizes are equal.
bool SameMac(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace mangrove
