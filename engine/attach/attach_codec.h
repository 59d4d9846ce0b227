// Between the messages of an attached program and bytes; the only place that knows the library. Pure functions.
//
// Decoding takes any bytes: what is not a valid message is InvalidArgument, with the name of what is wrong. What is
// checked here: shape, lengths, known kinds and values. Ranges within a region are the server's to check.

#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/attach/attach_messages.h"

namespace mangrove {

// A whole packet. Its size is a multiple of 8.
using AttachBytes = std::vector<std::byte>;

// At most kMaxAttachMessageBytes, given names within their bounds; texts of errors are cut to fit.
AttachBytes EncodeHello(const AttachHello& hello);
AttachBytes EncodeWelcome(const AttachWelcome& welcome);
AttachBytes EncodeRequest(const AttachRequest& request);
// REQUIRES: at most kRegionsPerReply regions, or kTextBytesPerReply of text.
AttachBytes EncodeReply(const AttachReply& reply);
AttachBytes EncodeEvent(const AttachEvent& event);

// REQUIRES: `bytes` begins at a multiple of 8.
absl::StatusOr<AttachHello> DecodeHello(std::span<const std::byte> bytes);
absl::StatusOr<AttachWelcome> DecodeWelcome(std::span<const std::byte> bytes);
absl::StatusOr<AttachRequest> DecodeRequest(std::span<const std::byte> bytes);
absl::StatusOr<AttachReply> DecodeReply(std::span<const std::byte> bytes);
absl::StatusOr<AttachEvent> DecodeEvent(std::span<const std::byte> bytes);

}  // namespace mangrove
