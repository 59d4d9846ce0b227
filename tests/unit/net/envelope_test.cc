#include "net/envelope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr uint64_t kNumber = 0x1112131415161718;

Sealer MakeSealer(Sealer::Role role, Security security = Security::kAuthenticated) {
  SealSecret secret;
  secret.key.fill(std::byte{1});
  secret.iv.fill(std::byte{2});
  return Sealer(security, role, secret);
}

// As it goes over the wire but for the seal.
std::vector<std::byte> Encode(const Envelope& envelope, uint8_t fill = 0xAB) {
  std::vector<std::byte> wire(HeadBytes(envelope), std::byte{fill});
  EncodeEnvelope(envelope, std::span(wire).first<kEnvelopeBytes>());
  if (envelope.inline_pages) wire.resize(wire.size() + envelope.page_count * kPageBytes, std::byte{0xCD});
  return wire;
}

Envelope Full() {
  Envelope e;
  e.channel = Channel::kMembership;
  e.epoch = Epoch(0x0102030405060708);
  e.message_bytes = 100;
  e.page_count = 3;
  e.first_slot = 127;
  e.slots_returned = 0xFFFFFFF0;
  e.number = static_cast<uint32_t>(kNumber);
  return e;
}

TEST(Envelope, EveryFieldComesBack) {
  const Envelope sent = Full();
  const std::vector<std::byte> wire = Encode(sent);
  auto parsed = ParseMessage(wire);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->envelope, sent);
  EXPECT_EQ(parsed->message.size(), 100u);
  EXPECT_EQ(parsed->message.data(), wire.data() + kEnvelopeBytes);
  EXPECT_TRUE(parsed->inline_pages.empty());
  EXPECT_EQ(parsed->slots_tag.data(), wire.data() + kEnvelopeBytes + 100);
  EXPECT_EQ(parsed->slots_tag.size(), kTagBytes);
}

TEST(Envelope, EveryFieldStandsWhereTheDocumentSays) {
  const std::vector<std::byte> wire = Encode(Full());
  EXPECT_EQ(std::memcmp(wire.data(), "MGE2", 4), 0);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 4), 1);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 5), 0);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 6), 1);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 7), 0);
  EXPECT_EQ(LoadLittle<uint64_t>(wire.data() + 8), 0x0102030405060708u);
  EXPECT_EQ(LoadLittle<uint32_t>(wire.data() + 16), 100u);
  EXPECT_EQ(LoadLittle<uint16_t>(wire.data() + 20), 3);
  EXPECT_EQ(LoadLittle<uint16_t>(wire.data() + 22), 127);
  EXPECT_EQ(LoadLittle<uint32_t>(wire.data() + 24), 0xFFFFFFF0u);
  EXPECT_EQ(LoadLittle<uint32_t>(wire.data() + 28), 0x15161718u);
  EXPECT_EQ(kTagAt, 32u);
}

TEST(Envelope, InlinePagesFollowTheMessageAligned) {
  for (uint32_t bytes : {0u, 1u, 16u, 17u, 4000u}) {
    Envelope sent = Full();
    sent.message_bytes = bytes;
    sent.inline_pages = true;
    sent.page_count = 2;
    sent.first_slot = 0;
    const std::vector<std::byte> wire = Encode(sent);
    auto parsed = ParseMessage(wire);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->envelope, sent);
    ASSERT_EQ(parsed->inline_pages.size(), 2 * kPageBytes);
    EXPECT_EQ((parsed->inline_pages.data() - wire.data()) % kInlineAlignment, 0);
    EXPECT_EQ(parsed->inline_pages[0], std::byte{0xCD});
  }
}

TEST(Envelope, EveryTruncationIsRefused) {
  Envelope with_pages = Full();
  with_pages.inline_pages = true;
  with_pages.page_count = 1;
  for (const Envelope& sent : {Full(), with_pages}) {
    const std::vector<std::byte> wire = Encode(sent);
    for (size_t length = 0; length < wire.size(); ++length) {
      // A copy of that length, so that the address sanitizer sees a read behind it.
      const std::vector<std::byte> cut(wire.begin(), wire.begin() + static_cast<ptrdiff_t>(length));
      EXPECT_FALSE(ParseMessage(cut).ok()) << length;
    }
    std::vector<std::byte> longer = wire;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(ParseMessage(longer).ok());
  }
}

class SealedEnvelope : public testing::TestWithParam<Security> {
 protected:
  std::vector<std::byte> Seal(const Envelope& envelope, uint64_t number = kNumber) {
    std::vector<std::byte> wire = Encode(envelope);
    Sealer sealer = MakeSealer(Sealer::Role::kSeal, GetParam());
    SealMessage(sealer, number, wire);
    return wire;
  }
  absl::Status Open(std::vector<std::byte>& wire, uint64_t number = kNumber) {
    Sealer opener = MakeSealer(Sealer::Role::kOpen, GetParam());
    return OpenMessage(opener, number, wire);
  }
};
INSTANTIATE_TEST_SUITE_P(Both, SealedEnvelope, testing::Values(Security::kAuthenticated, Security::kEncrypted),
                         [](const auto& instance) { return std::string(Name(instance.param)); });

TEST_P(SealedEnvelope, OpensToWhatWasSealed) {
  for (uint32_t bytes : {0u, 1u, 100u, 12'000u}) {
    Envelope envelope = Full();
    envelope.message_bytes = bytes;
    std::vector<std::byte> wire = Seal(envelope);
    const std::vector<std::byte> plain = Encode(envelope);
    const bool is_hidden = !std::equal(wire.begin() + kEnvelopeBytes, wire.end(), plain.begin() + kEnvelopeBytes);
    EXPECT_EQ(is_hidden, GetParam() == Security::kEncrypted);
    const absl::Status opened = Open(wire);
    ASSERT_TRUE(opened.ok()) << opened;
    EXPECT_TRUE(std::equal(wire.begin() + kEnvelopeBytes, wire.end(), plain.begin() + kEnvelopeBytes));
    const auto parsed = ParseMessage(wire);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->envelope, envelope);
  }
}

TEST_P(SealedEnvelope, EveryFlippedBitIsRefused) {
  Envelope with_pages = Full();
  with_pages.inline_pages = true;
  with_pages.page_count = 1;
  with_pages.first_slot = 0;
  for (const Envelope& envelope : {Full(), with_pages}) {
    const std::vector<std::byte> sealed = Seal(envelope);
    // All of the head; of the page each byte once.
    for (size_t bit = 0; bit < sealed.size() * 8; bit += bit < 300 * 8 ? 1 : 9) {
      std::vector<std::byte> wire = sealed;
      wire[bit / 8] ^= std::byte{static_cast<uint8_t>(1 << (bit % 8))};
      ASSERT_TRUE(absl::IsDataLoss(Open(wire))) << "bit " << bit;
    }
    std::vector<std::byte> wire = sealed;
    EXPECT_TRUE(Open(wire).ok());
  }
}

TEST_P(SealedEnvelope, AMessageInAnotherPlaceIsRefusedNamingBoth) {
  std::vector<std::byte> again = Seal(Full());
  const absl::Status status = Open(again, kNumber + 1);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_NE(status.message().find("tag does not fit message 1230066625199609625"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("says that it is number 353769240"), absl::string_view::npos) << status;
  // Also where the half that is on the wire is the same.
  again = Seal(Full());
  EXPECT_FALSE(Open(again, kNumber + (uint64_t{1} << 32)).ok());
}

TEST_P(SealedEnvelope, EveryTruncationIsRefusedBeforeAnythingIsRead) {
  const std::vector<std::byte> sealed = Seal(Full());
  for (size_t length = 0; length < sealed.size(); ++length) {
    std::vector<std::byte> cut(sealed.begin(), sealed.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_TRUE(absl::IsDataLoss(Open(cut))) << length;
  }
  std::vector<std::byte> longer = sealed;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Open(longer).ok());
  std::vector<std::byte> too_long(kMaxWireBytes + 1);
  EXPECT_FALSE(Open(too_long).ok());
}

TEST(Envelope, WhatIsOutOfBoundsIsRefusedByNameThoughItWasSealed) {
  struct Case {
    const char* name;
    std::function<void(std::byte*)> change;
  };
  const std::vector<Case> cases = {
      {"magic", [](std::byte* w) { StoreLittle<uint32_t>(w, 1); }},
      {"kind", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 4); }},
      {"kind", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 0); }},
      {"flags", [](std::byte* w) { StoreLittle<uint8_t>(w + 5, 2); }},
      {"channel", [](std::byte* w) { StoreLittle<uint8_t>(w + 6, kChannels); }},
      {"reserved", [](std::byte* w) { StoreLittle<uint8_t>(w + 7, 1); }},
      {"message length", [](std::byte* w) { StoreLittle<uint32_t>(w + 16, kMaxMessageBytes + 1); }},
      {"message length", [](std::byte* w) { StoreLittle<uint32_t>(w + 16, UINT32_MAX); }},
      {"length on the wire", [](std::byte* w) { StoreLittle<uint32_t>(w + 16, 99); }},
      {"page count", [](std::byte* w) { StoreLittle<uint16_t>(w + 20, kMaxMessagePages + 1); }},
      {"first slot", [](std::byte* w) { StoreLittle<uint16_t>(w + 22, kPageSlots); }},
      {"length on the wire", [](std::byte* w) { StoreLittle<uint8_t>(w + 5, 1); }},
      {"length on the wire", [](std::byte* w) { StoreLittle<uint16_t>(w + 20, 0); }},
      {"message length of a credit", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 2); }},
      {"message length of a credit", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 3); }},
      {"page count of a credit",
       [](std::byte* w) {
         StoreLittle<uint8_t>(w + 4, 2);
         StoreLittle<uint32_t>(w + 16, 0);
       }},
      {"channel of a credit",
       [](std::byte* w) {
         StoreLittle<uint8_t>(w + 4, 2);
         StoreLittle<uint32_t>(w + 16, 0);
         StoreLittle<uint16_t>(w + 20, 0);
       }},
  };
  for (const Case& c : cases) {
    std::vector<std::byte> wire = Encode(Full());
    c.change(wire.data());
    const auto parsed = ParseMessage(wire);
    ASSERT_FALSE(parsed.ok()) << c.name;
    EXPECT_NE(parsed.status().message().find(c.name), absl::string_view::npos) << parsed.status();
    EXPECT_NE(parsed.status().message().find("expected"), absl::string_view::npos) << parsed.status();
  }
}

TEST(Envelope, EveryChannelThatIsKnownComesBackAndNoOther) {
  for (int channel = 0; channel <= UINT8_MAX; ++channel) {
    std::vector<std::byte> wire = Encode(Full());
    StoreLittle<uint8_t>(wire.data() + 6, static_cast<uint8_t>(channel));
    const auto parsed = ParseMessage(wire);
    if (channel < static_cast<int>(kChannels)) {
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(static_cast<int>(parsed->envelope.channel), channel);
    } else {
      EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << parsed.status();
    }
  }
}

TEST(Envelope, RandomBytesNeverCrashTheParser) {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 50'000; ++i) {
    std::vector<std::byte> wire;
    if (i % 2 == 0) {
      wire.resize(random() % 300);
      for (std::byte& b : wire) b = std::byte{static_cast<uint8_t>(random())};
    } else {
      // Random changes of a good one.
      Envelope envelope = Full();
      envelope.message_bytes = static_cast<uint32_t>(random() % 64);
      wire = Encode(envelope);
      for (int change = 0; change < 3; ++change) {
        wire[random() % kEnvelopeBytes] = std::byte{static_cast<uint8_t>(random())};
      }
    }
    const auto parsed = ParseMessage(wire);
    if (!parsed.ok()) continue;
    EXPECT_LE(parsed->message.size() + parsed->inline_pages.size() + kEnvelopeBytes, wire.size());
    EXPECT_LE(parsed->envelope.page_count, kMaxMessagePages);
    EXPECT_LT(static_cast<size_t>(parsed->envelope.channel), kChannels);
  }
}

}  // namespace
}  // namespace mangrove
