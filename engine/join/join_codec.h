// Wire form of join_messages.h (engine/join/join.capnp). Each Decode is total: any bytes give a value or InvalidArgument that
// says what is wrong. Each Encode refuses, with the same words, what its Decode would, and what does not fit into a message.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/join/join_messages.h"

namespace mangrove {

absl::StatusOr<std::string> EncodeJoinRequest(const NumberedRequest& request);
absl::StatusOr<NumberedRequest> DecodeJoinRequest(std::span<const std::byte> bytes);

// Of an error that is longer than kMaxJoinErrorBytes the rest is left out.
absl::StatusOr<std::string> EncodeJoinReply(const NumberedReply& reply);
absl::StatusOr<NumberedReply> DecodeJoinReply(std::span<const std::byte> bytes);

}  // namespace mangrove
