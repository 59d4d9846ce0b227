// Internal to the codec (codec.cc, codec_log.cc, codec_view.cc): the frame around each root of recovery/messages.capnp, and the checks that its
// readers share. `what` is what a refusal is about.

#pragma once

#include <capnp/any.h>
#include <capnp/message.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove {

// --- The frame --------------------------------------------------------------------------------------------------------

// The root that `fill` makes, in one segment, whatever it holds.
std::string Frame(absl::FunctionRef<void(capnp::MessageBuilder&)> fill);

// `read` sees a frame that is sound. What it refuses, and what the library throws, comes back as InvalidArgument.
absl::Status Unframe(const char* what, std::string_view bytes, size_t most_bytes,
                     absl::FunctionRef<absl::Status(capnp::MessageReader&)> read);

// A root, both ways.
template <typename Wire, typename Value>
struct Form {
  const char* what;
  void (*fill)(typename Wire::Builder, const Value&);
  absl::Status (*read)(typename Wire::Reader, Value&);
  size_t most_bytes = SIZE_MAX;

  // A pair: nobody can be sent, or left on a disk, what is refused when it is read.
  std::string Encode(const Value& value) const {
    std::string bytes = Frame([&](capnp::MessageBuilder& message) { fill(message.initRoot<Wire>(), value); });
    CHECK(bytes.size() <= most_bytes);
    CHECK(Decode(bytes).ok());
    return bytes;
  }

  absl::StatusOr<Value> Decode(std::string_view bytes) const {
    Value value;
    absl::Status status = Unframe(what, bytes, most_bytes,
                                  [&](capnp::MessageReader& message) { return read(message.getRoot<Wire>(), value); });
    if (!status.ok()) return status;
    return value;
  }
};

// Of a list that is to be made. An empty one is not: it would take a tag.
template <typename Container>
unsigned SizeOf(const Container& container) {
  return static_cast<unsigned>(container.size());
}

// --- The checks -------------------------------------------------------------------------------------------------------

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// The library takes what is not there for 0. A term, or a vote, that was lost must not be taken so.
// `fewest_pointers`: where earlier levels had fewer, what they had.
template <typename Reader>
absl::Status CheckWhole(const char* what, const Reader& in,
                        size_t fewest_pointers = Reader::Reads::_capnpPrivate::pointerCount) {
  constexpr size_t kWords = Reader::Reads::_capnpPrivate::dataWordSize;
  const capnp::AnyStruct::Reader any(in);
  const size_t words = any.getDataSection().size() / sizeof(capnp::word);
  if (words >= kWords && any.getPointerSection().size() >= fewest_pointers) return {};
  return Bad(what, " lacks fields");
}

template <typename List>
absl::Status CheckLength(const char* what, const List& list, size_t most) {
  if (list.size() <= most) return {};
  return Bad(what, " has ", list.size(), " entries, more than ", most);
}

absl::Status CheckTime(const char* what, TimeNs time);

absl::Status CheckVotes(NodeId node, uint32_t votes);

// In a list that is in order: `before` is 0 in front of the first.
absl::Status CheckFollows(const char* what, NodeId before, NodeId node);

// No node is 0, or named twice.
absl::Status CheckDistinct(const char* what, std::vector<NodeId> nodes);

}  // namespace mangrove
