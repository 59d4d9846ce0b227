// What the tests of recovery/codec.h expect of it.

#pragma once

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "net/transport.h"
#include "recovery/codec.h"
#include "recovery/messages.capnp.h"

namespace mangrove {

inline absl::StatusOr<RecoveryMessage> DecodeText(std::string_view bytes) {
  return DecodeMessage(std::as_bytes(std::span(bytes)));
}

inline void ExpectReadBack(const RecoveryMessage& message) {
  const auto decoded = DecodeText(EncodeMessage(message));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_TRUE(*decoded == message);
}

inline void ExpectFits(const RecoveryMessage& message) {
  EXPECT_LE(EncodeMessage(message).size(), kMaxMessageBytes);
  ExpectReadBack(message);
}

template <typename T>
void ExpectRefused(const absl::StatusOr<T>& decoded, const std::string& text) {
  ASSERT_FALSE(decoded.ok()) << "expected: " << text;
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(decoded.status().message(), ::testing::HasSubstr(text));
}

// Without the handler of a fabric's library, which leaves a file where the test runs.
inline void ExpectBug(const std::function<void()>& call) {
  const auto die = [&] {
    std::signal(SIGABRT, SIG_DFL);
    call();
  };
  EXPECT_DEATH(die(), "CHECK failed");
}

// `bytes` after `change` by the library's own means.
template <typename Wire, typename Change>
std::string Changed(const std::string& bytes, Change change) {
  capnp::FlatArrayMessageReader reader(
      kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.data()), bytes.size() / sizeof(capnp::word)));
  capnp::MallocMessageBuilder builder(1 << 16);
  builder.setRoot(reader.getRoot<Wire>());
  change(builder.getRoot<Wire>());
  const auto flat = capnp::messageToFlatArray(builder);
  const auto chars = flat.asChars();
  return {chars.begin(), chars.size()};
}

template <typename Change>
void ExpectMessageRefused(const RecoveryMessage& message, Change change, const std::string& text) {
  ExpectRefused(DecodeText(Changed<recovery_wire::Message>(EncodeMessage(message), change)), text);
}

}  // namespace mangrove
