// Wire form of messages about pages (directory/messages.capnp). The only place that knows the library.

#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/messages.h"

namespace mangrove {

// One transport message.
struct Packet {
  std::vector<std::byte> bytes;   // At most kMaxMessageBytes.
  std::vector<PageBuffer> pages;  // At most kMaxMessagePages.
};

// Encodes `messages` in their order into as few packets as the transport's limits allow, and hands each over. An error
// text longer than 200 bytes is cut.
void Encode(std::span<const Message> messages, absl::FunctionRef<void(const Packet&)> out);

// Total: any bytes give messages or InvalidArgument that says what is wrong. Copies the pages.
absl::StatusOr<std::vector<Message>> Decode(std::span<const std::byte> bytes, std::span<const std::byte* const> pages);

// The same, one message or run (directory/page_run.h) after the other, once all of them are known to be sound. A grant's data
// is not copied if it is aligned as PageBytes is: it lies in `pages`, so that whoever keeps it beyond `each` takes a copy
// (OwnData).
absl::Status DecodeEach(std::span<const std::byte> bytes, std::span<const std::byte* const> pages,
                        absl::FunctionRef<void(const Message&)> each);

// Whether its data lies in such pages; makes it a copy of its own then.
bool IsLent(const Message& message);
void OwnData(Message& message);

}  // namespace mangrove
