// A node that runs inside this process as a Backend: each call drives the node's loop until it is answered
// (Loop::RunUntil), so a miss costs no hand-over between threads.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/attach/backend.h"
#include "engine/attach/event_dispatcher.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/node_operations.h"
#include "net/runtime/loop.h"

namespace mangrove {

// The node's parts. All outlive the backend, and the loop runs as long as it.
struct LoopBackendNode {
  Loop* loop = nullptr;
  NodeOperations* operations = nullptr;
  MappedClients* mapped_clients = nullptr;
  // On the loop. RegionMemory::FindRegion.
  std::function<std::shared_ptr<RegionFrames>(PageId)> find_region;
  // For RegionCounters::pages_fetched, on the loop. Optional.
  std::function<uint64_t(PageRange)> pages_fetched;
  // Of the fault workers, see MappedClientOptions.
  int max_workers = 4;
  DurationNs spin_ns = 0;
};

class LoopBackend : public Backend {
 public:
  // `client`: below kFirstAttachedClient, of nobody else. `events` outlives the result.
  LoopBackend(LoopBackendNode node, ClientId client, const Limits& limits, EventDispatcher* events);
  // Gives back what the client holds.
  ~LoopBackend() override;

  absl::StatusOr<Opened> Reserve(const RegionOptions& options) override;
  absl::StatusOr<Opened> Open(const std::string& name, AccessMode mode) override;
  void Close(RegionHandle region) override;
  absl::Status Map(RegionHandle region, uint64_t base, const UniqueFd& userfaultfd, MappingUse use) override;
  absl::Status Free(const std::string& name) override;
  absl::StatusOr<std::vector<RegionInfo>> ListRegions() override;
  absl::StatusOr<SpaceTotals> Space() override;
  absl::Status Allocate(const RegionPages& pages, const AllocateOptions& options) override;
  absl::Status Unallocate(const RegionPages& pages) override;
  absl::StatusOr<PageAttributes> GetAttributes(RegionHandle region, uint64_t page) override;
  absl::Status SetAttributes(const RegionPages& pages, const PageAttributesChange& change) override;
  absl::Status CheckAllocated(const RegionPages& pages) override;
  absl::Status Acquire(const RegionPages& pages, AccessMode mode) override;
  absl::StatusOr<uint64_t> Lock(const RegionPages& pages, LockMode mode, int64_t timeout_ms) override;
  absl::Status Unlock(uint64_t lock_id) override;
  absl::Status Flush(const RegionPages& pages) override;
  absl::Status Heal(const RegionPages& pages) override;
  absl::StatusOr<RegionCounters> Counters(RegionHandle region) override;
  absl::StatusOr<uint64_t> BeginTransaction(int64_t timeout_ms) override;
  absl::StatusOr<std::string> ReadIn(uint64_t transaction, const BytesOfPage& bytes, AccessMode intent) override;
  absl::Status WriteIn(uint64_t transaction, const BytesOfPage& bytes, const std::string& content) override;
  absl::Status EndTransaction(uint64_t transaction, bool commit) override;
  absl::StatusOr<std::string> ReadLog(RegionHandle region, uint64_t node) override;
  absl::Status Gone() const override;
  const Limits& limits() const override { return limits_; }

 private:
  struct OpenRegion {
    PageRange pages;
    bool may_write = false;
    std::shared_ptr<RegionFrames> frames;
    std::optional<MappingId> mapping;
  };

  // The result of the applet that `make(deadline)` gives, after at most `timeout_ms` by the applet's own bound.
  template <typename T, typename Make>
  T Run(Make make, int64_t timeout_ms);
  template <typename T, typename Make>
  T Run(Make make) {
    return Run<T>(make, limits_.call_timeout_ms);
  }
  // The value of `call()` on the loop.
  template <typename T, typename Function>
  T OnLoop(Function call);

  absl::StatusOr<GlobalAddress> PlaceOf(const BytesOfPage& bytes, AccessMode mode);
  absl::StatusOr<Opened> Admit(absl::StatusOr<OpenedRegion> opened);
  PageRange RangeOf(const RegionPages& pages);
  OpenRegion Find(RegionHandle region);
  void OnEvent(const NodeOperations::Event& event);

  const LoopBackendNode node_;
  const ClientId client_;
  const Limits limits_;
  EventDispatcher* const events_;
  const Credentials credentials_;
  uint64_t event_sink_ = 0;

  std::mutex mutex_;
  RegionHandle next_region_ = 1;
  std::map<RegionHandle, OpenRegion> regions_;
};

}  // namespace mangrove
