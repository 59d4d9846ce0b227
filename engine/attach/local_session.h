// Session and Region as programs have them, over a Backend: checks, the fast path through the state bytes, mapping,
// events. The same for attached programs and for those that embed a node.
//
//  L1  A region has one mapping in a session for each way of opening it (for reading, for writing), made at its first
//      use and kept until the last Region object is gone. Two sessions of a process have two.
//  L2  A call on pages that are here with the right sends nothing: it looks at the flag of liveness, at a state byte for
//      each page, and copies. Where the node is in this process it copies under a pin, and uses no mapping. Otherwise the
//      page may be taken away meanwhile: then the copy faults and is served, like any mapped access; if the page cannot be
//      had then, the copy ends with SIGBUS, not with a status.
//  L3  The mapping is gone before the node is told that the region is closed.

#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/numeric/int128.h"
#include "engine/attach/backend.h"
#include "engine/attach/event_dispatcher.h"
#include "engine/attach/liveness.h"
#include "engine/attach/region_mapping.h"
#include "engine/mangrove.h"

namespace mangrove {

// What a session is made of. Destroyed from the last to the first: the backend's threads use the others.
struct SessionParts {
  std::unique_ptr<Liveness> liveness;
  std::unique_ptr<MappingTable> mappings;
  std::unique_ptr<EventDispatcher> events;
  std::unique_ptr<Backend> backend;

  // All but the backend.
  static absl::StatusOr<SessionParts> Create();
};

// An open region, shared by the session's Region objects for it.
class SharedRegion {
 public:
  static absl::StatusOr<std::shared_ptr<SharedRegion>> Create(SessionParts* parts, Backend::Opened opened);
  ~SharedRegion();

  RegionHandle handle() const { return opened_.region; }
  bool may_write() const { return opened_.may_write; }
  uint64_t size_bytes() const { return opened_.info.size_bytes; }

  // Where the region is; null when it is not mapped yet.
  std::byte* base() const { return base_.load(std::memory_order_acquire); }
  // Maps it first if need be.
  absl::StatusOr<RegionMapping*> Mapping();
  // Null when it is not mapped.
  RegionMapping* MappingIfAny() const { return base() != nullptr ? mapping_.get() : nullptr; }
  const StatesView& states() const { return states_; }
  // Null when the node is in another process.
  RegionFrames* frames() const { return opened_.frames.get(); }

 private:
  SharedRegion(SessionParts* parts, Backend::Opened opened, StatesView states);

  SessionParts* const parts_;
  Backend::Opened opened_;
  const StatesView states_;
  std::mutex mutex_;
  std::unique_ptr<RegionMapping> mapping_;  // Set once, before `base_`.
  std::atomic<std::byte*> base_{nullptr};
};

class LocalSession final : public Session, public std::enable_shared_from_this<LocalSession> {
 public:
  explicit LocalSession(SessionParts parts);
  ~LocalSession() override;

  absl::StatusOr<std::shared_ptr<Region>> Reserve(const RegionOptions& options) override;
  absl::StatusOr<std::shared_ptr<Region>> Open(const std::string& name, AccessMode mode) override;
  absl::Status Free(const std::string& name) override;
  absl::StatusOr<std::vector<RegionInfo>> ListRegions() override;
  absl::StatusOr<SpaceTotals> Space() override;

  absl::StatusOr<uint64_t> BeginTransaction(const TransactionOptions& options) override;
  absl::Status EndTransaction(uint64_t transaction, bool commit) override;

  SessionParts& parts() { return parts_; }
  // Unavailable when this process is cut off, or a child of the one that has the session.
  absl::Status CheckAlive() const;

 private:
  absl::Status CheckName(const std::string& name) const;
  absl::StatusOr<std::shared_ptr<Region>> Share(absl::StatusOr<Backend::Opened> opened);

  SessionParts parts_;
  std::mutex mutex_;
  // By address, and whether for writing.
  std::map<std::pair<absl::uint128, bool>, std::weak_ptr<SharedRegion>> regions_;
};

}  // namespace mangrove
