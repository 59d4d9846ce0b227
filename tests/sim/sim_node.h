// The node under test, as the simulator sees it: constructed over the four doors, asked for operations, destroyed at any
// moment. An adapter, so that the checkers can be tested against nodes that are wrong on purpose.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/directory_tree.h"
#include "directory/planted_bugs.h"
#include "engine/mangrove.h"
#include "engine/page_memory.h"
#include "engine/page_store.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/runtime/task.h"
#include "net/transport.h"
#include "recovery/messages.h"
#include "recovery/node_database.h"
#include "recovery/view.h"

namespace mangrove {
class Anchor;
class OldPages;
class PageEngine;
class Transactions;
}  // namespace mangrove

namespace mangrove::sim {

// The first slots are those of anchors.
constexpr int kAnchors = 3;

struct NodeDoors {
  Clock* clock = nullptr;
  Transport* transport = nullptr;
  PageStore* store = nullptr;
  PageMemory* memory = nullptr;
  Entropy* entropy = nullptr;
};

struct NodeSetup {
  NodeInstance self;
  std::vector<NodeId> nodes;   // All of the cluster, this one included.
  std::set<NodeId> anchors;    // Of these.
  uint32_t replicas = 2;       // Core holders of each page.
  size_t cache_pages = 64;     // That the node keeps in memory.
  bool evict_to_peers = true;  // What does not fit goes to other nodes.
  DirectoryLimits directory;   // Small ones, so that it has levels.
  uint32_t move_after = 0;     // As PageEngineOptions'.
  DurationNs move_stay = 0;
  uint64_t repair_bytes_per_second = 0;
  uint64_t log_pages = 0;                    // Of the node's transactions; 0: it has none.
  PageRange read_without_quorum;             // Programs read these without a lease.
  PageRange migratory;                       // These the node takes with the right to store.
  std::function<void(TimeNs)> serve_until;   // The node's lease, by its clock.
  std::function<void(const View&)> follows;  // It knows a new view.
  std::function<void()> expelled;            // The cluster has gone on without it: its process ends, soon.
  // It keeps nothing any more (false), or is out of the cluster for good (true): its process ends.
  std::function<void(bool)> dismissed;
  DurationNs replace_after = 0;  // These two as RecoveryTiming's; 0: its default.
  DurationNs reweigh_after = 0;
  uint32_t disk_mib = 0;            // How large it says that its disk is; 0: it does not say.
  OldPages* old_pages = nullptr;    // Those of a life that was expelled, for keep_old_pages.
  uint64_t* next_config = nullptr;  // Of the cluster: the last configuration number that was given.
  const PlantedBugs* bugs = nullptr;
};

// Deadlines are of the node's clock.
class SimNode {
 public:
  virtual ~SimNode() = default;

  // Called once; operations follow when `ready(OK)` has run.
  virtual void Start(absl::AnyInvocable<void(absl::Status)> ready) = 0;

  virtual Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) = 0;
  virtual Task<absl::StatusOr<uint64_t>> Lock(uint64_t client, PageRange range, LockMode mode, TimeNs deadline) = 0;
  virtual absl::Status Unlock(uint64_t client, uint64_t lock_id) = 0;
  virtual Task<absl::Status> Flush(PageRange range, TimeNs deadline) = 0;
  virtual Task<absl::Status> Allocate(PageRange range, TimeNs deadline) = 0;
  virtual Task<absl::Status> Unallocate(PageRange range, TimeNs deadline) = 0;
  virtual void EndClient(uint64_t client) = 0;
  // As Allocate; volatile pages are in memory only.
  virtual Task<absl::Status> AllocateAs(PageRange range, bool is_volatile, TimeNs deadline) {
    if (is_volatile)
      return [](absl::Status status) -> Task<absl::Status> { co_return status; }(absl::UnimplementedError(""));
    return Allocate(range, deadline);
  }
  // Stops it in order; `ended` when its process may end.
  virtual void Stop(std::function<void()> ended) { ended(); }
  // Null: it is none.
  virtual PageEngine* engine() { return nullptr; }
  // Null: it has none.
  virtual Transactions* transactions() { return nullptr; }
  // Null: it is none, or not yet.
  virtual const Anchor* anchor() const { return nullptr; }
  // To other nodes, since there was no room for them.
  virtual uint64_t PagesMoved() const { return 0; }
  // The newest that it knows.
  virtual View view() const { return {}; }
  // What an operator wants; it may come to nothing.
  virtual void Request(const NodeRequest&) {}
  // What it has heard of the node, if that belongs to the cluster.
  virtual std::optional<NodeRecord> KnownRecord(NodeId) const { return std::nullopt; }
};

using NodeFactory = std::function<std::unique_ptr<SimNode>(const NodeDoors&, const NodeSetup&)>;

}  // namespace mangrove::sim
