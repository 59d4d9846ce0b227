#include "engine/mapping/fault_resolver.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "engine/mapping/frame_files.h"
#include "net/check.h"

namespace mangrove {
namespace {

// After so many tries the program is made to fault anew, so that no worker is held up by one page.
constexpr int kMaxTries = 16;
// Pages that are mapped beside the one that was asked for: at first, and after some faults in order.
constexpr uint64_t kMinAround = 16;
constexpr uint64_t kMaxAround = 256;
// How often pages among them may be mapped already.
constexpr uint64_t kMaxSkips = 8;
// How often a page is removed from all mappings in order to poison it.
constexpr int kMaxPoisonTries = 8;
// The loop runs what is posted much sooner, unless it has ended.
constexpr std::chrono::seconds kUnmapTimeout{1};

}  // namespace

FaultResolver::FaultResolver(MappedClientOptions options)
    : userfaultfd_(std::move(options.userfaultfd)),
      base_(options.base),
      region_(std::move(options.region)),
      read_only_(options.read_only) {
  region_->AddMapping(userfaultfd_.get(), base_, options.own_process, !read_only_);
}

void FaultResolver::Close() {
  if (!userfaultfd_.ok()) return;
  region_->RemoveMapping(userfaultfd_.get());
  userfaultfd_.Reset();
}

bool FaultResolver::Decode(const Fault& fault, PageFault* out) {
  if (fault.address < base_ || fault.address - base_ >= region_->size_bytes()) {
    Add(counters_.foreign);
    return false;
  }
  Add(fault.is_store ? counters_.write_faults : counters_.read_faults);
  // A read-only mapping is private: what its program does to make it writable concerns a copy of its own.
  out->page = region_->pages().first + ((fault.address - base_) >> kPageShift);
  out->wanted = fault.is_store && !read_only_ ? Rights::kWrite : Rights::kRead;
  out->write_protect = fault.write_protect;
  return true;
}

bool FaultResolver::Serve(const PageFault& fault, absl::FunctionRef<absl::Status(PageId, Rights)> acquire) {
  for (int tries = 0; tries < kMaxTries; ++tries) {
    if (tries > 0) Add(counters_.retries);
    Rights granted = Rights::kNone;
    PinOutcome pin = region_->Pin(fault.page, fault.wanted, !read_only_, &granted);
    if (pin == PinOutcome::kInsufficient) {
      Add(counters_.acquired);
      if (!acquire(fault.page, fault.wanted).ok()) return Poison(fault) != FaultCall::kClientGone;
      pin = region_->Pin(fault.page, fault.wanted, !read_only_, &granted);
    }
    if (pin != PinOutcome::kPinned) {
      sched_yield();
      continue;
    }
    // Before the program goes on.
    if (tries == 0 && fault.wanted == Rights::kRead && !fault.write_protect) MapAround(fault.page, granted);
    const FaultCall mapped = Map(fault, granted);
    Unpin({fault.page, 1});
    switch (mapped) {
      case FaultCall::kDone:
      case FaultCall::kExists: Add(counters_.resolved); return true;
      case FaultCall::kNotMapped: return true;
      case FaultCall::kClientGone: return false;
      case FaultCall::kBusy:
      case FaultCall::kNoFrame: sched_yield();
    }
  }
  Wake(fault.page);
  return true;
}

// REQUIRES: pinned, with `granted`.
FaultCall FaultResolver::Map(const PageFault& fault, Rights granted) {
  const uint64_t address = AddressOf(fault.page);
  if (fault.write_protect && granted == Rights::kWrite) return AllowStores(userfaultfd_.get(), address, kPageBytes);
  const FaultCall mapped = ContinuePage(fault.page, !read_only_ && granted == Rights::kRead);
  if (mapped != FaultCall::kExists) return mapped;
  if (fault.wanted == Rights::kWrite) return AllowStores(userfaultfd_.get(), address, kPageBytes);
  return WakeFaults(userfaultfd_.get(), address, kPageBytes);
}

// A program that goes through pages in order, in either direction, gets entries for those that are here and come next:
// a fault costs 20 times as much as one more of them.
void FaultResolver::MapAround(PageId page, Rights granted) {
  const std::unique_lock nobody_poisons(poisoning_, std::try_to_lock);
  if (!nobody_poisons.owns_lock()) return;
  const uint64_t index = page - region_->pages().first;
  const auto in_row = std::find_if(rows_.begin(), rows_.end(),
                                   [&](const Row& row) { return row.GoesUp(index) || row.GoesDown(index); });
  const bool in_order = in_row != rows_.end();
  Row& row = in_order ? *in_row : rows_[1 - last_row_];
  const uint64_t before = rows_[last_row_].around;
  last_row_ = static_cast<size_t>(&row - rows_.data());
  const bool up = in_order && row.GoesUp(index);
  const uint64_t above = up ? PinRun(page, 1, granted, row.around) : 0;
  const uint64_t below = in_order && !up ? PinRun(page, -1, granted, row.around) : 0;
  const bool write_protected = !read_only_ && granted == Rights::kRead;
  if (above > 0)
    ContinueRun(userfaultfd_.get(), AddressOf(page + 1), above * kPageBytes, write_protected, {kMaxSkips, false});
  if (below > 0)
    ContinueRun(userfaultfd_.get(), AddressOf(page) - below * kPageBytes, below * kPageBytes, write_protected,
                {kMaxSkips, true});
  if (above > 0) Unpin({page + 1, above});
  if (below > 0) Unpin({PageId(page.value - below), below});
  row = {.next_up = index + above + 1,
         .next_down = index - below - 1,
         .above = above,
         .below = below,
         .around = in_order ? std::min(2 * row.around, kMaxAround) : std::max(before / 2, kMinAround)};
}

// How many pages from the one beside `page` on, at most `most`, are pinned now: those that have the same right.
uint64_t FaultResolver::PinRun(PageId page, int64_t step, Rights granted, uint64_t most) {
  uint64_t pinned = 0;
  for (PageId next = page; pinned < most; ++pinned) {
    if (next == (step > 0 ? PageId(region_->pages().end().value - 1) : region_->pages().first)) break;
    next = step > 0 ? next + 1 : PageId(next.value - 1);
    // A pin says that the page may be mapped as it allows: none for nothing.
    if (HasRights(region_->StateOf(next), Rights::kWrite) != (granted == Rights::kWrite)) break;
    Rights right;
    if (region_->Pin(next, Rights::kRead, !read_only_, &right) != PinOutcome::kPinned) break;
    if (right != granted) {
      region_->Unpin(next);
      break;
    }
  }
  return pinned;
}

// After pages may have been mapped.
void FaultResolver::Unpin(PageRange pages) {
  if (region_->fenced()) region_->DropEntries(pages);
  for (uint64_t i = 0; i < pages.count; ++i) region_->Unpin(pages.first + i);
}

FaultCall FaultResolver::ContinuePage(PageId page, bool write_protected) {
  const uint64_t address = AddressOf(page);
  const FaultCall mapped = ContinueFault(userfaultfd_.get(), address, kPageBytes, write_protected);
  if (mapped != FaultCall::kNoFrame) return mapped;
  // The page has a right, so its frame was punched by a program that has a writable descriptor: it stored zeros.
  RefillFrame(region_->frames_fd(), region_->OffsetOf(page));
  return ContinueFault(userfaultfd_.get(), address, kPageBytes, write_protected);
}

FaultCall FaultResolver::Poison(const PageFault& fault) {
  const uint64_t address = AddressOf(fault.page);
  FaultCall result = FaultCall::kBusy;
  const std::lock_guard lock(poisoning_);
  poisoned_.Begin(fault.page);
  for (int tries = 0; tries < kMaxPoisonTries; ++tries) {
    result = PoisonPage(userfaultfd_.get(), address, kPageBytes);
    if (result == FaultCall::kExists) {
      // Someone may have brought the page meanwhile: then the program tries again.
      if (RegionFrames::Admits(region_->fence(), fault.wanted) &&
          HasRights(region_->StateOf(fault.page), fault.wanted)) {
        break;
      }
      if (UnmapAndWait(fault.page) && !read_only_) ForgetProtection(userfaultfd_.get(), address, kPageBytes);
    } else if (result == FaultCall::kBusy) {
      sched_yield();
    } else {
      break;
    }
  }
  poisoned_.End(fault.page, result == FaultCall::kDone);
  if (result == FaultCall::kDone) {
    Add(counters_.poisoned);
  } else {
    Wake(fault.page);
  }
  return result;
}

bool FaultResolver::UnmapAndWait(PageId page) {
  struct Outcome {
    std::mutex mutex;
    std::condition_variable changed;
    bool known = false;
    bool unmapped = false;
  };
  auto outcome = std::make_shared<Outcome>();
  region_->Unmap(page, [outcome](bool unmapped) {
    std::lock_guard lock(outcome->mutex);
    outcome->known = true;
    outcome->unmapped = unmapped;
    outcome->changed.notify_all();
  });
  std::unique_lock lock(outcome->mutex);
  outcome->changed.wait_for(lock, kUnmapTimeout, [&] { return outcome->known; });
  return outcome->unmapped;
}

void FaultResolver::Wake(PageId page) { WakeFaults(userfaultfd_.get(), AddressOf(page), kPageBytes); }

MappingCounters FaultResolver::Counters() const {
  const auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  return {.read_faults = get(counters_.read_faults),
          .write_faults = get(counters_.write_faults),
          .resolved = get(counters_.resolved),
          .acquired = get(counters_.acquired),
          .coalesced = get(counters_.coalesced),
          .poisoned = get(counters_.poisoned),
          .retries = get(counters_.retries),
          .foreign = get(counters_.foreign)};
}

}  // namespace mangrove
