// Session and Region as programs have them, over a Backend: checks, the fast path through the state bytes, mapping,
// events. The same for attached programs and for those that embed a node.
//
//  L1  A region has at most two mappings in a session for each way of opening it (for reading, for writing): the program's
//      and, where the node is in another process, the calls'. Each is made at its first use and kept until the last Region object
//      is gone. Two sessions of a process have their own.
//  L2  A call on pages that are here with the right sends nothing: it looks at the flag of liveness, at a state byte for
//      each page, and copies. Where the node is in this process it copies under a pin, and uses no mapping. Otherwise the
//      page may be taken away meanwhile: then the copy faults and is served, like any mapped access. After the copy it looks at the
//      flag again: what was copied counts if the session has not ended, since then the mapping was not sealed (M3). If the
//      page alone cannot be had within the node's fault timeout, the copy ends with SIGBUS, not with a status.
//  L3  The mapping is gone before the node is told that the region is closed.

#pragma once

#include <array>
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
  std::byte* base(MappingUse use) const { return Of(use).base.load(std::memory_order_acquire); }
  // Maps it first if need be.
  absl::StatusOr<RegionMapping*> Mapping(MappingUse use);
  // Null when it is not mapped.
  RegionMapping* MappingIfAny(MappingUse use) const { return base(use) != nullptr ? Of(use).mapping.get() : nullptr; }
  const StatesView& states() const { return states_; }
  // Null when the node is in another process.
  RegionFrames* frames() const { return opened_.frames.get(); }

 private:
  struct Mapped {
    std::unique_ptr<RegionMapping> mapping;  // Set once, before `base`.
    std::atomic<std::byte*> base{nullptr};
  };

  SharedRegion(SessionParts* parts, Backend::Opened opened, StatesView states);
  const Mapped& Of(MappingUse use) const { return mapped_[static_cast<size_t>(use)]; }

  SessionParts* const parts_;
  Backend::Opened opened_;
  const StatesView states_;
  std::mutex mutex_;
  std::array<Mapped, kMappingUses> mapped_;
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
