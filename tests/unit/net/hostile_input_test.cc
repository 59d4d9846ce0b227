// Mutations of what nodes really send, from a seed: no parser of this folder reads past what it was given, and none takes what
// no node can have said.
// Covers: B10, C13

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "net/envelope.h"
#include "net/handshake.h"

namespace mangrove {
namespace {

using Bytes = std::vector<std::byte>;

template <size_t N>
Bytes Vector(const std::array<std::byte, N>& bytes) {
  return {bytes.begin(), bytes.end()};
}

std::vector<Bytes> HandshakeCorpus() {
  ClusterKey key{};
  HandshakeFacts facts{.version = 5,
                       .cluster = {1, 2},
                       .connector = {NodeId(3), Incarnation(4)},
                       .acceptor = {NodeId(1), Incarnation(6)},
                       .connector_nonce = 7,
                       .acceptor_nonce = 8};
  HandshakeOffer offer{
      .security = Security::kAuthenticated, .levels = kOwnLevels, .pool = {9, 10, 128}, .exchange = {}};
  std::vector<Bytes> corpus;
  Hello hello{.version = 5, .cluster_low = 2, .from = facts.connector, .nonce = 7};
  const HandshakeMac mac = ComputeMac(key, HandshakeStep::kHello, facts, {});
  std::copy_n(mac.begin(), hello.mac.size(), hello.mac.begin());
  corpus.push_back(Vector(EncodeHello(hello)));
  Accept accept{.from = facts.acceptor, .nonce = 8};
  const HandshakeMac accept_mac = ComputeMac(key, HandshakeStep::kAccept, facts, {});
  std::copy_n(accept_mac.begin(), accept.mac.size(), accept.mac.begin());
  corpus.push_back(Vector(EncodeAccept(5, accept)));
  for (const auto step : {HandshakeStep::kProof, HandshakeStep::kReady, HandshakeStep::kExpelled}) {
    corpus.push_back(Vector(EncodeFirstMessage({step, offer, ComputeMac(key, step, facts, offer)})));
  }
  corpus.push_back(Vector(EncodeRefusal({RefusalReason::kKey, 5, 2})));
  return corpus;
}

std::vector<Bytes> MessageCorpus() {
  std::vector<Bytes> corpus;
  for (const uint32_t bytes : {0u, 64u, 1000u}) {
    for (const uint16_t pages : {0, 1, 3, 64}) {
      Envelope e{.inline_pages = pages > 0 && pages <= 3,
                 .epoch = Epoch(5),
                 .message_bytes = bytes,
                 .page_count = pages,
                 .first_slot = static_cast<uint16_t>(pages > 3 ? 100 : 0)};
      Bytes wire(HeadBytes(e), std::byte{0x11});
      EncodeEnvelope(e, std::span(wire).first<kEnvelopeBytes>());
      if (e.inline_pages) wire.resize(wire.size() + pages * kPageBytes);
      corpus.push_back(std::move(wire));
    }
  }
  Bytes credit(kEnvelopeBytes);
  EncodeEnvelope({.kind = EnvelopeKind::kCredit, .slots_returned = 64}, std::span(credit).first<kEnvelopeBytes>());
  corpus.push_back(std::move(credit));
  return corpus;
}

// A few bytes changed, cut, doubled or put in from another one; of the exact size, so that sanitizers see what is read beyond.
Bytes Mutate(std::mt19937_64& random, const std::vector<Bytes>& corpus) {
  Bytes bytes = corpus[random() % corpus.size()];
  for (uint64_t changes = random() % 4; changes-- > 0;) {
    const size_t head = std::min<size_t>(bytes.size(), 128);
    if (head == 0) break;
    const size_t at = random() % head;
    switch (random() % 6) {
      case 0: bytes[at] ^= static_cast<std::byte>(1 << random() % 8); break;
      case 1: bytes[at] = static_cast<std::byte>(random()); break;
      case 2: bytes[at] = static_cast<std::byte>(random() % 2 == 0 ? 0xFF : 0); break;
      case 3: bytes.resize(random() % (bytes.size() + 1)); break;
      case 4: bytes.insert(bytes.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(at)); break;
      default: {
        const Bytes& other = corpus[random() % corpus.size()];
        const size_t count = std::min({other.size(), bytes.size() - at, size_t{8}});
        std::copy_n(other.begin(), count, bytes.begin() + static_cast<ptrdiff_t>(at));
      }
    }
  }
  return bytes;
}

TEST(HostileInput, NoMutationOfAHandshakeIsTakenForWhatItIsNot) {
  const std::vector<Bytes> corpus = HandshakeCorpus();
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const Bytes bytes = Mutate(random, corpus);
    // What is read is what is written: no two forms of one meaning.
    if (const auto hello = ParseHello(bytes)) {
      const auto again = EncodeHello(*hello);
      ASSERT_TRUE(std::equal(again.begin(), again.end(), bytes.begin()));
    }
    if (const auto accept = ParseAccept(5, bytes)) {
      const auto again = EncodeAccept(5, *accept);
      ASSERT_TRUE(std::equal(again.begin(), again.end(), bytes.begin()));
    }
    if (const auto first = ParseFirstMessage(bytes)) {
      const auto again = EncodeFirstMessage(*first);
      ASSERT_TRUE(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
    }
    const auto refusal = ParseRefusal(bytes);
    ASSERT_TRUE(!refusal || !ExplainRefusal(*refusal, *refusal).empty());
  }
}

TEST(HostileInput, NoMutationOfAMessageGetsPastItsSealAndNoneThatWasSealedPastItsBounds) {
  const std::vector<Bytes> corpus = MessageCorpus();
  std::mt19937_64 random(2);
  SealSecret secret;
  secret.key.fill(std::byte{1});
  Sealer sealer(Security::kAuthenticated, Sealer::Role::kSeal, secret);
  Sealer opener(Security::kAuthenticated, Sealer::Role::kOpen, secret);
  std::vector<Bytes> sealed = corpus;
  for (Bytes& wire : sealed) SealMessage(sealer, 7, wire);
  uint64_t refused = 0;
  for (int i = 0; i < 50'000; ++i) {
    Bytes altered = Mutate(random, sealed);
    const bool is_known = std::find(sealed.begin(), sealed.end(), altered) != sealed.end();
    ASSERT_EQ(OpenMessage(opener, 7, altered).ok(), is_known);
    // As a peer with the key might send it.
    const Bytes wire = Mutate(random, corpus);
    const auto parsed = ParseMessage(wire);
    if (!parsed.ok()) {
      ++refused;
      continue;
    }
    const Envelope& e = parsed->envelope;
    ASSERT_LE(e.message_bytes, kMaxMessageBytes);
    ASSERT_LE(e.page_count, kMaxMessagePages);
    ASSERT_LT(e.first_slot, kPageSlots);
    ASSERT_LT(static_cast<size_t>(e.channel), kChannels);
    ASSERT_EQ(parsed->message.size(), e.message_bytes);
    ASSERT_EQ(parsed->inline_pages.size(), e.inline_pages ? e.page_count * kPageBytes : 0);
    ASSERT_EQ(parsed->slots_tag.size(), e.pages_in_slots() ? kTagBytes : 0);
    for (const auto& part : {parsed->message, parsed->inline_pages, parsed->slots_tag}) {
      if (part.empty()) continue;
      ASSERT_GE(part.data(), wire.data());
      ASSERT_LE(part.data() + part.size(), wire.data() + wire.size());
    }
  }
  EXPECT_GT(refused, 10'000u);
}

}  // namespace
}  // namespace mangrove
