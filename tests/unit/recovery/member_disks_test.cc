// What a node says of its disk, and what a view says of everybody's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "recovery/member.h"
#include "recovery/node_database.h"
#include "tests/unit/recovery/instance.h"

namespace mangrove {
namespace {

using testing::IsEmpty;

ViewPart::Node InView(uint64_t node, uint64_t behind = 0) { return {NodeId(node), Incarnation(1), Epoch(behind)}; }

// Node 5; the anchor is 1.
class MemberDisks : public testing::Test {
 protected:
  std::vector<std::pair<NodeId, Pulse>> Pulses() {
    member_.Tick(now_);
    std::vector<std::pair<NodeId, Pulse>> pulses;
    for (const auto& [to, message] : member_.TakeMessages()) pulses.emplace_back(to, std::get<Pulse>(message));
    return pulses;
  }
  std::vector<std::pair<NodeId, Pulse>> At(TimeNs time) {
    now_ = time;
    return Pulses();
  }

  const RecoveryTiming timing_;
  TimeNs now_ = 1000 * kSecond;
  Member member_{{.self = Instance(5), .roster = RosterOf({1}), .timing = {}}, now_};
};

TEST_F(MemberDisks, AViewSaysWhoseDisksAreBehind) {
  const std::vector<ViewPart::Node> nodes = {
      InView(1), {NodeId(2), {}, Epoch(3)},  {NodeId(4), {}, Epoch(9)}, InView(5, 8),
      InView(6), {NodeId(7), {}, kBlankDisk}};
  for (uint32_t first = 0; first < 6; first += 2) {
    member_.Receive(NodeId(1),
                    ViewPart{.epoch = Epoch(9),
                             .first = first,
                             .is_last = first == 4,
                             .nodes = {nodes[first], nodes[first + 1]},
                             .root = NodeId(1)},
                    now_);
  }
  const Incarnation one(1);
  View view = {
      .epoch = Epoch(9),
      .members = {{NodeId(1), one}, {NodeId(5), one}, {NodeId(6), one}},
      .root = NodeId(1),
      .behind = {{NodeId(2), Epoch(3)}, {NodeId(4), Epoch(9)}, {NodeId(5), Epoch(8)}, {NodeId(7), kBlankDisk}}};
  EXPECT_EQ(member_.view(), view);
  const ViewChange change = {.epoch = Epoch(10),
                             .joins = {Instance(7)},
                             .leaves = {NodeId(6)},
                             .blank = {NodeId(7)},
                             .caught_up = {NodeId(5)}};
  member_.Receive(NodeId(1), change, now_);
  view.Apply(change);
  EXPECT_EQ(member_.view(), view);
}

// What the parts before have named counts, in the view or not.
TEST_F(MemberDisks, AViewOfMoreNodesThanThereCanBeIsNone) {
  uint64_t node = 1;
  for (uint32_t first = 0; first <= NodeDatabase::kMostNodes; first += ViewPart::kMostNodes) {
    ViewPart part{.epoch = Epoch(9), .first = first, .is_last = false, .nodes = {}, .root = NodeId()};
    while (part.nodes.size() < ViewPart::kMostNodes) part.nodes.push_back({NodeId(node++), {}, Epoch(9)});
    part.is_last = part.first + part.nodes.size() > NodeDatabase::kMostNodes;
    member_.Receive(NodeId(1), part, now_);
  }
  EXPECT_EQ(member_.view(), View());
}

TEST_F(MemberDisks, PulsesSayWhatTheDiskIs) {
  const auto said = [](const std::vector<std::pair<NodeId, Pulse>>& pulses) {
    return std::pair(pulses.at(0).second.blank, pulses.at(0).second.caught_up);
  };
  EXPECT_EQ(said(Pulses()), std::pair(false, false));
  member_.SetDisk({.blank = true, .caught_up = false, .moved = {}});
  EXPECT_EQ(member_.next_tick(), now_ + timing_.pulse);  // There is time.
  EXPECT_EQ(said(At(member_.next_tick())), std::pair(true, false));
  now_ += 10 * kMillisecond;
  member_.SetDisk({.blank = true, .caught_up = true, .moved = {}});
  EXPECT_LE(member_.next_tick(), now_);  // At once.
  EXPECT_EQ(said(Pulses()), std::pair(true, true));
  member_.SetDisk({.blank = true, .caught_up = true, .moved = {}});
  EXPECT_EQ(member_.next_tick(), now_ + timing_.pulse);
  EXPECT_EQ(said(At(member_.next_tick())), std::pair(true, true));  // And on.
  member_.SetDisk({.blank = false, .caught_up = false, .moved = {}});
  EXPECT_EQ(said(At(member_.next_tick())), std::pair(false, false));
}

// Covers: G13
TEST_F(MemberDisks, PulsesSayHowMuchTheDiskHoldsAndThatWeightsAreKnown) {
  const Pulse first = Pulses().at(0).second;
  EXPECT_TRUE(first.knows_weights);
  EXPECT_EQ(first.disk, DiskSize());
  member_.SetDiskSize({.mib = 7000, .used = 500});
  EXPECT_EQ(member_.next_tick(), now_ + timing_.pulse);  // There is time.
  EXPECT_EQ(At(member_.next_tick()).at(0).second.disk, (DiskSize{.mib = 7000, .used = 500}));
}

// A leader drops two of the same time.
TEST_F(MemberDisks, APulseForTheDisksSakeIsLaterThanTheOneBefore) {
  Pulses();
  member_.SetDisk({.blank = false, .caught_up = true, .moved = {}});
  EXPECT_THAT(Pulses(), IsEmpty());
  EXPECT_EQ(member_.next_tick(), now_ + 1);
  EXPECT_TRUE(At(now_ + 1).at(0).second.caught_up);
}

}  // namespace
}  // namespace mangrove
