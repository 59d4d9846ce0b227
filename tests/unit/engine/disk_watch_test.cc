#include "engine/disk_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mangrove {
namespace {

using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

StoreUsage Usage(uint64_t used_gib, uint64_t free_gib) {
  return {.used_bytes = used_gib * kGiB, .free_bytes = free_gib * kGiB};
}

// Covers: B14, G13
TEST(DiskWatch, ADiskIsLowBelow15PercentUntilMoreThan17AreFree) {
  EXPECT_EQ(RoomOf(Usage(85, 15), 0, {}), DiskRoom{});
  const DiskRoom low = RoomOf(Usage(86, 14), 0, {});
  EXPECT_EQ(low, DiskRoom{.is_low = true});
  EXPECT_EQ(RoomOf(Usage(84, 16), 0, low), low);
  EXPECT_EQ(RoomOf(Usage(83, 17), 0, low), DiskRoom{});
  EXPECT_EQ(RoomOf(Usage(100, 0), 0, {}), (DiskRoom{.is_full = true, .is_low = true}));
  EXPECT_EQ(RoomOf(Usage(0, 100), 0, {}), DiskRoom{});
}

// Covers: G13
TEST(DiskWatch, WhatComesIfANodeIsLostIsItsShareOfOneDisk) {
  EXPECT_EQ(HeadroomBytes(Usage(60, 40), 4, 2), 20 * kGiB);
  EXPECT_EQ(HeadroomBytes(Usage(60, 40), 3, 2), 30 * kGiB);
  EXPECT_EQ(HeadroomBytes(Usage(60, 40), 2, 2), 0u) << "the one that is left has everything";
  EXPECT_EQ(HeadroomBytes(Usage(60, 40), 1, 2), 0u);
  EXPECT_EQ(HeadroomBytes(Usage(60, 40), 0, 1), 0u);
  EXPECT_EQ(RoomOf(Usage(60, 20), 20 * kGiB, {}), DiskRoom{});
  const DiskRoom lacks = RoomOf(Usage(60, 19), 20 * kGiB, {});
  EXPECT_EQ(lacks, DiskRoom{.lacks_headroom = true});
  EXPECT_EQ(RoomOf(Usage(60, 21), 20 * kGiB, lacks), lacks);
  EXPECT_EQ(RoomOf(Usage(60, 23), 20 * kGiB, lacks), DiskRoom{});
}

TEST(DiskWatch, PulsesSayWhatPagesMayTakeAndNever0) {
  EXPECT_EQ(DiskSizeOf(Usage(60, 40)), (DiskSize{.mib = 100U << 10, .used = 601}));
  EXPECT_EQ(DiskSizeOf(Usage(0, 0)), (DiskSize{.mib = 1, .used = DiskSize::kAllUsed}));
  EXPECT_EQ(DiskSizeOf(Usage(uint64_t{1} << 33, 0)), (DiskSize{.mib = UINT32_MAX, .used = DiskSize::kAllUsed}));
  EXPECT_EQ(DiskSizeOf(Usage(0, 1)).used, 1U);
}

TEST(DiskWatch, TheWorstIsSaidWithWhatToDo) {
  EXPECT_EQ(AdviceOn({}, Usage(1, 9), 0), "");
  EXPECT_THAT(AdviceOn({.is_full = true, .is_low = true, .lacks_headroom = true}, Usage(10, 0), kGiB),
              HasSubstr("0 % of this node's disk, 0 MiB, is free: what is written here cannot be flushed"));
  EXPECT_THAT(AdviceOn({.is_low = true, .lacks_headroom = true}, Usage(9, 1), kGiB), HasSubstr("before it is full"));
  EXPECT_THAT(AdviceOn({.lacks_headroom = true}, Usage(8, 2), 4 * kGiB), HasSubstr("about 4096 MiB come here"));
}

}  // namespace
}  // namespace mangrove
