// What is said once, and when it is said again.

#include "net/log.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

TEST(LogOnce, SaysEachKeyOnceUntilItIsForgotten) {
  LogOnce once;
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "alpha: down", "text"));
  EXPECT_FALSE(once.Log(LogLevel::kDebug, "alpha: down", "text"));
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "alpha: lost", "text"));
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "alpha2: down", "text"));
  once.Forget("alpha: ");
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "alpha: down", "text"));
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "alpha: lost", "text"));
  EXPECT_FALSE(once.Log(LogLevel::kDebug, "alpha2: down", "text"));
}

TEST(LogOnce, IsBoundedByItsKeys) {
  LogOnce once(2);
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "1", "text"));
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "2", "text"));
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "3", "text"));  // And that there are more.
  EXPECT_FALSE(once.Log(LogLevel::kDebug, "4", "text"));
  once.Forget("1");
  EXPECT_TRUE(once.Log(LogLevel::kDebug, "4", "text"));
}

}  // namespace
}  // namespace mangrove
