#include "engine/attach/loop_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "engine/transactions/transactions.h"
#include "net/check.h"

namespace mangrove {
namespace {

// A day; longer timeouts of locks would overflow.
constexpr int64_t kMaxTimeoutMs = 86'400'000;

Credentials OwnCredentials() {
  Credentials own{geteuid(), getegid(), {}};
  own.groups.resize(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(own.groups.size()), own.groups.data());
  own.groups.resize(static_cast<size_t>(std::max(count, 0)));
  return own;
}

}  // namespace

LoopBackend::LoopBackend(LoopBackendNode node, ClientId client, const Limits& limits, EventDispatcher* events)
    : node_(std::move(node)), client_(client), limits_(limits), events_(events), credentials_(OwnCredentials()) {
  event_sink_ = OnLoop<uint64_t>([this] {
    return node_.operations->AddEventSink([this](const NodeOperations::Event& event) { OnEvent(event); });
  });
}

LoopBackend::~LoopBackend() {
  OnLoop<bool>([this] {
    node_.operations->RemoveEventSink(event_sink_);
    for (const auto& [handle, region] : regions_) {
      if (region.mapping) node_.mapped_clients->Remove(*region.mapping);
    }
    node_.operations->EndClient(client_);
    return true;
  });
}

template <typename T, typename Function>
T LoopBackend::OnLoop(Function call) {
  Completion done;
  std::optional<T> result;
  const auto start = [&] {
    result.emplace(call());
    done.Set();
  };
  node_.loop->RunUntil(start, done);
  return *std::move(result);
}

template <typename T, typename Make>
T LoopBackend::Run(Make make, int64_t timeout_ms) {
  const DurationNs timeout = std::clamp<int64_t>(timeout_ms, 0, kMaxTimeoutMs) * kMillisecond;
  Completion done;
  std::optional<T> result;
  const auto start = [&] {
    Spawn<T>(make(node_.loop->Now() + timeout), [&](T value) {
      result.emplace(std::move(value));
      done.Set();
    });
  };
  node_.loop->RunUntil(start, done);
  return *std::move(result);
}

void LoopBackend::OnEvent(const NodeOperations::Event& event) {
  const std::lock_guard lock(mutex_);
  for (const auto& [handle, region] : regions_) {
    if (!region.pages.Overlaps(event.range)) continue;
    const PageId first = std::max(region.pages.first, event.range.first);
    const PageId end = std::min(region.pages.end(), event.range.end());
    events_->Post({event.kind, {handle, first - region.pages.first, end - first}});
  }
}

// --- Regions ----------------------------------------------------------------------------------------------------------

LoopBackend::OpenRegion LoopBackend::Find(RegionHandle region) {
  const std::lock_guard lock(mutex_);
  return regions_.at(region);
}

PageRange LoopBackend::RangeOf(const RegionPages& pages) {
  const std::lock_guard lock(mutex_);
  return {regions_.at(pages.region).pages.first + pages.first, pages.count};
}

absl::StatusOr<Backend::Opened> LoopBackend::Admit(absl::StatusOr<OpenedRegion> opened) {
  if (!opened.ok()) return opened.status();
  auto frames = OnLoop<std::shared_ptr<RegionFrames>>([&] { return node_.find_region(opened->pages.first); });
  if (frames == nullptr) return absl::InternalError("region '" + opened->info.name + "' has no memory here");
  auto memory = opened->may_write ? frames->OpenFrames() : frames->OpenFramesReadOnly();
  if (!memory.ok()) return memory.status();
  auto states = frames->OpenStates();
  if (!states.ok()) return states.status();
  const std::lock_guard lock(mutex_);
  const RegionHandle handle = next_region_++;
  regions_.emplace(handle, OpenRegion{opened->pages, opened->may_write, frames, std::nullopt});
  return Opened{.region = handle,
                .info = std::move(opened->info),
                .may_write = opened->may_write,
                .memory = *std::move(memory),
                .states = *std::move(states),
                .frames = std::move(frames)};
}

absl::StatusOr<Backend::Opened> LoopBackend::Reserve(const RegionOptions& options) {
  return Admit(Run<absl::StatusOr<OpenedRegion>>(
      [&](TimeNs deadline) { return node_.operations->Reserve(credentials_, options, deadline); }));
}

absl::StatusOr<Backend::Opened> LoopBackend::Open(const std::string& name, AccessMode mode) {
  return Admit(Run<absl::StatusOr<OpenedRegion>>(
      [&](TimeNs deadline) { return node_.operations->Open(credentials_, name, mode, deadline); }));
}

void LoopBackend::Close(RegionHandle region) {
  const std::lock_guard lock(mutex_);
  const auto it = regions_.find(region);
  if (it->second.mapping) node_.mapped_clients->Remove(*it->second.mapping);
  regions_.erase(it);
}

absl::Status LoopBackend::Map(RegionHandle region, uint64_t base, const UniqueFd& userfaultfd, MappingUse use) {
  CHECK(use == MappingUse::kProgram);
  UniqueFd copy(fcntl(userfaultfd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.ok()) return absl::ErrnoToStatus(errno, "copying the userfaultfd");
  const std::lock_guard lock(mutex_);
  OpenRegion& open = regions_.at(region);
  CHECK(!open.mapping);
  auto mapping = node_.mapped_clients->Add({.userfaultfd = std::move(copy),
                                            .base = base,
                                            .region = open.frames,
                                            .read_only = !open.may_write,
                                            .own_process = true,
                                            .max_workers = node_.max_workers,
                                            .spin_ns = node_.spin_ns});
  if (!mapping.ok()) return mapping.status();
  open.mapping = *mapping;
  return absl::OkStatus();
}

absl::Status LoopBackend::Free(const std::string& name) {
  return Run<absl::Status>([&](TimeNs deadline) { return node_.operations->Free(credentials_, name, deadline); });
}
absl::StatusOr<std::vector<RegionInfo>> LoopBackend::ListRegions() {
  return Run<absl::StatusOr<std::vector<RegionInfo>>>(
      [&](TimeNs deadline) { return node_.operations->ListRegions(deadline); });
}
absl::StatusOr<SpaceTotals> LoopBackend::Space() {
  return Run<absl::StatusOr<SpaceTotals>>([&](TimeNs deadline) { return node_.operations->Space(deadline); });
}

// --- Pages ------------------------------------------------------------------------------------------------------------

absl::Status LoopBackend::Allocate(const RegionPages& pages, const AllocateOptions& options) {
  return Run<absl::Status>([&, range = RangeOf(pages)](TimeNs deadline) {
    return node_.operations->Allocate(credentials_, range, options, deadline);
  });
}
absl::Status LoopBackend::Unallocate(const RegionPages& pages) {
  return Run<absl::Status>([&, range = RangeOf(pages)](TimeNs deadline) {
    return node_.operations->Unallocate(credentials_, range, deadline);
  });
}
absl::StatusOr<PageAttributes> LoopBackend::GetAttributes(RegionHandle region, uint64_t page) {
  return Run<absl::StatusOr<PageAttributes>>([&, range = RangeOf({region, page, 1})](TimeNs deadline) {
    return node_.operations->GetAttributes(range.first, deadline);
  });
}
absl::Status LoopBackend::SetAttributes(const RegionPages& pages, const PageAttributesChange& change) {
  return Run<absl::Status>([&, range = RangeOf(pages)](TimeNs deadline) {
    return node_.operations->SetAttributes(credentials_, range, change, deadline);
  });
}
absl::Status LoopBackend::CheckAllocated(const RegionPages& pages) {
  return Run<absl::Status>(
      [&, range = RangeOf(pages)](TimeNs deadline) { return node_.operations->CheckAllocated(range, deadline); });
}
absl::Status LoopBackend::Acquire(const RegionPages& pages, AccessMode mode) {
  const Rights rights = mode == AccessMode::kWrite ? Rights::kWrite : Rights::kRead;
  return Run<absl::Status>(
      [&, range = RangeOf(pages)](TimeNs deadline) { return node_.operations->Acquire(range, rights, deadline); });
}
absl::StatusOr<uint64_t> LoopBackend::Lock(const RegionPages& pages, LockMode mode, int64_t timeout_ms) {
  const auto make = [&, range = RangeOf(pages)](TimeNs deadline) {
    return node_.operations->Lock(client_, range, mode, deadline);
  };
  return Run<absl::StatusOr<uint64_t>>(make, timeout_ms);
}
absl::Status LoopBackend::Unlock(uint64_t lock_id) {
  return OnLoop<absl::Status>([&] { return node_.operations->Unlock(client_, lock_id); });
}
absl::Status LoopBackend::Flush(const RegionPages& pages) {
  return Run<absl::Status>(
      [&, range = RangeOf(pages)](TimeNs deadline) { return node_.operations->Flush(range, deadline); });
}

// --- Transactions -----------------------------------------------------------------------------------------------------

absl::StatusOr<GlobalAddress> LoopBackend::PlaceOf(const BytesOfPage& bytes, AccessMode mode) {
  const OpenRegion region = Find(bytes.region);
  if (mode == AccessMode::kWrite && !region.may_write) {
    return absl::PermissionDeniedError("the region is open for reading only");
  }
  if (node_.operations->transactions() == nullptr) return absl::UnimplementedError("the node has no transactions");
  return AddressOf(region.pages.first + bytes.page) + bytes.offset;
}
absl::StatusOr<uint64_t> LoopBackend::BeginTransaction(int64_t timeout_ms) {
  if (node_.operations->transactions() == nullptr) return absl::UnimplementedError("the node has no transactions");
  const auto make = [&](TimeNs deadline) { return node_.operations->transactions()->Begin(client_, deadline); };
  return Run<absl::StatusOr<uint64_t>>(make, timeout_ms);
}
absl::StatusOr<std::string> LoopBackend::ReadIn(uint64_t transaction, const BytesOfPage& bytes, AccessMode intent) {
  const auto place = PlaceOf(bytes, intent);
  if (!place.ok()) return place.status();
  return Run<absl::StatusOr<std::string>>([&](TimeNs) {
    return node_.operations->transactions()->Read(client_, transaction, *place, bytes.length, intent);
  });
}
absl::Status LoopBackend::WriteIn(uint64_t transaction, const BytesOfPage& bytes, const std::string& content) {
  const auto place = PlaceOf(bytes, AccessMode::kWrite);
  if (!place.ok()) return place.status();
  return Run<absl::Status>(
      [&](TimeNs) { return node_.operations->transactions()->Write(client_, transaction, *place, content); });
}
absl::Status LoopBackend::EndTransaction(uint64_t transaction, bool commit) {
  if (!commit)
    return OnLoop<absl::Status>([&] { return node_.operations->transactions()->Abort(client_, transaction); });
  return Run<absl::Status>([&](TimeNs) { return node_.operations->transactions()->Commit(client_, transaction); });
}
absl::StatusOr<std::string> LoopBackend::ReadLog(RegionHandle region, uint64_t node) {
  const PageRange pages = Find(region).pages;
  if (node_.operations->transactions() == nullptr) return absl::UnimplementedError("the node has no transactions");
  return Run<absl::StatusOr<std::string>>(
      [&](TimeNs deadline) { return ReadLogOfRange(node_.operations->transactions(), NodeId(node), pages, deadline); });
}

absl::Status LoopBackend::Heal(const RegionPages& pages) {
  const auto mapping = Find(pages.region).mapping;
  if (!mapping) return absl::OkStatus();
  return node_.mapped_clients->Heal(*mapping, RangeOf(pages)).status();
}

absl::StatusOr<RegionCounters> LoopBackend::Counters(RegionHandle handle) {
  const OpenRegion region = Find(handle);
  RegionCounters counters;
  if (region.mapping) {
    if (const auto faults = node_.mapped_clients->Counters(*region.mapping); faults.ok()) {
      counters.read_faults = faults->read_faults;
      counters.write_faults = faults->write_faults;
    }
  }
  if (node_.pages_fetched) {
    counters.pages_fetched = OnLoop<uint64_t>([&] { return node_.pages_fetched(region.pages); });
  }
  return counters;
}

absl::Status LoopBackend::Gone() const { return absl::UnavailableError("the node of this process has stopped"); }

}  // namespace mangrove
