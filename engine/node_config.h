// What a node is told at its start. docs/OPERATIONS.md describes the file.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/handshake.h"
#include "net/ids.h"
#include "net/levels.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/sealing.h"
#include "recovery/groups.h"
#include "recovery/lease_settings.h"
#include "recovery/node_database.h"

namespace mangrove {

constexpr uint32_t kMaxVotes = 100;  // Of one anchor.

// One of the nodes that a cluster is made with, or that a node joins: who counts is said by the anchors from then on.
struct MemberConfig {
  NodeId id;
  std::string name;
  std::string address;  // "host:port"
  // Of the anchors, which agree on who is there; more than 0: this member is one of them. No member has any: see VotesOf.
  std::optional<uint32_t> votes = {};
};

// A fileset that is mounted when the node has started.
struct MountConfig {
  std::string fileset;
  std::string directory;  // Absolute.
  std::string options;    // As mount(8) has them, with commas between; what they are is not the engine's to know.
};

struct NodeConfig {
  // [node]
  std::string name;         // One of members.
  std::string data_dir;     // The store is in data_dir/store.
  std::string socket_path;  // Where local programs attach; empty: nobody can.
  uint64_t cache_size_bytes = uint64_t{256} << 20;
  int64_t fault_timeout_ms = 10'000;  // A mapped access that waits longer ends with SIGBUS.
  int64_t spin_us = 50;               // How long the loop polls before it sleeps.
  std::string provider = "tcp";       // libfabric's.
  std::string log_file;               // Empty: standard error.
  std::string log_level = "info";
  uint64_t disk_reserve_bytes = uint64_t{256} << 20;  // Kept free on the data directory's filesystem.
  bool keep_headroom = true;                          // As PageEngineOptions'.
  uint64_t repair_bytes_per_second =
      0;                       // Of pages that are copied to this node's disk since it lacks them; 0: not limited.
  bool evict_to_peers = true;  // Pages that do not fit into the cache go to nodes that have room, and theirs come here.
  // In a view of more nodes this one pulses to the monitor of its group, in a smaller one to the anchors' leader (recovery/groups.h).
  uint32_t monitors_above = kFewNodes;
  // In code alone: false for a node that measures something, and is to do nothing by itself.
  bool has_transactions = true;
  // [cluster]
  std::string cluster_name;
  std::string key_file;                    // Keys of 64 hexadecimal digits; readable by its owner alone.
  std::string security = "authenticated";  // Or "encrypted": SecurityOf.
  uint32_t replicas = 2;                   // Of an allocation that does not say.
  uint32_t system_replicas =
      0;  // Of the cluster's own pages, the same on all nodes for ever; 0: as `replicas`. SystemReplicasOf.
  // Seconds since 1970. After that the node founds no cluster, whatever it finds on its disk; 0: it may at any time.
  int64_t found_before = 0;
  uint32_t lease_ms = kDefaultLeaseMs;               // How fast a loss is noticed; the same on all nodes.
  uint32_t replace_after_s = kDefaultReplaceAfterS;  // Then others keep what a node kept that is away.
  uint32_t reweigh_after_s =
      kDefaultReweighAfterS;  // Then disks of unlike sizes get weights that are worth it. 0: they get none.
  // [[members]]
  std::vector<MemberConfig> members;
  // [[mounts]]
  std::vector<MountConfig> mounts;
  // Not in the file: what this build speaks, or is made to.
  LevelTable levels = kOwnLevels;

  const MemberConfig& self() const;  // REQUIRES: validated.
};

RecoveryTiming TimingOf(const NodeConfig& config);

// Core holders of the cluster's own pages: the root page, the region table, the logs of transactions.
uint32_t SystemReplicasOf(const NodeConfig& config);

// Reads a TOML file. Relative paths in it are relative to the working directory of the process.
// InvalidArgument names the file, the line, the key, its value and what was expected; unknown keys are errors.
absl::StatusOr<NodeConfig> LoadNodeConfig(const std::string& path);
absl::StatusOr<NodeConfig> ParseNodeConfig(const std::string& text, const std::string& origin);
// As ParseNodeConfig reads it: what differs from the defaults, with a word on it where an operator edits it.
std::string FormatNodeConfig(const NodeConfig& config);
// What the types do not say: a name that is no member, two members of one name, id or address, sizes out of bounds. The same for
// configurations that were made in code.
absl::Status ValidateNodeConfig(const NodeConfig& config);
// The same of a node that is to be in the cluster.
absl::Status CheckNodeRecord(const std::string& name, const std::string& address, uint32_t votes);

// The votes of each member. Where the configuration gives none, the three members with the lowest ids have one each, or, of two
// members, the first: then two of three agree, while a second vote of two would be one more that must not be lost.
std::map<NodeId, uint32_t> VotesOf(const NodeConfig& config);

// Of a node that is made now, with this address.
NodeIdentity NewIdentity(const std::string& address);
// The members as they are made, if the cluster is not there yet.
std::map<NodeId, NodeRecord> NodesOf(const NodeConfig& config);

// Clusters of one name and different keys never get past the handshake; the name keeps their errors apart.
ClusterId ClusterIdOf(const std::string& cluster_name);

// How connections are kept, of a validated configuration.
Security SecurityOf(const NodeConfig& config);

// Those whom a key is to be kept from cannot read its file.
constexpr mode_t kKeyFileMode = 0600;
ClusterKey NewClusterKey(Entropy* entropy);
// As LoadClusterKeys reads them.
std::string FormatClusterKeys(const std::vector<ClusterKey>& keys);
// The keys in `path`, at least one. Errors say what is wrong with the file, never what is in it.
absl::StatusOr<std::vector<ClusterKey>> LoadClusterKeys(const std::string& path);

}  // namespace mangrove
