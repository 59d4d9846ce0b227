// What a responsible node tells of a segment that it hands over, as bytes.
// Covers: G13

#include "engine/segment_state.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace mangrove {
namespace {

NodeInstance Node(uint64_t node, uint64_t incarnation = 1) { return {NodeId(node), Incarnation(incarnation)}; }

bool operator==(const SegmentState::Page& a, const SegmentState::Page& b) {
  return a.index == b.index && a.clean == b.clean && a.owner == b.owner && a.sharers == b.sharers;
}

void ExpectEqual(const SegmentState& a, const SegmentState& b) {
  ASSERT_EQ(a.pages.size(), b.pages.size());
  for (size_t i = 0; i < a.pages.size(); ++i) EXPECT_TRUE(a.pages[i] == b.pages[i]) << i;
  EXPECT_EQ(a.settled, b.settled);
  EXPECT_EQ(a.fresh, b.fresh);
  ASSERT_EQ(a.extents.size(), b.extents.size());
  for (size_t i = 0; i < a.extents.size(); ++i) {
    EXPECT_TRUE(a.extents[i].range == b.extents[i].range);
    EXPECT_EQ(a.extents[i].config, b.extents[i].config);
    EXPECT_EQ(a.extents[i].replicas, b.extents[i].replicas);
    EXPECT_EQ(a.extents[i].is_volatile, b.extents[i].is_volatile);
  }
}

// `alike`: how many neighbours are.
SegmentState Some(uint64_t nodes, uint64_t alike) {
  SegmentState state;
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const uint64_t kind = i / alike;
    if (kind % 5 == 4) continue;
    SegmentState::Page page{.index = static_cast<uint16_t>(i), .clean = kind % 2 == 0, .owner = {}, .sharers = {}};
    if (kind % 3 != 0) page.owner = Node(1 + kind % nodes, 3);
    for (uint64_t node = 1; node <= nodes; ++node) {
      const bool shares = (kind + node) % 3 != 0 && Node(node, 3) != page.owner;
      if (shares) page.sharers.push_back(Node(node, 3));
    }
    state.pages.push_back(page);
    state.fresh[i] = kind % 7 == 0;
  }
  state.settled = ~state.fresh;
  state.extents.push_back({.range = {PageId(absl::MakeUint128(1, 512)), 700},
                           .config = ConfigNumber(4),
                           .replicas = 2,
                           .is_volatile = false});
  state.extents.push_back({.range = {PageId(512), 1}, .config = ConfigNumber(5), .replicas = 0, .is_volatile = true});
  return state;
}

TEST(SegmentStateTest, ComesBackAsItWas) {
  ExpectEqual({}, *DecodeSegmentState(EncodeSegmentState({})));
  for (uint64_t nodes : {1u, 3u, 64u}) {
    for (uint64_t alike : {1u, 2u, 512u}) {
      const SegmentState state = Some(nodes, alike);
      const std::vector<PageBuffer> parts = EncodeSegmentState(state);
      EXPECT_LE(parts.size(), kMaxSegmentStateParts);
      const absl::StatusOr<SegmentState> back = DecodeSegmentState(parts);
      ASSERT_TRUE(back.ok()) << back.status();
      ExpectEqual(state, *back);
    }
  }
}

TEST(SegmentStateTest, APageIsEnoughForWhatIsAlike) { EXPECT_EQ(EncodeSegmentState(Some(3, 64)).size(), 1u); }

TEST(SegmentStateTest, WhatIsMissingIsRefused) {
  std::vector<PageBuffer> parts = EncodeSegmentState(Some(64, 1));
  ASSERT_GT(parts.size(), 1u);
  parts.pop_back();
  EXPECT_FALSE(DecodeSegmentState(parts).ok());
  EXPECT_FALSE(DecodeSegmentState({}).ok());
  EXPECT_FALSE(DecodeSegmentState({std::make_shared<PageBytes>()}).ok());
}

// Whatever is read is something that can be told again.
TEST(SegmentStateTest, ArbitraryBytesAreRefusedOrMakeSense) {
  std::mt19937_64 random(1);
  const std::vector<PageBuffer> sound = EncodeSegmentState(Some(5, 3));
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<PageBuffer> parts;
    for (const PageBuffer& part : sound) parts.push_back(std::make_shared<PageBytes>(*part));
    for (uint64_t changes = 1 + random() % 3; changes > 0; --changes) {
      auto changed = std::make_shared<PageBytes>(*parts[random() % parts.size()]);
      const size_t at = random() % 600;
      changed->bytes[at] = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 3);
      parts[random() % parts.size()] = std::move(changed);
    }
    const absl::StatusOr<SegmentState> state = DecodeSegmentState(parts);
    refused += state.ok() ? 0 : 1;
    if (!state.ok()) continue;
    const absl::StatusOr<SegmentState> again = DecodeSegmentState(EncodeSegmentState(*state));
    ASSERT_TRUE(again.ok()) << again.status();
    ExpectEqual(*state, *again);
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace mangrove
