#include "net/session_keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr std::string_view kSessionLabel = "mangrove session";
constexpr std::string_view kFingerprintLabel = "mangrove key fingerprint";

struct Freer {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freer>;

const unsigned char* Bytes(const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); }
unsigned char* Bytes(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

Owned<EVP_PKEY> PrivateKey(const ExchangeSecret& secret) {
  Owned<EVP_PKEY> key(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, Bytes(secret.data()), secret.size()));
  CHECK(key != nullptr);
  return key;
}

OSSL_PARAM OctetParam(const char* name, std::span<const std::byte> bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::byte*>(bytes.data()), bytes.size());
}

}  // namespace

PublicKey PublicKeyOf(const ExchangeSecret& secret) {
  const Owned<EVP_PKEY> key = PrivateKey(secret);
  PublicKey out;
  size_t length = out.size();
  CHECK(EVP_PKEY_get_raw_public_key(key.get(), Bytes(out.data()), &length) == 1 && length == out.size());
  return out;
}

std::optional<std::array<std::byte, 32>> SharedSecretOf(const ExchangeSecret& own, const PublicKey& theirs) {
  const Owned<EVP_PKEY> key = PrivateKey(own);
  const Owned<EVP_PKEY> peer(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, Bytes(theirs.data()), theirs.size()));
  const Owned<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new(key.get(), nullptr));
  CHECK(peer != nullptr && context != nullptr && EVP_PKEY_derive_init(context.get()) == 1);
  std::array<std::byte, 32> shared;
  size_t length = shared.size();
  if (EVP_PKEY_derive_set_peer(context.get(), peer.get()) != 1 ||
      EVP_PKEY_derive(context.get(), Bytes(shared.data()), &length) != 1) {
    return std::nullopt;
  }
  CHECK(length == shared.size());
  return shared;
}

void HkdfSha256(std::span<const std::byte> salt, std::span<const std::byte> key, std::span<const std::byte> info,
                std::span<std::byte> out) {
  const Owned<EVP_KDF> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  CHECK(kdf != nullptr);
  const Owned<EVP_KDF_CTX> context(EVP_KDF_CTX_new(kdf.get()));
  CHECK(context != nullptr);
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OctetParam(OSSL_KDF_PARAM_SALT, salt),
      OctetParam(OSSL_KDF_PARAM_KEY, key),
      OctetParam(OSSL_KDF_PARAM_INFO, info),
      OSSL_PARAM_construct_end(),
  };
  CHECK(EVP_KDF_derive(context.get(), Bytes(out.data()), out.size(), params) == 1);
}

SessionSecrets DeriveSession(const ClusterKey& key, std::span<const std::byte, 32> shared, const HandshakeFacts& facts,
                             const HandshakeOffer& connector, const HandshakeOffer& acceptor) {
  std::array<std::byte, 16> salt;
  StoreLittle<uint64_t>(salt.data(), facts.connector_nonce);
  StoreLittle<uint64_t>(salt.data() + 8, facts.acceptor_nonce);
  std::array<std::byte, kClusterKeyBytes + 32> secret;
  std::copy(shared.begin(), shared.end(), std::copy(key.begin(), key.end(), secret.begin()));
  std::vector<std::byte> info;
  const auto label = std::as_bytes(std::span(kSessionLabel));
  info.insert(info.end(), label.begin(), label.end());
  const auto said = MacInput(HandshakeStep::kProof, facts, connector);
  info.insert(info.end(), said.begin(), said.end());
  const auto answered = MacInput(HandshakeStep::kReady, facts, acceptor);
  info.insert(info.end(), answered.begin(), answered.end());

  constexpr size_t kEach = sizeof(SealSecret::key) + sizeof(SealSecret::iv);
  std::array<std::byte, 4 * kEach> out;
  HkdfSha256(salt, secret, info, out);
  SessionSecrets secrets;
  const std::byte* from = out.data();
  for (SealSecret* one : {&secrets.from_connector.messages, &secrets.from_connector.pages,
                          &secrets.from_acceptor.messages, &secrets.from_acceptor.pages}) {
    std::copy_n(from, one->key.size(), one->key.begin());
    std::copy_n(from + one->key.size(), one->iv.size(), one->iv.begin());
    from += kEach;
  }
  OPENSSL_cleanse(out.data(), out.size());
  OPENSSL_cleanse(secret.data(), secret.size());
  return secrets;
}

std::string FingerprintOf(const ClusterKey& key) {
  std::array<char, 32> mac;
  unsigned int length = mac.size();
  CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(kFingerprintLabel.data()), kFingerprintLabel.size(),
             reinterpret_cast<unsigned char*>(mac.data()), &length) != nullptr);
  return absl::BytesToHexString(absl::string_view(mac.data(), 4));
}

}  // namespace mangrove
