// What a machine needs to join a cluster that it knows nothing of, as a text that a person can copy:
//
//   mgt1.<base64url: version, length, security, node, expiry, cluster's name, address, key, checksum>
//
// Whoever has it may join until it is used or its time is over, so it is a secret: no error and no line of a log holds it,
// or its key.

#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/handshake.h"
#include "net/ids.h"
#include "net/sealing.h"

namespace mangrove {

struct JoinToken {
  std::string cluster_name;  // At most 255 bytes, as the address.
  Security security = Security::kAuthenticated;
  NodeId node;          // That made it, and is at `address`.
  std::string address;  // "host:port"
  ClusterKey key{};
  absl::Time expiry;  // In whole seconds.
};

// REQUIRES: the lengths above.
std::string EncodeJoinToken(const JoinToken& token);

// White space around it and within does not count. InvalidArgument: it was not copied whole, or is of another version.
// DeadlineExceeded: its time was over before `now`; then the node that made it would not know it either.
absl::StatusOr<JoinToken> ParseJoinToken(std::string_view text, absl::Time now);

}  // namespace mangrove
