// Keeps the RAM cache within its size. The clock algorithm: a page that was used since the hand passed is spared once.

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr size_t kVictimsPerRound = 64;
constexpr DurationNs kFlushTimeout = 2 * kSecond;
constexpr DurationNs kPause = 5 * kMillisecond;

// Before it can be dropped.
bool MustFlush(const CacheEntry& e) { return e.IsOwner() && !e.CanDrop(); }

}  // namespace

bool PageEngine::HasRoom() const { return charged_ < options_.cache_pages; }

// A page counts while it has a frame or waits for one.
void PageEngine::Charge(PageId page, CachedPage& cached) {
  const bool charged = cached.entry.HasRead() || cached.entry.IsWaiting();
  if (charged == cached.charged) return;
  cached.charged = charged;
  if (charged) {
    ++charged_;
    if (!cached.queued) {
      cached.queued = true;
      cached.in_clock = clock_list_.insert(clock_list_.end(), page);
    }
    const uint64_t margin = std::min<uint64_t>(options_.cache_pages / 16, 4 * kVictimsPerRound);
    if (charged_ + margin >= options_.cache_pages) StartEvicting();
  } else {
    --charged_;
    if (!frame_waiters_.empty()) WakeFrameWaiters(absl::OkStatus());
  }
}

void PageEngine::WakeFrameWaiters(const absl::Status& status) {
  std::vector<Outcome<absl::Status>> waiters = std::move(frame_waiters_);
  frame_waiters_.clear();
  for (auto& waiter : waiters) waiter.Set(status);
}

Task<absl::Status> PageEngine::WaitForRoom(TimeNs deadline) {
  Outcome<absl::Status> room(clock_);
  frame_waiters_.push_back(room);
  StartEvicting();
  const absl::Status full = absl::ResourceExhaustedError(absl::StrCat(
      "the RAM cache of ", options_.cache_pages, " pages is full, and nothing of it could be evicted in time"));
  const Clock::TimerId timer = clock_->CallAt(deadline, [room, full]() mutable { room.Set(full); });
  absl::Status status = co_await room.Get();
  clock_->Cancel(timer);
  // As long as somebody waits, more is evicted: whoever waits no longer must not stay.
  std::erase_if(frame_waiters_, [](const auto& waiter) { return waiter.IsSet(); });
  co_return status;
}

void PageEngine::StartEvicting() {
  if (evicting_ || stopped_) return;
  evicting_ = true;
  clock_->CallSoon([this, alive = alive_] {
    if (!*alive) return;
    Spawn<absl::Status>(EvictSome(), [this, alive](absl::Status status) {
      if (!*alive) return;
      evicting_ = false;
      if (!frame_waiters_.empty()) WakeFrameWaiters(status);
    });
  });
}

// Returns whether there is anything that can be evicted, now or after waiting for what is under way.
bool PageEngine::PickVictims(std::vector<PageId>& clean, std::vector<PageId>& dirty) {
  bool hope = false;
  bool others_soon = false;  // A page that is not kept can be evicted in a moment.
  std::vector<PageId> kept;
  size_t rounds = 2 * clock_list_.size();
  while (rounds-- > 0 && !clock_list_.empty() && clean.size() + dirty.size() < kVictimsPerRound) {
    const PageId page = clock_list_.front();
    CachedPage* cached = FindCached(page);
    if (!cached->charged) {
      clock_list_.pop_front();
      cached->queued = false;
      continue;
    }
    clock_list_.splice(clock_list_.end(), clock_list_, clock_list_.begin());
    const CacheEntry& e = cached->entry;
    const bool under_way = cached->carrying || e.IsWaiting() || e.state == CacheState::kEvicting || e.reported;
    if (under_way) hope = true;
    const bool is_volatile = e.IsOwner() && e.replicas == 0;
    const bool is_kept = IsKeptInRam(page);
    if (!is_kept && !e.IsPinned() && !is_volatile && !e.IsWaiting() && (under_way || clock_->Now() < e.hold_until)) {
      others_soon = true;
    }
    if (under_way || e.IsPinned() || is_volatile) continue;
    hope = true;
    if (std::exchange(cached->referenced, false) || clock_->Now() < e.hold_until) continue;
    (is_kept ? kept : MustFlush(e) ? dirty : clean).push_back(page);
  }
  if (!clean.empty() || !dirty.empty() || others_soon) return hope;
  std::sort(kept.begin(), kept.end());  // The hand may have passed twice.
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  if (kept.size() > kVictimsPerRound) kept.resize(kVictimsPerRound);
  for (PageId page : kept) (MustFlush(FindCached(page)->entry) ? dirty : clean).push_back(page);
  return hope;
}

Task<absl::Status> PageEngine::EvictSome() {
  const uint64_t margin = std::min<uint64_t>(options_.cache_pages / 16, 4 * kVictimsPerRound);
  while (!stopped_ && charged_ + margin >= options_.cache_pages) {
    std::vector<PageId> clean;
    std::vector<PageId> dirty;
    const bool hope = PickVictims(clean, dirty);
    if (!dirty.empty()) {
      const absl::Status status = co_await FlushOwned(dirty, clock_->Now() + kFlushTimeout);
      if (!status.ok() && !absl::IsAborted(status) && clean.empty()) {
        co_return absl::ResourceExhaustedError(
            absl::StrCat("the RAM cache of ", options_.cache_pages,
                         " pages is full, and dirty pages cannot be flushed: ", status.message()));
      }
      clean.insert(clean.end(), dirty.begin(), dirty.end());
    }
    {
      Turn turn(this);
      for (PageId page : clean) {
        const CachedPage* cached = FindCached(page);
        if (cached == nullptr || !cached->entry.HasRead() || cached->entry.IsWaiting()) continue;
        ++counters_.evictions;
        LocalEvent(page, CacheEvent::kWantEvict);
      }
    }
    if (!hope && !HasRoom()) {
      co_return absl::ResourceExhaustedError(
          absl::StrCat("the RAM cache is full: every one of its ", options_.cache_pages,
                       " pages is locked or volatile; release locks, or give the node a larger cache"));
    }
    if (frame_waiters_.empty() && clean.empty()) break;
    co_await SleepUntil(clock_, clock_->Now() + (clean.empty() ? kPause : kPause / 10));
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
