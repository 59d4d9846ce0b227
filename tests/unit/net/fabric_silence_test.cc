// Peers that do not answer, over connections that nothing breaks.
//
// Covers: C02

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/net/transport_fixture.h"

namespace mangrove {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;
using testing::MakeConfig;
using testing::MakeMembers;
using testing::TestNode;

// Longer than it takes to ask and to wait for the answer.
constexpr milliseconds kLong{2500};

class FabricSilence : public ::testing::Test {
 protected:
  void StartPair(LevelTable levels_of_second = kOwnLevels) {
    members_ = MakeMembers(2);
    a_ = std::make_unique<TestNode>(MakeConfig(members_, 1));
    FabricTransportConfig config = MakeConfig(members_, 2);
    config.levels = levels_of_second;
    b_ = std::make_unique<TestNode>(std::move(config));
    a_->Start();
    b_->Start();
    ASSERT_TRUE(a_->WaitForPeer(2));
    ASSERT_TRUE(b_->WaitForPeer(1));
  }
  // As a process that is stopped: its kernel takes what is sent, and keeps the connection.
  static void StandStill(TestNode& node, milliseconds duration) {
    node.OnLoop([&] { std::this_thread::sleep_for(duration); });
  }
  // Whether anything has gone down, or come up again.
  static bool IsUndisturbed(TestNode& node) {
    std::lock_guard<std::mutex> lock(node.mutex);
    return node.history.size() == 1;
  }

  std::vector<FabricMember> members_;
  std::unique_ptr<TestNode> a_;
  std::unique_ptr<TestNode> b_;
};

TEST_F(FabricSilence, WhoDoesNotAnswerIsDownAndComesBackWhenItDoes) {
  StartPair();
  std::jthread still([&] { StandStill(*b_, 2 * kLong); });
  const auto began = steady_clock::now();
  EXPECT_TRUE(a_->WaitForDown(2));
  EXPECT_LT(steady_clock::now() - began, 2 * kLong) << "while it stood still";
  {
    std::lock_guard<std::mutex> lock(a_->mutex);
    ASSERT_EQ(a_->reasons.size(), 1u);
    EXPECT_THAT(a_->reasons[0], HasSubstr("it does not answer"));
  }
  still.join();
  EXPECT_TRUE(a_->WaitForPeer(2));
  EXPECT_TRUE(b_->WaitFor([&] { return b_->Up(1) == 1; }));
}

// It has asked before that, and the answer comes when it runs again.
TEST_F(FabricSilence, WhoStoodStillItselfTakesNobodyForGone) {
  constexpr milliseconds kUntilItHasAsked{600};
  StartPair();
  std::jthread other([&] { StandStill(*b_, kUntilItHasAsked + kLong); });
  std::this_thread::sleep_for(kUntilItHasAsked);
  StandStill(*a_, kLong);
  other.join();
  std::this_thread::sleep_for(kLong);
  EXPECT_TRUE(IsUndisturbed(*a_));
  EXPECT_TRUE(IsUndisturbed(*b_));
}

TEST_F(FabricSilence, IdleConnectionsStay) {
  StartPair();
  std::this_thread::sleep_for(kLong);
  EXPECT_TRUE(IsUndisturbed(*a_));
  EXPECT_TRUE(IsUndisturbed(*b_));
  EXPECT_EQ(a_->Counters().messages_received, 0u) << "questions are for nobody above";
}

TEST_F(FabricSilence, WhoOnlySpeaksTheLevelBeforeIsNotAsked) {
  LevelTable levels = kOwnLevels;
  levels[static_cast<size_t>(Subsystem::kNet)] = {1, 1};
  StartPair(levels);
  StandStill(*b_, kLong);
  EXPECT_TRUE(IsUndisturbed(*a_));
}

}  // namespace
}  // namespace mangrove
