// A cluster on loopback, each of its nodes in a process of its own, its state in a directory that goes with it.

#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/worker.h"
#include "engine/node_config.h"

namespace mangrove::bench {

struct ClusterOptions {
  std::string directory;   // Made here, removed at the end.
  std::vector<int> cores;  // Of each node; as many nodes as there are. Negative: any.
  int64_t spin_us = 0;
  uint32_t replicas = 2;
  // Not empty: the first node is this daemon, and a program attached to it, on the same core, is its worker.
  std::string daemon;
  bool all_daemons = false;  // So are the others.
  bool mounts = false;       // Daemons mount the default fileset, at mount_of(). It takes root, and /dev/fuse.
  uint64_t pages = 0;        // Of the region that every node has mapped; 0: none.
  uint64_t cache_mib = 256;
  uint64_t first_cache_mib = 0;  // Of the first node; 0: as the others.
  // What the nodes' processes do, if not MakeNodeVerbs. Has the verb "start".
  std::function<Verbs(const NodeConfig&)> make;
};

class Cluster {
 public:
  // Returns when every node serves, and the region is mapped.
  explicit Cluster(ClusterOptions options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // See MakeNodeVerbs.
  Worker& node(size_t index) { return *workers_[index]; }
  // Ends the node in order, and starts it again. REQUIRES: no daemon.
  void Restart(size_t index);
  std::string mount_of(size_t index) const { return absl::StrCat(options_.directory, "/mount-", index + 1); }

 private:
  void WriteKey() const;
  NodeConfig ConfigOf(size_t index) const;
  bool IsDaemon(size_t index) const { return !options_.daemon.empty() && (index == 0 || options_.all_daemons); }
  void StartDaemon(size_t index);
  void AwaitMount(size_t index) const;
  void StartWorker(size_t index);

  const ClusterOptions options_;
  std::vector<MemberConfig> members_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<pid_t> daemons_;
};

}  // namespace mangrove::bench
