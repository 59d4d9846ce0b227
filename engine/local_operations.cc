#include "engine/local_operations.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/region_request.h"
#include "engine/transactions/transactions.h"

namespace mangrove {
namespace {

// The table's own locks; attached programs have numbers of their own (engine/attach/attach_server.h).
constexpr ClientId kTableClient = 0;

}  // namespace

// The region table's pages, on the page engine.
class LocalOperations::Pages final : public TablePages {
 public:
  explicit Pages(LocalOperations* operations) : engine_(operations->engine_), operations_(operations) {}

  Task<absl::StatusOr<uint64_t>> Lock(PageRange range, LockMode mode, TimeNs deadline) override {
    return engine_->Lock(kTableClient, range, mode, deadline);
  }
  void Unlock(uint64_t lock_id) override { engine_->Unlock(kTableClient, lock_id).IgnoreError(); }
  void Load(PageId page, std::span<std::byte, kPageBytes> out) override { engine_->Load(page, 0, out); }
  void Store(PageId page, std::span<const std::byte, kPageBytes> bytes) override { engine_->Store(page, 0, bytes); }
  // The page has been locked since before it was written to. What was lost with a node meanwhile was of a change that failed, and said so.
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override {
    return engine_->Flush(range, deadline, SayLost::kNo);
  }
  Task<absl::Status> PutExtent(PageRange range, ConfigNumber config, uint32_t replicas, bool is_volatile,
                               TimeNs deadline) override {
    return engine_->PutExtent(range, config, replicas, is_volatile, deadline);
  }
  Task<absl::Status> DropExtent(PageRange range, ConfigNumber config, uint32_t replicas, TimeNs deadline) override {
    return engine_->DropExtent(range, config, replicas, deadline);
  }
  Task<absl::StatusOr<bool>> AreLost(PageRange range, TimeNs deadline) override {
    return operations_->AreLost(range, deadline);
  }

 private:
  PageEngine* const engine_;
  LocalOperations* const operations_;
};

LocalOperations::LocalOperations(const NodeConfig* config, Clock* clock, PageEngine* engine, Membership* membership,
                                 Transport* transport, PageStore* store, RegionMemory* memory, Incarnation incarnation)
    : config_(config),
      configured_{.version = 0, .nodes = NodesOf(*config)},
      clock_(clock),
      engine_(engine),
      membership_(membership),
      transport_(transport),
      store_(store),
      memory_(memory),
      incarnation_(incarnation),
      pages_(std::make_unique<Pages>(this)),
      table_(std::make_unique<RegionTable>(pages_.get(), RegionTableOptions{.members = [this] { return MemberCount(); },
                                                                            .default_replicas = config->replicas})) {
  engine_->SetEventSink([this](const Event& event) { OnEvent(event); });
  engine_->SetInspector([this](PageId page) { return InspectForPeer(page); });
}

LocalOperations::~LocalOperations() = default;

uint32_t LocalOperations::MemberCount() const {
  const auto& nodes = roster().nodes;
  return static_cast<uint32_t>(
      std::count_if(nodes.begin(), nodes.end(), [](const auto& node) { return !node.second.is_removed; }));
}

absl::StatusOr<OpenedRegion> LocalOperations::Known(absl::StatusOr<OpenedRegion> opened) {
  if (!opened.ok()) return opened;
  const PageRange pages = opened->pages;
  if (std::find(known_regions_.begin(), known_regions_.end(), pages) == known_regions_.end()) {
    if (absl::Status added = memory_->AddRegion(pages); !added.ok()) return added;
    known_regions_.push_back(pages);
    engine_->CountFetched(pages);
  }
  engine_->SetKeepInRam(pages, false);
  for (const PageRange& kept : opened->kept_in_ram) engine_->SetKeepInRam(kept, true);
  engine_->SetMigratory(pages, false);
  for (const PageRange& migratory : opened->migratory) engine_->SetMigratory(migratory, true);
  SetWithoutQuorum(*opened);
  return opened;
}

// REQUIRES: its frames are known here.
void LocalOperations::SetWithoutQuorum(const OpenedRegion& region) {
  const bool reads = region.info.without_quorum == WithoutQuorum::kRead;
  engine_->stale_reads().Set(region.pages, reads);
  memory_->SetStaysReadable(region.pages, reads);
  if (reads) {
    read_without_quorum_[region.pages.first] = region;
  } else {
    read_without_quorum_.erase(region.pages.first);
  }
}

// `argument`: {"region": its name, "without_quorum": "refuse" or "read"}.
Task<absl::StatusOr<std::string>> LocalOperations::SetRegion(Credentials who, std::string argument, TimeNs deadline) {
  const absl::StatusOr<RegionRequest> wanted = ParseRegionRequest(argument);
  if (!wanted.ok()) co_return wanted.status();
  const absl::StatusOr<OpenedRegion> region =
      co_await table_->SetWithoutQuorum(std::move(who), wanted->name, wanted->without_quorum, deadline);
  if (!region.ok()) co_return region.status();
  if (memory_->Knows(region->pages.first)) SetWithoutQuorum(*region);
  absl::StatusOr<std::string> regions = co_await Inspect("regions", "", deadline);
  co_return regions;
}

Task<absl::StatusOr<OpenedRegion>> LocalOperations::Reserve(Credentials who, RegionOptions options, TimeNs deadline) {
  absl::StatusOr<OpenedRegion> opened = co_await table_->Reserve(std::move(who), std::move(options), deadline);
  co_return Known(std::move(opened));
}

Task<absl::StatusOr<OpenedRegion>> LocalOperations::Open(Credentials who, std::string name, AccessMode mode,
                                                         TimeNs deadline) {
  for (const auto& [first, region] : read_without_quorum_) {
    if (region.info.name != name || engine_->CheckQuorum(first).ok()) continue;
    co_return mode == AccessMode::kRead ? RegionTable::OpenAgain(who, region, mode) : engine_->CheckQuorum(first);
  }
  absl::StatusOr<OpenedRegion> opened = co_await table_->Open(std::move(who), std::move(name), mode, deadline);
  co_return Known(std::move(opened));
}

Task<absl::Status> LocalOperations::Free(Credentials who, std::string name, TimeNs deadline) {
  const absl::Status status = co_await table_->Free(std::move(who), name, deadline);
  if (status.ok()) {
    std::erase_if(read_without_quorum_, [&name](const auto& region) { return region.second.info.name == name; });
  }
  co_return status;
}

Task<absl::StatusOr<std::vector<RegionInfo>>> LocalOperations::ListRegions(TimeNs deadline) {
  absl::StatusOr<RegionList> list = co_await table_->List(deadline);
  if (!list.ok()) co_return list.status();
  for (const absl::Status& damage : list->damaged) LogError(damage.message());
  co_return std::move(list->regions);
}

// As far as the disks that are to keep the range have said lately. Of many segments each disk keeps some.
absl::Status LocalOperations::CheckDisksHaveRoom(PageRange range, const AllocateOptions& options) const {
  if (!options.persistent) return absl::OkStatus();
  constexpr uint64_t kSegmentsLookedAt = 64;
  const Disks& disks = engine_->disks();
  std::set<NodeId> keepers;
  if (range.count > kSegmentsLookedAt * kSegmentPages) {
    keepers = engine_->view().wanted_disks();
  } else {
    const uint32_t replicas = options.replicas == 0 ? config_->replicas : options.replicas;
    for (PageId page = SegmentStart(range.first); page < range.end(); page = page + kSegmentPages) {
      for (NodeId disk : disks.Storing(page, replicas)) keepers.insert(disk);
    }
  }
  for (NodeId disk : keepers) {
    if (engine_->peer_eviction().HasDiskRoom(disk)) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "the disk of ", NameOf(disk), " has no room for more pages beside what it keeps free, also for repair when ",
        "another disk is lost: unallocate pages, enlarge the disks, or let another node join"));
  }
  return absl::OkStatus();
}

Task<absl::Status> LocalOperations::Allocate(Credentials who, PageRange range, AllocateOptions options,
                                             TimeNs deadline) {
  if (const absl::Status refused = CheckDisksHaveRoom(range, options); !refused.ok()) co_return refused;
  const absl::Status status = co_await AllocateAhead(std::move(who), range, options, deadline);
  co_return status;
}

Task<absl::Status> LocalOperations::AllocateAhead(Credentials who, PageRange range, AllocateOptions options,
                                                  TimeNs deadline) {
  if (const absl::Status refused = engine_->CheckQuorum(range.first); !refused.ok()) co_return refused;
  const absl::Status status = co_await table_->Allocate(std::move(who), range, options, deadline);
  if (status.ok()) lost_.erase(lost_.lower_bound(range.first), lost_.lower_bound(range.end()));
  co_return status;
}

// Another node may have allocated them anew since they were heard to be lost: then they hold live data.
Task<absl::StatusOr<bool>> LocalOperations::AreLost(PageRange range, TimeNs deadline) {
  if (range.count > lost_.size()) co_return false;
  for (PageId page = range.first; page < range.end(); page = page + 1) {
    if (!lost_.contains(page)) co_return false;
  }
  for (PageId page = range.first; page < range.end(); page = page + 1) {
    const absl::StatusOr<bool> is_lost = co_await IsStillLost(page, deadline);
    if (!is_lost.ok()) co_return is_lost;
    if (*is_lost) continue;
    lost_.erase(page);
    co_return false;
  }
  co_return true;
}

Task<absl::Status> LocalOperations::Unallocate(Credentials who, PageRange range, TimeNs deadline) {
  if (const absl::Status refused = engine_->CheckQuorum(range.first); !refused.ok()) co_return refused;
  const absl::Status status = co_await table_->Unallocate(std::move(who), range, deadline);
  if (status.ok()) {
    engine_->SetKeepInRam(range, false);
    engine_->SetMigratory(range, false);
  }
  co_return status;
}

Task<absl::StatusOr<PageAttributes>> LocalOperations::GetAttributes(PageId page, TimeNs deadline) {
  return table_->GetAttributes(page, deadline);
}

Task<absl::Status> LocalOperations::SetAttributes(Credentials who, PageRange range, PageAttributesChange change,
                                                  TimeNs deadline) {
  if (const absl::Status refused = engine_->CheckQuorum(range.first); !refused.ok()) co_return refused;
  const absl::Status status = co_await table_->SetAttributes(std::move(who), range, change, deadline);
  if (status.ok() && change.keep_in_ram) engine_->SetKeepInRam(range, *change.keep_in_ram);
  if (status.ok() && change.protocol) {
    engine_->SetMigratory(range, *change.protocol == CoherenceProtocol::kMigratory);
  }
  co_return status;
}

Task<absl::Status> LocalOperations::CheckAllocated(PageRange range, TimeNs deadline) {
  if (engine_->CheckQuorum(range.first).ok()) return table_->CheckAllocated(range, deadline);
  return CheckIsHere(range);
}

// What is here is allocated, and of the rest nothing can be had without quorum.
Task<absl::Status> LocalOperations::CheckIsHere(PageRange range) {
  for (PageId page = range.first; page < range.end(); page = page + 1) {
    if (engine_->RightsOf(page) == Rights::kNone) co_return engine_->CheckQuorum(page);
  }
  co_return absl::OkStatus();
}

// A large range is worked on block by block: all of it must be allocated before the first block changes anything. Of a
// small one the pages themselves tell.
bool LocalOperations::IsLarge(PageRange range) { return range.count > PageEngine::kBlockPages; }

Task<absl::Status> LocalOperations::Acquire(PageRange range, Rights rights, TimeNs deadline) {
  if (!IsLarge(range)) return engine_->Acquire(range, rights, deadline);
  return AcquireLarge(range, rights, deadline);
}

Task<absl::Status> LocalOperations::AcquireLarge(PageRange range, Rights rights, TimeNs deadline) {
  absl::Status status = co_await CheckAllocated(range, deadline);
  if (status.ok()) status = co_await engine_->Acquire(range, rights, deadline);
  co_return status;
}

Task<absl::StatusOr<uint64_t>> LocalOperations::Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) {
  if (IsLarge(range) || !engine_->CheckMayLock(range.count).ok()) return LockChecked(client, range, mode, deadline);
  return engine_->Lock(client, range, mode, deadline);
}

Task<absl::StatusOr<uint64_t>> LocalOperations::LockChecked(ClientId client, PageRange range, LockMode mode,
                                                            TimeNs deadline) {
  absl::Status status = co_await CheckAllocated(range, deadline);
  if (status.ok()) status = engine_->CheckMayLock(range.count);
  if (!status.ok()) co_return status;
  const absl::StatusOr<uint64_t> lock = co_await engine_->Lock(client, range, mode, deadline);
  co_return lock;
}

absl::Status LocalOperations::Unlock(ClientId client, uint64_t lock_id) { return engine_->Unlock(client, lock_id); }

Task<absl::Status> LocalOperations::Flush(PageRange range, TimeNs deadline) {
  if (!IsLarge(range)) return engine_->Flush(range, deadline);
  return FlushLarge(range, deadline);
}

Task<absl::Status> LocalOperations::FlushLarge(PageRange range, TimeNs deadline) {
  absl::Status status = co_await CheckAllocated(range, deadline);
  if (status.ok()) status = co_await engine_->Flush(range, deadline);
  co_return status;
}

void LocalOperations::EndClient(ClientId client) {
  if (transactions_ != nullptr) transactions_->EndClient(client);
  engine_->EndClient(client);
}

uint64_t LocalOperations::AddEventSink(EventSink sink) {
  sinks_[next_sink_] = std::move(sink);
  return next_sink_++;
}

void LocalOperations::RemoveEventSink(uint64_t sink_id) { sinks_.erase(sink_id); }

// Of the engine. A range of no pages stands for everything that is open here.
void LocalOperations::OnEvent(const Event& event) {
  std::vector<Event> events;
  if (event.range.count > 0) {
    events.push_back(event);
  } else {
    for (const PageRange& region : known_regions_) events.push_back({event.kind, region});
  }
  for (const Event& each : events) {
    if (each.kind == RegionEvent::Kind::kLost) {
      for (uint64_t i = 0; i < each.range.count; ++i) lost_.insert(each.range.first + i);
    }
    for (auto& [id, sink] : sinks_) sink(each);
  }
}

}  // namespace mangrove
