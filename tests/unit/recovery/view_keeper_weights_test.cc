// What weights the leader gives the disks, and when: K8.
// Covers: G13

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "tests/unit/recovery/view_keeper_places_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr DurationNs kBeat = 100 * kMillisecond;

class ViewKeeperWeights : public ViewKeeperPlacesTest {
 protected:
  // Each with as much room as is said of it, in GiB.
  void HearRooms() {
    for (const auto& [node, incarnation] : view_.members) HearRoom(node.value, incarnation.value);
  }
  void HearRoom(uint64_t node, uint64_t incarnation = 1) {
    Pulse pulse{.sent_at = 0, .epoch = view_.epoch, .unreachable = {}};
    pulse.knows_weights = !old_.contains(node);
    if (pulse.knows_weights) {
      const auto used = used_percent_.find(node);
      pulse.disk = {.mib = rooms_.at(node) << 10,
                    .used = static_cast<uint16_t>(used == used_percent_.end() ? 1 : 10 * used->second + 1)};
      if (silent_.contains(node)) pulse.disk.used = 0;
    }
    pulse.moved = view_.move;
    Hear(Instance(node, incarnation), pulse);
  }
  // Nothing but pulses, for so long.
  ViewChange After(DurationNs span) {
    ViewChange change;
    for (const TimeNs end = now_ + span; now_ < end && change.empty();) {
      now_ += std::min<DurationNs>(kBeat, end - now_);
      HearRooms();
      change = Decide();
    }
    return change;
  }
  static bool Changes(const ViewChange& change) { return !change.weigh.empty(); }

  std::map<uint64_t, uint32_t> rooms_;
  std::map<uint64_t, uint32_t> used_percent_;
  std::set<uint64_t> silent_;
  std::set<uint64_t> old_;  // Of an earlier version.
  const DurationNs wait_ = timing_.reweigh_after;
};

TEST_F(ViewKeeperWeights, ASmallDiskIsWeighedAfterAWhileByAMove) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 240}};
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  const ViewChange change = Follow(After(2 * kBeat));
  EXPECT_THAT(change.weigh, ElementsAre(DiskWeight{NodeId(3), 4}));
  EXPECT_EQ(change.size(), 1U);
  EXPECT_EQ(view_.disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.next_disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.weights, DiskWeights());
  EXPECT_EQ(view_.next_weights, (DiskWeights{{NodeId(3), 4}}));
  EXPECT_EQ(view_.move, view_.epoch);
  // When all have theirs.
  EXPECT_TRUE(Follow(After(kBeat)).placed);
  EXPECT_EQ(view_.weights, (DiskWeights{{NodeId(3), 4}}));
  EXPECT_EQ(view_.next_weights, DiskWeights());
  EXPECT_EQ(view_.next_disks, Nodes());
  EXPECT_TRUE(After(3 * wait_).empty());
}

TEST_F(ViewKeeperWeights, DisksOfOneSizeStayAsTheyAre) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 950}, {3, 900}};
  EXPECT_TRUE(After(3 * wait_).empty());
}

TEST_F(ViewKeeperWeights, TwoChangesAreApart) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 250}};
  ASSERT_TRUE(Changes(Follow(After(2 * wait_))));
  ASSERT_TRUE(Follow(After(kBeat)).placed);
  rooms_[2] = 1000;
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  EXPECT_THAT(Follow(After(2 * kBeat)).weigh, ElementsAre(DiskWeight{NodeId(2), 16}));
  EXPECT_EQ(view_.next_weights, DiskWeights());
  EXPECT_EQ(view_.next_disks, Ids({1, 2}));
  EXPECT_TRUE(Follow(After(kBeat)).placed);
  EXPECT_EQ(view_.weights, DiskWeights());
}

TEST_F(ViewKeeperWeights, NothingChangesWhileAMoveGoesOn) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 100}};
  Move({1, 2, 3, 4});  // Of whom the last one is not there, for the time being.
  Add(4);
  EXPECT_FALSE(Changes(After(2 * wait_)));
}

TEST_F(ViewKeeperWeights, NothingChangesWhileADiskIsBehindOrAwayOrSaysNothing) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 100}};
  view_.behind[NodeId(2)] = Epoch(1);
  EXPECT_TRUE(After(2 * wait_).empty());
  view_.behind.clear();
  rooms_[2] = 0;
  EXPECT_TRUE(After(2 * wait_).empty());
  rooms_[2] = 1000;
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  now_ += kSecond;  // Nobody is heard.
  EXPECT_FALSE(Changes(Decide()));
  EXPECT_FALSE(Changes(After(wait_ - kBeat)));
  EXPECT_TRUE(Changes(After(2 * kBeat)));
}

TEST_F(ViewKeeperWeights, ALeaderThatWasJustElectedWaitsAnew) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 100}};
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  keeper_.Elected(now_);
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  EXPECT_TRUE(Changes(After(2 * kBeat)));
}

TEST_F(ViewKeeperWeights, NothingChangesBeforeDisksHaveKeptTheirSizes) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 100}};
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  rooms_[2] = 500;  // For a moment.
  EXPECT_TRUE(After(kBeat).empty());
  rooms_[2] = 1000;
  EXPECT_TRUE(After(wait_ - kBeat).empty());
  rooms_[2] = 950;  // That is no other size.
  EXPECT_TRUE(Changes(After(3 * kBeat)));
}

TEST_F(ViewKeeperWeights, NothingMovesToADiskThatHasNoRoomForIt) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 100}};
  used_percent_ = {{1, 50}, {2, 91}, {3, 100}};
  EXPECT_TRUE(After(3 * wait_).empty());
  used_percent_[2] = 60;
  EXPECT_TRUE(Changes(After(wait_ + 2 * kBeat)));
}

TEST_F(ViewKeeperWeights, NothingMovesWhereADiskDoesNotSayHowFullItIs) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 100}};
  silent_ = {1};
  EXPECT_TRUE(After(2 * wait_).empty());
  silent_.clear();
  EXPECT_TRUE(Changes(After(wait_ + 2 * kBeat)));
}

TEST_F(ViewKeeperWeights, DisksOfSeveralGroupsAreWeighedTogether) {
  Begin({1, 2, 65, 66});
  rooms_ = {{1, 1000}, {2, 250}, {65, 1000}, {66, 500}, {67, 250}};
  EXPECT_THAT(Follow(After(wait_ + kBeat)).weigh, ElementsAre(DiskWeight{NodeId(2), 4}, DiskWeight{NodeId(66), 8}));
  EXPECT_TRUE(Follow(After(kBeat)).placed);
  AddMember(67);
  const ViewChange change = Follow(After(kBeat));
  EXPECT_THAT(change.place, ElementsAre(NodeId(67)));
  EXPECT_THAT(change.weigh, ElementsAre(DiskWeight{NodeId(67), 4}));
}

// What a small disk loses comes to the other one of its group, which is too full for it.
TEST_F(ViewKeeperWeights, NothingMovesWithinAGroupThatHasNoRoomForIt) {
  Begin({1, 2, 65, 66});
  rooms_ = {{1, 1000}, {2, 250}, {65, 1000}, {66, 1000}};
  used_percent_ = {{1, 80}, {2, 90}, {65, 30}, {66, 30}};
  EXPECT_TRUE(After(3 * wait_).empty());
  used_percent_[1] = 30;
  EXPECT_TRUE(Changes(After(wait_ + 2 * kBeat)));
}

// Each in as many changes as it takes, and with its weight.
TEST_F(ViewKeeperWeights, ManyThatComeAreAllWeighed) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 1000}};
  std::set<NodeId> weighed;
  for (uint64_t node = 3; node < 3 + ViewChange::kMostNodes; ++node) {
    rooms_[node] = 250;
    AddMember(node);
  }
  for (int changes = 0; changes < 3 && weighed.size() < ViewChange::kMostNodes; ++changes) {
    const ViewChange change = Follow(After(2 * kBeat));
    EXPECT_LE(change.size(), ViewChange::kMostNodes);
    EXPECT_EQ(change.place.size(), change.weigh.size());
    for (const DiskWeight& disk : change.weigh) weighed.insert(disk.node);
  }
  EXPECT_EQ(weighed.size(), ViewChange::kMostNodes);
}

// The weights of some alone would ask more of others.
TEST_F(ViewKeeperWeights, MoreDisksThanAChangeHasRoomForAreNotWeighed) {
  std::vector<uint64_t> nodes(ViewChange::kMostNodes + 1);
  std::iota(nodes.begin(), nodes.end(), 1);
  Begin(nodes);
  for (uint64_t node : nodes) rooms_[node] = node % 2 == 0 ? 1000 : 250;
  EXPECT_TRUE(After(2 * wait_).empty());
}

// A member that starts anew is another incarnation than the view has for a moment.
TEST_F(ViewKeeperWeights, WhoComesMeanwhileWaitsForItsWeight) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 250}};
  AddMember(3);
  now_ += kBeat;
  HearRoom(1);
  HearRoom(2, 2);
  HearRoom(3);
  EXPECT_THAT(Decide().place, IsEmpty());
  view_.members[NodeId(2)] = Incarnation(2);
  now_ += kBeat;
  HearRooms();
  EXPECT_THAT(Decide().weigh, ElementsAre(DiskWeight{NodeId(3), 4}));
}

TEST_F(ViewKeeperWeights, WhereSomeHaveWeightsWhoComesHasOneWhateverIsSet) {
  RecoveryTiming timing = timing_;
  timing.reweigh_after = 0;
  ViewKeeper keeper(timing, {});
  keeper.Elected(now_ - 100 * kSecond);
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 250}, {3, 500}};
  view_.weights[NodeId(2)] = 4;
  AddMember(3);
  for (uint64_t node = 1; node <= 3; ++node) {
    Pulse pulse{.sent_at = ClockOf(node, now_), .epoch = view_.epoch, .unreachable = {}};
    pulse.knows_weights = true;
    pulse.disk = {.mib = rooms_.at(node) << 10, .used = 1};
    keeper.OnPulse(Instance(node), pulse, view_, now_);
  }
  EXPECT_THAT(keeper.Decide(Database(), VotesInLog(), now_).weigh, ElementsAre(DiskWeight{NodeId(3), 8}));
}

TEST_F(ViewKeeperWeights, WhoComesIsWeighedAtOnce) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 250}};
  AddMember(3);
  const ViewChange change = Follow(After(kBeat));
  EXPECT_THAT(change.place, ElementsAre(NodeId(3)));
  EXPECT_THAT(change.weigh, ElementsAre(DiskWeight{NodeId(3), 4}));
  EXPECT_EQ(view_.next_weights, (DiskWeights{{NodeId(3), 4}}));
  EXPECT_TRUE(Follow(After(kBeat)).placed);
  EXPECT_TRUE(After(2 * wait_).empty());
}

TEST_F(ViewKeeperWeights, WhoGoesIsForgotten) {
  Begin({1, 2, 3});
  rooms_ = {{1, 1000}, {2, 1000}, {3, 250}};
  view_.weights[NodeId(3)] = 4;
  Ask(NodeRequest::Kind::kDrain, 3);
  Follow(After(kBeat));
  Follow(After(kBeat));
  ASSERT_EQ(view_.next_disks, Ids({1, 2}));
  EXPECT_EQ(view_.next_weights, DiskWeights());
  EXPECT_EQ(view_.weights, (DiskWeights{{NodeId(3), 4}}));  // Until they have moved.
  // It stays after all: it is weighed anew.
  rooms_[3] = 500;
  Ask(NodeRequest::Kind::kUndrain, 3);
  Follow(After(kBeat));
  Follow(After(kBeat));
  EXPECT_EQ(view_.next_disks, Ids({1, 2, 3}));
  EXPECT_EQ(view_.next_weights, (DiskWeights{{NodeId(3), 8}}));
}

// --- Versions -----------------------------------------------------------------------------------------------------------

TEST_F(ViewKeeperWeights, NothingIsWeighedWhereAMemberDoesNotKnowWeights) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 100}, {3, 100}};
  AddMember(3);
  view_.draining.insert(NodeId(3));  // Keeps nothing, and looks for pages all the same.
  old_ = {3};
  EXPECT_TRUE(After(2 * wait_).empty());
  view_.draining.clear();
  EXPECT_THAT(Follow(After(kBeat)).place, ElementsAre(NodeId(3)));
  EXPECT_EQ(view_.next_weights, DiskWeights());
  // Its next incarnation does.
  old_.clear();
  view_.members[NodeId(3)] = Incarnation(2);
  Follow(After(kBeat));
  EXPECT_TRUE(Changes(After(2 * wait_)));
}

TEST_F(ViewKeeperWeights, NothingIsWeighedWhileAnAnchorIsAwayThatMayNotKnowWeights) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 100}};
  Add(4, 1);
  EXPECT_TRUE(After(2 * wait_).empty());
  nodes_[NodeId(4)].votes = 0;
  EXPECT_TRUE(Changes(After(kBeat)));
}

TEST_F(ViewKeeperWeights, WhoDoesNotKnowWeightsDoesNotJoinWhereThereAreSome) {
  Begin({1, 2});
  rooms_ = {{1, 1000}, {2, 100}, {3, 1000}};
  Add(3);
  old_ = {3};
  view_.weights[NodeId(2)] = 2;
  now_ += kBeat;
  HearRooms();
  HearRoom(3);
  EXPECT_THAT(Decide().joins, IsEmpty());
  old_.clear();
  now_ += kBeat;
  HearRooms();
  HearRoom(3);
  EXPECT_THAT(Decide().joins, ElementsAre(Instance(3)));
}

// Who joins in this very change is asked as well.
TEST_F(ViewKeeperWeights, NothingIsWeighedInAViewInWhichSomebodyJoinsThatDoesNotKnowWeights) {
  for (const bool is_old : {true, false}) {
    Begin({1, 2});
    rooms_ = {{1, 1000}, {2, 1000}, {3, 100}, {4, 1000}};
    AddMember(3);
    Add(4);
    if (is_old) old_ = {4};
    now_ += kBeat;
    HearRooms();
    HearRoom(4);
    const ViewChange change = Decide();
    ASSERT_THAT(change.joins, ElementsAre(Instance(4)));
    ASSERT_THAT(change.place, ElementsAre(NodeId(3)));
    EXPECT_EQ(change.weigh.empty(), is_old);
    old_.clear();
  }
}

}  // namespace
}  // namespace mangrove
