// Tokens: rights to keep what belongs to an inode in a node's memory, by class of what is kept.
//
// A level is two bits, so that a set of all classes is one word and each question about sets is a few operations on it:
// read and shared write are a bit each, and write is both.
//
// Invariants:
//   T1 Two holders of a class agree if both read or both share writing, and not otherwise: two different levels
//      conflict, and so do two writes.
//   T2 Write covers read and shared write. What covers both of these is write: so who reads and wants to share writing
//      too becomes the only holder.
//   T3 If a covers b, then whatever conflicts with b conflicts with a.
//   T4 Where tokens of several classes are waited for one after another, it is in the order of TokenClass.

#pragma once

#include <bit>
#include <compare>
#include <cstdint>

namespace mangrove::fs {

enum class TokenClass : uint8_t {
  kExistence = 0,  // The inode is referred to here: it is not to be freed.
  kIoExclusivity,  // Who does I/O knows whether it alone does.
  kIo,             // A buffered read comes before or after a write, never during one.
  kDirtyPages,     // Changed data may be in memory.
  kCleanPages,     // Unchanged data may be in memory.
  kName,           // What was looked up in a directory may be remembered, and that it was not there.
  kAttributes,     // Owner, mode, extended attributes.
  kTimes,
  kSize,  // And the number of blocks in use.
  kExtents,
  kEventMask,  // Of data management.
};
constexpr int kTokenClasses = 11;

enum class TokenLevel : uint8_t { kNone = 0, kRead = 1, kSharedWrite = 2, kWrite = 3 };

constexpr bool Conflicts(TokenLevel a, TokenLevel b) {
  return a != TokenLevel::kNone && b != TokenLevel::kNone && (a != b || a == TokenLevel::kWrite);
}

// A level of each class.
class TokenSet {
 public:
  constexpr TokenSet() = default;
  constexpr TokenSet(TokenClass of, TokenLevel level) : bits_(uint32_t(level) << Shift(of)) {}

  constexpr TokenLevel At(TokenClass of) const { return TokenLevel(bits_ >> Shift(of) & 3); }
  constexpr bool Empty() const { return bits_ == 0; }
  // In a message. FromBits takes no more than the bits that there are: see ValidBits.
  constexpr uint32_t Bits() const { return bits_; }
  static constexpr bool ValidBits(uint32_t bits) { return (bits & ~(kReads | kShared)) == 0; }
  static constexpr TokenSet FromBits(uint32_t bits) { return TokenSet(bits & (kReads | kShared)); }

  // The least set that covers both.
  friend constexpr TokenSet operator|(TokenSet a, TokenSet b) { return TokenSet(a.bits_ | b.bits_); }
  constexpr TokenSet& operator|=(TokenSet other) { return *this = *this | other; }

  constexpr bool Covers(TokenSet other) const { return (bits_ & other.bits_) == other.bits_; }

  // The part of this, class by class, that conflicts with `other`: what its holder has to give back.
  constexpr TokenSet ConflictWith(TokenSet other) const {
    const uint32_t differ = Classes(bits_ ^ other.bits_);
    const uint32_t write = bits_ & bits_ >> 1 & kReads;
    return Of(Classes(bits_) & Classes(other.bits_) & (differ | write));
  }
  constexpr bool ConflictsWith(TokenSet other) const { return !ConflictWith(other).Empty(); }

  // That all its classes come before those of `other`, in the order of TokenClass.
  constexpr bool AllBefore(TokenSet other) const { return int(std::bit_width(bits_)) <= 2 * other.First(); }
  constexpr int First() const { return std::countr_zero(bits_) / 2; }

  // This without the classes in which `other` has a level, whatever level.
  constexpr TokenSet Without(TokenSet other) const { return Of(Classes(bits_) & ~Classes(other.bits_)); }
  // This in the classes in which `other` has a level.
  constexpr TokenSet In(TokenSet other) const { return Of(Classes(bits_) & Classes(other.bits_)); }

  friend constexpr bool operator==(TokenSet, TokenSet) = default;

 private:
  static constexpr uint32_t kReads = 0x155555;  // The lower bit of each class.
  static constexpr uint32_t kShared = kReads << 1;

  constexpr explicit TokenSet(uint32_t bits) : bits_(bits) {}
  static constexpr int Shift(TokenClass of) { return 2 * int(of); }
  // The lower bit of each class that has a level.
  static constexpr uint32_t Classes(uint32_t bits) { return (bits | bits >> 1) & kReads; }
  constexpr TokenSet Of(uint32_t classes) const { return TokenSet(bits_ & classes * 3); }

  uint32_t bits_ = 0;
};

// What tokens are of. A number that is used again has another generation: its tokens have nothing to do with the old.
struct TokenObject {
  uint64_t inode = 0;
  uint64_t generation = 0;
  friend constexpr auto operator<=>(const TokenObject&, const TokenObject&) = default;
};

}  // namespace mangrove::fs
