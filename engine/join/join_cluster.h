// The other side of engine/join/join_door.h: a machine that has a token asks the node that made it to be let into the cluster.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/join/join_messages.h"
#include "engine/join/join_token.h"
#include "net/runtime/clock.h"

namespace mangrove {

// Called by any thread, with no node in this process yet: it has a loop and connections of its own, and returns within `patience`
// (beside what it takes to look up a host's name). `provider` is libfabric's, as of the cluster's nodes.
//
//   InvalidArgument    the request, the token's address, or the provider cannot be used
//   DeadlineExceeded   the node could not be reached, or had the request and did not answer: then the machine may have been admitted, and
//                      the same request, with the same token, gets the answer
//   PermissionDenied   the token is void
//   FailedPrecondition the node is of another cluster or version, or the token was used for another request
//   others             as whoever admits says
absl::StatusOr<JoinAnswer> JoinCluster(const JoinToken& token, const JoinRequest& request, DurationNs patience,
                                       const std::string& provider = "tcp");

}  // namespace mangrove
