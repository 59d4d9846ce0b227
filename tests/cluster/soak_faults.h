// The faults of a soak run, as a seed draws them. The same seed and the same cluster give the same ones.

#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/cluster/node_network.h"

namespace mangrove::cluster_test {

// Each node is responsible for, owner of and core holder of some of the pages: who kills a node kills all of that.
enum class FaultKind {
  kKill,
  kKillLeader,
  kKillMonitor,
  kKillTwo,  // At once: the only copies of some pages may be away until they are back.
  kKillAll,
  kShortPause,
  kLongPause,
  kShortCut,
  kLongCut,
  kCutPair,  // Two do not hear each other, and the others hear both.
  kSplit,    // Some hear each other, and the others too; nobody hears one of the other side.
  kFullDisk,
  kEmptyDisk,  // It dies, and what comes back has lost its disk.
  kDrain,      // It leaves in order, and what comes back is another node, of the same name.
};

// What the faults are to hit. Nodes are numbered from 1.
struct SoakedCluster {
  int nodes = 3;  // Those that found it, and on which programs run.
  bool has_monitors = false;
  bool has_network = false;  // Which can be cut.
  bool has_disks = false;    // Which can be filled.

  // The one beside them: it joins, and is no anchor.
  int joiner() const { return nodes + 1; }
  int all() const { return nodes + 1; }
};

// Who has a part that a kind of fault seeks out; 0: nobody, or it is not known.
struct SoakRoles {
  int leader = 0;
  int monitor = 0;
};

struct Fault {
  FaultKind kind = FaultKind::kKill;
  std::vector<int> nodes;  // Which it hits; of a split one side.
  Cut cut = Cut::kBoth;
  int64_t lasts_ms = 0;  // At least.
  int64_t rest_ms = 0;   // From when all is well again to the next one.

  bool Hits(int node) const;
  // Whether the programs of that node are to be served while the fault lasts.
  bool Spares(int node) const;
};

bool IsPause(const Fault& fault);
// Of a node's disk, and with it of a copy of some pages.
bool CostsADisk(const Fault& fault);

class FaultDraws {
 public:
  FaultDraws(const SoakedCluster& cluster, uint64_t seed);
  // One that seeks a role out has no nodes yet.
  Fault Next();

 private:
  int64_t Between(int64_t least, int64_t most);

  const SoakedCluster cluster_;
  std::mt19937_64 random_;
  std::vector<FaultKind> kinds_;
};

// At those who have the role now.
void Aim(Fault* fault, const SoakRoles& roles);
std::string TextOf(const Fault& fault, const SoakRoles& roles);

}  // namespace mangrove::cluster_test
