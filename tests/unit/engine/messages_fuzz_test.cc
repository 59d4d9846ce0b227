// Whatever comes from a guest, a program of this host, or another node, beside what the folders below read, is refused, or is what can
// be sent. Tokens are texts that people copy.
// Covers: C13

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/attach/attach_codec.h"
#include "engine/directory_pages.h"
#include "engine/inspect_json.h"
#include "engine/join/join_codec.h"
#include "engine/join/join_token.h"
#include "engine/segment_state.h"
#include "engine/stored_list.h"
#include "tests/fuzz.h"

namespace mangrove {
namespace {

std::string TextOf(const AttachBytes& bytes) { return std::string(fuzz::AsText(bytes)); }
std::string TextOf(const PageBuffer& page) { return std::string(fuzz::AsText(page->bytes)); }

// One segment in Cap'n Proto's framing, whose table says as many words as there are.
void RepairFrame(std::string& bytes) {
  bytes.resize(bytes.size() / 8 * 8);
  if (bytes.size() < 16) return;
  const uint32_t table[2] = {0, static_cast<uint32_t>(bytes.size() / 8 - 1)};
  std::memcpy(bytes.data(), table, sizeof(table));
}

// What was taken is sent as bytes that are taken, and sent, as the same again.
template <typename Value, typename Decode, typename Encode>
bool IsTakenAndSent(const absl::StatusOr<Value>& value, Decode decode, Encode encode) {
  if (!value.ok()) {
    EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument) << value.status();
    return false;
  }
  const auto sent = encode(*value);
  const auto again = decode(sent);
  EXPECT_TRUE(again.ok()) << again.status();
  if (again.ok()) {
    EXPECT_EQ(encode(*again), sent);
  }
  return true;
}

// --- Joining ----------------------------------------------------------------------------------------------------------

NumberedRequest SomeRequest() { return {7, {"n4", "10.0.0.4:7400", 2, 5}}; }

JoinAnswer SomeAnswer() {
  JoinAnswer answer{.node = NodeId(4), .keys = {}, .replicas = 2, .members = {}};
  answer.keys.resize(2);
  answer.keys[1].fill(std::byte{9});
  answer.members = {{NodeId(1), "n1", "10.0.0.1:7400", 1}, {NodeId(4), "n4", "[::1]:7400", 0}};
  return answer;
}

bool IsJoinRequest(std::string_view bytes) {
  const auto request = DecodeJoinRequest(fuzz::AsBytes(bytes));
  if (!request.ok()) return false;
  const auto sent = EncodeJoinRequest(*request);
  EXPECT_TRUE(sent.ok()) << sent.status();
  const auto again = DecodeJoinRequest(fuzz::AsBytes(*sent));
  EXPECT_TRUE(again.ok() && again->number == request->number && again->request == request->request);
  return true;
}

bool IsJoinReply(std::string_view bytes) {
  const auto reply = DecodeJoinReply(fuzz::AsBytes(bytes));
  if (!reply.ok()) return false;
  const auto sent = EncodeJoinReply(*reply);
  EXPECT_TRUE(sent.ok()) << sent.status();
  const auto again = DecodeJoinReply(fuzz::AsBytes(*sent));
  EXPECT_TRUE(again.ok() && again->number == reply->number && again->content == reply->content);
  return true;
}

TEST(MessagesFuzz, WhatAGuestAndItsNodeSayIsRefusedOrCanBeSaid) {
  fuzz::RunAll({{.name = "join request",
                 .corpus = {*EncodeJoinRequest(SomeRequest())},
                 .take = IsJoinRequest,
                 .repair = RepairFrame},
                {.name = "join reply",
                 .corpus = {*EncodeJoinReply({8, SomeAnswer()}), *EncodeJoinReply({9, absl::NotFoundError("no")})},
                 .take = IsJoinReply,
                 .repair = RepairFrame,
                 .mutations = 40'000}});
}

bool IsToken(std::string_view text) {
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const auto token = ParseJoinToken(text, now);
  if (!token.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(token.status()) || absl::IsDeadlineExceeded(token.status()));
    return false;
  }
  const auto again = ParseJoinToken(EncodeJoinToken(*token), now);
  EXPECT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again.ok() && again->cluster_name == token->cluster_name && again->security == token->security &&
              again->node == token->node && again->address == token->address && again->key == token->key &&
              again->expiry == token->expiry);
  return true;
}

constexpr size_t kTokenPrefix = 5;  // "mgt1."

// What the letters of a token stand for; in them each change would be found by the checksum.
std::string Unwrapped(std::string_view token) {
  std::string inside;
  EXPECT_TRUE(absl::WebSafeBase64Unescape(std::string(token.substr(kTokenPrefix)), &inside));
  return inside;
}
bool IsInsideOfToken(std::string_view inside) {
  return IsToken("mgt1." + absl::WebSafeBase64Escape(std::string(inside)));
}

// Its length, and its checksum.
void RepairToken(std::string& inside) {
  constexpr size_t kSumBytes = 4;
  if (inside.size() < 3 + kSumBytes) return;
  const auto length = static_cast<uint16_t>(inside.size());
  std::memcpy(inside.data() + 1, &length, sizeof(length));
  const auto sum = static_cast<uint32_t>(XXH3_64bits(inside.data(), inside.size() - kSumBytes));
  std::memcpy(inside.data() + inside.size() - kSumBytes, &sum, kSumBytes);
}

TEST(MessagesFuzz, ATextIsATokenOrRefused) {
  JoinToken token{.cluster_name = "demo",
                  .security = Security::kEncrypted,
                  .node = NodeId(3),
                  .address = "[::1]:7400",
                  .expiry = absl::FromUnixSeconds(1'800'000'000)};
  token.key.fill(std::byte{7});
  const std::string good = EncodeJoinToken(token);
  fuzz::RunAll(
      {{.name = "token", .corpus = {good}, .take = IsToken},
       {.name = "inside of a token", .corpus = {Unwrapped(good)}, .take = IsInsideOfToken, .repair = RepairToken}});
}

// --- Attached programs ------------------------------------------------------------------------------------------------

template <typename Value, absl::StatusOr<Value> (*decode)(std::span<const std::byte>),
          AttachBytes (*encode)(const Value&)>
bool IsAttach(std::string_view text) {
  // As a packet's buffer is: at a multiple of 8, and of its own size.
  return IsTakenAndSent(
      decode(fuzz::AsBytes(text)), [](const AttachBytes& bytes) { return decode(bytes); }, encode);
}

template <typename Value, absl::StatusOr<Value> (*decode)(std::span<const std::byte>),
          AttachBytes (*encode)(const Value&)>
fuzz::Decoder AttachDecoder(const char* name, const std::vector<Value>& values, int mutations) {
  fuzz::Decoder decoder{.name = name,
                        .corpus = {},
                        .take = IsAttach<Value, decode, encode>,
                        .repair = RepairFrame,
                        .mutations = mutations};
  for (const Value& value : values) decoder.corpus.push_back(TextOf(encode(value)));
  return decoder;
}

TEST(MessagesFuzz, WhatAProgramAndItsDaemonSayIsRefusedOrCanBeSaid) {
  const RegionPages pages{3, uint64_t{1} << 40, 17};
  const BytesOfPage bytes{3, 9, 16, 4};
  const RegionInfo info{.name = "a region",
                        .address = GlobalAddress(absl::MakeUint128(7, 9)),
                        .size_bytes = 4096,
                        .allocated_bytes = 12,
                        .owner = 1000,
                        .group = 1001,
                        .mode = 0640};
  std::vector<AttachRequest> requests;
  const auto add = [&](auto call) { requests.push_back({.id = 77, .timeout_ms = 1234, .call = std::move(call)}); };
  add(ReserveCall{{.name = "r", .size_bytes = 8192, .owner = 5, .group = {}, .mode = 0660}});
  add(OpenCall{"r", AccessMode::kWrite});
  add(CloseCall{9});
  add(MapCall{9, 0x7f0000000000});
  add(FreeCall{"r"});
  add(ListCall{});
  add(SpaceCall{});
  add(AllocateCall{pages, {.persistent = false, .replicas = 3}});
  add(UnallocateCall{pages});
  add(GetAttributesCall{4, 5});
  add(SetAttributesCall{pages, {.keep_in_ram = true}});
  add(CheckAllocatedCall{pages});
  add(AcquireCall{pages, AccessMode::kWrite});
  add(LockCall{pages, LockMode::kExclusive});
  add(UnlockCall{8});
  add(FlushCall{pages});
  add(HealCall{pages});
  add(CountersCall{4});
  add(InspectCall{"page", "0x10"});
  add(BeginCall{});
  add(ReadInCall{1, bytes, AccessMode::kWrite});
  add(WriteInCall{1, bytes, "abcd"});
  add(EndTransactionCall{1, true});
  add(ReadLogCall{3, 2});
  std::vector<AttachReply> replies = {{.id = 1, .status = absl::DataLossError("page 4 is lost")}};
  const auto answer = [&](auto result) { replies.push_back({.id = 5, .more = true, .result = std::move(result)}); };
  answer(OpenedReply{2, info, true, false});
  answer(RegionListReply{{info, info}});
  answer(SpaceTotals{});
  answer(PageAttributes{});
  answer(LockedReply{6});
  answer(RegionCounters{1, 2, 3, 4});
  answer(TextReply{"{}"});
  answer(BegunReply{6});
  fuzz::RunAll(
      {AttachDecoder<AttachHello, DecodeHello, EncodeHello>("hello", {{.version = 9}}, 5'000),
       AttachDecoder<AttachWelcome, DecodeWelcome, EncodeWelcome>(
           "welcome", {{.node_name = "n"}, {.status = absl::InternalError("no"), .node_name = "n"}}, 10'000),
       AttachDecoder<AttachRequest, DecodeRequest, EncodeRequest>("request", requests, 80'000),
       AttachDecoder<AttachReply, DecodeReply, EncodeReply>("reply", replies, 60'000),
       AttachDecoder<AttachEvent, DecodeEvent, EncodeEvent>("event", {{RegionEvent::Kind::kLost, pages}}, 5'000)});
}

// --- Pages of bytes between nodes -------------------------------------------------------------------------------------

PageBytes PageFrom(std::string_view bytes) {
  PageBytes page{};
  std::memcpy(page.bytes.data(), bytes.data(), std::min(bytes.size(), kPageBytes));
  return page;
}

// As many claims as the message says, which is the input's last byte.
bool AreClaims(std::string_view input) {
  if (input.empty()) return false;
  const uint64_t count = static_cast<unsigned char>(input.back()) % (kClaimsPerPage + 1);
  const auto claims = DecodeClaims(PageFrom(input), count);
  if (!claims.ok()) return false;
  const auto again = DecodeClaims(*EncodeClaims(*claims), count);
  EXPECT_TRUE(again.ok()) << again.status();
  for (size_t i = 0; again.ok() && i < count; ++i) {
    EXPECT_EQ((*again)[i].entry, (*claims)[i].entry);
    EXPECT_EQ((*again)[i].holds, (*claims)[i].holds);
  }
  // The directory takes what was claimed.
  for (const DirectoryEntry& entry : ResolveClaims(*claims)) {
    DirectoryPage page{.runs = {entry}};
    EXPECT_TRUE(ParseDirectoryPage(*SerializeDirectoryPage(page)).ok()) << ToString(entry);
  }
  return true;
}

bool IsInterval(std::string_view input) {
  const auto interval = DecodeInterval(PageFrom(input));
  if (!interval.ok()) return false;
  EXPECT_EQ(*DecodeInterval(*EncodeInterval(*interval)), *interval);
  return true;
}

bool AreExtents(std::string_view input) {
  const auto extents = DecodeExtentList(PageFrom(input), PageId(5));
  if (!extents.ok()) return false;
  EXPECT_EQ(TextOf(EncodeStoredList(*DecodeExtentList(*EncodeStoredList(*extents), PageId(5)))),
            TextOf(EncodeStoredList(*extents)));
  return true;
}

bool AreVersions(std::string_view input) {
  const auto versions = DecodeVersionList(PageFrom(input), PageId(5));
  if (!versions.ok()) return false;
  EXPECT_EQ(*DecodeVersionList(*EncodeVersionList(*versions).page, PageId(5)), *versions);
  return true;
}

TEST(MessagesFuzz, PagesOfClaimsAndOfWhatADiskHasAreRefusedOrCanBeSent) {
  const PageId first = kFirstReservablePage;
  const std::vector<Claim> claims = {{{{first, 2 * kSegmentPages}, NodeId(3), 4}, false},
                                     {{{first + 4 * kSegmentPages, kSegmentPages}, NodeId(5), 1}, true},
                                     {{{first + 5 * kSegmentPages, kSegmentPages}, NodeId(5), 2}, false}};
  const std::vector<StoredExtent> extents = {{{PageId(7), 3}, ConfigNumber(2), 2, false, true},
                                             {{PageId(10), 1}, ConfigNumber(3), 0, true, false}};
  const std::vector<StoredVersion> versions = {{PageId(7), {Epoch(2), 3}}, {PageId(9), {Epoch(4), 5}, true}};
  std::string claimed = TextOf(EncodeClaims(claims));
  claimed.push_back(3);
  const PageInterval interval{first, first + kSegmentPages};
  fuzz::RunAll(
      {{.name = "claims", .corpus = {claimed}, .take = AreClaims, .interesting_bytes = 128},
       {.name = "interval", .corpus = {TextOf(EncodeInterval(interval))}, .take = IsInterval, .interesting_bytes = 40},
       {.name = "extents", .corpus = {TextOf(EncodeStoredList(extents))}, .take = AreExtents, .interesting_bytes = 128},
       {.name = "versions",
        .corpus = {TextOf(EncodeVersionList(versions).page)},
        .take = AreVersions,
        .interesting_bytes = 128}});
}

std::vector<PageBuffer> PagesFrom(std::string_view input) {
  std::vector<PageBuffer> pages;
  for (size_t at = 0; at < input.size(); at += kPageBytes) {
    pages.push_back(std::make_shared<PageBytes>(PageFrom(input.substr(at))));
  }
  return pages;
}

std::string Concatenated(const std::vector<PageBuffer>& pages) {
  std::string all;
  for (const PageBuffer& page : pages) all += TextOf(page);
  return all;
}

bool IsSegmentState(std::string_view input) {
  const auto state = DecodeSegmentState(PagesFrom(input));
  if (!state.ok()) return false;
  const std::string sent = Concatenated(EncodeSegmentState(*state));
  const auto again = DecodeSegmentState(PagesFrom(sent));
  EXPECT_TRUE(again.ok()) << again.status();
  if (again.ok()) {
    EXPECT_EQ(Concatenated(EncodeSegmentState(*again)), sent);
  }
  return true;
}

TEST(MessagesFuzz, AStateOfASegmentIsRefusedOrCanBeHandedOver) {
  SegmentState state;
  for (uint16_t i = 0; i < kSegmentPages; i = static_cast<uint16_t>(i + 3)) {
    state.pages.push_back({.index = i,
                           .clean = i % 2 == 0,
                           .owner = {NodeId(2), Incarnation(3)},
                           .sharers = {{NodeId(1), Incarnation(1)}, {NodeId(4), Incarnation(1)}}});
  }
  state.fresh[4] = true;
  state.extents.push_back({.range = {PageId(512), 700}, .config = ConfigNumber(3), .replicas = 2});
  SegmentState small;
  small.pages.push_back({.index = 5, .clean = true, .owner = {NodeId(2), Incarnation(3)}, .sharers = {}});
  fuzz::Run({.name = "state of a segment",
             .corpus = {Concatenated(EncodeSegmentState(state)), Concatenated(EncodeSegmentState(small))},
             .take = IsSegmentState});
}

// --- Documents --------------------------------------------------------------------------------------------------------

bool IsReport(std::string_view text) {
  const auto report = DecodePeerReport("node 3", std::string(text));
  if (!report.ok()) return false;
  const auto again = DecodePeerReport("node 3", EncodePeerReport(*report));
  EXPECT_TRUE(again.ok()) << again.status();
  if (again.ok()) {
    EXPECT_EQ(EncodePeerReport(*again), EncodePeerReport(*report));
  }
  return true;
}

bool IsAddress(std::string_view text) {
  const auto address = ParseGlobalAddress(std::string(text));
  if (!address.ok()) return false;
  const auto again = ParseGlobalAddress(ToString(*address));
  EXPECT_TRUE(again.ok() && *again == *address);
  return true;
}

TEST(MessagesFuzz, DocumentsAndAddressesAreRefusedOrCanBeWritten) {
  const PeerReport report{.disk_used_bytes = 5,
                          .home_known = true,
                          .home_state = "owned",
                          .owner = NodeId(3),
                          .sharers = {NodeId(1)},
                          .allocated = true,
                          .replicas = 2};
  fuzz::RunAll({{.name = "report", .corpus = {EncodePeerReport(report), EncodePeerReport({})}, .take = IsReport},
                {.name = "address", .corpus = {"0x100000000", "4096", "0x0001_0000"}, .take = IsAddress}});
}

}  // namespace
}  // namespace mangrove
