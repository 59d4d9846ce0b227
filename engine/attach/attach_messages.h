// What an attached program and its daemon say to each other, as plain structs. The protocol's document is
// attach.capnp; docs/ATTACH.md tells the order of messages.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/mangrove.h"

namespace mangrove {

constexpr uint64_t kAttachMagic = 0x65766f72676e614d;  // "Mangrove" in memory.
constexpr uint32_t kAttachVersion = 3;
// No message is longer. Lists and long texts go in several.
constexpr size_t kMaxAttachMessageBytes = 16384;
// No message carries more descriptors.
constexpr size_t kMaxAttachDescriptors = 2;
// Longer texts of errors are cut.
constexpr size_t kMaxAttachErrorBytes = 2048;
constexpr size_t kMaxRegionNameBytes = 255;
// Of a list, and of a long text, in one message.
constexpr size_t kRegionsPerReply = 32;
constexpr size_t kTextBytesPerReply = 12'288;

// A region that this program has open: the server's number for it, unique in the connection, never used again.
using RegionHandle = uint64_t;

// `count` pages of an open region, from its page `first` on.
struct RegionPages {
  RegionHandle region = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  friend bool operator==(const RegionPages&, const RegionPages&) = default;
};

// `length` bytes of the page `page` of an open region, from its byte `offset` on.
struct BytesOfPage {
  RegionHandle region = 0;
  uint64_t page = 0;
  uint16_t offset = 0;
  uint16_t length = 0;
  friend bool operator==(const BytesOfPage&, const BytesOfPage&) = default;
};

// The first message of each side. The server's answer has a status: anything but OK ends the connection.
struct AttachHello {
  uint64_t magic = kAttachMagic;
  uint32_t version = kAttachVersion;
};
struct AttachWelcome {
  uint64_t magic = kAttachMagic;
  uint32_t version = kAttachVersion;
  absl::Status status;
  std::string node_name;
};

struct ReserveCall {
  RegionOptions options;
};
struct OpenCall {
  std::string name;
  AccessMode mode = AccessMode::kRead;
};
struct CloseCall {
  RegionHandle region = 0;
};
struct MapCall {
  RegionHandle region = 0;
  uint64_t base = 0;
};  // With the userfaultfd.
struct FreeCall {
  std::string name;
};
struct ListCall {};
struct SpaceCall {};
struct AllocateCall {
  RegionPages pages;
  AllocateOptions options;
};
struct UnallocateCall {
  RegionPages pages;
};
struct GetAttributesCall {
  RegionHandle region = 0;
  uint64_t page = 0;
};
struct SetAttributesCall {
  RegionPages pages;
  PageAttributesChange change;
};
struct CheckAllocatedCall {
  RegionPages pages;
};
struct AcquireCall {
  RegionPages pages;
  AccessMode mode = AccessMode::kRead;
};
struct LockCall {
  RegionPages pages;
  LockMode mode = LockMode::kShared;
};
struct UnlockCall {
  uint64_t lock_id = 0;
};
struct FlushCall {
  RegionPages pages;
};
struct HealCall {
  RegionPages pages;
};
struct CountersCall {
  RegionHandle region = 0;
};
struct InspectCall {  // Or NodeOperations::IsOperation.
  std::string what;
  std::string argument;
};

struct BeginCall {};
struct ReadInCall {
  uint64_t transaction = 0;
  BytesOfPage bytes;
  AccessMode intent = AccessMode::kRead;
};
struct WriteInCall {
  uint64_t transaction = 0;
  BytesOfPage bytes;  // `length` is that of `content`.
  std::string content;
};
struct EndTransactionCall {
  uint64_t transaction = 0;
  bool commit = false;
};
struct ReadLogCall {
  RegionHandle region = 0;
  uint64_t node = 0;
};

struct AttachRequest {
  uint64_t id = 0;          // Chosen by the client, not that of another outstanding request.
  uint64_t timeout_ms = 0;  // From the request's arrival.
  std::variant<ReserveCall, OpenCall, CloseCall, MapCall, FreeCall, ListCall, SpaceCall, AllocateCall, UnallocateCall,
               GetAttributesCall, SetAttributesCall, CheckAllocatedCall, AcquireCall, LockCall, UnlockCall, FlushCall,
               HealCall, CountersCall, InspectCall, BeginCall, ReadInCall, WriteInCall, EndTransactionCall, ReadLogCall>
      call;
};

// An open region, with two descriptors: its memory (read-write or read-only) and its pages' states (read-only).
struct OpenedReply {
  RegionHandle region = 0;
  RegionInfo info;
  bool may_write = false;
  bool is_owner = false;
};
struct RegionListReply {
  std::vector<RegionInfo> regions;
};
struct LockedReply {
  uint64_t lock_id = 0;
};
struct BegunReply {
  uint64_t transaction = 0;
};
struct TextReply {
  std::string text;
};

struct AttachReply {
  uint64_t id = 0;
  absl::Status status;
  bool more = false;  // Another part of this reply follows.
  std::variant<std::monostate, OpenedReply, RegionListReply, SpaceTotals, PageAttributes, LockedReply, RegionCounters,
               TextReply, BegunReply>
      result;
};

// On the events' socket.
struct AttachEvent {
  RegionEvent::Kind kind = RegionEvent::Kind::kReverted;
  RegionPages pages;
};

}  // namespace mangrove
