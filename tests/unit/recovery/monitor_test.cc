// Groups and their monitors: who passes pulses on, and what comes of it; and how a view is told to who knows an earlier one.

#include "recovery/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "recovery/groups.h"
#include "tests/unit/recovery/anchor_steps.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

View ViewOf(const std::vector<uint64_t>& nodes, uint64_t epoch = 1) {
  View view{.epoch = Epoch(epoch), .members = {}, .root = NodeId(nodes.front())};
  for (uint64_t node : nodes) view.members[NodeId(node)] = Incarnation(1);
  return view;
}

TEST(Groups, TheMonitorIsTheFirstAnchorOfTheGroupOrElseItsFirstMember) {
  const View view = ViewOf({1, 2, 3, 65, 66, 67});
  const std::set<NodeId> anchors = {NodeId(2), NodeId(3), NodeId(70)};
  EXPECT_EQ(MonitorOf(view, NodeId(1), anchors, 0), NodeId(2));
  EXPECT_EQ(MonitorOf(view, NodeId(3), anchors, 0), NodeId(2));
  EXPECT_EQ(MonitorOf(view, NodeId(67), anchors, 0), NodeId(65));
  // None: of a monitor itself, of who is not in the view, and where there are few.
  EXPECT_EQ(MonitorOf(view, NodeId(2), anchors, 0), NodeId());
  EXPECT_EQ(MonitorOf(view, NodeId(65), anchors, 0), NodeId());
  EXPECT_EQ(MonitorOf(view, NodeId(68), anchors, 0), NodeId());
  EXPECT_EQ(MonitorOf(view, NodeId(1), anchors, 6), NodeId());
  // The next one takes the place of one that is lost.
  EXPECT_EQ(MonitorOf(ViewOf({1, 3, 66, 67}), NodeId(67), anchors, 0), NodeId(66));
}

TEST(ViewHistoryTest, WhoIsNotFarBehindIsToldTheChangesAndOthersTheWhole) {
  ViewHistory history;
  history.Reset(ViewOf({1}, 5));
  EXPECT_THAT(history.Since(Epoch(5)), IsEmpty());
  EXPECT_THAT(history.Since(Epoch(9)), IsEmpty());
  EXPECT_TRUE(std::holds_alternative<ViewPart>(history.Since(Epoch(4)).at(0)));
  const ViewChange six{.epoch = Epoch(6), .joins = {Instance(2)}, .leaves = {}};
  const ViewChange seven{.epoch = Epoch(7), .joins = {}, .leaves = {NodeId(1)}};
  history.Apply(six);
  history.Apply(seven);
  View expected = ViewOf({2}, 7);
  expected.behind = {{NodeId(1), Epoch(7)}};
  EXPECT_EQ(history.view(), expected);
  EXPECT_THAT(history.Since(Epoch(5)), ElementsAre(RecoveryMessage(six), RecoveryMessage(seven)));
  EXPECT_THAT(history.Since(Epoch(6)), ElementsAre(RecoveryMessage(seven)));
  EXPECT_TRUE(std::holds_alternative<ViewPart>(history.Since(Epoch(4)).at(0)));
  for (uint64_t epoch = 8; epoch < 8 + ViewHistory::kMostChanges; ++epoch) {
    history.Apply({.epoch = Epoch(epoch), .joins = {Instance(epoch)}, .leaves = {}});
  }
  EXPECT_TRUE(std::holds_alternative<ViewPart>(history.Since(Epoch(6)).at(0)));
  EXPECT_THAT(history.Since(Epoch(7)), SizeIs(ViewHistory::kMostChanges));
}

class MonitorTest : public testing::Test {
 protected:
  static Pulse PulseAt(TimeNs sent_at, uint64_t epoch = 1) {
    return {.sent_at = sent_at, .epoch = Epoch(epoch), .unreachable = {}};
  }
  MonitorTest() { history_.Reset(ViewOf({1, 2, 3})); }
  const RecoveryTiming timing_;
  Monitor monitor_{timing_};
  ViewHistory history_;
  TimeNs now_ = kSecond;
};

TEST_F(MonitorTest, PulsesOfAThirdOfAnIntervalAreOneMessage) {
  monitor_.Receive(Instance(2), PulseAt(5), history_, now_);
  monitor_.Receive(Instance(3), PulseAt(6), history_, now_ + kMillisecond);
  EXPECT_EQ(monitor_.next_tick(), now_ + timing_.pulse / 3);
  monitor_.Tick({NodeId(9)}, now_ + kMillisecond);
  EXPECT_THAT(monitor_.TakeMessages(), IsEmpty());
  monitor_.Tick({NodeId(9), NodeId(8)}, monitor_.next_tick());
  const PulseBatch batch{.pulses = {{Instance(2), PulseAt(5)}, {Instance(3), PulseAt(6)}}};
  EXPECT_THAT(monitor_.TakeMessages(),
              ElementsAre(std::pair(NodeId(9), RecoveryMessage(batch)), std::pair(NodeId(8), RecoveryMessage(batch))));
  EXPECT_EQ(monitor_.next_tick(), kForever);
}

TEST_F(MonitorTest, AnswersGoToWhomTheyAreForWithTheirOwnTimes) {
  monitor_.Receive(
      AnswerBatch{.epoch = Epoch(4),
                  .leader = NodeId(9),
                  .answers = {{.to = Instance(2, 7), .lease_from = 5}, {.to = Instance(3), .is_gone = true}}});
  const auto messages = monitor_.TakeMessages();
  ASSERT_THAT(messages, SizeIs(2));
  EXPECT_EQ(messages[0].second,
            RecoveryMessage(PulseAnswer{
                .lease_from = 5, .epoch = Epoch(4), .leader = NodeId(9), .is_gone = false, .to = Incarnation(7)}));
  EXPECT_TRUE(std::get<PulseAnswer>(messages[1].second).is_gone);
}

TEST_F(MonitorTest, WhoPulsesHereIsBroughtUpToTheViewAndHearsOfTheNextAtOnce) {
  const ViewChange two{.epoch = Epoch(2), .joins = {Instance(4)}, .leaves = {}};
  history_.Apply(two);
  monitor_.Receive(Instance(2), PulseAt(5, 1), history_, now_);
  EXPECT_THAT(monitor_.TakeMessages(), ElementsAre(std::pair(NodeId(2), RecoveryMessage(two))));
  monitor_.Receive(Instance(2), PulseAt(6, 2), history_, now_);
  EXPECT_THAT(monitor_.TakeMessages(), IsEmpty());
  const ViewChange three{.epoch = Epoch(3), .joins = {}, .leaves = {NodeId(3)}};
  history_.Apply(three);
  monitor_.TellView(history_);
  EXPECT_THAT(monitor_.TakeMessages(), ElementsAre(std::pair(NodeId(2), RecoveryMessage(three))));
}

TEST_F(MonitorTest, ManyPulsesAreSeveralMessagesWithinTheirBounds) {
  Pulse pulse = PulseAt(5);
  for (uint64_t i = 1; i <= Pulse::kMostUnreachable; ++i) pulse.unreachable.emplace_back(i);
  for (uint64_t node = 1; node <= 20; ++node) monitor_.Receive(Instance(node), pulse, history_, now_);
  monitor_.Tick({NodeId(9)}, monitor_.next_tick());
  size_t pulses = 0;
  for (const auto& [to, message] : monitor_.TakeMessages()) {
    const PulseBatch& batch = std::get<PulseBatch>(message);
    pulses += batch.pulses.size();
    EXPECT_LE(batch.pulses.size() * Pulse::kMostUnreachable, PulseBatch::kMostUnreachable);
  }
  EXPECT_EQ(pulses, 20u);
}

TEST_F(AnchorTest, TheLogsWordIsTakenFromAnchorsAlone) {
  Configure(4, 0);
  BeginThree();
  const Term term = At(1).raft()->term();
  RaftMessage answer;
  answer.kind = RaftMessage::Kind::kAppended;
  answer.term = Term(term.value + 3);
  const uint64_t strays = At(1).strays();
  At(1).Receive(Instance(4), answer, now_);
  EXPECT_EQ(At(1).raft()->term(), term);
  EXPECT_EQ(At(1).strays(), strays + 1);
  EXPECT_EQ(At(1).bad_messages(), 0u);
}

TEST_F(AnchorTest, AMonitorSpeaksForTheMembersOfItsGroupInTheView) {
  Configure(4, 0);
  Configure(kGroupNodes + 1, 0);
  pulsing_ = {Instance(4), Instance(kGroupNodes + 1)};
  BeginThree();
  RunFor(kSecond);
  Anchor& leader = At(Leader());
  const View& view = leader.database().view();
  ASSERT_TRUE(view.Has(Instance(kGroupNodes + 1)));
  pulsing_.clear();
  told_.clear();
  const auto pulse = [&](TimeNs at) { return Pulse{.sent_at = at, .epoch = view.epoch, .unreachable = {}}; };
  // Node 4's batch: for a node of another group, for an incarnation that has not joined, and for itself.
  leader.Receive(Instance(4),
                 PulseBatch{.pulses = {{Instance(kGroupNodes + 1), pulse(now_)},
                                       {Instance(3, 99), pulse(now_)},
                                       {Instance(4), pulse(now_)}}},
                 now_);
  RunFor(100 * kMillisecond);
  std::vector<NodeId> answered;
  for (const auto& [from, message] : told_[NodeId(4)]) {
    if (const auto* batch = std::get_if<AnswerBatch>(&message)) {
      for (const RelayedAnswer& answer : batch->answers) {
        if (answer.lease_from != 0) answered.push_back(answer.to.node);
      }
    }
  }
  EXPECT_THAT(answered, ElementsAre(NodeId(4)));
  EXPECT_THAT(told_[NodeId(kGroupNodes + 1)], IsEmpty());
}

}  // namespace
}  // namespace mangrove
