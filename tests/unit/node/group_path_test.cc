#include "node/group_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mangrove {
namespace {

using testing::HasSubstr;

// Covers: C01
TEST(GroupPath, HasANumberBelow64ForEachLevel) {
  EXPECT_EQ(GroupPath(0), "0");
  EXPECT_EQ(GroupPath(63), "63");
  EXPECT_EQ(GroupPath(64), "1/0");
  EXPECT_EQ(GroupPath(2 * 64 + 5), "2/5");
  EXPECT_EQ(GroupPath((uint64_t{1} << 54) - 1), "63/63/63/63/63/63/63/63/63");
  for (const uint64_t group : {uint64_t{0}, uint64_t{63}, uint64_t{133}, uint64_t{1} << 53}) {
    EXPECT_EQ(*ParseGroupPath(GroupPath(group)), group);
    EXPECT_EQ(*ParseGroupPath(std::to_string(group)), group);
  }
}

// Covers: C01
TEST(GroupPath, WhatNamesNoGroupIsRefused) {
  for (const char* text : {"", "/", "2/", "/5", "2/64", "a", "2/5/-1", "18014398509481984"}) {
    EXPECT_THAT(std::string(ParseGroupPath(text).status().message()), HasSubstr("expected whole numbers from 0 to"))
        << text;
  }
  EXPECT_THAT(std::string(ParseGroupPath("1/1/1/1/1/1/1/1/1/1").status().message()),
              HasSubstr("of 10 levels, expected at most 9"));
}

}  // namespace
}  // namespace mangrove
