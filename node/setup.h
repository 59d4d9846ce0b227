// What makes a node's files on this machine: of a new cluster's first node, or of one that joins a cluster. No daemon is asked.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/join/join_cluster.h"
#include "net/runtime/clock.h"

namespace mangrove {

struct SetupOptions {
  std::string directory = "/var/lib/mangrove";  // For the configuration, the key, the data; made if it is missing.
  std::string socket;                           // Of the daemon; empty: in the directory.
  std::string name;                             // Of the node.
  std::string address;                          // "host:port", where the others reach it.
  // Of a cluster that is made.
  std::string cluster;
  uint32_t replicas = 2;
  bool is_encrypted = false;
  // Of a node that joins one.
  uint32_t votes = 0;
  uint64_t group = JoinRequest::kAnyGroup;
  DurationNs patience = 30 * kSecond;
};

// Both write DIRECTORY/mangroved.toml and DIRECTORY/cluster.key, and give what to tell the operator. AlreadyExists: there is one of them,
// and nothing is changed. InvalidArgument names the option and what was expected.
absl::StatusOr<std::string> SetUpCluster(const SetupOptions& options);
// `token`: its text. The machine is admitted before its files are written: with the same options it can be tried again.
absl::StatusOr<std::string> SetUpJoin(const std::string& token, const SetupOptions& options);

}  // namespace mangrove
