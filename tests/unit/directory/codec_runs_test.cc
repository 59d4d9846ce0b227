// Messages that differ in their page and its numbers alone travel as one entry.
// Covers: B04

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "directory/codec.h"
#include "net/transport.h"
#include "tests/unit/directory/codec_expect.h"

namespace mangrove {
namespace {

using ::testing::HasSubstr;

PageBuffer PageOf(uint64_t seed) {
  auto page = std::make_shared<PageBytes>();
  page->bytes.fill(static_cast<std::byte>(seed));
  return page;
}

// A grant of the `i`-th page of a run.
Message GrantOf(uint64_t i, bool with_data = false) {
  Message m;
  m.kind = MessageKind::kGrant;
  m.page = PageId((absl::uint128(1) << 70) + i);
  m.txn = Txn((uint64_t{3} << 40) + i);
  m.request = RequestId((uint64_t{5} << 40) + i);
  m.version = {Epoch(7), 9};
  m.active = true;
  if (with_data) m.data = PageOf(i);
  return m;
}

std::vector<const std::byte*> PointersTo(const Packet& packet) {
  std::vector<const std::byte*> pointers;
  for (const PageBuffer& page : packet.pages) pointers.push_back(page->bytes.data());
  return pointers;
}

// What comes out is what went in.
void ExpectRoundTrip(const std::vector<Message>& messages) {
  std::vector<Message> decoded;
  for (const Packet& packet : EncodeAll(messages)) {
    const auto part = Decode(packet.bytes, PointersTo(packet));
    ASSERT_TRUE(part.ok()) << part.status();
    decoded.insert(decoded.end(), part->begin(), part->end());
  }
  ASSERT_EQ(decoded.size(), messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    EXPECT_EQ(decoded[i].kind, messages[i].kind) << i;
    EXPECT_EQ(decoded[i].page, messages[i].page) << i;
    EXPECT_EQ(decoded[i].count, messages[i].count) << i;
    EXPECT_EQ(decoded[i].txn, messages[i].txn) << i;
    EXPECT_EQ(decoded[i].request, messages[i].request) << i;
    EXPECT_EQ(decoded[i].version, messages[i].version) << i;
    EXPECT_EQ(decoded[i].code, messages[i].code) << i;
    EXPECT_EQ(decoded[i].text, messages[i].text) << i;
    ASSERT_EQ(decoded[i].data != nullptr, messages[i].data != nullptr) << i;
    if (messages[i].data == nullptr) continue;
    EXPECT_EQ(decoded[i].data->bytes, messages[i].data->bytes) << i;
  }
}

std::vector<Message> Grants(uint64_t count, bool with_data) {
  std::vector<Message> messages;
  for (uint64_t i = 0; i < count; ++i) messages.push_back(GrantOf(i, with_data));
  return messages;
}

TEST(CodecRuns, ARunTakesTheRoomOfOneMessage) {
  const size_t one = EncodeAll(Grants(1, false)).at(0).bytes.size();
  const std::vector<Packet> packets = EncodeAll(Grants(512, false));
  ASSERT_EQ(packets.size(), 1u);
  EXPECT_EQ(packets[0].bytes.size(), one);
  ExpectRoundTrip(Grants(512, false));
}

TEST(CodecRuns, RunsOfAllLengthsAreWhatTheyWere) {
  for (const uint64_t count : {1, 2, 63, 64, 65, 511, 512, 513, 3000}) {
    ExpectRoundTrip(Grants(count, false));
    if (count < 600) ExpectRoundTrip(Grants(count, true));
  }
}

TEST(CodecRuns, EveryFieldEndsARun) {
  using Change = void (*)(Message&);
  const std::vector<Change> changes = {
      [](Message& m) { m.kind = MessageKind::kForward; },
      [](Message& m) { m.page = m.page + 1; },
      [](Message& m) { m.count = 2; },
      [](Message& m) { m.txn = {}; },
      [](Message& m) { ++m.txn.value; },
      [](Message& m) { m.request = {}; },
      [](Message& m) { --m.request.value; },
      [](Message& m) { m.peer.node = NodeId(4); },
      [](Message& m) { m.access = Access::kWrite; },
      [](Message& m) { m.holding = Holding::kOwner; },
      [](Message& m) { ++m.version.counter; },
      [](Message& m) { m.flushed = m.version; },
      [](Message& m) { m.grant_epoch = Epoch(8); },
      [](Message& m) { m.config = ConfigNumber(2); },
      [](Message& m) { m.replicas = 2; },
      [](Message& m) { m.active = false; },
      [](Message& m) { m.have = true; },
      [](Message& m) { m.exclusive = true; },
      [](Message& m) { m.owner = true; },
      [](Message& m) { m.retain = true; },
      [](Message& m) { m.kept = true; },
      [](Message& m) { m.seal = true; },
      [](Message& m) { m.complete = true; },
      [](Message& m) { m.with_data = true; },
      [](Message& m) { m.is_volatile = true; },
      [](Message& m) { m.hurry = true; },
      [](Message& m) { m.SetStatus(absl::AbortedError("no")); },
      [](Message& m) { m.data = PageOf(1); },
  };
  const size_t one = EncodeAll(Grants(1, false)).at(0).bytes.size();
  for (const Change change : changes) {
    std::vector<Message> messages = Grants(5, false);
    change(messages[2]);
    EXPECT_GT(EncodeAll(messages).at(0).bytes.size(), one);
    ExpectRoundTrip(messages);
  }
}

TEST(CodecRuns, AGrantsDataIsLentAndCanBeKept) {
  const Packet packet = EncodeAll(Grants(3, true)).at(0);
  std::vector<Message> kept;
  const auto pages = PointersTo(packet);
  size_t at = 0;
  const absl::Status status = DecodeEach(packet.bytes, pages, [&](const Message& m) {
    ASSERT_TRUE(IsLent(m));
    EXPECT_EQ(m.data->bytes.data(), pages[at++]);
    OwnData(kept.emplace_back(m));
  });
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(kept.size(), 3u);
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_FALSE(IsLent(kept[i]));
    EXPECT_NE(kept[i].data->bytes.data(), pages[i]);
    EXPECT_EQ(kept[i].data->bytes, packet.pages[i]->bytes);
  }
}

// What is stored is kept: the pages of a run are copied, into one piece.
TEST(CodecRuns, AStoresRunIsCopiedInOnePiece) {
  std::vector<Message> messages = Grants(20, true);
  for (Message& m : messages) m.kind = MessageKind::kStore;
  const std::vector<Packet> packets = EncodeAll(messages);
  ASSERT_EQ(packets.size(), 1u);
  Message run;
  int calls = 0;
  const auto status = DecodeEach(packets[0].bytes, PointersTo(packets[0]), [&](const Message& m) {
    ++calls;
    run = m;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(calls, 1);
  ASSERT_EQ(run.repeat, 20u);
  EXPECT_FALSE(IsLent(run));
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_NE(run.data.get() + i, packets[0].pages[i].get());
    EXPECT_EQ(run.data.get()[i].bytes, packets[0].pages[i]->bytes);
  }
}

TEST(CodecRuns, NothingIsHandedOnOfAPacketThatIsNotSound) {
  Packet packet = EncodeAll(Grants(3, true)).at(0);
  packet.pages.pop_back();
  const absl::Status status =
      DecodeEach(packet.bytes, PointersTo(packet), [](const Message&) { FAIL() << "handed on"; });
  EXPECT_THAT(status.message(), HasSubstr("names page 3 of 2"));
}

// The byte of the entry that says how many messages it stands for.
size_t RepeatOffset() {
  const Packet one = EncodeAll(Grants(1, false)).at(0);
  const Packet two = EncodeAll(Grants(2, false)).at(0);
  size_t offset = 0;
  while (one.bytes[offset] == two.bytes[offset]) ++offset;
  return offset;
}

TEST(CodecRuns, ImpossibleRunsAreRefused) {
  const auto decode = [](const Message& m, uint16_t repeat) {
    Packet packet = EncodeAll({m}).at(0);
    // The wire form has 1 as its default: it holds the number, exclusive or 1.
    const auto coded = static_cast<uint16_t>(repeat ^ 1);
    packet.bytes[RepeatOffset()] = static_cast<std::byte>(coded & 0xff);
    packet.bytes[RepeatOffset() + 1] = static_cast<std::byte>(coded >> 8);
    return Decode(packet.bytes, PointersTo(packet)).status();
  };
  EXPECT_TRUE(decode(GrantOf(0), 512).ok());
  EXPECT_THAT(decode(GrantOf(0), 0).message(), HasSubstr("stands for 0 messages, expected 1 to 512"));
  EXPECT_THAT(decode(GrantOf(0), 513).message(), HasSubstr("stands for 513 messages, expected 1 to 512"));
  Message m = GrantOf(0);
  m.count = 2;
  EXPECT_THAT(decode(m, 2).message(), HasSubstr("cannot be"));
  m = GrantOf(0);
  m.SetStatus(absl::AbortedError("no"));
  EXPECT_THAT(decode(m, 2).message(), HasSubstr("cannot be"));
  m = GrantOf(0);
  m.page = PageId(kSpacePages - 1);
  EXPECT_THAT(decode(m, 2).message(), HasSubstr("cannot be"));
  m = GrantOf(0);
  m.txn = Txn(UINT64_MAX);
  EXPECT_THAT(decode(m, 2).message(), HasSubstr("cannot be"));
  m = GrantOf(0);
  m.request = RequestId(UINT64_MAX);
  EXPECT_THAT(decode(m, 2).message(), HasSubstr("cannot be"));
  EXPECT_THAT(decode(GrantOf(0, true), 2).message(), HasSubstr("names page 2 of 1"));
}

// A page 0 stands for none.
TEST(CodecRuns, NoRunBeginsAtPageZero) {
  std::vector<Message> messages(2);
  for (uint64_t i = 0; i < messages.size(); ++i) {
    messages[i].kind = MessageKind::kInspect;
    messages[i].page = PageId(i);
    messages[i].request = RequestId(7 + i);
  }
  ExpectRoundTrip(messages);
}

TEST(CodecRuns, APacketStandsForABoundedNumberOfMessages) {
  std::vector<Message> messages;
  for (uint64_t run = 0; run < 5; ++run) {
    for (uint64_t i = 0; i < 512; ++i) messages.push_back(GrantOf(run * 1000 + i));
  }
  for (const Packet& packet : EncodeAll(messages)) {
    const auto part = Decode(packet.bytes, {});
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_LE(part->size(), 2048u);
  }
  ExpectRoundTrip(messages);
}

}  // namespace
}  // namespace mangrove
