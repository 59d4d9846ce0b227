#include "tests/cluster/soak_faults.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace mangrove::cluster_test {
namespace {

struct KindTraits {
  FaultKind kind;
  const char* what;
  const char* whom;  // Where no node is named.
  int64_t least_ms;
  int64_t most_ms;
};

// In the order of FaultKind. A lease is 1 s.
constexpr KindTraits kTraits[] = {
    {FaultKind::kKill, "kill ", "", 50, 4000},
    {FaultKind::kKillLeader, "kill ", "the leader", 50, 4000},
    {FaultKind::kKillMonitor, "kill ", "a monitor", 50, 4000},
    {FaultKind::kKillTwo, "kill at once ", "", 50, 4000},
    {FaultKind::kKillAll, "kill ", "all", 50, 2000},
    {FaultKind::kShortPause, "pause ", "", 100, 700},
    {FaultKind::kLongPause, "pause ", "", 1500, 4000},
    {FaultKind::kShortCut, "cut off ", "", 100, 700},
    {FaultKind::kLongCut, "cut off ", "", 1500, 6000},
    {FaultKind::kCutPair, "cut the cable between ", "", 1500, 6000},
    {FaultKind::kSplit, "split from the others ", "", 1500, 6000},
    {FaultKind::kFullDisk, "fill the disk of ", "", 500, 5000},
    {FaultKind::kEmptyDisk, "kill, and take the disk of, ", "", 50, 4000},
    {FaultKind::kDrain, "drain ", "", 50, 4000},
};

const KindTraits& TraitsOf(FaultKind kind) { return kTraits[static_cast<size_t>(kind)]; }

bool IsCut(FaultKind kind) { return kind == FaultKind::kShortCut || kind == FaultKind::kLongCut; }

std::vector<FaultKind> KindsFor(const SoakedCluster& cluster) {
  using enum FaultKind;
  std::vector<FaultKind> kinds{kKill,       kKill,      kKillLeader, kKillTwo, kKillAll,
                               kShortPause, kLongPause, kEmptyDisk,  kDrain};
  if (cluster.has_monitors) kinds.push_back(kKillMonitor);
  if (cluster.has_network) kinds.insert(kinds.end(), {kShortCut, kLongCut, kLongCut, kCutPair});
  // Of three, who is apart from the two others is cut off.
  if (cluster.has_network && cluster.nodes > 3) kinds.insert(kinds.end(), {kSplit, kSplit});
  if (cluster.has_disks) kinds.push_back(kFullDisk);
  return kinds;
}

}  // namespace

bool Fault::Hits(int node) const { return std::find(nodes.begin(), nodes.end(), node) != nodes.end(); }

bool Fault::Spares(int node) const {
  // All are to be served again, however long it lasts.
  if (kind == FaultKind::kKillTwo || kind == FaultKind::kKillAll || kind == FaultKind::kSplit) return true;
  return !Hits(node);
}

bool IsPause(const Fault& fault) { return fault.kind == FaultKind::kShortPause || fault.kind == FaultKind::kLongPause; }

bool CostsADisk(const Fault& fault) { return fault.kind == FaultKind::kEmptyDisk; }

FaultDraws::FaultDraws(const SoakedCluster& cluster, uint64_t seed)
    : cluster_(cluster), random_(seed), kinds_(KindsFor(cluster)) {}

int64_t FaultDraws::Between(int64_t least, int64_t most) {
  return least + static_cast<int64_t>(random_() % static_cast<uint64_t>(most - least + 1));
}

// The same number of draws whatever comes of them.
Fault FaultDraws::Next() {
  Fault fault{.kind = kinds_[random_() % kinds_.size()], .nodes = {}};
  fault.cut = static_cast<Cut>(Between(0, 2));
  const auto node = static_cast<int>(Between(1, cluster_.all()));
  const auto next = static_cast<int>(Between(0, 59));  // A multiple of each number of others.
  const bool joins_in = Between(0, 1) == 1;
  const int64_t share = Between(0, 999);
  fault.rest_ms = Between(0, 1000);
  const KindTraits& traits = TraitsOf(fault.kind);
  fault.lasts_ms = traits.least_ms + (traits.most_ms - traits.least_ms) * share / 1000;
  const auto two_of = [&](int count) -> std::vector<int> {
    const int first = (node - 1) % count;
    return {first + 1, (first + 1 + next % (count - 1)) % count + 1};
  };
  switch (fault.kind) {
    case FaultKind::kKillLeader:
    case FaultKind::kKillMonitor: break;
    case FaultKind::kKillAll:
      fault.nodes.resize(static_cast<size_t>(cluster_.all()));
      std::iota(fault.nodes.begin(), fault.nodes.end(), 1);
      break;
    case FaultKind::kKillTwo:
    case FaultKind::kCutPair: fault.nodes = two_of(cluster_.all()); break;
    case FaultKind::kSplit:
      fault.nodes = two_of(cluster_.nodes);
      if (joins_in) fault.nodes.push_back(cluster_.joiner());
      break;
    case FaultKind::kDrain: fault.nodes = {cluster_.joiner()}; break;
    default: fault.nodes = {node};
  }
  return fault;
}

void Aim(Fault* fault, const SoakRoles& roles) {
  if (fault->kind == FaultKind::kKillLeader) fault->nodes = {roles.leader};
  if (fault->kind == FaultKind::kKillMonitor) fault->nodes = {roles.monitor};
}

std::string TextOf(const Fault& fault, const SoakRoles& roles) {
  constexpr const char* kCutTexts[] = {"", ", whom nobody hears,", ", which hears nobody,"};
  const KindTraits& traits = TraitsOf(fault.kind);
  std::vector<std::string> names;
  for (const int node : fault.nodes) {
    names.push_back(absl::StrCat("node-", node, node == roles.leader ? " (leader)" : "",
                                 node == roles.monitor ? " (monitor)" : ""));
  }
  const bool is_named = !names.empty() && fault.kind != FaultKind::kKillAll;
  return absl::StrCat(traits.what, is_named ? absl::StrJoin(names, " and ") : traits.whom,
                      IsCut(fault.kind) ? kCutTexts[static_cast<int>(fault.cut)] : "", " for ", fault.lasts_ms, " ms");
}

}  // namespace mangrove::cluster_test
