// From the cluster's key, and what two nodes have told each other, to the secrets of one connection. Pure.
//
//   secrets = HKDF-SHA256(salt: both nonces, key: cluster's key and X25519 secret, info: a label and all that was said)
//
// Who learns the cluster's key later cannot read what was recorded before: the X25519 keys live as long as a handshake.

#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "net/handshake.h"
#include "net/sealing.h"

namespace mangrove {

using ExchangeSecret = std::array<std::byte, 32>;  // Any 32 random bytes.

PublicKey PublicKeyOf(const ExchangeSecret& secret);
// Empty: `theirs` is one of the points that no honest peer has.
std::optional<std::array<std::byte, 32>> SharedSecretOf(const ExchangeSecret& own, const PublicKey& theirs);

struct DirectionSecrets {
  SealSecret messages;
  SealSecret pages;  // In slots.
};
struct SessionSecrets {
  DirectionSecrets from_connector;
  DirectionSecrets from_acceptor;
};
SessionSecrets DeriveSession(const ClusterKey& key, std::span<const std::byte, 32> shared, const HandshakeFacts& facts,
                             const HandshakeOffer& connector, const HandshakeOffer& acceptor);

// RFC 5869.
void HkdfSha256(std::span<const std::byte> salt, std::span<const std::byte> key, std::span<const std::byte> info,
                std::span<std::byte> out);

// Eight hexadecimal digits that tell keys apart and say nothing of them.
std::string FingerprintOf(const ClusterKey& key);

}  // namespace mangrove
