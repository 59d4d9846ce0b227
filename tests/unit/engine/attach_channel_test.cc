// What a program's calls make of a daemon that makes no sense.

#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <thread>

#include "engine/attach/attach_codec.h"
#include "engine/attach/call_channel.h"
#include "engine/attach/packet_socket.h"

namespace mangrove {
namespace {

bool HasHungUp(const UniqueFd& other) {
  pollfd waits{.fd = other.get(), .events = POLLRDHUP, .revents = 0};
  return poll(&waits, 1, 0) == 1;
}

// C4: by hanging up a program says that it has sealed what it had mapped, and that takes until somebody has done so.
TEST(CallChannel, WhatFailsHangsUpOnlyWhenItIsToldTo) {
  const std::function<void(const UniqueFd&, const AttachRequest&)> answers[] = {
      [](const UniqueFd& daemon, const AttachRequest&) { SendPacket(daemon.get(), AttachBytes(16, std::byte{1})); },
      [](const UniqueFd& daemon, const AttachRequest&) {
        SendPacket(daemon.get(), EncodeReply({.id = 0, .status = absl::InternalError("it is refused")}));
      },
  };
  for (const auto& answer : answers) {
    auto sockets = PacketSocketPair();
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    const UniqueFd daemon = std::move(sockets->first);
    ASSERT_TRUE(LetReceiveWait(sockets->second.get()).ok());
    int failures = 0;
    CallChannel channel(std::move(sockets->second), "path", absl::UnavailableError("gone"), [&] { ++failures; });
    std::thread answering([&] {
      ReceivedPacket packet;
      ASSERT_TRUE(WaitForSocket(daemon.get(), POLLIN, MonotonicNowNs() + 10 * kSecond));
      ASSERT_EQ(ReceivePacket(daemon.get(), packet), PacketResult::kDone);
      const auto request = DecodeRequest(packet.bytes());
      ASSERT_TRUE(request.ok()) << request.status();
      answer(daemon, *request);
    });
    EXPECT_EQ(channel.Ask(SpaceCall{}, 10'000).status().code(), absl::StatusCode::kInternal);
    answering.join();
    EXPECT_EQ(channel.Ask(SpaceCall{}, 10'000).status().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(failures, 1);
    EXPECT_FALSE(HasHungUp(daemon));
    channel.Fail(absl::UnavailableError("sealed"));
    EXPECT_TRUE(HasHungUp(daemon));
    EXPECT_EQ(channel.Ask(SpaceCall{}, 10'000).status().code(), absl::StatusCode::kInternal);  // The first one counts.
    EXPECT_EQ(failures, 1);
  }
}

}  // namespace
}  // namespace mangrove
