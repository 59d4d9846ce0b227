// Which tokens an operation on a file's data holds, and what a node does with its pages before it gives tokens back.
//
// Invariants:
//   T5 Two nodes agree to buffer a file's data only while both read. Direct reads and writes agree with each other, and
//      with no buffered ones.
//   T6 What is given back leaves nothing behind that it was the right to: changed data is stored before that, then what
//      is in memory is dropped. Changed data is never dropped that was not stored.

#pragma once

#include "fs/tokens/token.h"

namespace mangrove::fs {

// A mapped file reads and writes as a buffered one does, but for kIo: there is no call whose end could release it.
constexpr TokenSet kMappedReadTokens{TokenClass::kCleanPages, TokenLevel::kRead};
constexpr TokenSet kMappedWriteTokens =
    TokenSet(TokenClass::kCleanPages, TokenLevel::kWrite) | TokenSet(TokenClass::kDirtyPages, TokenLevel::kWrite);
constexpr TokenSet kBufferedReadTokens = kMappedReadTokens | TokenSet(TokenClass::kIo, TokenLevel::kRead);
constexpr TokenSet kBufferedWriteTokens = kMappedWriteTokens | TokenSet(TokenClass::kIo, TokenLevel::kWrite);
constexpr TokenSet kDirectReadTokens =
    TokenSet(TokenClass::kCleanPages, TokenLevel::kSharedWrite) | TokenSet(TokenClass::kIo, TokenLevel::kRead);
constexpr TokenSet kDirectWriteTokens = kDirectReadTokens | TokenSet(TokenClass::kDirtyPages, TokenLevel::kSharedWrite);

// In this order.
struct BeforeReturn {
  bool flush = false;
  bool discard = false;
  friend constexpr bool operator==(BeforeReturn, BeforeReturn) = default;
};

// Shared write is the right to nothing in memory: direct reads and writes keep nothing there.
constexpr BeforeReturn WhatToDoBefore(TokenSet given_back) {
  const TokenLevel dirty = given_back.At(TokenClass::kDirtyPages);
  const TokenLevel clean = given_back.At(TokenClass::kCleanPages);
  const bool writes = dirty == TokenLevel::kWrite || clean == TokenLevel::kWrite;
  return {.flush = writes, .discard = writes || clean == TokenLevel::kRead};
}

}  // namespace mangrove::fs
