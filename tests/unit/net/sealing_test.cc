// Covers: B10, C13
#include "net/sealing.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/net/hex.h"

namespace mangrove {
namespace {

SealSecret SecretOf(const std::string& key, const std::string& iv) {
  SealSecret secret;
  const auto k = Hex(key);
  const auto i = Hex(iv);
  std::copy(k.begin(), k.end(), secret.key.begin());
  std::copy(i.begin(), i.end(), secret.iv.begin());
  return secret;
}
Tag TagOf(const std::string& digits) {
  Tag tag;
  const auto bytes = Hex(digits);
  std::copy(bytes.begin(), bytes.end(), tag.begin());
  return tag;
}

// The GCM specification's cases 16 (AES-256, a text and more data) and 13 (nothing at all), which has the same tag in both.
constexpr char kKey[] = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
constexpr char kIv[] = "cafebabefacedbaddecaf888";
constexpr char kText[] =
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba"
    "63"
    "7b39";
constexpr char kClear[] = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
constexpr char kSealed[] =
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abc"
    "c9"
    "f662";
constexpr char kTag[] = "76fc6ece0f4e1768cddf8853bb2d551b";

TEST(Sealing, EncryptsAsTheSpecificationSays) {
  Sealer sealer(Security::kEncrypted, Sealer::Role::kSeal, SecretOf(kKey, kIv));
  std::vector<std::byte> text = Hex(kText);
  sealer.Begin(0, Hex(kClear));
  // In parts, in place.
  sealer.Pass(std::span(text).first(7), text.data());
  sealer.Pass(std::span(text).subspan(7), text.data() + 7);
  EXPECT_EQ(HexOf(sealer.Finish()), kTag);
  EXPECT_EQ(HexOf(text), kSealed);
  Sealer opener(Security::kEncrypted, Sealer::Role::kOpen, SecretOf(kKey, kIv));
  std::vector<std::byte> out(text.size());
  opener.Begin(0, Hex(kClear));
  opener.Pass(text, out.data());
  EXPECT_TRUE(opener.Verify(TagOf(kTag)));
  EXPECT_EQ(HexOf(out), kText);
}

TEST(Sealing, AuthenticatesAsTheSpecificationSays) {
  const std::string zeros(64, '0');
  for (const Security security : {Security::kAuthenticated, Security::kEncrypted}) {
    Sealer sealer(security, Sealer::Role::kSeal, SecretOf(zeros, std::string(24, '0')));
    sealer.Begin(0, {});
    EXPECT_EQ(HexOf(sealer.Finish()), "530f8afbc74536b9a963b4f1c4cb738b");
  }
}

// So that the quick way is the standard's, for any length, in any parts.
TEST(Sealing, AnAuthenticatedTextHasTheTagOfAllItsPartsAsClearOnes) {
  for (const size_t length : {0u, 1u, 15u, 16u, 17u, 100u, 4096u, 5000u}) {
    std::vector<std::byte> bytes(length);
    for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 7 + length);
    Sealer encrypted(Security::kEncrypted, Sealer::Role::kSeal, SecretOf(kKey, kIv));
    encrypted.Begin(length, bytes);
    const Tag expected = encrypted.Finish();
    Sealer sealer(Security::kAuthenticated, Sealer::Role::kSeal, SecretOf(kKey, kIv));
    for (const size_t part : {length / 3, length, size_t{0}}) {
      sealer.Begin(length, std::span(bytes).first(part));
      sealer.Pass(std::span(bytes).subspan(part), nullptr);
      EXPECT_EQ(HexOf(sealer.Finish()), HexOf(expected)) << length << " " << part;
    }
  }
}

// Another library's, so that no node depends on which one another was built with.
std::pair<std::vector<std::byte>, Tag> SealedByLibcrypto(std::span<const std::byte> clear,
                                                         std::span<const std::byte> text) {
  const auto bytes = [](const std::byte* b) { return reinterpret_cast<const unsigned char*>(b); };
  const SealSecret secret = SecretOf(kKey, kIv);
  std::vector<std::byte> sealed(text.size());
  Tag tag;
  int length = 0;
  const std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> cipher(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, bytes(secret.key.data()), bytes(secret.iv.data()));
  if (!clear.empty()) {
    EVP_EncryptUpdate(cipher.get(), nullptr, &length, bytes(clear.data()), static_cast<int>(clear.size()));
  }
  auto* const out = reinterpret_cast<unsigned char*>(sealed.data());
  if (!text.empty()) EVP_EncryptUpdate(cipher.get(), out, &length, bytes(text.data()), static_cast<int>(text.size()));
  EVP_EncryptFinal_ex(cipher.get(), nullptr, &length);
  EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data());
  return {sealed, tag};
}

TEST(Sealing, AnyLengthInAnyPartsIsWhatLibcryptoMakesOfIt) {
  std::mt19937 random(17);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> clear(random() % 3 == 0 ? 0 : random() % 200);
    std::vector<std::byte> text(random() % 4 == 0 ? random() % 20'000 : random() % 300);
    for (std::vector<std::byte>* bytes : {&clear, &text}) {
      for (std::byte& byte : *bytes) byte = static_cast<std::byte>(random());
    }
    Sealer sealer(Security::kEncrypted, Sealer::Role::kSeal, SecretOf(kKey, kIv));
    Sealer opener(Security::kEncrypted, Sealer::Role::kOpen, SecretOf(kKey, kIv));
    Sealer covering(Security::kAuthenticated, Sealer::Role::kSeal, SecretOf(kKey, kIv));
    std::vector<std::byte> sealed(text.size());
    std::vector<std::byte> opened(text.size());
    sealer.Begin(0, clear);
    opener.Begin(0, clear);
    covering.Begin(0, clear);
    for (size_t done = 0; done < text.size();) {
      const size_t part = std::min<size_t>(text.size() - done, 1 + random() % (random() % 2 == 0 ? 40 : 8000));
      sealer.Pass(std::span(text).subspan(done, part), &sealed[done]);
      opener.Pass(std::span(sealed).subspan(done, part), &opened[done]);
      covering.Pass(std::span(text).subspan(done, part), nullptr);
      done += part;
    }
    const auto [expected, tag] = SealedByLibcrypto(clear, text);
    ASSERT_EQ(sealed, expected) << round;
    ASSERT_EQ(HexOf(sealer.Finish()), HexOf(tag)) << round;
    ASSERT_TRUE(opener.Verify(tag)) << round;
    ASSERT_EQ(opened, text) << round;
    std::vector<std::byte> all = clear;
    all.insert(all.end(), text.begin(), text.end());
    ASSERT_EQ(HexOf(covering.Finish()), HexOf(SealedByLibcrypto(all, {}).second)) << round;
  }
}

TEST(Sealing, NumbersAreCombinedWithTheIvFromItsEnd) {
  Sealer sealer(Security::kAuthenticated, Sealer::Role::kSeal, SecretOf(kKey, kIv));
  sealer.Begin(0x0102030405060708, {});
  const Tag tag = sealer.Finish();
  Sealer other(Security::kAuthenticated, Sealer::Role::kSeal, SecretOf(kKey, "cafebabefbccd8a9dbccff80"));
  other.Begin(0, {});
  EXPECT_EQ(HexOf(tag), HexOf(other.Finish()));
}

TEST(Sealing, OpensUnderItsNumberAndSecretAloneAndIfNothingHasChanged) {
  for (const Security security : {Security::kAuthenticated, Security::kEncrypted}) {
    const std::vector<std::byte> clear(32, std::byte{1});
    std::vector<std::byte> text(100, std::byte{2});
    Sealer sealer(security, Sealer::Role::kSeal, SecretOf(kKey, kIv));
    sealer.Begin(5, clear);
    sealer.Pass(text, text.data());
    const Tag tag = sealer.Finish();
    const auto opens = [&](const SealSecret& secret, uint64_t number, std::vector<std::byte> c,
                           std::vector<std::byte> t, const Tag& with) {
      Sealer opener(security, Sealer::Role::kOpen, secret);
      opener.Begin(number, c);
      opener.Pass(t, t.data());
      return opener.Verify(with);
    };
    const SealSecret secret = SecretOf(kKey, kIv);
    EXPECT_TRUE(opens(secret, 5, clear, text, tag));
    EXPECT_FALSE(opens(secret, 6, clear, text, tag));
    SealSecret other = secret;
    other.key[31] ^= std::byte{1};
    EXPECT_FALSE(opens(other, 5, clear, text, tag));
    other = secret;
    other.iv[0] ^= std::byte{1};
    EXPECT_FALSE(opens(other, 5, clear, text, tag));
    auto changed = clear;
    changed[31] ^= std::byte{0x80};
    EXPECT_FALSE(opens(secret, 5, changed, text, tag));
    changed = text;
    changed[99] ^= std::byte{1};
    EXPECT_FALSE(opens(secret, 5, clear, changed, tag));
    Tag wrong = tag;
    wrong[15] ^= std::byte{1};
    EXPECT_FALSE(opens(secret, 5, clear, text, wrong));
    changed = text;
    changed.push_back(std::byte{0});
    EXPECT_FALSE(opens(secret, 5, clear, changed, tag));
  }
}

}  // namespace
}  // namespace mangrove
