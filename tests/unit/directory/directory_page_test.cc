// Covers: G06

#include "directory/directory_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "directory/directory_edit.h"
#include "net/little_endian.h"

namespace mangrove {
namespace {

constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

DirectoryEntry RunOf(uint64_t segment, uint64_t count, uint64_t node, uint32_t term = 1) {
  return {.range = {Segment(segment), count * kSegmentPages}, .responsible = NodeId(node), .term = term};
}

DirectoryPage Leaf() {
  return {.level = 0,
          .keys = {Segment(0), Segment(1000)},
          .right = {PageId(77), NodeId(9)},
          .order = {.txn = 5, .epoch = 6},
          .runs = {RunOf(0, 1, 1), RunOf(1, 2, 2, 7), RunOf(10, 90, 2), RunOf(999, 1, 3)}};
}

DirectoryPage Interior() {
  return {
      .level = 2,
      .keys = {Segment(4), kSpaceEnd},
      .right = {},
      .order = {},
      .runs = {},
      .children = {{Segment(4), {PageId(100), NodeId(1)}}, {Segment(9), {PageId(absl::uint128(1) << 100), NodeId(2)}}}};
}

DirectoryPage FullLeaf() {
  DirectoryPage page{.keys = kWholeSpace};
  for (uint64_t i = 0; i < kMaxDirectoryRuns; ++i) page.runs.push_back(RunOf(i, 1, i % 2 + 1));
  return page;
}

DirectoryPage FullInterior() {
  DirectoryPage page{.level = kMaxDirectoryLevel, .keys = kWholeSpace};
  for (uint64_t i = 0; i < kMaxDirectoryChildren; ++i) {
    page.children.push_back({i == 0 ? PageId(0) : Segment(i), {PageId(i + 1), NodeId(1)}});
  }
  return page;
}

TEST(DirectoryPage, RoundTrips) {
  for (const DirectoryPage& page : {Leaf(), Interior(), DirectoryPage{}, FullLeaf(), FullInterior()}) {
    const auto parsed = ParseDirectoryPage(*SerializeDirectoryPage(page));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, page);
  }
}

TEST(DirectoryPage, IsAsDocumentedByteByByte) {
  const PageBuffer page = SerializeDirectoryPage(Leaf());
  const std::byte* bytes = page->bytes.data();
  EXPECT_EQ(std::memcmp(bytes, "MGDIRECT", 8), 0);
  EXPECT_EQ(LoadLittle<uint16_t>(bytes + 8), 1);
  EXPECT_EQ(LoadLittle<uint8_t>(bytes + 10), 0);
  EXPECT_EQ(LoadLittle<uint16_t>(bytes + 12), 4);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 16), absl::Uint128Low64(Segment(0).value));
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 32), absl::Uint128Low64(Segment(1000).value));
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 48), 77u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 64), 9u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 72), 5u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 80), 6u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 128), absl::Uint128Low64(Segment(1).value));
  EXPECT_EQ(LoadLittle<uint32_t>(bytes + 144), 2u);
  EXPECT_EQ(LoadLittle<uint32_t>(bytes + 148), 7u);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 152), 2u);
  const PageBuffer interior = SerializeDirectoryPage(Interior());
  bytes = interior->bytes.data();
  EXPECT_EQ(LoadLittle<uint8_t>(bytes + 10), 2);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 40), uint64_t{1} << 52);  // 2^116.
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 136), absl::Uint128Low64(Segment(9).value));
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 160), uint64_t{1} << 36);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes + 168), 2u);
}

struct Damage {
  std::string what;
  DirectoryPage page;
  std::function<void(std::byte*)> damage;
};

TEST(DirectoryPage, SaysWhatIsWrong) {
  const auto put16 = [](size_t at, uint16_t v) { return [=](std::byte* b) { StoreLittle(b + at, v); }; };
  const auto put64 = [](size_t at, uint64_t v) { return [=](std::byte* b) { StoreLittle(b + at, v); }; };
  const auto put32 = [](size_t at, uint32_t v) { return [=](std::byte* b) { StoreLittle(b + at, v); }; };
  const auto low = [](PageId page) { return absl::Uint128Low64(page.value); };
  const std::vector<Damage> damages = {
      {"does not begin with MGDIRECT", Leaf(), put64(0, 0)},
      {"format is 2", Leaf(), put16(8, 2)},
      {"level is 31", Leaf(), put16(10, 31)},
      {"126 entries, more than 125", Leaf(), put16(12, 126)},
      {"101 entries, more than 100", Interior(), put16(12, 101)},
      {"must be zero", Leaf(), put16(14, 1)},
      {"must be zero", Leaf(), put64(88, 1)},
      {"no interval of whole segments", Leaf(), put64(16, low(Segment(0)) + 1)},
      {"no interval of whole segments", Leaf(), put64(16, low(Segment(1000)))},
      {"no interval of whole segments", Interior(), put64(40, uint64_t{1} << 53)},
      {"right link", Leaf(), put64(48, 0)},
      {"right link", Leaf(), put64(64, 0)},
      {"right link at the end of the space", Interior(),
       [](std::byte* b) { StoreLittle(b + 48, uint64_t{1}), StoreLittle(b + 64, uint64_t{1}); }},
      {"begins before", Leaf(), put64(128, low(Segment(0)))},
      {"no run of segments", Leaf(), put64(128, low(Segment(1)) + 1)},
      {"no run of segments", Leaf(), put32(112, 0)},
      {"is outside", Leaf(), put32(96 + 3 * 32 + 16, 2)},
      {"is outside", Leaf(), put64(96 + 3 * 32 + 8, UINT64_MAX)},
      {"names no node", Leaf(), put64(120, 0)},
      {"has term 0", Leaf(), put32(116, 0)},
      {"is not merged", Leaf(), [](std::byte* b) { StoreLittle(b + 148, 1u), StoreLittle(b + 152, uint64_t{1}); }},
      {"has no children", Interior(), put16(12, 0)},
      {"has an order", Interior(), put64(72, 1)},
      {"not at its low key", Interior(), put64(96, low(Segment(5)))},
      {"not behind the one before", Interior(), put64(136, low(Segment(4)))},
      {"outside", Interior(), put64(136, low(Segment(3)))},
      {"a child is page", Interior(), put64(128, 0)},
      {"not zero behind its entries", Leaf(), put64(4088, 1)},
  };
  for (const Damage& damage : damages) {
    PageBytes bytes = *SerializeDirectoryPage(damage.page);
    damage.damage(bytes.bytes.data());
    const auto parsed = ParseDirectoryPage(bytes);
    ASSERT_FALSE(parsed.ok()) << damage.what;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(parsed.status().message()), ::testing::HasSubstr(damage.what));
  }
}

TEST(DirectoryPageView, FindsWhatBeginsAtAPageOrBefore) {
  const PageBuffer page = SerializeDirectoryPage(Leaf());
  const auto view = DirectoryPageView::Of(*page);
  EXPECT_EQ(view->CountUpTo(Segment(0)), 1u);
  EXPECT_EQ(view->CountUpTo(Segment(0) + 511), 1u);
  EXPECT_EQ(view->CountUpTo(Segment(1)), 2u);
  EXPECT_EQ(view->CountUpTo(Segment(9)), 2u);
  EXPECT_EQ(view->CountUpTo(Segment(999)), 4u);
  EXPECT_EQ(view->CountUpTo(PageId(0)), 0u);
  EXPECT_EQ(view->run(1), RunOf(1, 2, 2, 7));
  EXPECT_EQ(view->right(), Leaf().right);
  EXPECT_EQ(view->order(), Leaf().order);
}

TEST(DirectoryEdit, GapsAreFilledAndMergedAsFarAsThereIsRoom) {
  DirectoryPage leaf = Leaf();
  std::vector<DirectoryEntry> given;
  EXPECT_EQ(FillGaps(&leaf, {Segment(0), Segment(1000)}, NodeId(2), 125, &given), Segment(1000));
  EXPECT_THAT(given, ::testing::ElementsAre(RunOf(3, 7, 2), RunOf(100, 899, 2)));
  EXPECT_THAT(leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(1, 2, 2, 7), RunOf(3, 996, 2), RunOf(999, 1, 3)));

  leaf = Leaf();
  given.clear();
  EXPECT_EQ(FillGaps(&leaf, {Segment(0), Segment(1000)}, NodeId(4), 5, &given), Segment(100));
  EXPECT_THAT(given, ::testing::ElementsAre(RunOf(3, 7, 4)));
  EXPECT_EQ(leaf.runs.size(), 5u);

  leaf = Leaf();
  given.clear();
  EXPECT_EQ(FillGaps(&leaf, {Segment(4), Segment(6)}, NodeId(4), 4, &given), Segment(4));
  EXPECT_TRUE(given.empty());
  EXPECT_EQ(leaf, Leaf());
  EXPECT_EQ(FillGaps(&leaf, {Segment(0), Segment(3)}, NodeId(4), 4, &given), Segment(3));
  EXPECT_EQ(leaf, Leaf());
}

TEST(DirectoryEdit, ARunIsCutWhereAnotherIsAssigned) {
  DirectoryPage leaf = Leaf();
  Assign(&leaf, RunOf(50, 1, 3, 2));
  EXPECT_THAT(leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(1, 2, 2, 7), RunOf(10, 40, 2), RunOf(50, 1, 3, 2),
                                                RunOf(51, 49, 2), RunOf(999, 1, 3)));
  Assign(&leaf, RunOf(50, 1, 2, 1));
  EXPECT_EQ(leaf, Leaf());
}

TEST(DirectoryEdit, OnlyTheNodesRunsAreErased) {
  DirectoryPage leaf = Leaf();
  std::vector<DirectoryEntry> erased;
  Erase(&leaf, {Segment(0), Segment(50)}, NodeId(2), &erased);
  EXPECT_THAT(erased, ::testing::ElementsAre(RunOf(1, 2, 2, 7), RunOf(10, 40, 2)));
  EXPECT_THAT(leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(50, 50, 2), RunOf(999, 1, 3)));
}

// Takes over what is of node 2, and returns as TakeOver does.
struct Taken {
  PageId next;
  DirectoryPage leaf;
  std::vector<DirectoryEntry> given;
};

Taken TakeOverOfTwo(DirectoryPage leaf, PageInterval interval, size_t most = kMaxDirectoryRuns, uint64_t node = 4) {
  Taken taken{.next = {}, .leaf = std::move(leaf), .given = {}};
  const auto is_gone = [](NodeId n) { return n == NodeId(2); };
  taken.next = TakeOver(&taken.leaf, interval, NodeId(node), most, is_gone, &taken.given);
  return taken;
}

// Covers: C05
TEST(DirectoryEdit, WhatIsOfGoneNodesIsTakenOverInTheNextTerm) {
  const Taken taken = TakeOverOfTwo(Leaf(), Leaf().keys);
  EXPECT_EQ(taken.next, Leaf().keys.end);
  EXPECT_THAT(taken.given, ::testing::ElementsAre(RunOf(1, 2, 4, 8), RunOf(10, 90, 4, 2)));
  EXPECT_THAT(taken.leaf.runs,
              ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(1, 2, 4, 8), RunOf(10, 90, 4, 2), RunOf(999, 1, 3)));
  DirectoryPage with_runs_of_before = Leaf();
  with_runs_of_before.runs = taken.leaf.runs;
  EXPECT_EQ(taken.leaf, with_runs_of_before);  // Gaps, keys, right link and order are as they were.
}

TEST(DirectoryEdit, OnlyWhatIsInTheIntervalIsTakenOver) {
  const Taken inside = TakeOverOfTwo(Leaf(), {Segment(20), Segment(30)});
  EXPECT_EQ(inside.next, Segment(30));
  EXPECT_THAT(inside.given, ::testing::ElementsAre(RunOf(20, 10, 4, 2)));
  EXPECT_THAT(inside.leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(1, 2, 2, 7), RunOf(10, 10, 2),
                                                       RunOf(20, 10, 4, 2), RunOf(30, 70, 2), RunOf(999, 1, 3)));
  const Taken across = TakeOverOfTwo(Leaf(), {Segment(2), Segment(11)});
  EXPECT_THAT(across.given, ::testing::ElementsAre(RunOf(2, 1, 4, 8), RunOf(10, 1, 4, 2)));
  EXPECT_THAT(across.leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 1), RunOf(1, 1, 2, 7), RunOf(2, 1, 4, 8),
                                                       RunOf(10, 1, 4, 2), RunOf(11, 89, 2), RunOf(999, 1, 3)));
  for (const PageInterval nothing : {PageInterval{Segment(3), Segment(10)}, PageInterval{Segment(0), Segment(1)},
                                     PageInterval{Segment(999), Segment(1000)}}) {
    const Taken none = TakeOverOfTwo(Leaf(), nothing);
    EXPECT_EQ(none.next, nothing.end);
    EXPECT_TRUE(none.given.empty());
    EXPECT_EQ(none.leaf, Leaf());
  }
}

TEST(DirectoryEdit, NothingIsTakenOverThatTheLeafHasNoRoomFor) {
  // One whole run needs no room. A part of one needs one, or two in its middle.
  Taken taken = TakeOverOfTwo(Leaf(), {Segment(0), Segment(50)}, 4);
  EXPECT_EQ(taken.next, Segment(10));
  EXPECT_THAT(taken.given, ::testing::ElementsAre(RunOf(1, 2, 4, 8)));
  EXPECT_EQ(taken.leaf.runs.size(), 4u);
  taken = TakeOverOfTwo(taken.leaf, {Segment(10), Segment(50)}, 5);
  EXPECT_EQ(taken.next, Segment(50));
  EXPECT_THAT(taken.given, ::testing::ElementsAre(RunOf(10, 40, 4, 2)));
  taken = TakeOverOfTwo(Leaf(), {Segment(20), Segment(30)}, 5);
  EXPECT_EQ(taken.next, Segment(20));
  EXPECT_TRUE(taken.given.empty());
  EXPECT_EQ(taken.leaf, Leaf());
  EXPECT_EQ(TakeOverOfTwo(Leaf(), {Segment(20), Segment(30)}, 6).next, Segment(30));
}

TEST(DirectoryEdit, WhatIsTakenOverMergesWithWhatItIsLike) {
  DirectoryPage leaf = Leaf();
  leaf.runs = {RunOf(0, 2, 4, 3), RunOf(2, 3, 2, 2), RunOf(5, 1, 4, 3), RunOf(6, 1, 4, 2), RunOf(7, 1, 2, 2)};
  const Taken taken = TakeOverOfTwo(leaf, leaf.keys, 5);
  EXPECT_EQ(taken.next, leaf.keys.end);
  EXPECT_THAT(taken.given, ::testing::ElementsAre(RunOf(2, 3, 4, 3), RunOf(7, 1, 4, 3)));
  EXPECT_THAT(taken.leaf.runs, ::testing::ElementsAre(RunOf(0, 6, 4, 3), RunOf(6, 1, 4, 2), RunOf(7, 1, 4, 3)));
  EXPECT_TRUE(ParseDirectoryPage(*SerializeDirectoryPage(taken.leaf)).ok());
}

// Of several that are gone at once, in any order.
TEST(DirectoryEdit, NeighboursOfDifferentGoneNodesBecomeOneRun) {
  DirectoryPage leaf = Leaf();
  leaf.runs = {RunOf(0, 2, 2, 1), RunOf(2, 2, 3, 1), RunOf(4, 2, 1, 1)};
  std::vector<DirectoryEntry> given;
  const auto is_gone = [](NodeId n) { return n != NodeId(1); };
  EXPECT_EQ(TakeOver(&leaf, leaf.keys, NodeId(1), 125, is_gone, &given), leaf.keys.end);
  EXPECT_THAT(leaf.runs, ::testing::ElementsAre(RunOf(0, 4, 1, 2), RunOf(4, 2, 1, 1)));
  uint64_t pages = 0;
  for (const DirectoryEntry& run : given) pages += run.range.count;
  EXPECT_EQ(pages, 4 * kSegmentPages);
}

TEST(DirectoryEdit, ARunInTheLastTermIsLeftAlone) {
  DirectoryPage leaf = Leaf();
  leaf.runs = {RunOf(0, 1, 2, UINT32_MAX), RunOf(1, 1, 2, UINT32_MAX - 1)};
  const Taken taken = TakeOverOfTwo(leaf, leaf.keys);
  EXPECT_EQ(taken.next, leaf.keys.end);
  EXPECT_THAT(taken.given, ::testing::ElementsAre(RunOf(1, 1, 4, UINT32_MAX)));
  EXPECT_THAT(taken.leaf.runs, ::testing::ElementsAre(RunOf(0, 1, 2, UINT32_MAX), RunOf(1, 1, 4, UINT32_MAX)));
}

TEST(DirectoryEdit, SplitsInTheMiddleOrBehindTheLast) {
  DirectoryPage leaf = Leaf();
  leaf.keys.end = kSpaceEnd;
  leaf.right = {};
  EXPECT_EQ(CutFor(leaf, Segment(20)), Segment(10));
  EXPECT_EQ(CutFor(leaf, Segment(1500)), Segment(1500));
  const DirectoryPage right = SplitOff(&leaf, Segment(10));
  EXPECT_EQ(leaf.keys, (PageInterval{Segment(0), Segment(10)}));
  EXPECT_EQ(right.keys, (PageInterval{Segment(10), kSpaceEnd}));
  EXPECT_EQ(right.order, leaf.order);
  EXPECT_THAT(right.runs, ::testing::ElementsAre(RunOf(10, 90, 2), RunOf(999, 1, 3)));
  DirectoryPage interior = FullInterior();
  EXPECT_EQ(CutFor(interior, Segment(500)), Segment(99));
  EXPECT_EQ(CutFor(interior, Segment(3)), Segment(50));
  EXPECT_EQ(SplitOff(&interior, Segment(50)).children.size(), 50u);
}

}  // namespace
}  // namespace mangrove
