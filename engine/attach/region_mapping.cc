#include "engine/attach/region_mapping.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "engine/attach/library_thread.h"
#include "net/check.h"

namespace mangrove {

// --- MappingTable -----------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<MappingTable>> MappingTable::Create() {
  std::unique_ptr<MappingTable> table(new MappingTable());
  table->nothing_ = UniqueFd(memfd_create("mangrove sealed", MFD_CLOEXEC));
  if (!table->nothing_.ok()) return absl::ErrnoToStatus(errno, "memfd_create");
  return table;
}

// A handler that runs while its thread has the lock may wait in a fault for ever; the watchdog would wait for both.
absl::Status MappingTable::Add(const RegionMapping* mapping) {
  const SignalsBlocked blocked;
  const std::lock_guard lock(mutex_);
  if (sealed_) return absl::UnavailableError("the node is gone");
  if (lease_has_ended() && mapping->is_read_without_lease() && !mapping->SetStores(false)) {
    return absl::UnavailableError("stores into the mapping cannot be forbidden while the node has no lease; try again");
  }
  mappings_.insert(mapping);
  return absl::OkStatus();
}

void MappingTable::Remove(const RegionMapping* mapping) {
  const SignalsBlocked blocked;
  const std::lock_guard lock(mutex_);
  mappings_.erase(mapping);
}

bool MappingTable::EndLease() {
  const std::lock_guard lock(mutex_);
  const bool has_ended_before = lease_has_ended_.exchange(true);
  return std::all_of(mappings_.begin(), mappings_.end(), [&](const RegionMapping* mapping) {
    if (!mapping->is_served() && !mapping->is_read_without_lease()) return true;
    return mapping->is_read_without_lease() && (has_ended_before || mapping->SetStores(false));
  });
}

bool MappingTable::BeginLease() {
  const std::lock_guard lock(mutex_);
  if (!lease_has_ended()) return true;
  const bool all = std::all_of(mappings_.begin(), mappings_.end(),
                               [](const RegionMapping* mapping) { return mapping->SetStores(true); });
  lease_has_ended_.store(false);  // Not before: calls store then.
  return all;
}

void MappingTable::SealAll() {
  const std::lock_guard lock(mutex_);
  sealed_ = true;
  for (const RegionMapping* mapping : mappings_) {
    if (!mapping->Seal(nothing_.get())) std::abort();
  }
}

// --- RegionMapping ----------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<RegionMapping>> RegionMapping::Create(const Backend::Opened& opened,
                                                                     const Liveness* liveness, MappingTable* table,
                                                                     MappingUse use) {
  auto local = LocalMapping::Create(opened.memory.get(), opened.info.size_bytes, !opened.may_write);
  if (!local.ok()) return local.status();
  std::unique_ptr<RegionMapping> mapping(new RegionMapping(use));
  mapping->local_ = *std::move(local);
  mapping->userfaultfd_ = mapping->local_->ReleaseUserfaultfd();
  mapping->frames_ = opened.frames;
  mapping->liveness_ = liveness;
  mapping->is_read_without_lease_ = opened.info.without_quorum == WithoutQuorum::kRead;
  if (absl::Status added = table->Add(mapping.get()); !added.ok()) return added;
  mapping->table_ = table;
  return mapping;
}

RegionMapping::~RegionMapping() {
  if (!liveness_->IsOwnProcess()) {
    // The child has no such mapping, perhaps another one at that place, and locks that nobody opens.
    static_cast<void>(local_.release());
    return;
  }
  if (table_ != nullptr) table_->Remove(this);
  if (frames_ != nullptr) frames_->SetMapped(reinterpret_cast<uint64_t>(base()), false);
}

void RegionMapping::SetServed() {
  is_served_ = true;
  if (frames_ != nullptr) frames_->SetMapped(reinterpret_cast<uint64_t>(base()), true);
}

bool RegionMapping::Seal(int nothing) const {
  const size_t size = local_->size_bytes();
  const bool calls = use_ == MappingUse::kCalls;
  void* sealed =
      mmap(base(), size, PROT_READ | PROT_WRITE,
           (calls ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_FIXED | MAP_NORESERVE, calls ? -1 : nothing, 0);
  // As good, but for the signal.
  if (sealed == MAP_FAILED && mprotect(base(), size, PROT_NONE) != 0) return false;
  WakeFaults(userfaultfd_.get(), reinterpret_cast<uint64_t>(base()), size);
  return true;
}

bool RegionMapping::SetStores(bool allowed) const {
  if (local_->read_only()) return true;
  return mprotect(base(), local_->size_bytes(), allowed ? PROT_READ | PROT_WRITE : PROT_READ) == 0;
}

// Entries for loads, as a program can make them that takes no pins. What it maps is the frame that is in the memfd, and
// whoever takes the page away clears its right, then punches the frame out, and with it the entry
// (engine/mapping/page_state.h). So an entry is right when the page has the right after the entry was made. Without, the
// frame may be one that a program made by touching a hole without registration; the entry is dropped.
void RegionMapping::FillWithoutPins(uint64_t offset, uint64_t length, const StatesView& states) const {
  const uint64_t address = reinterpret_cast<uint64_t>(base()) + offset;
  const auto fill = [&](uint64_t done, uint64_t part) {
    return ContinueFault(userfaultfd_.get(), address + done, part, !local_->read_only());
  };
  // All in one, which is what it takes after a fetch. Otherwise some are mapped already, or gone again.
  if (fill(0, length) != FaultCall::kDone && length > kPageBytes) {
    for (uint64_t done = 0; done < length; done += kPageBytes) fill(done, kPageBytes);
  }
  for (uint64_t done = 0; done < length; done += kPageBytes) {
    const uint64_t page = (offset + done) >> kPageShift;
    if (!states.HaveRights(page, page, Rights::kRead)) madvise(base() + offset + done, kPageBytes, MADV_DONTNEED);
  }
}

// The node's own process is a resolver like any other: under pins. Of the pages that are here one after the other, as many
// as one call may take.
void RegionMapping::Prefault(uint64_t offset, uint64_t length, const StatesView& states) const {
  if (frames_ == nullptr) return FillWithoutPins(offset, length, states);
  constexpr uint64_t kMostPages = 256;
  const PageId first = frames_->pages().first + (offset >> kPageShift);
  const uint64_t pages = length >> kPageShift;
  const auto pin = [&](uint64_t page) {
    Rights granted;
    return frames_->Pin(first + page, Rights::kRead, false, &granted) == PinOutcome::kPinned;
  };
  for (uint64_t begin = 0; begin < pages;) {
    uint64_t end = begin;
    while (end < pages && end - begin < kMostPages && pin(end)) ++end;
    const uint64_t address = reinterpret_cast<uint64_t>(base()) + offset + (begin << kPageShift);
    ContinueRun(userfaultfd_.get(), address, (end - begin) << kPageShift, !local_->read_only(), {kMostPages, false});
    // As every resolver does (engine/mapping/page_state.h, I8).
    if (frames_->fenced()) {
      madvise(base() + offset + (begin << kPageShift), (end - begin) << kPageShift, MADV_DONTNEED_LOCKED);
    }
    for (uint64_t page = begin; page < end; ++page) frames_->Unpin(first + page);
    begin = end > begin ? end : begin + 1;
  }
}

// --- StatesView -------------------------------------------------------------------------------------------------------

absl::StatusOr<StatesView> StatesView::Create(const UniqueFd& states, uint64_t pages) {
  struct stat info;
  // Reading beyond its end would end the program.
  if (fstat(states.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) < pages) {
    return absl::InternalError("the node's page states are shorter than the region");
  }
  void* view = mmap(nullptr, pages, PROT_READ, MAP_SHARED | MAP_NORESERVE, states.get(), 0);
  if (view == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of the pages' states");
  StatesView result;
  result.states_ = static_cast<const std::atomic<uint8_t>*>(view);
  result.pages_ = pages;
  return result;
}

StatesView::StatesView(StatesView&& other) noexcept
    : states_(std::exchange(other.states_, nullptr)), pages_(other.pages_) {}

StatesView::~StatesView() {
  if (states_ != nullptr) munmap(const_cast<std::atomic<uint8_t>*>(states_), pages_);
}

}  // namespace mangrove
