// Random programs: on each node several clients that load, store, lock, flush, allocate and free, all over the same pages,
// and an application whose threads use whatever rights the node has at the moment, without asking.
//
// Pages: a few hot ones that everybody fights for, many cold ones that overflow the caches, and extents that are freed and
// allocated again.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "net/runtime/task.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

enum class OperationKind : uint8_t { kLoad, kStore, kReadModifyWrite, kLock, kFlush, kChurn, kScan };
constexpr int kOperationKinds = 7;
const char* Name(OperationKind kind);

struct WorkloadOptions {
  int clients_per_node = 2;
  int hot_pages = 4;
  int cold_pages = 64;
  int churn_extents = 4;   // Of four pages each.
  uint64_t max_range = 4;  // Pages of one operation.
  uint64_t max_scan = 24;  // Pages of one that reads in order.
  uint32_t hot_per_mille = 600;
  std::array<uint32_t, kOperationKinds> weights{30, 25, 15, 10, 15, 5, 5};
  DurationNs min_think = 10 * kMicrosecond;
  DurationNs max_think = 5 * kMillisecond;
  DurationNs max_hold = 10 * kMillisecond;  // Of a lock.
};

struct WorkloadCounters {
  uint64_t ended = 0;  // Operations that had an answer.
  uint64_t succeeded = 0;
  std::array<uint64_t, kOperationKinds> by_kind{};
};

class Workload {
 public:
  Workload(SimCluster* cluster, const WorkloadOptions& options);

  // A node serves: its programs begin.
  void OnReady(SimHost& host);

  // Allocates everything, from the first node, before anything else. True in `done` when all is.
  void Prepare();
  bool prepared() const { return prepared_; }

  // Clients begin no further operation.
  void StopClients() { stopped_ = true; }
  bool AllClientsEnded() const { return clients_running_ == 0; }

  // With no faults about: every node stores to, locks and flushes pages; each must succeed. Fails the world if one does
  // not within `bound`.
  void StartProgressCheck(DurationNs bound);
  bool ProgressCheckEnded() const { return checks_running_ == 0; }
  // One node reads everything, so that what survived is looked at.
  void StartReadAll(int slot, DurationNs bound);

  const WorkloadCounters& counters() const { return counters_; }

 private:
  struct Client {
    Workload* workload;
    SimHost* host;
    uint64_t id;
    SimRandom random;
  };
  // An operation between its begin and its end. Its destructor ends it when its node crashes.
  class Pending;
  struct Extent {
    PageRange range;
    bool busy = false;
    TimeNs leave_until = 0;  // The world's time: an answer left it open, and late messages may be about.
  };

  void Layout(SimRandom random);
  PageId PickPage(SimRandom& random) const;
  PageRange PickRange(SimRandom& random, uint64_t max_pages) const;
  PageRange Clip(PageId first, uint64_t pages) const;
  OperationKind PickKind(SimRandom& random) const;
  TimeNs PickDeadline(Client& client);
  bool Store(SimHost& host, PageId page);
  void Touch(SimHost& host, SimRandom& random);
  void ScheduleTouch(SimHost& host, std::shared_ptr<SimRandom> random);

  Task<bool> RunClient(std::shared_ptr<Client> client);
  Task<bool> RunOperation(Client& client, OperationKind kind);
  Task<bool> Access(Client& client, PageRange range, OperationKind kind, TimeNs deadline);
  Task<bool> AccessPage(Client& client, PageId page, OperationKind kind, TimeNs deadline);
  Task<absl::Status> Acquire(Client& client, PageRange range, Rights rights, TimeNs deadline);
  Task<bool> LockAndUse(Client& client, TimeNs deadline);
  Task<bool> UseLocked(Client& client, PageRange range, LockMode mode, TimeNs deadline);
  Task<bool> Flush(Client& client, PageRange range, TimeNs deadline);
  Task<bool> Churn(Client& client, TimeNs deadline);
  Task<bool> Scan(Client& client, TimeNs deadline);
  Task<absl::Status> Allocate(Client& client, PageRange range, TimeNs deadline);
  Task<absl::Status> Unallocate(Client& client, PageRange range, TimeNs deadline);
  Task<bool> FreeExtent(Client& client, Extent& extent, TimeNs deadline);
  Task<bool> PrepareAll(std::shared_ptr<Client> client);
  Task<bool> CheckProgress(std::shared_ptr<Client> client, DurationNs bound);
  Task<bool> CheckPage(Client& client, PageId page, DurationNs bound);
  Task<bool> ReadAll(std::shared_ptr<Client> client, DurationNs bound);
  std::shared_ptr<Client> NewClient(SimHost& host, const char* purpose);

  SimCluster* const cluster_;
  SimWorld* const world_;
  Oracle* const oracle_;
  const WorkloadOptions options_;
  std::vector<PageId> hot_;
  std::vector<PageRange> runs_;  // The allocated pages that stay: neighbours within a segment.
  std::vector<PageId> cold_;
  std::vector<Extent> churn_;
  uint64_t next_client_ = 0;
  int clients_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
