// The daemon of this host as a Backend.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/attach/backend.h"
#include "engine/attach/call_channel.h"
#include "engine/attach/local_session.h"
#include "engine/attach/watchdog.h"

namespace mangrove {

class SocketBackend final : public Backend {
 public:
  // Connects and says hello. `parts` outlives the result; its liveness, mappings and events are the watchdog's to end.
  static absl::StatusOr<std::unique_ptr<SocketBackend>> Connect(const AttachOptions& options, SessionParts* parts);
  ~SocketBackend() override;

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
  bool MayStore() const override;
  const Limits& limits() const override { return options_.limits; }
  // NodeOperations::Inspect.
  absl::StatusOr<std::string> Inspect(const std::string& what, const std::string& argument);

 private:
  SocketBackend(AttachOptions options, const Liveness* liveness);
  void Begin(UniqueFd socket, UniqueFd events_socket, DeadlineView deadline, SessionParts* parts);
  // The reply's result, which has to be a T.
  template <typename T>
  absl::StatusOr<T> Ask(CallChannel::Call call);
  absl::Status Tell(CallChannel::Call call);
  absl::StatusOr<Opened> AskToOpen(CallChannel::Call call);
  absl::Status Unexpected() const;

  const AttachOptions options_;
  const Liveness* const liveness_;
  std::unique_ptr<CallChannel> channel_;
  std::unique_ptr<Watchdog> watchdog_;  // Uses the channel.
};

}  // namespace mangrove
