// The operation behind every access: which pages lack the right, ask for all of them at once, wait.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {

Rights PageEngine::RightsOf(PageId page) const {
  const CachedPage* cached = FindCached(page);
  if (cached == nullptr || cached->carrying) return Rights::kNone;
  return cached->entry.HasWrite() ? Rights::kWrite : cached->entry.HasRead() ? Rights::kRead : Rights::kNone;
}

bool PageEngine::HasRights(PageId page, Rights rights) const { return RightsOf(page) >= rights; }

void PageEngine::Load(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(HasRights(page, Rights::kRead));
  memory_->Load(page, offset, out);
}

void PageEngine::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  // Locked and flushed meanwhile: the next version begins.
  if (!HasRights(page, Rights::kWrite) && FindCached(page)->entry.state == CacheState::kExclusive) {
    LocalEvent(page, CacheEvent::kWantWrite);
  }
  CHECK(HasRights(page, Rights::kWrite));
  memory_->Store(page, offset, bytes);
}

// The outcome is OK when the page has had `rights`, Aborted when it must be asked for again: it came with less, or a
// request was refused that was older than this wish, and the reason may be over.
Outcome<absl::Status> PageEngine::Want(PageId page, Rights rights, TimeNs deadline) {
  CachedPage& cached = Cached(page);
  cached.referenced = true;
  Outcome<absl::Status> outcome(clock_);
  cached.waiters.push_back({outcome, deadline, rights, cached.entry.IsWaiting()});
  LocalEvent(page, rights == Rights::kWrite ? CacheEvent::kWantWrite : CacheEvent::kWantRead);
  return outcome;
}

Task<absl::Status> PageEngine::Acquire(PageRange range, Rights rights, TimeNs deadline) {
  std::vector<PageId> missing;
  for (uint64_t i = 0; i < range.count; ++i) {
    const PageId page = range.first + i;
    if (!HasRights(page, rights)) {
      missing.push_back(page);
    } else {
      FindCached(page)->referenced = true;
    }
  }
  while (!missing.empty()) {
    if (stopped_) co_return absl::UnavailableError(ToString(options_.self.node) + " is shutting down");
    std::vector<PageId> again;
    std::vector<std::pair<PageId, Outcome<absl::Status>>> asked;
    {
      Turn turn(this);
      for (PageId page : missing) {
        const CachedPage* cached = FindCached(page);
        const bool charged = cached != nullptr && cached->charged;
        if (charged || HasRoom()) {
          asked.emplace_back(page, Want(page, rights, deadline));
        } else {
          again.push_back(page);
        }
      }
    }
    for (auto& [page, outcome] : asked) {
      absl::Status status = co_await outcome.Get();
      if (absl::IsAborted(status)) {
        again.push_back(page);
      } else if (!status.ok()) {
        co_return status;
      }
    }
    if (asked.empty()) {
      Outcome<absl::Status> room(clock_);
      frame_waiters_.push_back(room);
      StartEvicting();
      const absl::Status full = absl::ResourceExhaustedError(absl::StrCat(
          "the RAM cache of ", options_.cache_pages, " pages is full, and nothing of it could be evicted in time"));
      const Clock::TimerId timer = clock_->CallAt(deadline, [room, full]() mutable { room.Set(full); });
      absl::Status status = co_await room.Get();
      clock_->Cancel(timer);
      if (!status.ok()) co_return status;
    }
    if (!again.empty() && clock_->Now() >= deadline) {
      co_return absl::UnavailableError(
          absl::StrCat("page ", ToString(again.front()), " did not stay long enough to be used; try again"));
    }
    missing = std::move(again);
  }
  co_return absl::OkStatus();
}

absl::Status PageEngine::TimeoutStatus(PageId page, const CachedPage& cached, Rights rights) const {
  const NodeId responsible = locator_->Responsible(page);
  const NodeId culprit = cached.entry.delayed_by.value != 0 ? cached.entry.delayed_by : responsible;
  const std::string what =
      absl::StrCat(rights == Rights::kWrite ? "write" : "read", " access to page ", ToString(page));
  if (culprit == options_.self.node || up_.contains(culprit)) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, ": ", ToString(culprit), " holds it, or a lock on it, for too long"));
  }
  return absl::UnavailableError(
      absl::StrCat(what, " needs ", ToString(culprit), ", which does not answer; start it, or try again later"));
}

}  // namespace mangrove
