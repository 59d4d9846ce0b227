// Covers: B10, C13
#include "net/session_keys.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/unit/net/hex.h"

namespace mangrove {
namespace {

std::array<std::byte, 32> Hex32(const std::string& digits) {
  std::array<std::byte, 32> out;
  const auto bytes = Hex(digits);
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

// RFC 7748, 6.1.
TEST(SessionKeys, ExchangeIsX25519) {
  const ExchangeSecret alice = Hex32(std::string(64, '7'));
  const ExchangeSecret bob = Hex32("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
  EXPECT_EQ(HexOf(PublicKeyOf(bob)), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  const auto shared = SharedSecretOf(bob, PublicKeyOf(alice));
  ASSERT_TRUE(shared.has_value());
  EXPECT_EQ(*shared, *SharedSecretOf(alice, PublicKeyOf(bob)));
  const auto known = SharedSecretOf(bob, Hex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
  ASSERT_TRUE(known.has_value());
  EXPECT_EQ(HexOf(*known), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
  EXPECT_FALSE(SharedSecretOf(bob, PublicKey{}).has_value()) << "a point of low order";
}

// RFC 5869, A.1.
TEST(SessionKeys, DerivationIsHkdf) {
  std::array<std::byte, 42> out;
  HkdfSha256(Hex("000102030405060708090a0b0c"), std::vector<std::byte>(22, std::byte{0x0b}),
             Hex("f0f1f2f3f4f5f6f7f8f9"), out);
  EXPECT_EQ(HexOf(out), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

struct Said {
  ClusterKey key{};
  std::array<std::byte, 32> shared{};
  HandshakeFacts facts;
  HandshakeOffer connector;
  HandshakeOffer acceptor;
};

std::vector<std::string> SecretsOf(const Said& said) {
  const SessionSecrets s = DeriveSession(said.key, said.shared, said.facts, said.connector, said.acceptor);
  std::vector<std::string> all;
  for (const DirectionSecrets* direction : {&s.from_connector, &s.from_acceptor}) {
    for (const SealSecret* secret : {&direction->messages, &direction->pages}) {
      all.push_back(HexOf(secret->key));
      all.push_back(HexOf(secret->iv));
    }
  }
  return all;
}

TEST(SessionKeys, EveryDirectionAndUseHasASecretOfItsOwnAndAllThatWasSaidChangesEach) {
  std::vector<Said> all(10);
  all[1].key[0] = std::byte{1};
  all[2].shared[31] = std::byte{1};
  all[3].facts.connector.incarnation = Incarnation(1);
  all[4].facts.acceptor.node = NodeId(1);
  all[5].facts.connector_nonce = 1;
  all[6].facts.acceptor_nonce = 1;
  all[7].connector.exchange[0] = std::byte{1};
  all[8].acceptor.exchange[0] = std::byte{1};
  all[9].acceptor.levels[7].high = 1;
  std::set<std::string> secrets;
  size_t count = 0;
  for (const Said& said : all) {
    for (const std::string& secret : SecretsOf(said)) {
      secrets.insert(secret);
      ++count;
    }
  }
  EXPECT_EQ(secrets.size(), count);
  EXPECT_EQ(SecretsOf(all[3]), SecretsOf(all[3]));
}

TEST(SessionKeys, AFingerprintTellsKeysApartAndIsNotPartOfThem) {
  ClusterKey key{};
  const std::string zero = FingerprintOf(key);
  EXPECT_EQ(zero.size(), 8u);
  EXPECT_EQ(HexOf(key).find(zero), std::string::npos);
  key[31] = std::byte{1};
  EXPECT_NE(FingerprintOf(key), zero);
}

}  // namespace
}  // namespace mangrove
