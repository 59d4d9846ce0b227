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
#include "tests/sim/work.h"

namespace mangrove::sim {

struct WorkloadOptions {
  int clients_per_node = 2;
  int hot_pages = 4;
  int cold_pages = 64;
  int churn_extents = 4;   // Of four pages each.
  uint64_t max_range = 4;  // Pages of one operation.
  uint64_t max_scan = 24;  // Pages of one that reads in order.
  uint32_t hot_per_mille = 600;
  uint32_t churn_per_mille = 60;  // Of the pages that are used: those of churn extents.
  std::array<uint32_t, kOperationKinds> weights{30, 25, 15, 10, 15, 5, 5};
  DurationNs min_think = 10 * kMicrosecond;
  DurationNs max_think = 5 * kMillisecond;
  DurationNs max_hold = 10 * kMillisecond;  // Of a lock.
};

class Workload final : public Work {
 public:
  Workload(SimCluster* cluster, const WorkloadOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return clients_running_ == 0; }
  // Every node stores to, locks and flushes pages.
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;

  std::vector<PageId> pages() const override;
  const WorkloadCounters& counters() const override { return counters_; }

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
