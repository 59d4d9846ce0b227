#include "net/fabric/silence.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

using Verdict = Silence::Verdict;

constexpr DurationNs kPatience = kSecond;
constexpr DurationNs kWhenIdle = 10 * kSecond;
constexpr TimeNs kStart = 5 * kSecond;

class SilenceTest : public testing::Test {
 protected:
  SilenceTest() { silence_.Reset(kStart, received_); }
  Verdict At(DurationNs after) { return silence_.Judge(kStart + after, received_, waits_, kPatience, kWhenIdle); }

  Silence silence_;
  bool waits_ = false;
  uint64_t received_ = 9;
};

TEST_F(SilenceTest, WhoWaitsForAnAnswerAsksSoonAndWhoDoesNotAsksNowAndThen) {
  EXPECT_EQ(At(kPatience / 4), Verdict::kFine);
  EXPECT_EQ(At(kWhenIdle - 1), Verdict::kFine);
  EXPECT_EQ(At(kWhenIdle), Verdict::kAsk);
  waits_ = true;
  EXPECT_EQ(At(kPatience / 4 - 1), Verdict::kFine);
  EXPECT_EQ(At(kPatience / 4), Verdict::kAsk);
}

TEST_F(SilenceTest, WhoAnswersIsHeardFromThenOn) {
  ASSERT_EQ(At(kWhenIdle), Verdict::kAsk);
  silence_.Asked(kStart + kWhenIdle);
  ++received_;
  EXPECT_EQ(At(kWhenIdle + kPatience), Verdict::kFine);
  EXPECT_EQ(silence_.heard(), kStart + kWhenIdle + kPatience);
  EXPECT_EQ(At(2 * kWhenIdle), Verdict::kFine) << "the question waits for nothing any more";
  EXPECT_EQ(At(2 * kWhenIdle + kPatience), Verdict::kAsk);
}

TEST_F(SilenceTest, WhoDoesNotAnswerIsGoneAfterThePatienceFromTheQuestion) {
  silence_.Asked(kStart + kWhenIdle);
  EXPECT_EQ(At(kWhenIdle + kPatience - 1), Verdict::kFine);
  EXPECT_EQ(At(kWhenIdle + kPatience), Verdict::kGone);
  EXPECT_EQ(silence_.heard(), kStart);
}

TEST_F(SilenceTest, NobodyIsGoneWhoWasNotAsked) {
  waits_ = true;
  EXPECT_EQ(At(100 * kPatience), Verdict::kAsk);
  EXPECT_EQ(At(200 * kPatience), Verdict::kAsk) << "the question could not be sent";
}

TEST_F(SilenceTest, TimeOfWhichNothingIsKnownDoesNotCount) {
  silence_.Asked(kStart);
  silence_.Reset(kStart + 100 * kPatience, received_);
  EXPECT_EQ(At(101 * kPatience), Verdict::kFine);
  EXPECT_EQ(At(100 * kPatience + kWhenIdle), Verdict::kAsk);
}

TEST(SilenceSettings, IdlePeersAreAskedAsManyInASecondInAClusterOfAnySize) {
  EXPECT_EQ(AskWhenIdle(kSecond, 3), kSecond / 4);
  EXPECT_EQ(AskWhenIdle(kSecond, 16), kSecond / 4);
  EXPECT_EQ(AskWhenIdle(kSecond, 4096), 64 * kSecond);
  EXPECT_EQ(PatienceOf(200), kSecond) << "short leases do not make a slow machine a dead one";
  EXPECT_EQ(PatienceOf(5000), 5 * kSecond);
}

}  // namespace
}  // namespace mangrove
