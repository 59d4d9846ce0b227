#include "net/sealing.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/modes.h>

#include <utility>

#include "net/check.h"

namespace mangrove {
namespace {

struct Freer {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  void operator()(GCM128_CONTEXT* context) const { CRYPTO_gcm128_release(context); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freer>;

const unsigned char* Bytes(const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); }
unsigned char* Bytes(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

void EncryptBlock(const unsigned char in[16], unsigned char out[16], const void* context) {
  auto* const cipher = const_cast<EVP_CIPHER_CTX*>(static_cast<const EVP_CIPHER_CTX*>(context));
  int length = 0;
  CHECK(EVP_EncryptUpdate(cipher, out, &length, in, 16) == 1 && length == 16);
}

}  // namespace

const char* Name(Security security) {
  switch (security) {
    case Security::kAuthenticated: return "authenticated";
    case Security::kEncrypted: return "encrypted";
  }
  return "unknown";
}

struct Sealer::Machine {
  virtual ~Machine() = default;
  virtual void Begin(const std::array<std::byte, 12>& nonce, std::span<const std::byte> clear) = 0;
  virtual void Pass(std::span<const std::byte> from, std::byte* to) = 0;
  virtual Tag Finish() = 0;
  virtual bool Verify(std::span<const std::byte, kTagBytes> tag) = 0;
};

// GCM with nothing but clear parts. By libcrypto's lower interface, since EVP takes three times as long for what most
// messages are: a hundred bytes.
class Sealer::Gmac final : public Sealer::Machine {
 public:
  explicit Gmac(const SealSecret& secret) : block_(EVP_CIPHER_CTX_new()) {
    CHECK(block_ != nullptr);
    CHECK(EVP_EncryptInit_ex(block_.get(), EVP_aes_256_ecb(), nullptr, Bytes(secret.key.data()), nullptr) == 1);
    EVP_CIPHER_CTX_set_padding(block_.get(), 0);
    gcm_.reset(CRYPTO_gcm128_new(block_.get(), EncryptBlock));
    CHECK(gcm_ != nullptr);
  }
  void Begin(const std::array<std::byte, 12>& nonce, std::span<const std::byte> clear) override {
    CRYPTO_gcm128_setiv(gcm_.get(), Bytes(nonce.data()), nonce.size());
    Pass(clear, nullptr);
  }
  void Pass(std::span<const std::byte> from, std::byte*) override {
    CHECK(CRYPTO_gcm128_aad(gcm_.get(), Bytes(from.data()), from.size()) == 0);
  }
  Tag Finish() override {
    Tag tag;
    CRYPTO_gcm128_tag(gcm_.get(), Bytes(tag.data()), tag.size());
    return tag;
  }
  bool Verify(std::span<const std::byte, kTagBytes> tag) override {
    return CRYPTO_memcmp(Finish().data(), tag.data(), tag.size()) == 0;
  }

 private:
  Owned<EVP_CIPHER_CTX> block_;
  Owned<GCM128_CONTEXT> gcm_;
};

class Sealer::Gcm final : public Sealer::Machine {
 public:
  Gcm(Role role, const SealSecret& secret) : is_seal_(role == Role::kSeal), cipher_(EVP_CIPHER_CTX_new()) {
    CHECK(cipher_ != nullptr);
    CHECK(EVP_CipherInit_ex(cipher_.get(), EVP_aes_256_gcm(), nullptr, Bytes(secret.key.data()), nullptr, is_seal_) ==
          1);
  }
  void Begin(const std::array<std::byte, 12>& nonce, std::span<const std::byte> clear) override {
    CHECK(EVP_CipherInit_ex(cipher_.get(), nullptr, nullptr, nullptr, Bytes(nonce.data()), -1) == 1);
    Update(clear, nullptr);
  }
  void Pass(std::span<const std::byte> from, std::byte* to) override { Update(from, to); }
  Tag Finish() override {
    CHECK(is_seal_);
    Tag tag;
    int length = 0;
    CHECK(EVP_EncryptFinal_ex(cipher_.get(), nothing_, &length) == 1 && length == 0);
    CHECK(EVP_CIPHER_CTX_ctrl(cipher_.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data()) == 1);
    return tag;
  }
  bool Verify(std::span<const std::byte, kTagBytes> tag) override {
    CHECK(!is_seal_);
    void* const expected = const_cast<std::byte*>(tag.data());  // Only read.
    CHECK(EVP_CIPHER_CTX_ctrl(cipher_.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, expected) == 1);
    int length = 0;
    return EVP_DecryptFinal_ex(cipher_.get(), nothing_, &length) == 1;
  }

 private:
  void Update(std::span<const std::byte> from, std::byte* to) {
    if (from.empty()) return;
    int length = 0;
    CHECK(EVP_CipherUpdate(cipher_.get(), Bytes(to), &length, Bytes(from.data()), static_cast<int>(from.size())) == 1);
  }

  const bool is_seal_;
  Owned<EVP_CIPHER_CTX> cipher_;
  unsigned char nothing_[16];
};

Sealer::Sealer(Security security, Role role, const SealSecret& secret) : iv_(secret.iv) {
  if (security == Security::kEncrypted) {
    machine_ = std::make_unique<Gcm>(role, secret);
  } else {
    machine_ = std::make_unique<Gmac>(secret);
  }
}

Sealer::~Sealer() = default;
Sealer::Sealer(Sealer&&) noexcept = default;
Sealer& Sealer::operator=(Sealer&&) noexcept = default;

void Sealer::Begin(uint64_t number, std::span<const std::byte> clear) {
  std::array<std::byte, 12> nonce = iv_;
  for (size_t i = nonce.size(); number != 0; number >>= 8) nonce[--i] ^= static_cast<std::byte>(number & 0xFF);
  machine_->Begin(nonce, clear);
}

void Sealer::Pass(std::span<const std::byte> from, std::byte* to) { machine_->Pass(from, to); }
Tag Sealer::Finish() { return machine_->Finish(); }
bool Sealer::Verify(std::span<const std::byte, kTagBytes> tag) { return machine_->Verify(tag); }

}  // namespace mangrove
