// The nodes of a soak run: processes that faults hit, each with a network and a disk of its own where this machine allows that. One
// more than those that found the cluster joins it with a token, as an operator would have it do.

#pragma once

#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/node_disks.h"
#include "tests/cluster/node_network.h"
#include "tests/cluster/soak_faults.h"
#include "tests/cluster/soak_options.h"
#include "tests/cluster/soak_whole.h"

namespace mangrove::cluster_test {

constexpr int kSoakAnchors = 3;  // Those with the lowest numbers.

// Throws what ends the run.
class SoakNodes {
 public:
  // REQUIRES: this process has one thread.
  explicit SoakNodes(const SoakOptions& options);

  SoakedCluster cluster() const;
  // Why some faults are not drawn; OK: they are.
  absl::Status network_status() const { return network_.status(); }
  absl::Status disks_status() const { return disks_.status(); }

  void Found();      // Those that found the cluster; it returns when they are connected.
  void JoinFirst();  // The one beside them, for the first time.
  void KillAll() { cluster_.KillAll(); }
  void StartAll() { cluster_.StartAll(); }

  void Begin(const Fault& fault);
  // Of a fault that takes as long as it takes.
  bool IsOver(const Fault& fault) const;
  void End(const Fault& fault);

  // Throws if a node has ended that no fault has told to.
  void NoteEnds();
  // A node that its full disk has ended, as a service manager would once there is room again.
  void RestartFilled();
  // After a fault everything is well again: from now on who ends does so for no disk.
  void NoteWhole() { filled_ = 0; }
  int ended_for_their_disks() const { return ended_for_their_disks_; }

  WholeLook Look() const;
  SoakRoles Roles();

  std::string socket(int node) const { return cluster_.socket(node); }
  std::string sockets() const;  // Of those that found the cluster, with commas between.
  void CopyLogs(const std::string& directory) const;

 private:
  ClusterOptions Options() const;
  std::string DataOf(int node) const;
  std::vector<nlohmann::json> Statuses() const;
  bool MayHaveEnded(int node, const siginfo_t& info) const;
  void EmptyDisk(int node) const;
  void JoinAgain();
  void Join();
  Output Command(const std::vector<std::string>& words) const;

  const SoakOptions options_;
  const int all_;
  const absl::StatusOr<std::unique_ptr<NodeNetwork>> network_;
  Cluster cluster_;
  const absl::StatusOr<std::unique_ptr<NodeDisks>> disks_;
  int filled_ = 0;    // The node whose disk is, or was just now, full.
  int draining_ = 0;  // The one that is to end by itself.
  int ended_for_their_disks_ = 0;
};

}  // namespace mangrove::cluster_test
