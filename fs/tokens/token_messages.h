// What the clients of a fileset's tokens and their server say to each other, and the bytes of it.
//
// Invariants:
//   T7 A message is at most kMaxTokenMessageBytes long. What is too long, too short, or has bits that mean nothing is refused.
//   T8 A message counts only in the view that it was sent in.

#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "fs/tokens/token.h"
#include "net/ids.h"

namespace mangrove::fs {

constexpr size_t kMaxTokenMessageBytes = 16384;

enum class TokenMessageKind : uint8_t {
  // To the server.
  kRequest = 0,  // `set` is wanted.
  kCancel,       // What was asked for by request `number` is wanted no more.
  kReturn,       // `set` is what is left; `grant` the newest that was seen.
  kRefuse,       // The conditional recall `number`: in use.
  kLend,  // A change that needs `set`, for which `lent` is lent, with its values; begun in the view of `grant`; `pins`: it passes who waits. With `flag`: not to be begun.
  kRegister,  // All that is held, in parts.
  // From the server.
  kGrant,        // `set` is all that is held now; `number` the last return that was taken.
  kRecall,       // What conflicts with `set` is to be given back. With `flag`: only if it is not in use.
  kAck,          // Of return `number`. With `flag`: it crossed `grant`, so its levels count for nothing.
  kGiveBack,     // Change `number` has ended; the values that it left. With `flag`: without having been made.
  kRegisterAsk,  // Says all that it holds.
};
constexpr int kTokenMessageKinds = 11;

// The order in which a server has granted: views grow, and its own count within them.
struct TokenNumber {
  uint64_t view = 0;
  uint64_t count = 0;
  friend constexpr auto operator<=>(const TokenNumber&, const TokenNumber&) = default;
};

// Nanoseconds since 1970.
struct TokenTimes {
  int64_t access = 0;
  int64_t modify = 0;
  int64_t change = 0;
  void Merge(const TokenTimes& other) {
    access = std::max(access, other.access);
    modify = std::max(modify, other.modify);
    change = std::max(change, other.change);
  }
  friend bool operator==(const TokenTimes&, const TokenTimes&) = default;
};

// About one object. Which fields a kind has: FieldsOf.
struct TokenEntry {
  TokenObject object;
  TokenSet set;
  TokenSet lent;
  uint64_t number = 0;
  TokenNumber grant;
  bool flag = false;
  bool pins = false;  // The operation whose change this is uses tokens.
  std::optional<TokenTimes> times = {};
  TokenNumber times_set = {};  // When they were last set to what is not a later moment; only beside them.
  std::optional<uint64_t> size = {};
  TokenNumber size_grant = {};  // Under which the size was written; only beside one.
  friend bool operator==(const TokenEntry&, const TokenEntry&) = default;
};

struct TokenMessage {
  TokenMessageKind kind = TokenMessageKind::kRequest;
  Epoch view;
  // Of a registration: this is part `part` of `parts`.
  uint32_t part = 0;
  uint32_t parts = 1;
  std::vector<TokenEntry> entries;
  friend bool operator==(const TokenMessage&, const TokenMessage&) = default;
};

struct TokenSend {
  NodeInstance to;
  TokenMessage message;
};

// How many entries of a kind are in a message at most.
size_t MaxTokenEntries(TokenMessageKind kind);

// REQUIRES: no more entries than MaxTokenEntries.
std::string EncodeTokenMessage(const TokenMessage& message);
// InvalidArgument: nobody has sent that.
absl::StatusOr<TokenMessage> DecodeTokenMessage(std::string_view bytes);

// In as many messages as they need, in their order.
void PackTokenEntries(TokenMessageKind kind, Epoch view, NodeInstance to, std::vector<TokenEntry> entries,
                      std::vector<TokenSend>& out);

}  // namespace mangrove::fs
