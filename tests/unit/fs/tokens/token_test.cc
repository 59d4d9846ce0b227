// Sets of tokens against the rules, class by class and level by level.

#include "fs/tokens/token.h"

#include <gtest/gtest.h>

#include <array>

namespace mangrove::fs {
namespace {

constexpr std::array kLevels = {TokenLevel::kNone, TokenLevel::kRead, TokenLevel::kSharedWrite, TokenLevel::kWrite};

template <typename F>
void ForEachPair(F f) {
  for (int c = 0; c < kTokenClasses; ++c) {
    for (TokenLevel a : kLevels) {
      for (TokenLevel b : kLevels) f(TokenClass(c), a, b);
    }
  }
}

TEST(Token, LevelsConflictAsTheTableSays) {
  // clang-format off
  constexpr bool kTable[4][4] = {
      // none   read   shared write
      {false, false, false, false},  // none
      {false, false, true,  true},   // read
      {false, true,  false, true},   // shared write
      {false, true,  true,  true},   // write
  };
  // clang-format on
  ForEachPair([&](TokenClass c, TokenLevel a, TokenLevel b) {
    EXPECT_EQ(Conflicts(a, b), kTable[int(a)][int(b)]) << int(a) << " " << int(b);
    EXPECT_EQ(TokenSet(c, a).ConflictsWith(TokenSet(c, b)), kTable[int(a)][int(b)])
        << "class " << int(c) << ": " << int(a) << " " << int(b);
  });
}

TEST(Token, WriteCoversEveryLevelAndTheOthersOnlyThemselves) {
  ForEachPair([](TokenClass c, TokenLevel a, TokenLevel b) {
    const bool covers = a == b || b == TokenLevel::kNone || a == TokenLevel::kWrite;
    EXPECT_EQ(TokenSet(c, a).Covers(TokenSet(c, b)), covers) << "class " << int(c) << ": " << int(a) << " " << int(b);
  });
}

TEST(Token, WhatConflictsWithALevelConflictsWithWhatCoversIt) {
  ForEachPair([](TokenClass c, TokenLevel a, TokenLevel b) {
    if (!TokenSet(c, a).Covers(TokenSet(c, b))) return;
    for (TokenLevel other : kLevels) {
      if (Conflicts(b, other)) {
        EXPECT_TRUE(Conflicts(a, other)) << int(a) << " " << int(b) << " " << int(other);
      }
    }
  });
}

TEST(Token, AUnionIsTheLeastSetThatCoversBoth) {
  ForEachPair([](TokenClass c, TokenLevel a, TokenLevel b) {
    const TokenSet both = TokenSet(c, a) | TokenSet(c, b);
    EXPECT_TRUE(both.Covers(TokenSet(c, a)) && both.Covers(TokenSet(c, b)));
    for (TokenLevel other : kLevels) {
      const TokenSet set(c, other);
      if (set.Covers(TokenSet(c, a)) && set.Covers(TokenSet(c, b))) {
        EXPECT_TRUE(set.Covers(both)) << int(a) << " " << int(b) << " " << int(other);
      }
    }
  });
}

TEST(Token, ClassesDoNotDisturbEachOther) {
  for (int c = 0; c < kTokenClasses; ++c) {
    for (int d = 0; d < kTokenClasses; ++d) {
      if (c == d) continue;
      const TokenSet one(TokenClass(c), TokenLevel::kWrite);
      const TokenSet other(TokenClass(d), TokenLevel::kWrite);
      EXPECT_FALSE(one.ConflictsWith(other)) << c << " " << d;
      EXPECT_EQ((one | other).ConflictWith(TokenSet(TokenClass(c), TokenLevel::kRead)), one) << c << " " << d;
      EXPECT_EQ((one | other).Without(one), other) << c << " " << d;
      EXPECT_EQ((one | other).In(TokenSet(TokenClass(c), TokenLevel::kRead)), one) << c << " " << d;
      EXPECT_EQ((one | other).At(TokenClass(d)), TokenLevel::kWrite) << c << " " << d;
    }
  }
}

TEST(Token, AClassIsTakenOutOrKeptWholeWhateverTheOthersLevel) {
  ForEachPair([](TokenClass c, TokenLevel a, TokenLevel b) {
    const TokenSet set(c, a);
    const TokenSet other(c, b);
    EXPECT_EQ(set.Without(other), b == TokenLevel::kNone ? set : TokenSet()) << int(a) << " " << int(b);
    EXPECT_EQ(set.In(other), b == TokenLevel::kNone ? TokenSet() : set) << int(a) << " " << int(b);
  });
}

TEST(Token, BitsOfNoClassAreNotValid) {
  TokenSet all;
  for (int c = 0; c < kTokenClasses; ++c) all |= TokenSet(TokenClass(c), TokenLevel::kWrite);
  EXPECT_TRUE(TokenSet::ValidBits(all.Bits()));
  EXPECT_EQ(TokenSet::FromBits(all.Bits()), all);
  EXPECT_FALSE(TokenSet::ValidBits(uint32_t{1} << 2 * kTokenClasses));
}

}  // namespace
}  // namespace mangrove::fs
