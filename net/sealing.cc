#include "net/sealing.h"

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove {
namespace {

// What the library has for this processor.
struct Gcm256 {
  decltype(IMB_MGR::gcm256_pre) expand = nullptr;
  decltype(IMB_MGR::gcm256_init) begin = nullptr;
  decltype(IMB_MGR::gcm256_enc_update) encrypt = nullptr;
  decltype(IMB_MGR::gcm256_dec_update) decrypt = nullptr;
  decltype(IMB_MGR::gcm256_enc_finalize) encrypted = nullptr;
  decltype(IMB_MGR::gcm256_dec_finalize) decrypted = nullptr;
  decltype(IMB_MGR::gmac256_init) begin_clear = nullptr;
  decltype(IMB_MGR::gmac256_update) cover = nullptr;
  decltype(IMB_MGR::gmac256_finalize) covered = nullptr;
};

struct Found {
  Gcm256 functions;
  std::string trouble;  // Empty: there is none.
};

Found FindGcm256() {
  IMB_MGR* const all = alloc_mb_mgr(0);
  if (all == nullptr) return {{}, "out of memory"};
  init_mb_mgr_auto(all, nullptr);
  const absl::Cleanup done = [all] { free_mb_mgr(all); };
  if (const int error = imb_get_errno(all); error != 0) return {{}, imb_get_strerror(error)};
  return {{all->gcm256_pre, all->gcm256_init, all->gcm256_enc_update, all->gcm256_dec_update, all->gcm256_enc_finalize,
           all->gcm256_dec_finalize, all->gmac256_init, all->gmac256_update, all->gmac256_finalize},
          ""};
}

const Found& Library() {
  static const Found found = FindGcm256();
  return found;
}

const Gcm256& Gcm() { return Library().functions; }

}  // namespace

const char* Name(Security security) {
  switch (security) {
    case Security::kAuthenticated: return "authenticated";
    case Security::kEncrypted: return "encrypted";
  }
  return "unknown";
}

struct Sealer::Machine {
  alignas(64) gcm_key_data key;
  alignas(64) gcm_context_data context;
  bool is_encrypted;
  bool is_seal;

  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine() { OPENSSL_cleanse(this, sizeof(*this)); }
};

absl::Status Sealer::CheckWorksHere() {
  if (Library().trouble.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "messages between nodes cannot be sealed on this processor, which needs instructions for AES and for "
      "carry-less multiplication (AES-NI, PCLMULQDQ): ",
      Library().trouble));
}

Sealer::Sealer(Security security, Role role, const SealSecret& secret)
    : iv_(secret.iv), machine_(std::make_unique<Machine>()) {
  Gcm().expand(secret.key.data(), &machine_->key);
  machine_->is_encrypted = security == Security::kEncrypted;
  machine_->is_seal = role == Role::kSeal;
}

Sealer::~Sealer() = default;
Sealer::Sealer(Sealer&&) noexcept = default;
Sealer& Sealer::operator=(Sealer&&) noexcept = default;

void Sealer::Begin(uint64_t number, std::span<const std::byte> clear) {
  std::array<std::byte, 12> nonce = iv_;
  for (size_t i = nonce.size(); number != 0; number >>= 8) nonce[--i] ^= static_cast<std::byte>(number & 0xFF);
  const auto* const iv = reinterpret_cast<const uint8_t*>(nonce.data());
  const auto* const covered = reinterpret_cast<const uint8_t*>(clear.data());
  Machine& m = *machine_;
  if (m.is_encrypted) return Gcm().begin(&m.key, &m.context, iv, covered, clear.size());
  Gcm().begin_clear(&m.key, &m.context, iv, nonce.size());
  Pass(clear, nullptr);
}

void Sealer::Pass(std::span<const std::byte> from, std::byte* to) {
  if (from.empty()) return;
  Machine& m = *machine_;
  CHECK(!m.is_encrypted || to != nullptr);
  const auto* const in = reinterpret_cast<const uint8_t*>(from.data());
  if (!m.is_encrypted) return Gcm().cover(&m.key, &m.context, in, from.size());
  const auto pass = m.is_seal ? Gcm().encrypt : Gcm().decrypt;
  pass(&m.key, &m.context, reinterpret_cast<uint8_t*>(to), in, from.size());
}

Tag Sealer::Finish() {
  CHECK(machine_->is_seal);
  return End();
}

Tag Sealer::End() {
  Machine& m = *machine_;
  Tag tag;
  const auto finish = !m.is_encrypted ? Gcm().covered : m.is_seal ? Gcm().encrypted : Gcm().decrypted;
  finish(&m.key, &m.context, reinterpret_cast<uint8_t*>(tag.data()), tag.size());
  return tag;
}

bool Sealer::Verify(std::span<const std::byte, kTagBytes> tag) {
  CHECK(!machine_->is_seal);
  return CRYPTO_memcmp(End().data(), tag.data(), tag.size()) == 0;
}

}  // namespace mangrove
