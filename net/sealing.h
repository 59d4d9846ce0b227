// How what goes from one node to another is kept from being changed, and where that is wanted from being read, on its way:
// AES-256-GCM, in one direction of a connection, message by message. Pure.
//
//  S1  What is sealed under a number opens under that number alone, in the same direction of the same connection, if not a
//      bit of it has changed. So nothing can be repeated, left out, put in another order or sent back.
//  S2  Two things that are sealed under one number must not both be sent. (Whoever found the queue full may seal anew.)
//  S3  What was passed through a kOpen one must not be used before Verify has said yes.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"

namespace mangrove {

// On the wire: numbers keep their meaning. Both sides of a connection must want the same.
enum class Security : uint8_t {
  kAuthenticated = 1,  // Everything can be read, and nothing can be changed: GMAC, which is GCM without a text.
  kEncrypted = 2,      // Besides, nothing can be read but the envelopes.
};
const char* Name(Security security);

constexpr size_t kTagBytes = 16;
using Tag = std::array<std::byte, kTagBytes>;

struct SealSecret {
  std::array<std::byte, 32> key{};
  std::array<std::byte, 12> iv{};  // The last 8 bytes are combined with the number, as TLS 1.3 does.
};

// One direction of a connection, at one of its ends. Thread-compatible.
class Sealer {
 public:
  enum class Role : uint8_t { kSeal, kOpen };
  // FailedPrecondition: this processor cannot do it, and no Sealer is to be made.
  static absl::Status CheckWorksHere();
  Sealer(Security security, Role role, const SealSecret& secret);
  ~Sealer();
  Sealer(Sealer&&) noexcept;
  Sealer& operator=(Sealer&&) noexcept;

  // What is sealed or opened under `number` begins, with `clear`, which is covered and never encrypted.
  void Begin(uint64_t number, std::span<const std::byte> clear);
  // The next part. Encrypted: its other form is written to `to`, which may be `from`, and must not overlap it otherwise.
  // Authenticated: `to` is left alone.
  void Pass(std::span<const std::byte> from, std::byte* to);
  // The end. REQUIRES: kSeal.
  Tag Finish();
  // The end, and whether it is as it was sealed. In constant time. REQUIRES: kOpen.
  bool Verify(std::span<const std::byte, kTagBytes> tag);

 private:
  struct Machine;
  Tag End();

  std::array<std::byte, 12> iv_;
  std::unique_ptr<Machine> machine_;
};

}  // namespace mangrove
