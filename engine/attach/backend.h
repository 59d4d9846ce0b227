// The node as a Session of this process sees it: blocking calls. SocketBackend asks the daemon of this host,
// LoopBackend calls a node that runs inside the process. Everything else of a session is the same for both
// (local_session.h, local_region.h).
//
// Ranges are checked by the caller. Errors are those of engine/mangrove.h; each call ends within the session's Limits.
// Thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/attach/attach_messages.h"
#include "engine/mapping/region_frames.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

class Backend {
 public:
  struct Opened {
    RegionHandle region = 0;
    RegionInfo info;
    bool may_write = false;
    UniqueFd memory;  // Of RegionFrames::OpenFrames, or OpenFramesReadOnly unless `may_write`.
    UniqueFd states;
    std::shared_ptr<RegionFrames> frames;  // Only when the node is in this process.
  };

  virtual ~Backend() = default;

  virtual absl::StatusOr<Opened> Reserve(const RegionOptions& options) = 0;
  virtual absl::StatusOr<Opened> Open(const std::string& name, AccessMode mode) = 0;
  // REQUIRES: this process has unmapped it.
  virtual void Close(RegionHandle region) = 0;
  // When it returns OK the node answers the faults of the mapping at `base`. The descriptor stays the caller's.
  // REQUIRES: where the node is in this process, `use` is kProgram.
  virtual absl::Status Map(RegionHandle region, uint64_t base, const UniqueFd& userfaultfd, MappingUse use) = 0;
  virtual absl::Status Free(const std::string& name) = 0;
  virtual absl::StatusOr<std::vector<RegionInfo>> ListRegions() = 0;
  virtual absl::StatusOr<SpaceTotals> Space() = 0;

  virtual absl::Status Allocate(const RegionPages& pages, const AllocateOptions& options) = 0;
  virtual absl::Status Unallocate(const RegionPages& pages) = 0;
  virtual absl::StatusOr<PageAttributes> GetAttributes(RegionHandle region, uint64_t page) = 0;
  virtual absl::Status SetAttributes(const RegionPages& pages, const PageAttributesChange& change) = 0;
  virtual absl::Status CheckAllocated(const RegionPages& pages) = 0;

  virtual absl::Status Acquire(const RegionPages& pages, AccessMode mode) = 0;
  virtual absl::StatusOr<uint64_t> Lock(const RegionPages& pages, LockMode mode, int64_t timeout_ms) = 0;
  virtual absl::Status Unlock(uint64_t lock_id) = 0;
  virtual absl::Status Flush(const RegionPages& pages) = 0;
  // The node forgets that it has failed these pages; afterwards this process drops its entries for them.
  virtual absl::Status Heal(const RegionPages& pages) = 0;
  // Of the region as it is open here, `reverts` excepted.
  virtual absl::StatusOr<RegionCounters> Counters(RegionHandle region) = 0;

  // The transaction's number.
  virtual absl::StatusOr<uint64_t> BeginTransaction(int64_t timeout_ms) = 0;
  virtual absl::StatusOr<std::string> ReadIn(uint64_t transaction, const BytesOfPage& bytes, AccessMode intent) = 0;
  virtual absl::Status WriteIn(uint64_t transaction, const BytesOfPage& bytes, const std::string& content) = 0;
  virtual absl::Status EndTransaction(uint64_t transaction, bool commit) = 0;
  // Records as engine/transactions/log_format.h's EncodeRecord makes them, with the changes of the region's pages alone.
  virtual absl::StatusOr<std::string> ReadLog(RegionHandle region, uint64_t node) = 0;

  // Whether the mappings of regions that are read without a lease may be stored to, and for some milliseconds more.
  virtual bool MayStore() const { return true; }
  // Why calls fail when the session's Liveness has ended.
  virtual absl::Status Gone() const = 0;
  virtual const Limits& limits() const = 0;
};

}  // namespace mangrove
