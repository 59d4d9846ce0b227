// A loop lets others run after a time, and after a number of steps.

#include "engine/loop_turn.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

TEST(LoopTurn, EndsWithItsTime) {
  ManualClock clock;
  LoopTurn turn(&clock);
  EXPECT_FALSE(turn.IsOver());
  clock.AdvanceTo(clock.Now() + LoopTurn::kLongest - 1);
  EXPECT_FALSE(turn.IsOver());
  clock.AdvanceTo(clock.Now() + 1);
  EXPECT_TRUE(turn.IsOver());
  turn.Begin();
  EXPECT_FALSE(turn.IsOver());
}

TEST(LoopTurn, EndsWithItsStepsWhereTimeStandsStill) {
  ManualClock clock;
  LoopTurn turn(&clock);
  for (uint64_t step = 1; step < LoopTurn::kMostSteps; ++step) ASSERT_FALSE(turn.IsOver()) << step;
  EXPECT_TRUE(turn.IsOver());
}

}  // namespace
}  // namespace mangrove
