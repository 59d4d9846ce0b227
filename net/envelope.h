// The fixed head of every message between two nodes that have proved themselves to each other, its seal, and its total
// parser. Byte by byte in docs/NET.md.
//
// A message on the wire is: the envelope with its tag, the message, then, if the pages are inline, zeros up to the next
// multiple of kInlineAlignment and the pages; if they are in the receiver's slots, where they were written before the
// message arrives, the tag over them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/ids.h"
#include "net/page_buffer.h"
#include "net/sealing.h"
#include "net/transport.h"

namespace mangrove {

constexpr uint32_t kEnvelopeMagic = 0x3245474D;  // "MGE2" in memory.
constexpr size_t kEnvelopeBytes = 48;
constexpr size_t kTagAt = kEnvelopeBytes - kTagBytes;
constexpr size_t kInlineAlignment = 64;
// The longest message with everything: what a receive buffer holds.
constexpr size_t kMaxWireBytes = 16 * 1024;
// Page slots that each side of a connection has for the other.
constexpr uint32_t kPageSlots = 128;

enum class EnvelopeKind : uint8_t {
  kMessage = 1,
  kCredit = 2,    // Only returns slots.
  kQuestion = 3,  // A credit that asks for one. Level 2 of Subsystem::kNet.
};

struct Envelope {
  EnvelopeKind kind = EnvelopeKind::kMessage;
  bool inline_pages = false;
  Channel channel = Channel::kPages;  // kPages in a credit or a question, which are for no channel.
  Epoch epoch;
  uint32_t message_bytes = 0;
  uint16_t page_count = 0;
  uint16_t first_slot = 0;      // The pages are in the slots from here on, modulo kPageSlots.
  uint32_t slots_returned = 0;  // By the sender of this envelope, since the connection began, modulo 2^32.
  uint32_t number = 0;          // Lower half of that under which it is sealed.

  bool pages_in_slots() const { return page_count > 0 && !inline_pages; }
  friend bool operator==(const Envelope&, const Envelope&) = default;
};

// A message that was received, in place.
struct ParsedMessage {
  Envelope envelope;
  std::span<const std::byte> message;
  std::span<const std::byte> inline_pages;  // page_count * kPageBytes if they are inline, else empty.
  std::span<const std::byte> slots_tag;     // kTagBytes if pages are in slots, else empty.
};

// Bytes of envelope and message, up to where inline pages begin.
constexpr size_t InlinePagesOffset(size_t message_bytes) {
  return (kEnvelopeBytes + message_bytes + kInlineAlignment - 1) / kInlineAlignment * kInlineAlignment;
}
// Bytes of everything before inline pages.
constexpr size_t HeadBytes(const Envelope& e) {
  return e.inline_pages ? InlinePagesOffset(e.message_bytes)
                        : kEnvelopeBytes + e.message_bytes + (e.pages_in_slots() ? kTagBytes : 0);
}

// Writes the envelope, without its tag.
void EncodeEnvelope(const Envelope& envelope, std::span<std::byte, kEnvelopeBytes> to);

// Seals a whole message in place: all of `wire` behind the envelope, and the envelope, which gets its tag.
void SealMessage(Sealer& sealer, uint64_t number, std::span<std::byte> wire);
// DataLoss: it is not what was sealed under `number`. Nothing of it was looked at but for the error's text.
absl::Status OpenMessage(Sealer& opener, uint64_t number, std::span<std::byte> wire);

// What is wrong with `wire`, which has been opened, or what it holds. Every bound that the rest of the receiver relies on is
// checked here. DataLoss: it is not what a peer of ours can have sent. InvalidArgument: it is sound, but on a channel that
// we do not know.
absl::StatusOr<ParsedMessage> ParseMessage(std::span<const std::byte> wire);

}  // namespace mangrove
