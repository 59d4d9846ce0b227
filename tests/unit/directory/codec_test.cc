#include "directory/codec.h"

#include <capnp/any.h>
#include <capnp/message.h>
#include <capnp/schema.h>
#include <capnp/serialize.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "directory/messages.capnp.h"
#include "net/transport.h"
#include "tests/unit/directory/codec_expect.h"

namespace mangrove {
namespace {

using ::testing::HasSubstr;

void ExpectRoundTrip(const Message& message) {
  const auto decoded = DecodePacket(EncodeOne(message));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->size(), 1u);
  ExpectEqual(decoded->at(0), message);
}

void ExpectRefused(const absl::StatusOr<std::vector<Message>>& decoded, const std::string& text) {
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(decoded.status().message(), HasSubstr(text));
}

// Where the fields of the only message of a packet without text begin.
constexpr size_t kFirstMessageByte = 4 * 8;

// Changes one field of the only message by the library's own means.
template <typename Change>
Packet Changed(const Message& message, Change change) {
  Packet packet = EncodeOne(message);
  const size_t words = packet.bytes.size() / 8;
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(reinterpret_cast<const capnp::word*>(packet.bytes.data()), words));
  capnp::MallocMessageBuilder builder;
  builder.setRoot(reader.getRoot<wire::Packet>());
  change(builder.getRoot<wire::Packet>().getMessages()[0]);
  const auto flat = capnp::messageToFlatArray(builder);
  const auto bytes = flat.asBytes();
  const auto* start = reinterpret_cast<const std::byte*>(bytes.begin());
  packet.bytes.assign(start, start + bytes.size());
  return packet;
}

// --- Round trips ------------------------------------------------------------------------------------------------------

TEST(Codec, EveryKindHasTheSchemasName) {
  const auto enumerants = capnp::Schema::from<wire::Kind>().getEnumerants();
  ASSERT_EQ(enumerants.size(), static_cast<unsigned>(kMessageKinds));
  for (const auto enumerant : enumerants) {
    std::string name = enumerant.getProto().getName().cStr();
    name[0] = static_cast<char>(std::toupper(name[0]));
    EXPECT_EQ(name, Name(static_cast<MessageKind>(enumerant.getOrdinal())));
  }
}

TEST(Codec, EveryKindIsReadBack) {
  for (int kind = 0; kind < kMessageKinds; ++kind) ExpectRoundTrip(Small(static_cast<MessageKind>(kind)));
}

TEST(Codec, AMessageOfDefaultsIsReadBack) {
  Message m;
  m.kind = MessageKind::kRegisterRequest;
  ExpectRoundTrip(m);
}

TEST(Codec, AllFieldsAtOnceAreReadBack) { ExpectRoundTrip(Full()); }

TEST(Codec, EachFieldAloneIsReadBack) {
  const Message full = Full();
  const std::vector<void (*)(Message&, const Message&)> fields = {
      [](Message& m, const Message& f) { m.page = f.page; },
      [](Message& m, const Message& f) { m.count = f.count; },
      [](Message& m, const Message& f) { m.txn = f.txn; },
      [](Message& m, const Message& f) { m.request = f.request; },
      [](Message& m, const Message& f) { m.peer.node = f.peer.node; },
      [](Message& m, const Message& f) { m.peer.incarnation = f.peer.incarnation; },
      [](Message& m, const Message& f) { m.access = f.access; },
      [](Message& m, const Message& f) { m.holding = f.holding; },
      [](Message& m, const Message& f) { m.version.epoch = f.version.epoch; },
      [](Message& m, const Message& f) { m.version.counter = f.version.counter; },
      [](Message& m, const Message& f) { m.flushed.epoch = f.flushed.epoch; },
      [](Message& m, const Message& f) { m.flushed.counter = f.flushed.counter; },
      [](Message& m, const Message& f) { m.grant_epoch = f.grant_epoch; },
      [](Message& m, const Message& f) { m.config = f.config; },
      [](Message& m, const Message& f) { m.replicas = f.replicas; },
      [](Message& m, const Message&) { m.active = true; },
      [](Message& m, const Message&) { m.have = true; },
      [](Message& m, const Message&) { m.exclusive = true; },
      [](Message& m, const Message&) { m.owner = true; },
      [](Message& m, const Message&) { m.retain = true; },
      [](Message& m, const Message&) { m.kept = true; },
      [](Message& m, const Message&) { m.seal = true; },
      [](Message& m, const Message&) { m.complete = true; },
      [](Message& m, const Message&) { m.with_data = true; },
      [](Message& m, const Message&) { m.is_volatile = true; },
      [](Message& m, const Message&) { m.hurry = true; },
      [](Message& m, const Message&) { m.code = absl::StatusCode::kAborted; },
      [](Message& m, const Message& f) { m.SetStatus(f.status()); },
      [](Message& m, const Message& f) { m.data = f.data; },
  };
  for (const auto& set : fields) {
    Message m = Small();
    set(m, full);
    ExpectRoundTrip(m);
  }
}

TEST(Codec, EveryStatusCodeIsReadBack) {
  for (int code = 1; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    Message m = Small();
    m.SetStatus(absl::Status(static_cast<absl::StatusCode>(code), "text"));
    ExpectRoundTrip(m);
  }
}

TEST(Codec, MessagesKeepTheirOrderAndTheirPages) {
  std::vector<Message> messages;
  for (int i = 0; i < 20; ++i) messages.push_back(i % 3 == 0 ? Full(i) : Small(static_cast<MessageKind>(i)));
  const auto packets = EncodeAll(messages);
  ASSERT_EQ(packets.size(), 1u);
  const auto decoded = DecodePacket(packets[0]);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->size(), messages.size());
  for (size_t i = 0; i < messages.size(); ++i) ExpectEqual(decoded->at(i), messages[i]);
}

TEST(Codec, NoMessagesGiveNoPacket) { EXPECT_TRUE(EncodeAll({}).empty()); }

TEST(Codec, TextOfASuccessIsNotSent) {
  Message m = Small();
  m.text = "nothing";
  const auto decoded = DecodePacket(EncodeOne(m));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->at(0).text, "");
}

TEST(Codec, LongTextIsCutAtTwoHundredBytes) {
  Message m = Small();
  m.SetStatus(absl::InternalError(std::string(200, 'x')));
  ExpectRoundTrip(m);
  m.text = std::string(100'000, 'x');
  const auto decoded = DecodePacket(EncodeOne(m));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->at(0).text, std::string(200, 'x'));
}

TEST(Codec, TextIsCutBetweenCharacters) {
  Message m = Small();
  m.SetStatus(absl::InternalError(std::string(199, 'x') + "\xc3\xa4\xc3\xa4"));  // The 200th byte begins a letter.
  const auto decoded = DecodePacket(EncodeOne(m));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->at(0).text, std::string(199, 'x'));
}

TEST(Codec, TextMayHoldAnyBytes) {
  Message m = Small();
  m.SetStatus(absl::InternalError(std::string("a\0b\xff", 4)));
  ExpectRoundTrip(m);
  m.text = std::string(300, '\x80');
  const auto decoded = DecodePacket(EncodeOne(m));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->at(0).text, std::string(200, '\x80'));
}

TEST(Codec, UnalignedBytesAreRead) {
  const Packet packet = EncodeOne(Full());
  for (size_t shift = 1; shift < 8; ++shift) {
    std::vector<std::byte> moved(shift);
    moved.insert(moved.end(), packet.bytes.begin(), packet.bytes.end());
    const auto decoded = Decode(std::span(moved).subspan(shift), PointersTo(packet.pages));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ExpectEqual(decoded->at(0), Full());
  }
}

TEST(Codec, DecodedPagesAreCopies) {
  Packet packet = EncodeOne(Full());
  auto page = std::make_unique<PageBytes>(*packet.pages[0]);
  const std::byte* const pointer = page->bytes.data();
  const auto decoded = Decode(packet.bytes, std::span(&pointer, 1));
  page.reset();
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ExpectEqual(decoded->at(0), Full());
}

// --- Splitting --------------------------------------------------------------------------------------------------------

void ExpectAllWithinLimits(const std::vector<Packet>& packets, const std::vector<Message>& messages) {
  size_t next = 0;
  for (const Packet& packet : packets) {
    EXPECT_LE(packet.bytes.size(), kMaxMessageBytes);
    EXPECT_LE(packet.pages.size(), kMaxMessagePages);
    const auto decoded = DecodePacket(packet);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    for (const Message& m : *decoded) ExpectEqual(m, messages.at(next++));
  }
  EXPECT_EQ(next, messages.size());
}

TEST(Codec, SplitsAtTwelveKilobytes) {
  const size_t fit = (kMaxMessageBytes - kFirstMessageByte) / 128;
  std::vector<Message> messages(fit, Small());
  EXPECT_EQ(EncodeAll(messages).size(), 1u);
  messages.push_back(Small(MessageKind::kCancel));
  const auto packets = EncodeAll(messages);
  ASSERT_EQ(packets.size(), 2u);
  ExpectAllWithinLimits(packets, messages);
}

TEST(Codec, SplitsAtSixtyFourPages) {
  std::vector<Message> messages;
  for (int i = 0; i < 64; ++i) messages.push_back(Full(i));
  for (Message& m : messages) m.SetStatus(absl::OkStatus());
  messages.push_back(Small());
  EXPECT_EQ(EncodeAll(messages).size(), 1u);
  messages.push_back(Full());
  const auto packets = EncodeAll(messages);
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].pages.size(), 64u);
  ExpectAllWithinLimits(packets, messages);
}

TEST(Codec, SplitsTextsOfAllLengthsWithinLimits) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<Message> messages;
    for (size_t i = 0; i < random() % 400; ++i) {
      messages.push_back(random() % 4 == 0 ? Full(static_cast<int>(i)) : Small());
      if (random() % 2) messages.back().SetStatus(absl::AbortedError(std::string(random() % 201, 'y')));
    }
    ExpectAllWithinLimits(EncodeAll(messages), messages);
  }
}

TEST(Codec, FewMessagesTakeLittleRoom) {
  EXPECT_EQ(EncodeOne(Small()).bytes.size(), 160u);
  EXPECT_EQ(EncodeAll({Small(), Small()}).at(0).bytes.size(), 288u);
}

// --- What is refused --------------------------------------------------------------------------------------------------

TEST(Codec, UnknownKindIsRefused) {
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setKind(static_cast<wire::Kind>(kMessageKinds)); })),
                "entry 0 is of the unknown kind " + std::to_string(kMessageKinds));
}

TEST(Codec, UnknownAccessHoldingAndCodeAreRefused) {
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setAccess(static_cast<wire::Access>(3)); })),
                "GrantAck (entry 0) has the unknown access 3");
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setHolding(static_cast<wire::Holding>(4)); })),
                "unknown holding 4");
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setCode(17); })), "unknown status code 17");
}

TEST(Codec, PageZeroIsRefusedWhereAPageIsNamed) {
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setPageLow(0); })), "names page 0");
}

TEST(Codec, RangesThatLeaveTheSpaceAreRefused) {
  Message last = Small();
  last.page = PageId(kSpacePages - 1);
  ExpectRoundTrip(last);
  last.count = 2;
  ExpectRefused(DecodePacket(EncodeOne(last)), "names 2 pages from 0xffffffffffffffff_fffffffffffff000 on");
  last.page = PageId(kSpacePages);
  last.count = 0;
  ExpectRefused(DecodePacket(EncodeOne(last)), "leave the address space");
  last.page = PageId(absl::Uint128Max());
  last.count = UINT64_MAX;
  ExpectRefused(DecodePacket(EncodeOne(last)), "leave the address space");
}

TEST(Codec, RangesWhosePagesAreLookedAtAreOfOneSegmentAtMost) {
  for (const MessageKind kind :
       {MessageKind::kRequest, MessageKind::kFlush, MessageKind::kReverted, MessageKind::kLost}) {
    Message m = Small(kind);
    m.count = kSegmentPages;
    ExpectRoundTrip(m);
    m.count = kSegmentPages + 1;
    ExpectRefused(DecodePacket(EncodeOne(m)), "is about 513 pages, expected 1 to 512");
    m.count = 0;
    ExpectRefused(DecodePacket(EncodeOne(m)), "is about 0 pages, expected 1 to 512");
  }
}

TEST(Codec, BadPageIndexIsRefused) {
  const Packet packet = Changed(Full(), [](auto m) { m.setData(2); });
  ExpectRefused(DecodePacket(packet), "names page 2 of 1 that came with it");
  ExpectRefused(Decode(EncodeOne(Full()).bytes, {}), "names page 1 of 0");
}

TEST(Codec, PagesThatNobodyNamesAreRefused) {
  Packet packet = EncodeOne(Small());
  packet.pages.push_back(MakePage(1));
  ExpectRefused(DecodePacket(packet), "1 pages came with it, and it names 0");
}

TEST(Codec, APageNamedTwiceIsRefused) {
  Packet packet = EncodeAll({Full(1), Full(2)}).at(0);
  // The data index is the byte beside the status code of the second message.
  const Packet one = EncodeOne(Small());
  const Packet marked = Changed(Small(), [](auto m) { m.setData(0xff); });
  size_t offset = 0;
  while (one.bytes[offset] == marked.bytes[offset]) ++offset;
  packet.bytes[offset + 128] = std::byte{1};
  ExpectRefused(DecodePacket(packet), "(entry 1) names page 1 a second time");
}

TEST(Codec, TooManyPagesAreRefused) {
  Packet packet = EncodeOne(Small());
  packet.pages.assign(kMaxMessagePages + 1, MakePage(1));
  ExpectRefused(DecodePacket(packet), "65 pages came with it");
}

TEST(Codec, TextWithoutAnErrorAndTextTooLongAreRefused) {
  ExpectRefused(DecodePacket(Changed(Small(), [](auto m) { m.setText("well"); })), "text but no error");
  const std::string text(201, 'x');
  ExpectRefused(DecodePacket(Changed(Full(), [&](auto m) { m.setText(text.c_str()); })), "201 bytes, more than 200");
}

TEST(Codec, BadSizesAreRefused) {
  Packet packet = EncodeOne(Small());
  ExpectRefused(Decode({}, {}), "0 bytes");
  packet.bytes.push_back(std::byte{0});
  ExpectRefused(DecodePacket(packet), "not a multiple of 8");
  packet.bytes.resize(packet.bytes.size() + 7);
  ExpectRefused(DecodePacket(packet), "1 words after its end");
  packet.bytes.resize(kMaxMessageBytes + 8);
  ExpectRefused(DecodePacket(packet), "12296 bytes, more than 12288");
}

TEST(Codec, SeveralSegmentsAreRefused) {
  Packet packet = EncodeOne(Small());
  packet.bytes[0] = std::byte{1};
  ExpectRefused(DecodePacket(packet), "2 segments instead of 1");
  std::memset(packet.bytes.data(), 0xff, 4);
  ExpectRefused(DecodePacket(packet), "4294967296 segments");
}

TEST(Codec, AListOfSmallerElementsIsRefused) {
  // A list of small integers, which the library would read as a list of structs: 256 messages out of 64 words.
  capnp::MallocMessageBuilder builder;
  auto root = builder.initRoot<capnp::AnyPointer>().initAsAnyStruct(0, 1);
  root.getPointerSection()[0].initAs<capnp::List<uint16_t>>(256);
  const auto flat = capnp::messageToFlatArray(builder);
  const auto bytes = flat.asBytes();
  ExpectRefused(Decode(std::span(reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()), {}), "256 entries");
}

TEST(Codec, EveryTruncationIsRefused) {
  Message with_text = Full(2);
  with_text.text = std::string(200, 'z');
  const Packet packet = EncodeAll({Full(1), with_text, Small()}).at(0);
  const auto pages = PointersTo(packet.pages);
  for (size_t length = 0; length < packet.bytes.size(); ++length) {
    const auto decoded = Decode(std::span(packet.bytes).first(length), pages);
    ASSERT_FALSE(decoded.ok()) << length;
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(decoded.status().message(), HasSubstr("bad message: "));
  }
}

}  // namespace
}  // namespace mangrove
