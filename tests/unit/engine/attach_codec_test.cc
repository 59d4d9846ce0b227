#include "engine/attach/attach_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace mangrove {
namespace {

// Whole words, as a packet's buffer is.
absl::StatusOr<AttachRequest> Decoded(const AttachBytes& bytes) { return DecodeRequest(bytes); }

template <typename Call>
Call RoundTrip(const Call& call) {
  const auto request = Decoded(EncodeRequest({.id = 77, .timeout_ms = 1234, .call = call}));
  EXPECT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->id, 77u);
  EXPECT_EQ(request->timeout_ms, 1234u);
  EXPECT_TRUE(std::holds_alternative<Call>(request->call));
  return std::get<Call>(request->call);
}

template <typename Result>
Result RoundTripResult(const Result& result) {
  const auto reply = DecodeReply(EncodeReply({.id = 5, .more = true, .result = result}));
  EXPECT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->id, 5u);
  EXPECT_TRUE(reply->more);
  EXPECT_TRUE(reply->status.ok());
  EXPECT_TRUE(std::holds_alternative<Result>(reply->result));
  return std::get<Result>(reply->result);
}

const RegionPages kPages{3, uint64_t{1} << 40, 17};

RegionInfo SomeInfo() {
  return {.name = "a region",
          .address = GlobalAddress(absl::MakeUint128(7, 9)),
          .size_bytes = 4096,
          .allocated_bytes = 12,
          .owner = 1000,
          .group = 1001,
          .mode = 0640,
          .without_quorum = WithoutQuorum::kRead};
}

TEST(AttachCodec, RequestsAboutRegionsArriveAsSent) {
  const auto reserve = RoundTrip(ReserveCall{{.name = "r",
                                              .size_bytes = 8192,
                                              .owner = 5,
                                              .group = {},
                                              .mode = 0660,
                                              .without_quorum = WithoutQuorum::kRead}});
  EXPECT_EQ(reserve.options.name, "r");
  EXPECT_EQ(reserve.options.size_bytes, 8192u);
  EXPECT_EQ(reserve.options.owner, 5u);
  EXPECT_FALSE(reserve.options.group.has_value());
  EXPECT_EQ(reserve.options.mode, 0660);
  EXPECT_EQ(reserve.options.without_quorum, WithoutQuorum::kRead);
  EXPECT_EQ(RoundTrip(OpenCall{"r", AccessMode::kWrite}).mode, AccessMode::kWrite);
  EXPECT_EQ(RoundTrip(OpenCall{"r", AccessMode::kRead}).name, "r");
  EXPECT_EQ(RoundTrip(CloseCall{9}).region, 9u);
  EXPECT_EQ(RoundTrip(MapCall{9, 0x7f0000000000}).base, 0x7f0000000000u);
  for (const MappingUse use : {MappingUse::kProgram, MappingUse::kCalls}) {
    EXPECT_EQ(RoundTrip(MapCall{9, 0x7f0000000000, use}).use, use);
  }
  EXPECT_EQ(RoundTrip(FreeCall{"r"}).name, "r");
  RoundTrip(ListCall{});
  RoundTrip(SpaceCall{});
  EXPECT_EQ(RoundTrip(CountersCall{4}).region, 4u);
  EXPECT_EQ(RoundTrip(InspectCall{"page", "0x10"}).argument, "0x10");
}

TEST(AttachCodec, RequestsAboutPagesArriveAsSent) {
  const auto allocate = RoundTrip(AllocateCall{kPages, {.persistent = false, .replicas = 3}});
  EXPECT_EQ(allocate.pages, kPages);
  EXPECT_FALSE(allocate.options.persistent);
  EXPECT_EQ(allocate.options.replicas, 3u);
  EXPECT_EQ(RoundTrip(UnallocateCall{kPages}).pages, kPages);
  EXPECT_EQ(RoundTrip(GetAttributesCall{1, 2}).page, 2u);
  SetAttributesCall set{kPages, {}};
  EXPECT_FALSE(RoundTrip(set).change.keep_in_ram.has_value());
  set.change = {.protocol = CoherenceProtocol::kMigratory, .replicas = 2, .keep_in_ram = true};
  set.change.user.emplace().fill(std::byte{0xab});
  const auto change = RoundTrip(set).change;
  EXPECT_EQ(change.protocol, CoherenceProtocol::kMigratory);
  EXPECT_EQ(change.replicas, 2u);
  EXPECT_EQ(change.keep_in_ram, true);
  EXPECT_EQ(change.user, set.change.user);
  EXPECT_EQ(RoundTrip(CheckAllocatedCall{kPages}).pages, kPages);
  EXPECT_EQ(RoundTrip(AcquireCall{kPages, AccessMode::kWrite}).mode, AccessMode::kWrite);
  EXPECT_EQ(RoundTrip(LockCall{kPages, LockMode::kExclusive}).mode, LockMode::kExclusive);
  EXPECT_EQ(RoundTrip(UnlockCall{UINT64_MAX}).lock_id, UINT64_MAX);
  EXPECT_EQ(RoundTrip(FlushCall{kPages}).pages, kPages);
  EXPECT_EQ(RoundTrip(HealCall{kPages}).pages, kPages);
}

// Covers: G15
TEST(AttachCodec, RequestsAboutTransactionsArriveAsSent) {
  const BytesOfPage bytes{3, uint64_t{1} << 40, 4000, 80};
  RoundTrip(BeginCall{});
  const auto read = RoundTrip(ReadInCall{7, bytes, AccessMode::kWrite});
  EXPECT_EQ(read.transaction, 7u);
  EXPECT_EQ(read.bytes, bytes);
  EXPECT_EQ(read.intent, AccessMode::kWrite);
  const auto write = RoundTrip(WriteInCall{7, bytes, std::string(80, '\0')});
  EXPECT_EQ(write.bytes, bytes);
  EXPECT_EQ(write.content, std::string(80, '\0'));
  EXPECT_TRUE(RoundTrip(EndTransactionCall{7, true}).commit);
  EXPECT_FALSE(RoundTrip(EndTransactionCall{7, false}).commit);
  EXPECT_EQ(RoundTrip(ReadLogCall{3, 9}).node, 9u);
  EXPECT_EQ(RoundTripResult(BegunReply{12}).transaction, 12u);
  const auto unlike = DecodeRequest(EncodeRequest({.id = 1, .call = WriteInCall{7, bytes, "x"}}));
  EXPECT_EQ(unlike.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(AttachCodec, RepliesArriveAsSent) {
  RoundTripResult(std::monostate());
  const auto opened = RoundTripResult(OpenedReply{8, SomeInfo(), true, false});
  EXPECT_EQ(opened.region, 8u);
  EXPECT_EQ(opened.info.name, "a region");
  EXPECT_EQ(opened.info.address, GlobalAddress(absl::MakeUint128(7, 9)));
  EXPECT_EQ(opened.info.mode, 0640);
  EXPECT_EQ(opened.info.without_quorum, WithoutQuorum::kRead);
  EXPECT_TRUE(opened.may_write);
  EXPECT_EQ(RoundTripResult(RegionListReply{{SomeInfo(), SomeInfo()}}).regions.size(), 2u);
  EXPECT_EQ(RoundTripResult(SpaceTotals{1, 2, 3, 4}).cache_used_bytes, 4u);
  EXPECT_EQ(RoundTripResult(PageAttributes{.replicas = 3}).replicas, 3u);
  EXPECT_EQ(RoundTripResult(LockedReply{11}).lock_id, 11u);
  EXPECT_EQ(RoundTripResult(RegionCounters{1, 2, 3, 4}).pages_fetched, 3u);
  EXPECT_EQ(RoundTripResult(TextReply{"{}"}).text, "{}");
  const auto failed = DecodeReply(EncodeReply({.id = 1, .status = absl::DataLossError("page 4 is lost")}));
  ASSERT_TRUE(failed.ok());
  EXPECT_EQ(failed->status, absl::DataLossError("page 4 is lost"));
}

TEST(AttachCodec, GreetingsAndEventsArriveAsSent) {
  EXPECT_EQ(DecodeHello(EncodeHello({.version = 9}))->version, 9u);
  const auto welcome = DecodeWelcome(EncodeWelcome({.status = absl::InternalError("no"), .node_name = "n"}));
  EXPECT_EQ(welcome->status, absl::InternalError("no"));
  EXPECT_EQ(welcome->node_name, "n");
  const auto event = DecodeEvent(EncodeEvent({RegionEvent::Kind::kLost, kPages}));
  EXPECT_EQ(event->kind, RegionEvent::Kind::kLost);
  EXPECT_EQ(event->pages, kPages);
}

TEST(AttachCodec, TheLongestMessagesFit) {
  RegionInfo longest = SomeInfo();
  longest.name.assign(kMaxRegionNameBytes, 'n');
  const AttachReply list{.id = 1, .result = RegionListReply{std::vector(kRegionsPerReply, longest)}};
  EXPECT_LE(EncodeReply(list).size(), kMaxAttachMessageBytes);
  EXPECT_EQ(std::get<RegionListReply>(DecodeReply(EncodeReply(list))->result).regions.size(), kRegionsPerReply);
  const AttachReply text{.id = 1, .result = TextReply{std::string(kTextBytesPerReply, 'x')}};
  EXPECT_LE(EncodeReply(text).size(), kMaxAttachMessageBytes);
  const AttachReply error{.id = 1, .status = absl::InternalError(std::string(100'000, 'e'))};
  EXPECT_EQ(DecodeReply(EncodeReply(error))->status.message().size(), kMaxAttachErrorBytes);
}

TEST(AttachCodec, ANameThatIsTooLongIsRefusedByItsName) {
  const auto request = Decoded(EncodeRequest({.id = 1, .call = OpenCall{std::string(5000, 'x'), AccessMode::kRead}}));
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(request.status().message().find("name"), std::string::npos) << request.status();
}

TEST(AttachCodec, SizesThatNoMessageHasAreRefused) {
  alignas(8) std::byte bytes[kMaxAttachMessageBytes + 8] = {};
  for (const size_t size : {size_t{0}, size_t{1}, size_t{7}, size_t{9}, sizeof(bytes)}) {
    EXPECT_EQ(DecodeRequest({bytes, size}).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

// Whatever bytes come, decoding returns; what it accepts can be encoded.
void DecodeAll(std::span<const std::byte> bytes) {
  DecodeHello(bytes).IgnoreError();
  DecodeWelcome(bytes).IgnoreError();
  DecodeEvent(bytes).IgnoreError();
  if (const auto request = DecodeRequest(bytes); request.ok()) EncodeRequest(*request);
  if (const auto reply = DecodeReply(bytes); reply.ok()) EncodeReply(*reply);
}

TEST(AttachCodec, RandomBytesDoNoHarm) {
  std::mt19937_64 random(1);
  alignas(8) std::byte bytes[1024];
  for (int i = 0; i < 20'000; ++i) {
    for (size_t at = 0; at < sizeof(bytes); at += 8) {
      // Small numbers too: they get past the table of segments.
      const uint64_t word = random() & (random() % 2 == 0 ? UINT64_MAX : 0x0000000700000003);
      std::memcpy(bytes + at, &word, 8);
    }
    DecodeAll({bytes, random() % (sizeof(bytes) / 8) * 8});
  }
}

TEST(AttachCodec, ValidMessagesWithFlippedBitsOrCutShortDoNoHarm) {
  std::mt19937_64 random(2);
  const AttachBytes messages[] = {
      EncodeRequest({.id = 1, .call = ReserveCall{{.name = "some region", .size_bytes = 4096}}}),
      EncodeRequest({.id = 2, .call = SetAttributesCall{kPages, {.user = std::array<std::byte, 16>{}}}}),
      EncodeReply({.id = 3, .status = absl::InternalError("why"), .result = OpenedReply{1, SomeInfo(), true, true}}),
      EncodeReply({.id = 4, .result = RegionListReply{{SomeInfo(), SomeInfo()}}}),
      EncodeWelcome({.status = absl::OkStatus(), .node_name = "node"}),
  };
  for (int i = 0; i < 20'000; ++i) {
    AttachBytes bytes = messages[random() % std::size(messages)];
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] ^= static_cast<std::byte>(1u << random() % 8);
    }
    bytes.resize(random() % 4 == 0 ? random() % bytes.size() / 8 * 8 : bytes.size());
    DecodeAll(bytes);
  }
}

}  // namespace
}  // namespace mangrove
