#include "net/envelope.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "net/check.h"
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
  kMessageBytesAt = 16,
  kPageCountAt = 20,
  kFirstSlotAt = 22,
  kSlotsReturnedAt = 24,
  kNumberAt = 28,
};
static_assert(kNumberAt + sizeof(uint32_t) == kTagAt);

constexpr uint8_t kFlagInlinePages = 1;

bool IsKnown(Channel channel) { return static_cast<size_t>(channel) < kChannels; }

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
  const bool bare = e.kind != EnvelopeKind::kMessage;
  if (bare && e.message_bytes != 0) return Corrupt("message length of a credit", e.message_bytes, "", 0);
  if (bare && e.page_count != 0) return Corrupt("page count of a credit", e.page_count, "", 0);
  if (bare && e.channel != Channel::kPages) {
    return Corrupt("channel of a credit", static_cast<int>(e.channel), "", static_cast<int>(Channel::kPages));
  }
  if (e.inline_pages && e.page_count == 0) return Corrupt("inline page count", 0, "at least ", 1);
  const size_t expected = HeadBytes(e) + (e.inline_pages ? e.page_count * kPageBytes : 0);
  if (wire_bytes != expected) return Corrupt("length on the wire", wire_bytes, "", expected);
  return absl::OkStatus();
}

}  // namespace

void EncodeEnvelope(const Envelope& envelope, std::span<std::byte, kEnvelopeBytes> to) {
  CHECK(envelope.message_bytes <= kMaxMessageBytes && envelope.page_count <= kMaxMessagePages);
  CHECK(IsKnown(envelope.channel));
  CHECK(envelope.kind == EnvelopeKind::kMessage || envelope.channel == Channel::kPages);
  std::byte* at = to.data();
  StoreLittle<uint32_t>(at + kMagicAt, kEnvelopeMagic);
  StoreLittle<uint8_t>(at + kKindAt, static_cast<uint8_t>(envelope.kind));
  StoreLittle<uint8_t>(at + kFlagsAt, envelope.inline_pages ? kFlagInlinePages : 0);
  StoreLittle<uint8_t>(at + kChannelAt, static_cast<uint8_t>(envelope.channel));
  StoreLittle<uint8_t>(at + kZeroAt, 0);
  StoreLittle<uint64_t>(at + kEpochAt, envelope.epoch.value);
  StoreLittle<uint32_t>(at + kMessageBytesAt, envelope.message_bytes);
  StoreLittle<uint16_t>(at + kPageCountAt, envelope.page_count);
  StoreLittle<uint16_t>(at + kFirstSlotAt, envelope.first_slot);
  StoreLittle<uint32_t>(at + kSlotsReturnedAt, envelope.slots_returned);
  StoreLittle<uint32_t>(at + kNumberAt, envelope.number);
}

void SealMessage(Sealer& sealer, uint64_t number, std::span<std::byte> wire) {
  CHECK(wire.size() >= kEnvelopeBytes);
  sealer.Begin(number, wire.first(kTagAt));
  const std::span<std::byte> body = wire.subspan(kEnvelopeBytes);
  sealer.Pass(body, body.data());
  const Tag tag = sealer.Finish();
  std::copy(tag.begin(), tag.end(), wire.data() + kTagAt);
}

absl::Status OpenMessage(Sealer& opener, uint64_t number, std::span<std::byte> wire) {
  if (wire.size() < kEnvelopeBytes) return Corrupt("length on the wire", wire.size(), "at least ", kEnvelopeBytes);
  if (wire.size() > kMaxWireBytes) return Corrupt("length on the wire", wire.size(), "at most ", kMaxWireBytes);
  opener.Begin(number, wire.first(kTagAt));
  const std::span<std::byte> body = wire.subspan(kEnvelopeBytes);
  opener.Pass(body, body.data());
  if (opener.Verify(wire.subspan<kTagAt, kTagBytes>())) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("corrupt message: the tag does not fit message ", number,
                                          " of its connection; it says that it is number ",
                                          LoadLittle<uint32_t>(wire.data() + kNumberAt)));
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
  e.message_bytes = LoadLittle<uint32_t>(from + kMessageBytesAt);
  e.page_count = LoadLittle<uint16_t>(from + kPageCountAt);
  e.first_slot = LoadLittle<uint16_t>(from + kFirstSlotAt);
  e.slots_returned = LoadLittle<uint32_t>(from + kSlotsReturnedAt);
  e.number = LoadLittle<uint32_t>(from + kNumberAt);
  if (kind < static_cast<uint8_t>(EnvelopeKind::kMessage) || kind > static_cast<uint8_t>(EnvelopeKind::kQuestion)) {
    return Corrupt("kind", static_cast<int>(kind), "", "1 to 3");
  }
  if ((flags & ~kFlagInlinePages) != 0) return Corrupt("flags", static_cast<int>(flags), "", "0 or 1");
  const auto zero = LoadLittle<uint8_t>(from + kZeroAt);
  if (zero != 0) return Corrupt("a reserved field", static_cast<int>(zero), "", 0);
  if (absl::Status status = CheckBounds(e, wire.size()); !status.ok()) return status;
  if (!IsKnown(e.channel)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad message: channel is ", static_cast<int>(e.channel), ", expected less than ", kChannels));
  }
  parsed.message = wire.subspan(kEnvelopeBytes, e.message_bytes);
  if (e.inline_pages) parsed.inline_pages = wire.subspan(InlinePagesOffset(e.message_bytes));
  if (e.pages_in_slots()) parsed.slots_tag = wire.last(kTagBytes);
  return parsed;
}

}  // namespace mangrove
