// A network of their own for nodes on this machine: a namespace for each, joined by a bridge, with a packet filter that cuts one of
// them from the others. The rest of the machine has nothing to do with it. Needs root, iproute2 and nftables.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mangrove::cluster_test {

enum class Cut { kBoth, kHears, kIsHeard };  // The last two: what is left of it.

class NodeNetwork {
 public:
  // Nodes are numbered from 1. The error is that of the first command that failed.
  static absl::StatusOr<std::unique_ptr<NodeNetwork>> Make(int nodes);
  NodeNetwork(const NodeNetwork&) = delete;
  NodeNetwork& operator=(const NodeNetwork&) = delete;
  ~NodeNetwork();

  std::vector<std::string> hosts() const;  // An address for each node.
  std::vector<std::vector<std::string>> launchers()
      const;  // For each node, what comes before a command to run it there.

  // Packets are dropped without an answer, those of connections that there are already too. Throws if that cannot be done.
  void CutOff(int node, Cut cut);
  // Some from the others, none of which is among them: all that passes between is dropped, at the former.
  void Separate(const std::vector<int>& some, const std::vector<int>& others);
  // What was cut or dropped at this node.
  void Heal(int node);

 private:
  explicit NodeNetwork(int nodes) : nodes_(nodes) {}
  absl::Status SetUp();
  std::string Namespace(int node) const;  // 0: the bridge's.
  std::vector<std::string> Within(int node, const std::vector<std::string>& command) const;

  const int nodes_;
};

}  // namespace mangrove::cluster_test
