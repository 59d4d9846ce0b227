#include "engine/attach/local_session.h"

#include "absl/strings/str_cat.h"
#include "engine/attach/local_region.h"
#include "net/check.h"

namespace mangrove {

absl::StatusOr<SessionParts> SessionParts::Create() {
  auto liveness = Liveness::Create();
  if (!liveness.ok()) return liveness.status();
  auto mappings = MappingTable::Create();
  if (!mappings.ok()) return mappings.status();
  return SessionParts{*std::move(liveness), *std::move(mappings), std::make_unique<EventDispatcher>(), nullptr};
}

// --- SharedRegion -----------------------------------------------------------------------------------------------------

SharedRegion::SharedRegion(SessionParts* parts, Backend::Opened opened, StatesView states)
    : parts_(parts), opened_(std::move(opened)), states_(std::move(states)) {}

absl::StatusOr<std::shared_ptr<SharedRegion>> SharedRegion::Create(SessionParts* parts, Backend::Opened opened) {
  auto states = StatesView::Create(opened.states, opened.info.size_bytes >> kPageShift);
  if (!states.ok()) return states.status();
  return std::shared_ptr<SharedRegion>(new SharedRegion(parts, std::move(opened), *std::move(states)));
}

SharedRegion::~SharedRegion() {
  for (Mapped& mapped : mapped_) mapped.mapping.reset();
  if (parts_->liveness->alive()) parts_->backend->Close(opened_.region);
}

absl::StatusOr<RegionMapping*> SharedRegion::Mapping(MappingUse use) {
  if (RegionMapping* mapping = MappingIfAny(use); mapping != nullptr) return mapping;
  const std::lock_guard lock(mutex_);
  Mapped& mapped = mapped_[static_cast<size_t>(use)];
  if (mapped.mapping != nullptr) return mapped.mapping.get();
  auto mapping = RegionMapping::Create(opened_, parts_->liveness.get(), parts_->mappings.get(), use);
  if (!mapping.ok()) return parts_->liveness->alive() ? mapping.status() : parts_->backend->Gone();
  const auto address = reinterpret_cast<uint64_t>((*mapping)->base());
  absl::Status served = parts_->backend->Map(opened_.region, address, (*mapping)->userfaultfd(), use);
  if (!served.ok()) return served;
  (*mapping)->SetServed();
  mapped.mapping = *std::move(mapping);
  mapped.base.store(mapped.mapping->base(), std::memory_order_release);
  return mapped.mapping.get();
}

// --- LocalSession -----------------------------------------------------------------------------------------------------

LocalSession::LocalSession(SessionParts parts) : parts_(std::move(parts)) {}

LocalSession::~LocalSession() {
  if (!parts_.liveness->IsOwnProcess()) parts_.events->Abandon();
}

absl::Status LocalSession::CheckAlive() const {
  if (parts_.liveness->alive()) return absl::OkStatus();
  if (!parts_.liveness->IsOwnProcess()) {
    return absl::UnavailableError("this process is a child of the one that has the session; it needs one of its own");
  }
  return parts_.backend->Gone();
}

absl::StatusOr<std::shared_ptr<Region>> LocalSession::Share(absl::StatusOr<Backend::Opened> opened) {
  if (!opened.ok()) return opened.status();
  const RegionInfo info = opened->info;
  const RegionHandle handle = opened->region;
  std::shared_ptr<SharedRegion> shared;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(regions_, [](const auto& entry) { return entry.second.expired(); });
    auto& known = regions_[{info.address.value, opened->may_write}];
    shared = known.lock();
    if (shared == nullptr) {
      auto created = SharedRegion::Create(&parts_, *std::move(opened));
      if (created.ok()) known = shared = *std::move(created);
      if (!created.ok()) {
        parts_.backend->Close(handle);
        return created.status();
      }
    }
  }
  if (shared->handle() != handle) parts_.backend->Close(handle);
  return std::shared_ptr<Region>(std::make_shared<LocalRegion>(shared_from_this(), std::move(shared), info));
}

absl::Status LocalSession::CheckName(const std::string& name) const {
  if (!name.empty() && name.size() <= kMaxRegionNameBytes) return CheckAlive();
  return absl::InvalidArgumentError(
      absl::StrCat("a region's name has ", name.size(), " bytes; expected 1 to ", kMaxRegionNameBytes));
}

absl::StatusOr<std::shared_ptr<Region>> LocalSession::Reserve(const RegionOptions& options) {
  if (absl::Status s = CheckName(options.name); !s.ok()) return s;
  return Share(parts_.backend->Reserve(options));
}

absl::StatusOr<std::shared_ptr<Region>> LocalSession::Open(const std::string& name, AccessMode mode) {
  if (absl::Status s = CheckName(name); !s.ok()) return s;
  return Share(parts_.backend->Open(name, mode));
}

absl::Status LocalSession::Free(const std::string& name) {
  if (absl::Status s = CheckName(name); !s.ok()) return s;
  return parts_.backend->Free(name);
}

absl::StatusOr<std::vector<RegionInfo>> LocalSession::ListRegions() {
  if (absl::Status s = CheckAlive(); !s.ok()) return s;
  return parts_.backend->ListRegions();
}

absl::StatusOr<SpaceTotals> LocalSession::Space() {
  if (absl::Status s = CheckAlive(); !s.ok()) return s;
  return parts_.backend->Space();
}

absl::StatusOr<uint64_t> LocalSession::BeginTransaction(const TransactionOptions& options) {
  if (absl::Status s = CheckAlive(); !s.ok()) return s;
  if (options.timeout_ms <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("timeout_ms is ", options.timeout_ms, "; expected 1 or more"));
  }
  return parts_.backend->BeginTransaction(options.timeout_ms);
}

absl::Status LocalSession::EndTransaction(uint64_t transaction, bool commit) {
  if (absl::Status s = CheckAlive(); !s.ok()) return s;
  return parts_.backend->EndTransaction(transaction, commit);
}

}  // namespace mangrove
