// A set of pages (engine/page_intervals.h).
//
// Covers: C06

#include "engine/page_intervals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bitset>
#include <cstdint>
#include <random>
#include <vector>

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

PageInterval Of(uint64_t first, uint64_t end) { return {PageId(first), PageId(end)}; }

TEST(PageIntervals, WhatTouchesBecomesOne) {
  PageIntervals set;
  set.Add(Of(10, 20));
  set.Add(Of(30, 40));
  EXPECT_THAT(set.All(), ElementsAre(Of(10, 20), Of(30, 40)));
  set.Add(Of(20, 30));
  EXPECT_THAT(set.All(), ElementsAre(Of(10, 40)));
  set.Add(Of(12, 13));
  set.Add(Of(50, 50));
  EXPECT_THAT(set.All(), ElementsAre(Of(10, 40)));
}

TEST(PageIntervals, MayBeTheWholeSpace) {
  PageIntervals set;
  EXPECT_EQ(set.NextOutside(PageId(5)), PageId(5));
  EXPECT_THAT(set.Outside(kWholeSpace), ElementsAre(kWholeSpace));
  set.Add({PageId(absl::uint128(1) << 90), kSpaceEnd});
  set.Add({PageId(0), PageId(absl::uint128(1) << 90)});
  EXPECT_THAT(set.All(), ElementsAre(kWholeSpace));
  EXPECT_EQ(set.NextOutside(PageId(0)), kSpaceEnd);
  EXPECT_THAT(set.Outside(kWholeSpace), IsEmpty());
  EXPECT_TRUE(set.Contains(kWholeSpace));
}

// Against a set of bits.
TEST(PageIntervals, IsTheSameAsASetOfPages) {
  constexpr size_t kPages = 64;
  std::mt19937 random(7);  // NOLINT: the same each time.
  for (int run = 0; run < 300; ++run) {
    PageIntervals set;
    std::bitset<kPages> bits;
    for (int step = 0; step < 12; ++step) {
      const uint64_t first = random() % kPages;
      const uint64_t end = first + random() % 12;
      set.Add(Of(first, std::min<uint64_t>(end, kPages)));
      for (uint64_t i = first; i < end && i < kPages; ++i) bits.set(i);
      const uint64_t from = random() % kPages;
      const uint64_t to = from + random() % (kPages - from);
      std::bitset<kPages> outside;
      for (const PageInterval& part : set.Outside(Of(from, to))) {
        ASSERT_FALSE(part.empty());
        for (PageId page = part.first; page < part.end; page = page + 1) outside.set(page - PageId(0));
      }
      uint64_t in = 0;
      for (uint64_t i = 0; i < kPages; ++i) {
        ASSERT_EQ(set.Contains(PageId(i)), bits[i]);
        const bool asked = from <= i && i < to;
        in += static_cast<uint64_t>(asked && bits[i]);
        ASSERT_EQ(outside[i], asked && !bits[i]) << i;
      }
      ASSERT_EQ(set.CountIn({PageId(from), to - from}), in);
      ASSERT_EQ(set.Contains(Of(from, to)), in == to - from);
      uint64_t next = from;
      while (next < kPages && bits[next]) ++next;
      ASSERT_EQ(set.NextOutside(PageId(from)), PageId(next));
      for (size_t i = 1; i < set.All().size(); ++i) ASSERT_LT(set.All()[i - 1].end, set.All()[i].first);
    }
  }
}

}  // namespace
}  // namespace mangrove
