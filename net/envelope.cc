#include "net/envelope.h"

#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/crc32c.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

enum Offset : size_t {
  kMagicAt = 0,
  kKindAt = 4,
  kFlagsAt = 5,
  kChannelAt = 6,
  kZeroAt = 7,
  kEpochAt = 8,
  kSequenceAt = 16,
  kMessageBytesAt = 24,
  kPageCountAt = 28,
  kFirstSlotAt = 30,
  kSlotsReturnedAt = 32,
  kZero2At = 36,
  kZero3At = 40,
  kChecksumAt = 44,
};
static_assert(kChecksumAt + sizeof(uint32_t) == kEnvelopeBytes);

constexpr uint8_t kFlagInlinePages = 1;

bool IsKnown(Channel channel) { return static_cast<size_t>(channel) < kChannels; }

// Over the envelope before its checksum and the message behind it. Pages have checksums of their own in the store.
uint32_t Checksum(std::span<const std::byte> head) {
  return Crc32c(Crc32c(0, head.first(kChecksumAt)), head.subspan(kEnvelopeBytes));
}

template <typename A, typename B>
absl::Status Corrupt(const char* what, A value, const char* expected, B limit) {
  return absl::DataLossError(absl::StrCat("corrupt message: ", what, " is ", value, ", expected ", expected, limit));
}

absl::Status CheckBounds(const Envelope& e, size_t wire_bytes) {
  if (e.message_bytes > kMaxMessageBytes) {
    return Corrupt("message length", e.message_bytes, "at most ", kMaxMessageBytes);
  }
  if (e.page_count > kMaxMessagePages) return Corrupt("page count", e.page_count, "at most ", kMaxMessagePages);
  if (e.first_slot >= kPageSlots) return Corrupt("first slot", e.first_slot, "less than ", kPageSlots);
  const bool bare = e.kind == EnvelopeKind::kCredit;
  if (bare && e.message_bytes != 0) return Corrupt("message length of a credit", e.message_bytes, "", 0);
  if (bare && e.page_count != 0) return Corrupt("page count of a credit", e.page_count, "", 0);
  if (bare && e.channel != Channel::kPages) {
    return Corrupt("channel of a credit", static_cast<int>(e.channel), "", static_cast<int>(Channel::kPages));
  }
  if (e.inline_pages && e.page_count == 0) return Corrupt("inline page count", 0, "at least ", 1);
  const size_t expected = e.inline_pages ? InlinePagesOffset(e.message_bytes) + e.page_count * kPageBytes
                                         : kEnvelopeBytes + e.message_bytes;
  if (wire_bytes != expected) return Corrupt("length on the wire", wire_bytes, "", expected);
  return absl::OkStatus();
}

}  // namespace

void EncodeEnvelope(const Envelope& envelope, std::span<std::byte> head) {
  CHECK(head.size() == kEnvelopeBytes + envelope.message_bytes);
  CHECK(envelope.message_bytes <= kMaxMessageBytes && envelope.page_count <= kMaxMessagePages);
  CHECK(IsKnown(envelope.channel));
  CHECK(envelope.kind == EnvelopeKind::kMessage || envelope.channel == Channel::kPages);
  std::byte* to = head.data();
  StoreLittle<uint32_t>(to + kMagicAt, kEnvelopeMagic);
  StoreLittle<uint8_t>(to + kKindAt, static_cast<uint8_t>(envelope.kind));
  StoreLittle<uint8_t>(to + kFlagsAt, envelope.inline_pages ? kFlagInlinePages : 0);
  StoreLittle<uint8_t>(to + kChannelAt, static_cast<uint8_t>(envelope.channel));
  StoreLittle<uint8_t>(to + kZeroAt, 0);
  StoreLittle<uint64_t>(to + kEpochAt, envelope.epoch.value);
  StoreLittle<uint64_t>(to + kSequenceAt, envelope.sequence);
  StoreLittle<uint32_t>(to + kMessageBytesAt, envelope.message_bytes);
  StoreLittle<uint16_t>(to + kPageCountAt, envelope.page_count);
  StoreLittle<uint16_t>(to + kFirstSlotAt, envelope.first_slot);
  StoreLittle<uint32_t>(to + kSlotsReturnedAt, envelope.slots_returned);
  StoreLittle<uint32_t>(to + kZero2At, 0);
  StoreLittle<uint32_t>(to + kZero3At, 0);
  StoreLittle<uint32_t>(to + kChecksumAt, Checksum(head));
}

absl::StatusOr<ParsedMessage> ParseMessage(std::span<const std::byte> wire) {
  if (wire.size() < kEnvelopeBytes) return Corrupt("length on the wire", wire.size(), "at least ", kEnvelopeBytes);
  if (wire.size() > kMaxWireBytes) return Corrupt("length on the wire", wire.size(), "at most ", kMaxWireBytes);
  const std::byte* from = wire.data();
  const auto magic = LoadLittle<uint32_t>(from + kMagicAt);
  if (magic != kEnvelopeMagic) return Corrupt("magic", absl::Hex(magic), "", absl::Hex(kEnvelopeMagic));
  const auto kind = LoadLittle<uint8_t>(from + kKindAt);
  const auto flags = LoadLittle<uint8_t>(from + kFlagsAt);
  ParsedMessage parsed;
  Envelope& e = parsed.envelope;
  e.kind = static_cast<EnvelopeKind>(kind);
  e.inline_pages = (flags & kFlagInlinePages) != 0;
  e.channel = static_cast<Channel>(LoadLittle<uint8_t>(from + kChannelAt));
  e.epoch = Epoch(LoadLittle<uint64_t>(from + kEpochAt));
  e.sequence = LoadLittle<uint64_t>(from + kSequenceAt);
  e.message_bytes = LoadLittle<uint32_t>(from + kMessageBytesAt);
  e.page_count = LoadLittle<uint16_t>(from + kPageCountAt);
  e.first_slot = LoadLittle<uint16_t>(from + kFirstSlotAt);
  e.slots_returned = LoadLittle<uint32_t>(from + kSlotsReturnedAt);
  if (e.kind != EnvelopeKind::kMessage && e.kind != EnvelopeKind::kCredit) {
    return Corrupt("kind", static_cast<int>(kind), "", "1 or 2");
  }
  if ((flags & ~kFlagInlinePages) != 0) return Corrupt("flags", static_cast<int>(flags), "", "0 or 1");
  const uint64_t zeros = LoadLittle<uint8_t>(from + kZeroAt) | LoadLittle<uint32_t>(from + kZero2At) |
                         LoadLittle<uint32_t>(from + kZero3At);
  if (zeros != 0) return Corrupt("a reserved field", zeros, "", 0);
  if (absl::Status status = CheckBounds(e, wire.size()); !status.ok()) return status;
  const std::span<const std::byte> head = wire.first(kEnvelopeBytes + e.message_bytes);
  const uint32_t checksum = Checksum(head);
  const auto claimed = LoadLittle<uint32_t>(from + kChecksumAt);
  if (checksum != claimed) return Corrupt("checksum", absl::Hex(claimed), "", absl::Hex(checksum));
  // After the checksum: a changed bit is not taken for a peer that knows more channels.
  if (!IsKnown(e.channel)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad message: channel is ", static_cast<int>(e.channel), ", expected less than ", kChannels));
  }
  parsed.message = head.subspan(kEnvelopeBytes);
  if (e.inline_pages) parsed.inline_pages = wire.subspan(InlinePagesOffset(e.message_bytes));
  return parsed;
}

}  // namespace mangrove
