// How the table's pages are found, read and written.

#include <algorithm>
#include <iterator>

#include "engine/region_table.h"
#include "engine/region_table_held.h"
#include "net/check.h"

namespace mangrove {

namespace {

// Slots that are locked at a time when many are read.
constexpr uint32_t kSlotsAtOnce = 64;
// A region that moves to another slot this often while it is looked for is not followed further.
constexpr int kMaxSearches = 8;

absl::Status WithContext(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", std::string(status.message())));
}

std::string NameOfSlot(uint32_t slot) {
  return absl::StrCat("slot ", slot, " of the region table (", ToString(RegionSlotPage(slot)), ")");
}

}  // namespace

Task<absl::StatusOr<RegionTable::HeldPages>> RegionTable::Hold(PageRange range, LockMode mode, TimeNs deadline) {
  const absl::StatusOr<uint64_t> lock = co_await pages_->Lock(range, mode, deadline);
  if (!lock.ok()) co_return lock.status();
  HeldPages held(pages_, *lock);
  co_return held;
}

Task<absl::StatusOr<RegionTableHeader>> RegionTable::ReadHeader(TimeNs deadline) {
  const absl::StatusOr<HeldPages> held = co_await Hold({kRegionHeaderPage, 1}, LockMode::kShared, deadline);
  if (!held.ok()) co_return WithContext(held.status(), "the header of the region table");
  co_return LoadHeader();
}

// Pages are aligned more than the frames of coroutines are, so they are no locals of those.
absl::StatusOr<RegionTableHeader> RegionTable::LoadHeader() {
  PageBytes page;
  pages_->Load(kRegionHeaderPage, page.bytes);
  return DecodeRegionHeader(page.bytes);
}

absl::StatusOr<RegionDescriptor> RegionTable::LoadSlot(uint32_t slot) {
  PageBytes page;
  pages_->Load(RegionSlotPage(slot), page.bytes);
  return DecodeRegionDescriptor(slot, page.bytes);
}

// --- Finding ----------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<RegionTable::Scan>> RegionTable::ScanSlots(uint32_t slots, TimeNs deadline) {
  Scan scan;
  for (uint32_t first = 0; first < slots; first += kSlotsAtOnce) {
    const uint32_t count = std::min(kSlotsAtOnce, slots - first);
    absl::Status status = co_await ScanSome(first, count, &scan, deadline);
    // One page that is lost fails them all: find out which.
    for (uint32_t i = 0; absl::IsDataLoss(status) && i < count; ++i) {
      const absl::Status one = co_await ScanSome(first + i, 1, &scan, deadline);
      if (absl::IsDataLoss(one)) scan.damaged.push_back(WithContext(one, NameOfSlot(first + i)));
      if (!one.ok() && !absl::IsDataLoss(one)) status = one;
    }
    if (!status.ok() && !absl::IsDataLoss(status)) co_return WithContext(status, NameOfSlot(first));
  }
  co_return scan;
}

// DataLoss: nothing was read.
Task<absl::Status> RegionTable::ScanSome(uint32_t first, uint32_t count, Scan* scan, TimeNs deadline) {
  const absl::StatusOr<HeldPages> held = co_await Hold({RegionSlotPage(first), count}, LockMode::kShared, deadline);
  if (!held.ok()) co_return held.status();
  for (uint32_t slot = first; slot < first + count; ++slot) {
    absl::StatusOr<RegionDescriptor> region = LoadSlot(slot);
    if (!region.ok()) {
      scan->damaged.push_back(region.status());
    } else if (region->used) {
      Remember(slot, *region);
      scan->regions[slot] = *std::move(region);
    } else {
      scan->free.push_back(slot);
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<uint32_t>> RegionTable::Search(const Wanted* wanted, TimeNs deadline) {
  const absl::StatusOr<RegionTableHeader> header = co_await ReadHeader(deadline);
  if (!header.ok()) co_return header.status();
  const absl::StatusOr<Scan> scan = co_await ScanSlots(header->slots, deadline);
  if (!scan.ok()) co_return scan.status();
  for (const auto& [slot, region] : scan->regions) {
    if (wanted->Matches(region)) co_return slot;
  }
  if (scan->damaged.empty()) co_return absl::NotFoundError(wanted->Missing());
  co_return absl::DataLossError(
      absl::StrCat(wanted->Missing(), " in what can be read; ", std::string(scan->damaged.front().message())));
}

Task<absl::StatusOr<RegionTable::HeldRegion>> RegionTable::HoldRegion(Wanted wanted, LockMode mode, TimeNs deadline) {
  for (int searches = 0; searches <= kMaxSearches;) {
    std::optional<uint32_t> slot = Hint(wanted);
    if (!slot) {
      ++searches;
      const absl::StatusOr<uint32_t> found = co_await Search(&wanted, deadline);
      if (!found.ok()) co_return found.status();
      slot = *found;
    }
    absl::StatusOr<HeldRegion> held = co_await HoldSlot(*slot, mode, deadline);
    if (!held.ok()) co_return held.status();
    if (wanted.Matches(held->region)) {
      Remember(*slot, held->region);
      co_return held;
    }
    ForgetHint(wanted);
  }
  co_return absl::UnavailableError(absl::StrCat(wanted.Missing(), " that stays where it is"));
}

Task<absl::StatusOr<RegionTable::HeldRegion>> RegionTable::HoldSlot(uint32_t slot, LockMode mode, TimeNs deadline) {
  absl::StatusOr<HeldPages> held = co_await Hold({RegionSlotPage(slot), 1}, mode, deadline);
  if (!held.ok()) co_return WithContext(held.status(), NameOfSlot(slot));
  absl::StatusOr<RegionDescriptor> region = LoadSlot(slot);
  if (!region.ok()) co_return region.status();
  HeldRegion result{*std::move(held), slot, *std::move(region)};
  co_return result;
}

// --- Hints ------------------------------------------------------------------------------------------------------------

std::optional<uint32_t> RegionTable::Hint(const Wanted& wanted) const {
  if (!wanted.name.empty()) {
    const auto it = slot_by_name_.find(wanted.name);
    return it == slot_by_name_.end() ? std::nullopt : std::optional(it->second);
  }
  const auto after = slot_by_page_.upper_bound(wanted.page.value);
  if (after == slot_by_page_.begin()) return std::nullopt;
  const auto& [first, place] = *std::prev(after);
  return wanted.page.value - first < place.first ? std::optional(place.second) : std::nullopt;
}

// The lowest slot of a name counts, so a higher one does not take its place.
void RegionTable::Remember(uint32_t slot, const RegionDescriptor& region) {
  const auto [it, is_new] = slot_by_name_.emplace(region.name, slot);
  if (!is_new) it->second = std::min(it->second, slot);
  slot_by_page_[region.pages.first.value] = {region.pages.count, slot};
}

void RegionTable::ForgetHint(const Wanted& wanted) {
  if (!wanted.name.empty()) {
    slot_by_name_.erase(wanted.name);
    return;
  }
  const auto after = slot_by_page_.upper_bound(wanted.page.value);
  if (after != slot_by_page_.begin()) slot_by_page_.erase(std::prev(after));
}

// --- Writing ----------------------------------------------------------------------------------------------------------

Task<absl::Status> RegionTable::FlushOrPutBack(PageId page, const PageBytes* before, TimeNs deadline) {
  const absl::Status status = co_await pages_->Flush({page, 1}, deadline);
  if (status.ok()) co_return status;
  pages_->Store(page, before->bytes);
  co_return WithContext(status, absl::StrCat("flush of the region table's page ", ToString(page)));
}

Task<absl::Status> RegionTable::WriteHeader(RegionTableHeader after, TimeNs deadline) {
  auto before = std::make_unique<PageBytes>();
  auto page = std::make_unique<PageBytes>();
  pages_->Load(kRegionHeaderPage, before->bytes);
  EncodeRegionHeader(after, page->bytes);
  pages_->Store(kRegionHeaderPage, page->bytes);
  const absl::Status status = co_await FlushOrPutBack(kRegionHeaderPage, before.get(), deadline);
  co_return status;
}

Task<absl::Status> RegionTable::WriteSlot(uint32_t slot, const RegionDescriptor* after, TimeNs deadline) {
  auto before = std::make_unique<PageBytes>();
  auto page = std::make_unique<PageBytes>();
  pages_->Load(RegionSlotPage(slot), before->bytes);
  EncodeRegionDescriptor(slot, *after, page->bytes);
  pages_->Store(RegionSlotPage(slot), page->bytes);
  const absl::Status status = co_await FlushOrPutBack(RegionSlotPage(slot), before.get(), deadline);
  co_return status;
}

}  // namespace mangrove
