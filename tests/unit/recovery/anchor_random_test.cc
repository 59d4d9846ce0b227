// Views and leases under every kind of fault, and with mistakes built in that have to be found.
// Covers: G13

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/sanitizers.h"
#include "tests/unit/recovery/anchor_world.h"

namespace mangrove {
namespace {

TEST(AnchorRandom, WithoutFaultsThereIsOneLeaderAndOneView) {
  AnchorWorld world({.seed = 1, .faults = false});
  world.RunFor(5 * kSecond);
  const Epoch epoch = world.view().epoch;
  EXPECT_EQ(world.view().members.size(), 6u);
  world.RunFor(30 * kSecond);
  EXPECT_EQ(world.view().epoch, epoch);
  EXPECT_EQ(world.restarts(), 0u);
  EXPECT_EQ(world.failure(), "");
}

TEST(AnchorRandom, NoFaultBreaksIt) {
  uint64_t views = 0;
  uint64_t restarts = 0;
  uint64_t disks = 0;
  uint64_t blank = 0;
  uint64_t caught_up = 0;
  uint64_t moves = 0;
  uint64_t weighed = 0;
  uint64_t left = 0;
  uint64_t removed = 0;
  uint64_t added = 0;
  uint64_t vote_changes = 0;
  constexpr uint64_t kHistories = Histories(60);
  for (uint64_t seed = 1; seed <= kHistories; ++seed) {
    AnchorWorld world({.seed = seed,
                       .anchors = seed % 3 == 0   ? 5
                                  : seed % 7 == 0 ? 1
                                                  : 3,
                       .nodes = seed % 2 == 0 ? 7 : 5,
                       .grouped = seed % 4 < 2});
    world.RunFor(60 * kSecond);
    ASSERT_EQ(world.Settle(), "") << world.Describe();
    views += world.views();
    restarts += world.restarts();
    disks += world.disks();
    blank += world.blank();
    caught_up += world.caught_up();
    moves += world.moves();
    weighed += world.weighed();
    left += world.left();
    removed += world.removed();
    added += world.added();
    vote_changes += world.vote_changes();
  }
  // It was not because nothing happened.
  EXPECT_GT(views, kHistories * 15);
  EXPECT_GT(restarts, kHistories * 3);
  EXPECT_GT(disks, kHistories);
  EXPECT_GT(blank, kHistories);
  EXPECT_GT(caught_up, kHistories * 3);
  EXPECT_GT(moves, kHistories);
  EXPECT_GT(weighed, kHistories * 2 / 3);
  EXPECT_GT(left, kHistories);
  EXPECT_GT(removed, kHistories * 2 / 3);
  EXPECT_GT(added, kHistories / 3);
  EXPECT_GT(vote_changes, kHistories * 5 / 6);
}

// From the kill of a node to the view without it; nobody else loses its lease meanwhile.
TEST(AnchorRandom, ALossIsInTheViewInTimeAndNobodyElseIsDisturbed) {
  DurationNs longest_member = 0;
  DurationNs longest_leader = 0;
  for (uint64_t seed = 1; seed <= Histories(100); ++seed) {
    AnchorWorld world({.seed = seed, .faults = false, .grouped = seed % 2 == 0});
    world.RunFor(5 * kSecond);
    for (const bool kills_leader : {false, true}) {
      const NodeId leader = world.leader();
      const NodeId node = kills_leader ? leader : world.IdOf(leader == world.IdOf(6) ? 5 : 6);
      world.Crash(node);
      bool disturbed = false;
      const auto is_out = [&] {
        for (int i = 1; i <= 6; ++i) disturbed |= world.IdOf(i) != node && !world.HasLease(world.IdOf(i));
        return !world.view().members.contains(node);
      };
      const auto took = world.RunUntil(is_out, 10 * kSecond);
      ASSERT_TRUE(took.has_value()) << world.Describe();
      EXPECT_FALSE(disturbed) << "seed " << seed << ", the leader: " << kills_leader;
      DurationNs& longest = kills_leader ? longest_leader : longest_member;
      longest = std::max(longest, *took);
      world.Start(node);
      world.RunFor(3 * kSecond);
      ASSERT_TRUE(world.HasLease(node)) << world.Describe();
    }
    ASSERT_EQ(world.failure(), "");
  }
  EXPECT_LT(longest_member, 1'200 * kMillisecond);
  EXPECT_LT(longest_leader, 1'900 * kMillisecond);
  std::printf("a member %d ms, the leader %d ms\n", static_cast<int>(longest_member / kMillisecond),
              static_cast<int>(longest_leader / kMillisecond));
}

// From the word of a node that leaves to the view without it, also of a leader, which hands that over first; nobody else loses its
// lease, and the node is welcome at once.
TEST(AnchorRandom, WhoLeavesIsOutOfTheViewAtOnceAndComesBackAtOnce) {
  DurationNs longest_hand_over = 0;
  DurationNs longest_leave = 0;
  DurationNs longest_return = 0;
  for (uint64_t seed = 1; seed <= Histories(100); ++seed) {
    AnchorWorld world({.seed = seed, .faults = false, .grouped = seed % 2 == 0});
    world.RunFor(5 * kSecond);
    for (const bool leads : {false, true}) {
      const NodeId leader = world.leader();
      const NodeId node = leads ? leader : world.IdOf(leader == world.IdOf(6) ? 5 : 6);
      bool disturbed = false;
      const auto look = [&] {
        for (int i = 1; i <= 6; ++i) disturbed |= world.IdOf(i) != node && !world.HasLease(world.IdOf(i));
      };
      if (leads) {
        world.HandOver(node);
        const auto took = world.RunUntil([&] { return look(), world.leader() != node; }, kSecond);
        ASSERT_TRUE(took.has_value()) << world.Describe();
        longest_hand_over = std::max(longest_hand_over, *took);
      }
      world.Leave(node);
      EXPECT_FALSE(world.IsUp(node) && world.HasLease(node));
      const auto took = world.RunUntil([&] { return look(), !world.view().members.contains(node); }, 10 * kSecond);
      ASSERT_TRUE(took.has_value()) << world.Describe();
      longest_leave = std::max(longest_leave, *took);
      // Nothing else comes of it while it is away.
      static_cast<void>(world.RunUntil([&] { return look(), false; }, 3 * kMillisecond));
      EXPECT_FALSE(disturbed) << "seed " << seed << ", the leader: " << leads;
      if (world.IsUp(node)) world.Crash(node);
      world.Start(node);
      const auto back = world.RunUntil([&] { return world.HasLease(node); }, 10 * kSecond);
      ASSERT_TRUE(back.has_value()) << world.Describe();
      longest_return = std::max(longest_return, *back);
      world.RunFor(3 * kSecond);
      ASSERT_TRUE(world.HasLease(node)) << world.Describe();
    }
    ASSERT_EQ(world.failure(), "");
  }
  EXPECT_LT(longest_hand_over, 50 * kMillisecond);
  EXPECT_LT(longest_leave, 100 * kMillisecond);
  EXPECT_LT(longest_return, 500 * kMillisecond);
  std::printf("a hand-over %d ms, a leave %d ms, a return %d ms\n", static_cast<int>(longest_hand_over / kMillisecond),
              static_cast<int>(longest_leave / kMillisecond), static_cast<int>(longest_return / kMillisecond));
}

// A monitor that sleeps passes nothing on, and a leader that sleeps gives nothing; the others find another way in time.
TEST(AnchorRandom, WhoSleepsCostsNobodyElseALease) {
  for (uint64_t seed = 1; seed <= Histories(120); ++seed) {
    AnchorWorld world({.seed = seed, .nodes = 12, .faults = false, .grouped = seed % 3 != 0});
    world.RunFor(5 * kSecond);
    const NodeId leader = world.leader();
    const NodeId other = world.IdOf(leader == world.IdOf(1) ? 2 : 1);
    const NodeId sleeper = seed % 2 == 0 ? leader : other;
    world.Pause(sleeper, 4 * kSecond);
    NodeId disturbed;
    static_cast<void>(world.RunUntil(
        [&] {
          for (int i = 1; i <= 12 && disturbed.value == 0; ++i) {
            if (world.IdOf(i) != sleeper && !world.HasLease(world.IdOf(i))) disturbed = world.IdOf(i);
          }
          return disturbed.value != 0;
        },
        4 * kSecond));
    EXPECT_EQ(disturbed, NodeId()) << "seed " << seed << ", by " << ToString(sleeper);
    ASSERT_EQ(world.failure(), "");
  }
}

struct ViewMistake {
  const char* name;
  ViewBugs bugs;
};

class AnchorMistakes : public testing::TestWithParam<ViewMistake> {};

TEST_P(AnchorMistakes, IsFound) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    AnchorWorld world(
        {.seed = seed, .nodes = 5, .replaces_disks = false, .grouped = seed % 2 == 0, .view_bugs = GetParam().bugs});
    world.RunFor(60 * kSecond);
    if (!world.failure().empty()) return;
  }
  FAIL() << "not within 500 seeds";
}

INSTANTIATE_TEST_SUITE_P(All, AnchorMistakes,
                         testing::Values(ViewMistake{"NoLeaseWait", {.no_lease_wait = true}},
                                         ViewMistake{"LeaseUnconfirmed", {.lease_unconfirmed = true}},
                                         ViewMistake{"LeaseToLeaving", {.lease_to_leaving = true}},
                                         ViewMistake{"CaughtUpStays", {.caught_up_stays = true}},
                                         ViewMistake{"AnyMove", {.any_move = true}},
                                         ViewMistake{"WeighUnasked", {.weigh_unasked = true}},
                                         ViewMistake{"LeavesAsAny", {.leaves_as_any = true}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mangrove
