// What a guest and the node that made its token say to each other, on Channel::kJoin. Their wire form is join.capnp.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "net/handshake.h"
#include "net/ids.h"

namespace mangrove {

// What a reader refuses to be longer, or more.
constexpr size_t kMaxJoinNameBytes = 63;
constexpr size_t kMaxJoinAddressBytes = 255;
constexpr size_t kMaxJoinErrorBytes = 1024;
constexpr size_t kMaxJoinKeys = 16;
constexpr size_t kMaxJoinMembers = 64;
constexpr uint32_t kMaxJoinVotes = 100;

// What a machine wants to be.
struct JoinRequest {
  static constexpr uint64_t kAnyGroup = UINT64_MAX;

  std::string name;            // Letters, digits, '-', '_' and '.'.
  std::string address;         // "host:port"
  uint32_t votes = 0;          // Of the anchors; 0: it is to be none.
  uint64_t group = kAnyGroup;  // Where it is to be (recovery/groups.h).
  friend bool operator==(const JoinRequest&, const JoinRequest&) = default;
};

struct JoinMember {
  NodeId id;
  std::string name;
  std::string address;
  uint32_t votes = 0;
  friend bool operator==(const JoinMember&, const JoinMember&) = default;
};

// What it is now, and needs to know.
struct JoinAnswer {
  NodeId node;                      // Its own, for ever.
  std::vector<ClusterKey> keys;     // All of the cluster's, at least one, the first first.
  uint32_t replicas = 0;            // The cluster's default, at least 1.
  std::vector<JoinMember> members;  // The anchors, and itself. In ascending order of their ids.
  uint32_t lease_ms = 0;            // As the cluster's nodes have it; 0: the usual one.
  uint32_t system_replicas = 0;     // The same; 0: as `replicas`.
  friend bool operator==(const JoinAnswer&, const JoinAnswer&) = default;
};

// As they go over the wire. `number` is the guest's, and a reply has that of its request: what was said to another guest, or
// to this one before it asked for something else, is not taken for an answer. 0: the request could not be read.
struct NumberedRequest {
  uint64_t number = 0;
  JoinRequest request;
};
struct NumberedReply {
  uint64_t number = 0;
  std::variant<absl::Status, JoinAnswer> content;  // An error, or the answer.
};

}  // namespace mangrove
