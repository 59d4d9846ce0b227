#include "tests/sim/sim_world.h"

#include <vector>

#include "gtest/gtest.h"

namespace mangrove::sim {
namespace {

void RunAll(SimWorld& world) {
  while (world.Step()) {
  }
}

TEST(SimRandom, AStreamDoesNotMoveAnother) {
  const SimRandom root(7);
  SimRandom first = root.Fork("a");
  SimRandom second = root.Fork("b");
  const uint64_t expected = SimRandom(second).Next();
  for (int i = 0; i < 100; ++i) first.Next();
  EXPECT_EQ(second.Next(), expected);
  EXPECT_NE(root.Fork("a", 1).Next(), root.Fork("a", 2).Next());
}

TEST(SimRandom, SpreadStaysWithinItsBounds) {
  SimRandom random(1);
  bool low = false;
  bool high = false;
  for (int i = 0; i < 10'000; ++i) {
    const int64_t value = random.Spread(10, 10'000);
    ASSERT_GE(value, 10);
    ASSERT_LE(value, 10'000);
    low = low || value < 40;
    high = high || value > 5'000;
  }
  EXPECT_TRUE(low && high);
}

TEST(SimWorld, EventsRunByTimeThenByCreation) {
  SimWorld world(1);
  std::vector<int> order;
  world.At(20, kNoNode, EventKind::kTimer, [&] { order.push_back(3); });
  world.At(10, kNoNode, EventKind::kTimer, [&] {
    order.push_back(1);
    world.At(5, kNoNode, EventKind::kTimer, [&] { order.push_back(2); });  // In the past: now.
  });
  world.At(20, kNoNode, EventKind::kTimer, [&] { order.push_back(4); });
  RunAll(world);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(world.now(), 20);
}

TEST(SimWorld, ACancelledEventDoesNotRunAndItsSlotIsNotMistaken) {
  SimWorld world(1);
  int ran = 0;
  const SimWorld::EventId first = world.At(10, kNoNode, EventKind::kTimer, [&] { ran += 1; });
  world.Cancel(first);
  world.At(10, kNoNode, EventKind::kTimer, [&] { ran += 10; });
  world.Cancel(first);  // The slot is another event's now.
  RunAll(world);
  EXPECT_EQ(ran, 10);
}

TEST(SimWorld, APausedNodeHandlesEverythingLaterInItsOrder) {
  SimWorld world(1);
  std::vector<int> order;
  world.Pause(0, 100, /*applications=*/false);
  world.At(10, 0, EventKind::kTimer, [&] { order.push_back(2); });
  world.At(20, 0, EventKind::kDelivery, [&] { order.push_back(3); });
  world.At(30, 1, EventKind::kTimer, [&] { order.push_back(1); });
  world.At(40, 0, EventKind::kApplication, [&] { order.push_back(world.now() == 40 ? 4 : 5); });
  RunAll(world);
  EXPECT_EQ(order, (std::vector<int>{1, 4, 2, 3}));
  EXPECT_EQ(world.now(), 100);
  EXPECT_EQ(world.PausedFor(0), 100);
}

TEST(SimWorld, ADeadNodesEventsAreDropped) {
  SimWorld world(1);
  auto held = std::make_shared<int>(0);
  world.At(10, 0, EventKind::kTimer, [held] { *held = 1; });
  world.At(5, kNoNode, EventKind::kFault, [&] { world.DropEventsOf(0); });
  RunAll(world);
  EXPECT_EQ(*held, 0);
  EXPECT_EQ(held.use_count(), 1) << "the callback is destroyed with the life";
}

TEST(SimWorld, TheHashTellsHistoriesApart) {
  const auto run = [](uint64_t seed, TimeNs time) {
    SimWorld world(seed);
    world.At(time, 0, EventKind::kTimer, [] {});
    RunAll(world);
    return world.hash();
  };
  EXPECT_EQ(run(1, 10), run(1, 10));
  EXPECT_NE(run(1, 10), run(1, 11));
  EXPECT_NE(run(1, 10), run(2, 10));
}

TEST(SimWorld, TheFirstFailureStopsIt) {
  SimWorld world(1);
  int ran = 0;
  world.At(1, kNoNode, EventKind::kTimer, [&] {
    world.Fail("first");
    world.Fail("second");
  });
  world.At(2, kNoNode, EventKind::kTimer, [&] { ++ran; });
  RunAll(world);
  EXPECT_EQ(ran, 0);
  EXPECT_EQ(world.failure(), "first");
}

TEST(SimWorld, ALoopWithoutTimeIsSeen) {
  SimWorld world(1);
  std::function<void()> again = [&] { world.After(0, kNoNode, EventKind::kSoon, [&] { again(); }); };
  again();
  RunAll(world);
  EXPECT_NE(world.failure().find("livelock"), std::string::npos);
}

TEST(SimClock, TimersAreNeverEarlyHoweverTheClockDrifts) {
  for (const int64_t drift : {-2000, -1, 0, 1, 2000}) {
    SimWorld world(1);
    SimClock clock(&world, 0, 5 * kSecond, drift);
    SimRandom random(3);
    int fired = 0;
    for (int i = 0; i < 200; ++i) {
      const TimeNs deadline = clock.Now() + random.Spread(1, 100 * kSecond);
      clock.CallAt(deadline, [&clock, &fired, deadline] {
        EXPECT_GE(clock.Now(), deadline);
        EXPECT_LE(clock.Now(), deadline + 2 * kMillisecond);
        ++fired;
      });
    }
    RunAll(world);
    EXPECT_EQ(fired, 200);
  }
}

TEST(SimClock, ADeadClockSchedulesNothing) {
  SimWorld world(1);
  SimClock clock(&world, 0, 0, 0);
  clock.Kill();
  clock.CallSoon([] { FAIL(); });
  clock.Cancel(clock.CallAt(5, [] { FAIL(); }));
  EXPECT_FALSE(world.Step());
}

}  // namespace
}  // namespace mangrove::sim
