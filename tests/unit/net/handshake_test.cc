#include "net/handshake.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace mangrove {
namespace {

HandshakeFacts Facts() {
  HandshakeFacts facts;
  facts.version = 1;
  facts.cluster = {1, 2};
  facts.connector = {NodeId(3), Incarnation(4)};
  facts.acceptor = {NodeId(5), Incarnation(6)};
  facts.connector_nonce = 7;
  facts.acceptor_nonce = 8;
  return facts;
}

HandshakeOffer Offer() {
  HandshakeOffer offer;
  offer.security = Security::kEncrypted;
  offer.levels[1] = {2, 3};
  offer.pool = {9, 10, 11};
  offer.exchange.fill(std::byte{12});
  return offer;
}

TEST(Handshake, EveryFactOfferTheKeyAndTheStepChangeTheMac) {
  ClusterKey key{};
  key[0] = std::byte{1};
  std::vector<HandshakeMac> macs = {ComputeMac(key, HandshakeStep::kProof, Facts(), Offer())};
  auto add = [&](const HandshakeFacts& facts) {
    macs.push_back(ComputeMac(key, HandshakeStep::kProof, facts, Offer()));
  };
  HandshakeFacts f = Facts();
  add((f = Facts(), f.version = 2, f));
  add((f = Facts(), f.cluster.high = 99, f));
  add((f = Facts(), f.cluster.low = 99, f));
  add((f = Facts(), f.connector.node = NodeId(99), f));
  add((f = Facts(), f.connector.incarnation = Incarnation(99), f));
  add((f = Facts(), f.acceptor.node = NodeId(99), f));
  add((f = Facts(), f.acceptor.incarnation = Incarnation(99), f));
  add((f = Facts(), f.connector_nonce = 99, f));
  add((f = Facts(), f.acceptor_nonce = 99, f));
  for (auto step : {HandshakeStep::kHello, HandshakeStep::kAccept, HandshakeStep::kReady, HandshakeStep::kExpelled}) {
    macs.push_back(ComputeMac(key, step, Facts(), Offer()));
  }
  auto offer = [&](const HandshakeOffer& changed) {
    macs.push_back(ComputeMac(key, HandshakeStep::kProof, Facts(), changed));
  };
  HandshakeOffer o = Offer();
  offer((o = Offer(), o.pool.base = 99, o));
  offer((o = Offer(), o.pool.key = 99, o));
  offer((o = Offer(), o.pool.slots = 99, o));
  offer((o = Offer(), o.security = Security::kAuthenticated, o));
  offer((o = Offer(), o.lease_ms = 2000, o));
  offer((o = Offer(), o.levels[1].low = 1, o));
  offer((o = Offer(), o.levels[1].high = 4, o));
  offer((o = Offer(), o.levels[6].high = 1, o));
  offer((o = Offer(), o.system_replicas = 3, o));
  offer((o = Offer(), o.exchange[31] = std::byte{0}, o));
  ClusterKey other = key;
  other[31] = std::byte{1};
  macs.push_back(ComputeMac(other, HandshakeStep::kProof, Facts(), Offer()));
  for (size_t i = 0; i < macs.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(SameMac(macs[i], macs[j])) << i << " " << j;
  }
  EXPECT_TRUE(SameMac(macs[0], ComputeMac(key, HandshakeStep::kProof, Facts(), Offer())));
}

TEST(Handshake, TheKeyThatAHelloProvesIsFoundAmongSeveral) {
  std::vector<ClusterKey> keys(3);
  for (size_t i = 0; i < keys.size(); ++i) keys[i][0] = static_cast<std::byte>(i + 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    const HandshakeMac mac = ComputeMac(keys[i], HandshakeStep::kHello, Facts(), {});
    EXPECT_EQ(FindKey(keys, HandshakeStep::kHello, Facts(), std::span(mac).first(16)), i);
  }
  const HandshakeMac mac = ComputeMac(ClusterKey{}, HandshakeStep::kHello, Facts(), {});
  EXPECT_EQ(FindKey(keys, HandshakeStep::kHello, Facts(), mac), keys.size());
}

TEST(Handshake, EveryMessageComesBack) {
  Hello hello;
  hello.version = 0x0102;
  hello.cluster_low = 3;
  hello.from = {NodeId(4), Incarnation(5)};
  hello.nonce = 6;
  hello.mac.fill(std::byte{7});
  const auto parsed = ParseHello(EncodeHello(hello));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->version, hello.version);
  EXPECT_EQ(parsed->cluster_low, hello.cluster_low);
  EXPECT_EQ(parsed->from, hello.from);
  EXPECT_EQ(parsed->nonce, hello.nonce);
  EXPECT_EQ(parsed->mac, hello.mac);

  Accept accept;
  accept.from = {NodeId(1), Incarnation(2)};
  accept.nonce = 3;
  accept.mac.fill(std::byte{4});
  const auto accepted = ParseAccept(9, EncodeAccept(9, accept));
  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(accepted->from, accept.from);
  EXPECT_EQ(accepted->nonce, accept.nonce);
  EXPECT_EQ(accepted->mac, accept.mac);
  EXPECT_FALSE(ParseAccept(8, EncodeAccept(9, accept)).has_value());

  FirstMessage first;
  first.step = HandshakeStep::kReady;
  first.offer = Offer();
  first.mac.fill(std::byte{4});
  const auto offered = ParseFirstMessage(EncodeFirstMessage(first));
  ASSERT_TRUE(offered.has_value());
  EXPECT_EQ(offered->step, first.step);
  EXPECT_EQ(offered->offer, first.offer);
  EXPECT_EQ(offered->mac, first.mac);

  // Versions that know of no other time of leases say 0, and are told 0.
  constexpr size_t kLeaseAt = 28;
  EXPECT_EQ(EncodeFirstMessage(first)[kLeaseAt], std::byte{0});
  EXPECT_EQ(EncodeFirstMessage(first)[kLeaseAt + 1], std::byte{0});
  first.offer.lease_ms = 2000;
  const auto longer = ParseFirstMessage(EncodeFirstMessage(first));
  ASSERT_TRUE(longer.has_value());
  EXPECT_EQ(longer->offer, first.offer);
  // To versions that do not know of it this is a subsystem that they need not speak.
  constexpr size_t kEighthLevelsAt = 46;
  first.offer.system_replicas = 3;
  EXPECT_EQ(EncodeFirstMessage(first)[kEighthLevelsAt], std::byte{0});
  EXPECT_EQ(EncodeFirstMessage(first)[kEighthLevelsAt + 1], std::byte{3});
  const auto more = ParseFirstMessage(EncodeFirstMessage(first));
  ASSERT_TRUE(more.has_value());
  EXPECT_EQ(more->offer, first.offer);

  const auto refusal = ParseRefusal(EncodeRefusal({RefusalReason::kVersion, 2, 3}));
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, RefusalReason::kVersion);
  EXPECT_EQ(refusal->version, 2);
  EXPECT_EQ(refusal->cluster_low, 3u);
}

TEST(Handshake, TheConnectionRequestAndItsAcceptanceFitWhatVerbsCarries) {
  EXPECT_LE(kHelloBytes, 55u);
  EXPECT_LE(kAcceptBytes, 55u);
}

TEST(Handshake, ARefusalNamesBothValues) {
  const std::string version = ExplainRefusal({RefusalReason::kVersion, 7, 0}, {RefusalReason::kVersion, 8, 0});
  EXPECT_NE(version.find('7'), std::string::npos);
  EXPECT_NE(version.find('8'), std::string::npos);
  const std::string cluster =
      ExplainRefusal({RefusalReason::kCluster, 1, 0xAAAA}, {RefusalReason::kCluster, 1, 0xBBBB});
  EXPECT_NE(cluster.find("aaaa"), std::string::npos);
  EXPECT_NE(cluster.find("bbbb"), std::string::npos);
}

TEST(Handshake, RandomBytesNeverCrashTheParsers) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 50'000; ++i) {
    std::vector<std::byte> bytes(random() % 150);
    for (std::byte& b : bytes) b = std::byte{static_cast<uint8_t>(random())};
    if (bytes.size() >= 2 && i % 2 == 0) {
      bytes[0] = std::byte{'M'};
      bytes[1] = std::byte{'H'};
    }
    ParseHello(bytes);
    ParseAccept(1, bytes);
    ParseFirstMessage(bytes);
    const auto refusal = ParseRefusal(bytes);
    EXPECT_TRUE(!refusal || !ExplainRefusal(*refusal, *refusal).empty());
  }
}

}  // namespace
}  // namespace mangrove
