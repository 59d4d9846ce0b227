// Whatever comes for a message about tokens is refused, or is what can be sent.
// Covers: X01

#include <gtest/gtest.h>

#include "fs/tokens/token_messages.h"
#include "fs/tokens/token_uses.h"
#include "tests/fuzz.h"

namespace mangrove::fs {
namespace {

// With all the fields that it may have in some kind; those that the kind has not are not sent.
TokenMessage Full(TokenMessageKind kind, size_t entries) {
  TokenMessage message{.kind = kind, .view = Epoch(77), .part = 0, .parts = 1, .entries = {}};
  if (kind == TokenMessageKind::kRegister) message.parts = 3;
  const bool values = kind == TokenMessageKind::kReturn || kind == TokenMessageKind::kRegister ||
                      kind == TokenMessageKind::kGrant || kind == TokenMessageKind::kLend ||
                      kind == TokenMessageKind::kGiveBack;
  for (size_t i = 0; i < entries; ++i) {
    TokenEntry e{
        .object = {i, 1}, .set = kBufferedWriteTokens, .lent = kDirectReadTokens, .number = i, .grant = {3, i}};
    e.flag = i % 2 == 0;
    e.pins = i % 3 == 0;
    if (values && i % 2 == 0) {
      e.times = TokenTimes{1, -1, 3};
      e.times_set = {1, 7};
    }
    if (values && i % 3 == 0) {
      e.size = 4096;
      e.size_grant = {2, 9};
    }
    message.entries.push_back(e);
  }
  return message;
}

bool Taken(std::string_view bytes) {
  const auto message = DecodeTokenMessage(bytes);
  if (!message.ok()) {
    EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument);
    return false;
  }
  EXPECT_EQ(EncodeTokenMessage(*message), bytes);
  const auto again = DecodeTokenMessage(EncodeTokenMessage(*message));
  EXPECT_TRUE(again.ok() && *again == *message);
  return true;
}

TEST(TokenMessagesFuzz, AMessageIsRefusedOrCanBeSentAgain) {
  fuzz::Decoder decoder{.name = "token message", .corpus = {}, .take = Taken};
  for (int kind = 0; kind < kTokenMessageKinds; ++kind) {
    for (const size_t entries : {0u, 1u, 4u}) {
      decoder.corpus.push_back(EncodeTokenMessage(Full(TokenMessageKind(kind), entries)));
    }
  }
  fuzz::Run(decoder);
}

TEST(TokenMessagesFuzz, TheMostEntriesOfAKindFitAndOneMoreIsRefused) {
  for (int kind = 0; kind < kTokenMessageKinds; ++kind) {
    const size_t most = MaxTokenEntries(TokenMessageKind(kind));
    std::string bytes = EncodeTokenMessage(Full(TokenMessageKind(kind), most));
    EXPECT_LE(bytes.size(), kMaxTokenMessageBytes);
    EXPECT_TRUE(Taken(bytes));
    EXPECT_FALSE(Taken(bytes + '\0'));
    bytes.resize(bytes.size() - 1);
    EXPECT_FALSE(Taken(bytes));
  }
  EXPECT_GE(MaxTokenEntries(TokenMessageKind::kRequest), 512u);
}

}  // namespace
}  // namespace mangrove::fs
