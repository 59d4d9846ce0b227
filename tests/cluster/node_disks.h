// A small disk in RAM for the data of each node of a Cluster, which can be filled. Needs root. This process and its children alone
// see them, and they are gone with it.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace mangrove::cluster_test {

class NodeDisks {
 public:
  // REQUIRES: this process has one thread; no node has been started. The error is the system's.
  static absl::StatusOr<std::unique_ptr<NodeDisks>> Make(const std::string& cluster_directory, int nodes);
  NodeDisks(const NodeDisks&) = delete;
  NodeDisks& operator=(const NodeDisks&) = delete;
  ~NodeDisks();  // What a node has open there it keeps.

  // They begin with 512 MiB.
  absl::Status Resize(int node, int mib) const;
  // Until there is no room for a byte. Throws if that cannot be done.
  void Fill(int node) const;
  void Free(int node) const;

 private:
  explicit NodeDisks(const std::string& cluster_directory) : directory_(cluster_directory) {}
  absl::Status Mount(int node);
  std::string Of(int node) const;
  std::string Ballast(int node) const { return Of(node) + "/ballast"; }

  const std::string directory_;
  int mounted_ = 0;
};

}  // namespace mangrove::cluster_test
