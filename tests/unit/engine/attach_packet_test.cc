// Waiting for a packet in the call that receives it.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>

#include "engine/attach/packet_socket.h"

namespace mangrove {
namespace {

class AwaitPacketTest : public testing::Test {
 protected:
  AwaitPacketTest() {
    auto pair = PacketSocketPair();
    EXPECT_TRUE(pair.ok()) << pair.status();
    std::tie(here_, there_) = *std::move(pair);
    EXPECT_TRUE(LetReceiveWait(here_.get()).ok());
  }

  UniqueFd here_;
  UniqueFd there_;
  ReceivedPacket packet_;
};

TEST_F(AwaitPacketTest, ReceivesWhatIsThere) {
  const std::byte sent[] = {std::byte{1}, std::byte{2}};
  ASSERT_EQ(SendPacket(there_.get(), sent), PacketResult::kDone);
  EXPECT_EQ(AwaitPacket(here_.get(), packet_), PacketResult::kDone);
  EXPECT_EQ(packet_.size, 2u);
}

TEST_F(AwaitPacketTest, WaitsNoLongerThanItSays) {
  const int64_t begin_ns = MonotonicNowNs();
  EXPECT_EQ(AwaitPacket(here_.get(), packet_), PacketResult::kNotNow);
  EXPECT_GE(MonotonicNowNs() - begin_ns, kReceiveWaitNs / 2);
}

TEST_F(AwaitPacketTest, SeesTheOtherSideGo) {
  there_.Reset();
  EXPECT_EQ(AwaitPacket(here_.get(), packet_), PacketResult::kClosed);
}

// Whoever has a deadline gets to look at it, however often signals come.
TEST_F(AwaitPacketTest, ASignalEndsTheWait) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval often{.it_interval = {0, 2000}, .it_value = {0, 2000}};
  const itimerval never{};
  ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
  const int64_t begin_ns = MonotonicNowNs();
  EXPECT_EQ(AwaitPacket(here_.get(), packet_), PacketResult::kNotNow);
  EXPECT_LT(MonotonicNowNs() - begin_ns, kReceiveWaitNs);
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
}

TEST_F(AwaitPacketTest, SendingDoesNotWait) {
  const std::vector<std::byte> large(8192);
  PacketResult result = PacketResult::kDone;
  for (int i = 0; i < 10'000 && result == PacketResult::kDone; ++i) result = SendPacket(here_.get(), large);
  EXPECT_EQ(result, PacketResult::kNotNow);
}

}  // namespace
}  // namespace mangrove
