// What the tests of directory/codec.h share: messages, and when two are the same.

#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "directory/codec.h"

namespace mangrove {

inline PageBuffer MakePage(int seed) {
  auto page = std::make_shared<PageBytes>();
  for (size_t i = 0; i < kPageBytes; ++i) page->bytes[i] = static_cast<std::byte>(i * 31 + static_cast<size_t>(seed));
  return page;
}

inline std::vector<Packet> EncodeAll(const std::vector<Message>& messages) {
  std::vector<Packet> packets;
  Encode(messages, [&](const Packet& packet) { packets.push_back(packet); });
  return packets;
}

inline Packet EncodeOne(const Message& message) {
  const std::vector<Packet> packets = EncodeAll({message});
  EXPECT_EQ(packets.size(), 1u);
  return packets.at(0);
}

inline std::vector<const std::byte*> PointersTo(const std::vector<PageBuffer>& pages) {
  std::vector<const std::byte*> pointers;
  for (const PageBuffer& page : pages) pointers.push_back(page->bytes.data());
  return pointers;
}

inline absl::StatusOr<std::vector<Message>> DecodePacket(const Packet& packet) {
  return Decode(packet.bytes, PointersTo(packet.pages));
}

inline void ExpectEqual(const Message& a, const Message& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.page, b.page);
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.txn, b.txn);
  EXPECT_EQ(a.request, b.request);
  EXPECT_EQ(a.peer, b.peer);
  EXPECT_EQ(a.access, b.access);
  EXPECT_EQ(a.holding, b.holding);
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.flushed, b.flushed);
  EXPECT_EQ(a.grant_epoch, b.grant_epoch);
  EXPECT_EQ(a.config, b.config);
  EXPECT_EQ(a.replicas, b.replicas);
  EXPECT_EQ(a.active, b.active);
  EXPECT_EQ(a.have, b.have);
  EXPECT_EQ(a.exclusive, b.exclusive);
  EXPECT_EQ(a.owner, b.owner);
  EXPECT_EQ(a.retain, b.retain);
  EXPECT_EQ(a.kept, b.kept);
  EXPECT_EQ(a.seal, b.seal);
  EXPECT_EQ(a.complete, b.complete);
  EXPECT_EQ(a.with_data, b.with_data);
  EXPECT_EQ(a.is_volatile, b.is_volatile);
  EXPECT_EQ(a.hurry, b.hurry);
  EXPECT_EQ(a.code, b.code);
  EXPECT_EQ(a.text, b.text);
  ASSERT_EQ(a.data != nullptr, b.data != nullptr);
  if (a.data) {
    EXPECT_EQ(std::memcmp(a.data->bytes.data(), b.data->bytes.data(), kPageBytes), 0);
  }
}

// A message that names a page, and else is as small as can be.
inline Message Small(MessageKind kind = MessageKind::kGrantAck) {
  Message m;
  m.kind = kind;
  m.page = PageId(77);
  return m;
}

// Every field differs from its default.
inline Message Full(int seed = 1) {
  Message m;
  m.kind = MessageKind::kGrant;
  m.page = PageId(absl::MakeUint128(0x000123456789abcd + static_cast<uint64_t>(seed), 0xfedcba9876543210));
  m.count = uint64_t{1} << 40;
  m.txn = Txn(0xffffffffffffffff);
  m.request = RequestId(3);
  m.peer = {NodeId(4), Incarnation(5)};
  m.access = Access::kWrite;
  m.holding = Holding::kRetained;
  m.version = {Epoch(6), 7};
  m.flushed = {Epoch(8), 9};
  m.grant_epoch = Epoch(10);
  m.config = ConfigNumber(11);
  m.replicas = 0xffffffff;
  m.active = m.have = m.exclusive = m.owner = m.retain = true;
  m.kept = m.seal = m.complete = m.with_data = m.is_volatile = m.hurry = true;
  m.SetStatus(absl::UnavailableError("node 3 does not answer"));
  m.data = MakePage(seed);
  return m;
}

}  // namespace mangrove
