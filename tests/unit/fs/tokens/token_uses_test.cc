// Which operations on a file's data agree with each other on two nodes.

#include "fs/tokens/token_uses.h"

#include <gtest/gtest.h>

#include <array>

namespace mangrove::fs {
namespace {

struct Use {
  const char* name;
  TokenSet tokens;
};

constexpr std::array<Use, 6> kUses = {{{"buffered read", kBufferedReadTokens},
                                       {"buffered write", kBufferedWriteTokens},
                                       {"mapped read", kMappedReadTokens},
                                       {"mapped write", kMappedWriteTokens},
                                       {"direct read", kDirectReadTokens},
                                       {"direct write", kDirectWriteTokens}}};

TEST(TokenUses, AgreeAsTheTableSays) {
  // clang-format off
  constexpr bool kAgree[6][6] = {
      // buffered      mapped        direct
      // read   write  read   write  read   write
      {true,  false, true,  false, false, false},  // buffered read
      {false, false, false, false, false, false},  // buffered write
      {true,  false, true,  false, false, false},  // mapped read
      {false, false, false, false, false, false},  // mapped write
      {false, false, false, false, true,  true},   // direct read
      {false, false, false, false, true,  true},   // direct write
  };
  // clang-format on
  for (size_t a = 0; a < kUses.size(); ++a) {
    for (size_t b = 0; b < kUses.size(); ++b) {
      EXPECT_EQ(!kUses[a].tokens.ConflictsWith(kUses[b].tokens), kAgree[a][b])
          << kUses[a].name << ", " << kUses[b].name;
    }
  }
}

TEST(TokenUses, AWriterMayReadWhatItHasBuffered) {
  EXPECT_TRUE(kBufferedWriteTokens.Covers(kBufferedReadTokens));
  EXPECT_TRUE(kMappedWriteTokens.Covers(kMappedReadTokens));
  EXPECT_TRUE(kDirectWriteTokens.Covers(kDirectReadTokens));
  EXPECT_FALSE(kBufferedReadTokens.Covers(kDirectReadTokens));
}

TEST(TokenUses, ChangedDataIsStoredBeforeTheRightToItGoesAndThenDropped) {
  constexpr BeforeReturn kBoth = {.flush = true, .discard = true};
  EXPECT_EQ(WhatToDoBefore(kBufferedWriteTokens), kBoth);
  EXPECT_EQ(WhatToDoBefore(TokenSet(TokenClass::kDirtyPages, TokenLevel::kWrite)), kBoth);
  EXPECT_EQ(WhatToDoBefore(TokenSet(TokenClass::kCleanPages, TokenLevel::kWrite)), kBoth);
}

TEST(TokenUses, WhatWasOnlyReadIsDropped) {
  constexpr BeforeReturn kDiscard = {.flush = false, .discard = true};
  EXPECT_EQ(WhatToDoBefore(kBufferedReadTokens), kDiscard);
}

TEST(TokenUses, DirectReadsAndWritesAndOtherClassesLeavePagesAlone) {
  EXPECT_EQ(WhatToDoBefore(kDirectReadTokens), BeforeReturn{});
  EXPECT_EQ(WhatToDoBefore(kDirectWriteTokens), BeforeReturn{});
  for (int c = 0; c < kTokenClasses; ++c) {
    if (TokenClass(c) == TokenClass::kDirtyPages || TokenClass(c) == TokenClass::kCleanPages) continue;
    EXPECT_EQ(WhatToDoBefore(TokenSet(TokenClass(c), TokenLevel::kWrite)), BeforeReturn{}) << "class " << c;
  }
}

}  // namespace
}  // namespace mangrove::fs
