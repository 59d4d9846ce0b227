// The table of regions of a simulated node, in pages of its engine as a daemon has it: for programs that need no more of a node's
// operations than regions, pages and flushes.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/node_operations.h"
#include "engine/region_table.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

class SimRegions final : public NodeOperations {
 public:
  // Of this life of `host`, which outlives it. REQUIRES: it is up.
  SimRegions(const SimHost& host, uint32_t nodes, uint32_t replicas);
  ~SimRegions() override;

  Task<absl::StatusOr<OpenedRegion>> Reserve(Credentials who, RegionOptions options, TimeNs deadline) override {
    return table_.Reserve(std::move(who), std::move(options), deadline);
  }
  Task<absl::StatusOr<OpenedRegion>> Open(Credentials who, std::string name, AccessMode mode,
                                          TimeNs deadline) override {
    return table_.Open(std::move(who), std::move(name), mode, deadline);
  }
  Task<absl::Status> Free(Credentials who, std::string name, TimeNs deadline) override {
    return table_.Free(std::move(who), std::move(name), deadline);
  }
  Task<absl::Status> Allocate(Credentials who, PageRange range, AllocateOptions options, TimeNs deadline) override {
    return table_.Allocate(std::move(who), range, options, deadline);
  }
  Task<absl::Status> AllocateAhead(Credentials who, PageRange range, AllocateOptions options,
                                   TimeNs deadline) override {
    return table_.Allocate(std::move(who), range, options, deadline);
  }
  Task<absl::Status> Unallocate(Credentials who, PageRange range, TimeNs deadline) override {
    return table_.Unallocate(std::move(who), range, deadline);
  }
  Task<absl::Status> CheckAllocated(PageRange range, TimeNs deadline) override {
    return table_.CheckAllocated(range, deadline);
  }
  Task<absl::StatusOr<PageAttributes>> GetAttributes(PageId page, TimeNs deadline) override {
    return table_.GetAttributes(page, deadline);
  }
  Task<absl::Status> SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                   TimeNs deadline) override {
    return table_.SetAttributes(std::move(who), range, change, deadline);
  }
  Task<absl::StatusOr<std::vector<RegionInfo>>> ListRegions(TimeNs deadline) override;
  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) override;
  Task<absl::StatusOr<uint64_t>> Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) override;
  absl::Status Unlock(ClientId client, uint64_t lock_id) override;
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override;
  void EndClient(ClientId client) override;

  // Nobody asks a simulated node for these.
  Task<absl::StatusOr<SpaceTotals>> Space(TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Inspect(std::string what, std::string argument, TimeNs deadline) override;
  Task<absl::StatusOr<std::string>> Operate(Credentials who, std::string what, std::string argument,
                                            TimeNs deadline) override;
  uint64_t AddEventSink(EventSink) override { return 0; }
  void RemoveEventSink(uint64_t) override {}

 private:
  class Pages;

  PageEngine* const engine_;
  const std::unique_ptr<Pages> pages_;
  RegionTable table_;
};

}  // namespace mangrove::sim
