// Mutations of what nodes really send, from a seed: no parser of this folder reads past what it was given, and none takes what
// no node can have said.
// Covers: B10, C13

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/envelope.h"
#include "net/handshake.h"
#include "tests/fuzz.h"

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

std::vector<std::string> Texts(const std::vector<Bytes>& corpus) {
  std::vector<std::string> texts;
  for (const Bytes& bytes : corpus) texts.emplace_back(fuzz::AsText(bytes));
  return texts;
}

// What is read is what is written: no two forms of one meaning.
bool IsHandshake(std::string_view text) {
  const std::span<const std::byte> bytes = fuzz::AsBytes(text);
  bool is_taken = false;
  const auto expect_same = [&](std::span<const std::byte> again) {
    is_taken = true;
    EXPECT_TRUE(again.size() <= bytes.size() && std::equal(again.begin(), again.end(), bytes.begin()));
  };
  if (const auto hello = ParseHello(bytes)) expect_same(EncodeHello(*hello));
  if (const auto accept = ParseAccept(5, bytes)) expect_same(EncodeAccept(5, *accept));
  if (const auto first = ParseFirstMessage(bytes)) {
    expect_same(EncodeFirstMessage(*first));
    EXPECT_EQ(bytes.size(), kFirstMessageBytes);
  }
  if (const auto refusal = ParseRefusal(bytes)) {
    expect_same(EncodeRefusal(*refusal));
    EXPECT_FALSE(ExplainRefusal(*refusal, *refusal).empty());
  }
  return is_taken;
}

TEST(HostileInput, NoMutationOfAHandshakeIsTakenForWhatItIsNot) {
  fuzz::Run({.name = "handshake", .corpus = Texts(HandshakeCorpus()), .take = IsHandshake, .mutations = 200'000});
}

bool IsMessage(std::string_view text) {
  const std::span<const std::byte> wire = fuzz::AsBytes(text);
  const auto parsed = ParseMessage(wire);
  if (!parsed.ok()) return false;
  const Envelope& e = parsed->envelope;
  EXPECT_LE(e.message_bytes, kMaxMessageBytes);
  EXPECT_LE(e.page_count, kMaxMessagePages);
  EXPECT_LT(e.first_slot, kPageSlots);
  EXPECT_LT(static_cast<size_t>(e.channel), kChannels);
  EXPECT_EQ(parsed->message.size(), e.message_bytes);
  EXPECT_EQ(parsed->inline_pages.size(), e.inline_pages ? e.page_count * kPageBytes : 0);
  EXPECT_EQ(parsed->slots_tag.size(), e.pages_in_slots() ? kTagBytes : 0);
  for (const auto& part : {parsed->message, parsed->inline_pages, parsed->slots_tag}) {
    if (part.empty()) continue;
    EXPECT_GE(part.data(), wire.data());
    EXPECT_LE(part.data() + part.size(), wire.data() + wire.size());
  }
  Bytes again(wire.begin(), wire.end());
  EncodeEnvelope(e, std::span(again).first<kEnvelopeBytes>());
  const auto same = ParseMessage(again);
  EXPECT_TRUE(same.ok() && std::equal(again.begin(), again.begin() + kTagAt, wire.begin())) << same.status();
  return true;
}

// As a peer with the key might send it.
TEST(HostileInput, NoMutationOfAMessageGetsPastItsBounds) {
  fuzz::Run({.name = "message",
             .corpus = Texts(MessageCorpus()),
             .take = IsMessage,
             .mutations = 50'000,
             .interesting_bytes = kEnvelopeBytes});
}

TEST(HostileInput, NoMutationOfAMessageGetsPastItsSeal) {
  SealSecret secret;
  secret.key.fill(std::byte{1});
  Sealer sealer(Security::kAuthenticated, Sealer::Role::kSeal, secret);
  Sealer opener(Security::kAuthenticated, Sealer::Role::kOpen, secret);
  std::vector<Bytes> sealed = MessageCorpus();
  for (Bytes& wire : sealed) SealMessage(sealer, 7, wire);
  const std::vector<std::string> corpus = Texts(sealed);
  const auto opens = [&](std::string_view text) {
    const std::span<const std::byte> bytes = fuzz::AsBytes(text);
    Bytes altered(bytes.begin(), bytes.end());
    const bool is_open = OpenMessage(opener, 7, altered).ok();
    EXPECT_EQ(is_open, std::find(corpus.begin(), corpus.end(), text) != corpus.end());
    return is_open;
  };
  fuzz::Run({.name = "sealed message", .corpus = corpus, .take = opens, .mutations = 50'000});
}

}  // namespace
}  // namespace mangrove
