#include "net/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr uint16_t kHandshakeMagic = 0x484D;  // "MH" in memory.

// Writes integers one after the other.
class Writer {
 public:
  explicit Writer(std::span<std::byte> to) : to_(to) {}
  template <typename T>
  Writer& Put(T value) {
    CHECK(to_.size() >= sizeof(T));
    StoreLittle<T>(to_.data(), value);
    to_ = to_.subspan(sizeof(T));
    return *this;
  }
  Writer& Put(const NodeInstance& n) { return Put(n.node.value).Put(n.incarnation.value); }
  Writer& Put(const LevelTable& levels) {
    for (const LevelRange& range : levels) Put<uint8_t>(range.low).Put<uint8_t>(range.high);
    return *this;
  }
  Writer& PutBytes(std::span<const std::byte> bytes) {
    CHECK(to_.size() >= bytes.size());
    std::copy(bytes.begin(), bytes.end(), to_.begin());
    to_ = to_.subspan(bytes.size());
    return *this;
  }
  bool full() const { return to_.empty(); }

 private:
  std::span<std::byte> to_;
};

// Reads them back. The caller has checked the whole length.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> from) : from_(from) {}
  template <typename T>
  T Get() {
    CHECK(from_.size() >= sizeof(T));
    const T value = LoadLittle<T>(from_.data());
    from_ = from_.subspan(sizeof(T));
    return value;
  }
  NodeInstance GetInstance() {
    const NodeId node(Get<uint64_t>());
    return {node, Incarnation(Get<uint64_t>())};
  }
  LevelTable GetLevels() {
    LevelTable levels;
    for (LevelRange& range : levels) {
      range.low = Get<uint8_t>();
      range.high = Get<uint8_t>();
    }
    return levels;
  }
  // Empty: it is no number of one byte.
  template <typename Enumeration>
  std::optional<Enumeration> GetNamed() {
    const auto value = Get<uint32_t>();
    if (value > UINT8_MAX) return std::nullopt;
    return static_cast<Enumeration>(value);
  }
  void GetBytes(std::span<std::byte> to) {
    CHECK(from_.size() >= to.size());
    std::copy_n(from_.begin(), to.size(), to.begin());
    from_ = from_.subspan(to.size());
  }

 private:
  std::span<const std::byte> from_;
};

uint32_t LeaseOnWire(const HandshakeOffer& offer) { return offer.lease_ms == kUsualLeaseMs ? 0 : offer.lease_ms; }

// Where versions that know of eight subsystems have the levels of the last one: from 0 on, so that they have one in common.
void PutSystemReplicas(Writer& writer, uint8_t replicas) { writer.Put<uint8_t>(0).Put<uint8_t>(replicas); }

// Providers may pad the data of connection management with zeros: longer is not wrong.
bool HasHead(std::span<const std::byte> bytes, size_t size) {
  return bytes.size() >= size && LoadLittle<uint16_t>(bytes.data()) == kHandshakeMagic;
}

}  // namespace

std::array<std::byte, kMacInputBytes> MacInput(HandshakeStep step, const HandshakeFacts& facts,
                                               const HandshakeOffer& offer) {
  std::array<std::byte, kMacInputBytes> input;
  Writer writer(input);
  writer.Put<uint32_t>(kHandshakeMagic).Put<uint16_t>(static_cast<uint16_t>(step)).Put<uint16_t>(facts.version);
  writer.Put<uint64_t>(facts.cluster.high).Put<uint64_t>(facts.cluster.low);
  writer.Put(facts.connector).Put(facts.acceptor);
  writer.Put<uint64_t>(facts.connector_nonce).Put<uint64_t>(facts.acceptor_nonce);
  writer.Put<uint64_t>(offer.pool.base).Put<uint64_t>(offer.pool.key).Put<uint64_t>(offer.pool.slots);
  writer.Put<uint64_t>(LeaseOnWire(offer)).Put<uint32_t>(static_cast<uint32_t>(offer.security)).Put(offer.levels);
  PutSystemReplicas(writer, offer.system_replicas);
  writer.PutBytes(offer.exchange);
  CHECK(writer.full());
  return input;
}

HandshakeMac ComputeMac(const ClusterKey& key, HandshakeStep step, const HandshakeFacts& facts,
                        const HandshakeOffer& offer) {
  const auto input = MacInput(step, facts, offer);
  HandshakeMac mac;
  unsigned int length = mac.size();
  const unsigned char* made =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(input.data()),
           input.size(), reinterpret_cast<unsigned char*>(mac.data()), &length);
  CHECK(made != nullptr && length == mac.size());
  return mac;
}

size_t FindKey(std::span<const ClusterKey> keys, HandshakeStep step, const HandshakeFacts& facts,
               std::span<const std::byte> mac) {
  for (size_t i = 0; i < keys.size(); ++i) {
    const HandshakeMac expected = ComputeMac(keys[i], step, facts, {});
    if (SameMac(mac, std::span(expected).first(mac.size()))) return i;
  }
  return keys.size();
}

std::array<std::byte, kHelloBytes> EncodeHello(const Hello& hello) {
  std::array<std::byte, kHelloBytes> bytes;
  Writer writer(bytes);
  writer.Put<uint16_t>(kHandshakeMagic).Put<uint16_t>(hello.version).Put<uint64_t>(hello.cluster_low);
  writer.Put(hello.from).Put<uint64_t>(hello.nonce).PutBytes(hello.mac);
  CHECK(writer.full());
  return bytes;
}

std::optional<Hello> ParseHello(std::span<const std::byte> bytes) {
  if (!HasHead(bytes, kHelloBytes)) return std::nullopt;
  Reader reader(bytes.subspan(sizeof(uint16_t)));
  Hello hello;
  hello.version = reader.Get<uint16_t>();
  hello.cluster_low = reader.Get<uint64_t>();
  hello.from = reader.GetInstance();
  hello.nonce = reader.Get<uint64_t>();
  reader.GetBytes(hello.mac);
  return hello;
}

std::array<std::byte, kAcceptBytes> EncodeAccept(uint16_t version, const Accept& accept) {
  std::array<std::byte, kAcceptBytes> bytes;
  Writer writer(bytes);
  writer.Put<uint16_t>(kHandshakeMagic).Put<uint16_t>(version).Put(accept.from).Put<uint64_t>(accept.nonce);
  writer.PutBytes(accept.mac);
  CHECK(writer.full());
  return bytes;
}

std::optional<Accept> ParseAccept(uint16_t version, std::span<const std::byte> bytes) {
  if (!HasHead(bytes, kAcceptBytes)) return std::nullopt;
  Reader reader(bytes.subspan(sizeof(uint16_t)));
  if (reader.Get<uint16_t>() != version) return std::nullopt;
  Accept accept;
  accept.from = reader.GetInstance();
  accept.nonce = reader.Get<uint64_t>();
  reader.GetBytes(accept.mac);
  return accept;
}

std::array<std::byte, kFirstMessageBytes> EncodeFirstMessage(const FirstMessage& message) {
  std::array<std::byte, kFirstMessageBytes> bytes;
  const HandshakeOffer& offer = message.offer;
  Writer writer(bytes);
  writer.Put<uint16_t>(kHandshakeMagic).Put<uint16_t>(static_cast<uint16_t>(message.step));
  writer.Put<uint32_t>(static_cast<uint32_t>(offer.security)).Put<uint64_t>(offer.pool.base);
  writer.Put<uint64_t>(offer.pool.key).Put<uint32_t>(offer.pool.slots).Put<uint32_t>(LeaseOnWire(offer));
  writer.Put(offer.levels);
  PutSystemReplicas(writer, offer.system_replicas);
  writer.PutBytes(offer.exchange).PutBytes(message.mac);
  CHECK(writer.full());
  return bytes;
}

std::optional<FirstMessage> ParseFirstMessage(std::span<const std::byte> bytes) {
  if (bytes.size() != kFirstMessageBytes || !HasHead(bytes, kFirstMessageBytes)) return std::nullopt;
  Reader reader(bytes.subspan(sizeof(uint16_t)));
  FirstMessage message;
  const auto step = reader.Get<uint16_t>();
  message.step = static_cast<HandshakeStep>(step);
  if (step < static_cast<uint16_t>(HandshakeStep::kProof) || step > static_cast<uint16_t>(HandshakeStep::kExpelled)) {
    return std::nullopt;
  }
  HandshakeOffer& offer = message.offer;
  const std::optional<Security> security = reader.GetNamed<Security>();
  if (!security) return std::nullopt;
  offer.security = *security;
  offer.pool.base = reader.Get<uint64_t>();
  offer.pool.key = reader.Get<uint64_t>();
  offer.pool.slots = reader.Get<uint32_t>();
  if (const auto lease_ms = reader.Get<uint32_t>(); lease_ms != 0) offer.lease_ms = lease_ms;
  offer.levels = reader.GetLevels();
  if (reader.Get<uint8_t>() != 0) return std::nullopt;
  offer.system_replicas = reader.Get<uint8_t>();
  reader.GetBytes(offer.exchange);
  reader.GetBytes(message.mac);
  return message;
}

std::array<std::byte, kRefusalBytes> EncodeRefusal(const Refusal& refusal) {
  std::array<std::byte, kRefusalBytes> bytes;
  Writer writer(bytes);
  writer.Put<uint16_t>(kHandshakeMagic).Put<uint16_t>(refusal.version);
  writer.Put<uint32_t>(static_cast<uint32_t>(refusal.reason)).Put<uint64_t>(refusal.cluster_low);
  writer.Put<uint64_t>(refusal.challenge);
  CHECK(writer.full());
  return bytes;
}

std::optional<Refusal> ParseRefusal(std::span<const std::byte> bytes) {
  if (!HasHead(bytes, kRefusalBytes)) return std::nullopt;
  Reader reader(bytes.subspan(sizeof(uint16_t)));
  Refusal refusal;
  refusal.version = reader.Get<uint16_t>();
  const auto reason = reader.GetNamed<RefusalReason>();
  if (!reason) return std::nullopt;
  refusal.reason = *reason;
  refusal.cluster_low = reader.Get<uint64_t>();
  refusal.challenge = reader.Get<uint64_t>();
  return refusal;
}

std::string ExplainRefusal(const Refusal& refuser, const Refusal& theirs) {
  switch (refuser.reason) {
    case RefusalReason::kNonsense: return "what it sent is not the beginning of a connection between nodes";
    case RefusalReason::kVersion:
      return absl::StrCat("protocol version ", theirs.version, " met protocol version ", refuser.version);
    case RefusalReason::kCluster:
      return absl::StrCat("a node of cluster ..", absl::Hex(theirs.cluster_low, absl::kZeroPad16),
                          " met a node of cluster ..", absl::Hex(refuser.cluster_low, absl::kZeroPad16));
    case RefusalReason::kUnknownNode: return "its node id is not among the members";
    case RefusalReason::kKey:
      return "it does not hold the cluster's key, or meant another node than the one at this address, or repeats what "
             "was said there before";
    case RefusalReason::kOldIncarnation: return "a newer incarnation of it has been seen";
    case RefusalReason::kDirection:
      return "the node with the higher id connects to the lower one, not the other way round";
    case RefusalReason::kBusy: return "no connection can be made there just now";
    case RefusalReason::kChallenge: return "it has to prove that it is there now, not only that it was";
    case RefusalReason::kToken:
      return "no token with its key is open: it is void, its time is over, or another node made it";
    case RefusalReason::kRepeated: return "it repeats the beginning of an earlier connection";
  }
  return "for a reason that this version does not know";
}

bool SameMac(std::span<const std::byte> a, std::span<const std::byte> b) {
  CHECK(a.size() == b.size());
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace mangrove
