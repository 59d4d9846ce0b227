#include "net/envelope.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "net/crc32c.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

std::vector<std::byte> Encode(const Envelope& envelope, uint8_t fill = 0xAB) {
  std::vector<std::byte> wire(kEnvelopeBytes + envelope.message_bytes, std::byte{fill});
  EncodeEnvelope(envelope, wire);
  if (envelope.inline_pages) {
    wire.resize(InlinePagesOffset(envelope.message_bytes));
    wire.resize(wire.size() + envelope.page_count * kPageBytes, std::byte{0xCD});
  }
  return wire;
}

Envelope Full() {
  Envelope e;
  e.channel = Channel::kMembership;
  e.epoch = Epoch(0x0102030405060708);
  e.sequence = 0x1112131415161718;
  e.message_bytes = 100;
  e.page_count = 3;
  e.first_slot = 127;
  e.slots_returned = 0xFFFFFFF0;
  return e;
}

// Puts the right checksum into a wire that a test has changed.
void Sign(std::vector<std::byte>& wire, size_t message_bytes) {
  const std::span<const std::byte> head(wire);
  const uint32_t crc = Crc32c(Crc32c(0, head.first(kEnvelopeBytes - 4)), head.subspan(kEnvelopeBytes, message_bytes));
  StoreLittle<uint32_t>(wire.data() + kEnvelopeBytes - 4, crc);
}

TEST(Crc32c, IsTheCastagnoliChecksum) {
  const std::string text = "123456789";
  EXPECT_EQ(Crc32c(0, std::as_bytes(std::span(text))), 0xE3069283u);
  const uint32_t head = Crc32c(0, std::as_bytes(std::span(text).first(4)));
  EXPECT_EQ(Crc32c(head, std::as_bytes(std::span(text).subspan(4))), 0xE3069283u);
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
}

TEST(Envelope, EveryFieldStandsWhereTheDocumentSays) {
  const std::vector<std::byte> wire = Encode(Full());
  EXPECT_EQ(std::memcmp(wire.data(), "MGE1", 4), 0);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 4), 1);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 5), 0);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 6), 1);
  EXPECT_EQ(LoadLittle<uint8_t>(wire.data() + 7), 0);
  EXPECT_EQ(LoadLittle<uint64_t>(wire.data() + 8), 0x0102030405060708u);
  EXPECT_EQ(LoadLittle<uint64_t>(wire.data() + 16), 0x1112131415161718u);
  EXPECT_EQ(LoadLittle<uint32_t>(wire.data() + 24), 100u);
  EXPECT_EQ(LoadLittle<uint16_t>(wire.data() + 28), 3);
  EXPECT_EQ(LoadLittle<uint16_t>(wire.data() + 30), 127);
  EXPECT_EQ(LoadLittle<uint32_t>(wire.data() + 32), 0xFFFFFFF0u);
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

TEST(Envelope, EveryFlippedBitOfHeadAndMessageIsRefused) {
  std::vector<std::byte> wire = Encode(Full());
  for (size_t bit = 0; bit < wire.size() * 8; ++bit) {
    wire[bit / 8] ^= std::byte{static_cast<uint8_t>(1 << (bit % 8))};
    EXPECT_FALSE(ParseMessage(wire).ok()) << "bit " << bit;
    wire[bit / 8] ^= std::byte{static_cast<uint8_t>(1 << (bit % 8))};
  }
  EXPECT_TRUE(ParseMessage(wire).ok());
}

TEST(Envelope, WhatIsOutOfBoundsIsRefusedByNameThoughItsChecksumIsRight) {
  struct Case {
    const char* name;
    std::function<void(std::byte*)> change;
  };
  const std::vector<Case> cases = {
      {"magic", [](std::byte* w) { StoreLittle<uint32_t>(w, 1); }},
      {"kind", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 3); }},
      {"flags", [](std::byte* w) { StoreLittle<uint8_t>(w + 5, 2); }},
      {"channel", [](std::byte* w) { StoreLittle<uint8_t>(w + 6, kChannels); }},
      {"reserved", [](std::byte* w) { StoreLittle<uint8_t>(w + 7, 1); }},
      {"reserved", [](std::byte* w) { StoreLittle<uint32_t>(w + 36, 1); }},
      {"reserved", [](std::byte* w) { StoreLittle<uint32_t>(w + 40, 1); }},
      {"message length", [](std::byte* w) { StoreLittle<uint32_t>(w + 24, kMaxMessageBytes + 1); }},
      {"message length", [](std::byte* w) { StoreLittle<uint32_t>(w + 24, UINT32_MAX); }},
      {"length on the wire", [](std::byte* w) { StoreLittle<uint32_t>(w + 24, 99); }},
      {"page count", [](std::byte* w) { StoreLittle<uint16_t>(w + 28, kMaxMessagePages + 1); }},
      {"first slot", [](std::byte* w) { StoreLittle<uint16_t>(w + 30, kPageSlots); }},
      {"length on the wire", [](std::byte* w) { StoreLittle<uint8_t>(w + 5, 1); }},
      {"message length of a credit", [](std::byte* w) { StoreLittle<uint8_t>(w + 4, 2); }},
      {"page count of a credit",
       [](std::byte* w) {
         StoreLittle<uint8_t>(w + 4, 2);
         StoreLittle<uint32_t>(w + 24, 0);
       }},
      {"channel of a credit",
       [](std::byte* w) {
         StoreLittle<uint8_t>(w + 4, 2);
         StoreLittle<uint32_t>(w + 24, 0);
         StoreLittle<uint16_t>(w + 28, 0);
       }},
  };
  for (const Case& c : cases) {
    std::vector<std::byte> wire = Encode(Full());
    c.change(wire.data());
    Sign(wire, 100);
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
    Sign(wire, 100);
    const auto parsed = ParseMessage(wire);
    if (channel < static_cast<int>(kChannels)) {
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(static_cast<int>(parsed->envelope.channel), channel);
    } else {
      EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << parsed.status();
    }
  }
}

TEST(Envelope, AChangedBitOfTheChannelIsDamageAndNoUnknownChannel) {
  std::vector<std::byte> wire = Encode(Full());
  StoreLittle<uint8_t>(wire.data() + 6, 0x80);
  EXPECT_TRUE(absl::IsDataLoss(ParseMessage(wire).status()));
}

TEST(Envelope, RandomBytesNeverCrashTheParser) {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 50'000; ++i) {
    std::vector<std::byte> wire;
    if (i % 2 == 0) {
      wire.resize(random() % 300);
      for (std::byte& b : wire) b = std::byte{static_cast<uint8_t>(random())};
    } else {
      // Random changes of a good one, with a good checksum.
      Envelope envelope = Full();
      envelope.message_bytes = static_cast<uint32_t>(random() % 64);
      wire = Encode(envelope);
      for (int change = 0; change < 3; ++change) {
        wire[random() % kEnvelopeBytes] = std::byte{static_cast<uint8_t>(random())};
      }
      Sign(wire, envelope.message_bytes);
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
