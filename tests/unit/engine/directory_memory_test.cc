#include "engine/directory_memory.h"

#include <gtest/gtest.h>

#include <vector>

namespace mangrove {
namespace {

constexpr PageId kPage = kRamDirectoryRootPage;

// Covers: G06
TEST(DirectoryMemory, WhatWasLookedAtStaysAsItWas) {
  DirectoryMemory memory;
  memory.Install(kPage, nullptr, Rights::kWrite);
  const PageBuffer before = memory.Copy(kPage);
  const PageBuffer same = memory.Copy(kPage);
  EXPECT_EQ(before, same);  // Not a byte of it was copied.
  memory.Store(kPage, 8, std::vector<std::byte>(1, std::byte{7}));
  const PageBuffer after = memory.Copy(kPage);
  EXPECT_EQ(before->bytes[8], std::byte{0});
  EXPECT_EQ(after->bytes[8], std::byte{7});
  PageBuffer taken;
  memory.Take(kPage, true, [&](PageBuffer content) { taken = std::move(content); });
  EXPECT_EQ(taken, after);
  memory.Install(kPage, before->bytes.data(), Rights::kRead);
  memory.Store(kPage, 9, std::vector<std::byte>(1, std::byte{9}));
  EXPECT_EQ(taken->bytes[9], std::byte{0});
}

}  // namespace
}  // namespace mangrove
