// The nodes of a simulated cluster: each a host whose disk stays, and on which lives of the node begin and end.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "tests/sim/applets.h"
#include "tests/sim/old_pages.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_node.h"
#include "tests/sim/sim_store.h"
#include "tests/sim/sim_transport.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

// For a scenario to make what it works on.
inline constexpr DurationNs kPrepareBound = 60 * kSecond;

struct ClusterOptions {
  int nodes = 3;
  int late = 0;  // Of these: that are outside at first.
  uint32_t replicas = 2;
  size_t cache_pages = 64;
  size_t large_cache_pages = 0;  // Of every other node, where that is more.
  bool evict_to_peers = true;
  int64_t max_drift_ppm = 0;
  DirectoryLimits directory;
  uint32_t move_after = 0;
  DurationNs move_stay = 0;
  DurationNs replace_after = 0;  // Of who is away; 0: never in a run.
  DurationNs reweigh_after =
      0;  // Disks are of many sizes, in each life another one, and weighed so soon; 0: nobody says.
  uint64_t repair_bytes_per_second = 0;  // As PageEngineOptions'.
  uint64_t log_pages = 0;                // Of a node's transactions.
  PageRange read_without_quorum;
  SimMemoryOptions memory;
  SimStoreOptions store;
  const PlantedBugs* bugs = nullptr;
};

// One machine. What a life owns is null while the node is down.
struct SimHost {
  int slot = 0;
  uint64_t life = 0;  // Counts the starts; the incarnation.
  bool ready = false;
  bool stops = false;  // In order, this life.
  enum class Place : uint8_t {
    kInside,
    kOutside,  // Not in the cluster yet.
    kJoining,  // That was asked for.
    kRetired,  // It was taken out of the cluster, and does not start any more.
  };
  Place place = Place::kInside;
  std::unique_ptr<SimDisk> disk;
  std::unique_ptr<SimClock> clock;
  std::unique_ptr<SimTransport> transport;
  std::unique_ptr<SimStore> store;
  std::unique_ptr<SimMemory> memory;
  std::unique_ptr<SimEntropy> entropy;
  std::unique_ptr<SimNode> node;
  OldPages old_pages;
  AppletGroup applets;

  bool up() const { return node != nullptr; }
  bool in_service() const { return place == Place::kInside; }
};

class SimCluster {
 public:
  SimCluster(SimWorld* world, Oracle* oracle, const ClusterOptions& options, NodeFactory factory);
  ~SimCluster();
  SimCluster(const SimCluster&) = delete;
  SimCluster& operator=(const SimCluster&) = delete;

  SimWorld& world() { return *world_; }
  Oracle& oracle() { return *oracle_; }
  SimNetwork& network() { return network_; }
  const ClusterOptions& options() const { return options_; }
  int nodes() const { return options_.nodes; }
  SimHost& host(int slot) { return *hosts_[static_cast<size_t>(slot)]; }
  int up_count() const;
  int ready_count() const;
  int in_service() const;  // All that are in it.
  bool AllReady() const;
  // Whether every node serves, no disk lacks what another has, and there are as many as a page has copies.
  bool AllDisksCount() const;
  // And every node keeps pages, and no operator wants anything else.
  bool AllNodesKeepPages() const;
  // The newest that a node follows.
  View NewestView() const;
  // Of the newest that any node has followed, also one that is down by now.
  Epoch newest_epoch() const { return newest_epoch_; }
  // The machine is gone with its disk, and never comes back. REQUIRES: the node is down.
  void Retire(int slot);
  // Has an operator ask every node, until the view says so.
  void Request(const NodeRequest& request);
  // The same for a node to be let in, which starts then. REQUIRES: it is the first that is outside.
  void Join(int slot);
  // Other nodes become anchors instead of those that are, one after the other, and `away` is down until then: it starts when that is
  // done, and the old ones have left (`leave`) or cannot be reached. REQUIRES: MayReplaceAnchors, and `away` is behind the first
  // 2 * kAnchors.
  void ReplaceAnchors(int away, bool leave);
  // All of these are in the cluster, nobody comes or goes, and it was not done before.
  bool MayReplaceAnchors() const;
  bool IsReplacingAnchors() const { return replacement_.has_value(); }
  bool AreAnchorsReplaced() const { return first_anchor_ != 0; }
  // Those that the cluster has, as far as faults have to do with it.
  bool IsAnchor(int slot) const { return first_anchor_ <= slot && slot < first_anchor_ + kAnchors; }
  // Evicted from one node's cache to another's, since the world began.
  uint64_t pages_moved() const;
  // Moves that give disks other weights.
  uint64_t weighed() const { return weighed_; }

  // Begins a life. REQUIRES: the node is down.
  void Start(int slot);
  // Ends it at once. REQUIRES: the node is up; not called by an event of the node.
  void Crash(int slot);
  // Ends it in order, after a while, and starts it again `down` after that. False: it does not serve, or stops already.
  bool Stop(int slot, DurationNs down);
  // Begins the next life then, unless somebody has before.
  void StartAfter(int slot, DurationNs delay);

  // `ready` when a life's node serves, `down` before its memory goes.
  void SetHooks(std::function<void(SimHost&)> ready, std::function<void(SimHost&)> down);

 private:
  struct Replacement {
    int away = 0;
    bool leave = false;
    int changed = 0;          // Votes that were given or taken.
    TimeNs leaving_from = 0;  // All were.
  };

  void GoOnReplacing();
  void CutFromOldAnchors(int away);
  bool SetVotes(int slot, uint32_t votes);
  PageRange PickMigratory();
  uint32_t PickDiskMib();
  void OnFollows(int slot, const View& view);
  void Ask(const NodeRequest& request, int tries);
  void Configure(int slot, NodeSetup& setup) const;
  void OnStartFailed(int slot, const absl::Status& status);
  // At once after the current event; and it is started again after a while.
  void EndProcess(int slot, uint64_t life);

  SimWorld* const world_;
  Oracle* const oracle_;
  const ClusterOptions options_;
  const NodeFactory factory_;
  SimRandom random_;
  SimRandom sizes_;
  SimNetwork network_;
  uint64_t next_config_ = 0;
  std::map<NodeId, NodeRequest::Kind> wanted_;  // By an operator, the last.
  int asking_ = 0;
  std::optional<Replacement> replacement_;
  int first_anchor_ = 0;  // The others are the slots behind it.
  uint64_t moved_ = 0;    // By lives that are over.
  uint64_t weighed_ = 0;
  Epoch weighed_in_;
  Epoch newest_epoch_;
  std::function<void(SimHost&)> on_ready_;
  std::function<void(SimHost&)> on_down_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
};

}  // namespace mangrove::sim
