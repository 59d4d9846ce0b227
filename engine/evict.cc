// Keeps the RAM cache within its size. The clock algorithm: a page that was used since the hand passed is spared once. Where
// a victim goes: a read copy is dropped, since its owner has the page; what this node owns goes to a peer with room, and
// only when there is none to disk.
//
//  E1  A read copy from before the last loss of a node may be all that is left of its version. It is dropped when the responsible
//      node says so, which knows by then whether somebody else has the page. Of any other read copy an owner that lives has the
//      version, or the disks have it (I9 of directory/responsible_machine.h).

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

constexpr DurationNs kFlushTimeout = 2 * kSecond;
constexpr DurationNs kPause = 5 * kMillisecond;
constexpr DurationNs kLocateTimeout = 2 * kSecond;

// Before it can be dropped.
bool MustFlush(const CacheEntry& e) { return e.IsOwner() && !e.CanDrop(); }

}  // namespace

// E1. What this node was told of the page since then, it was told by a responsible node that knew of the loss.
bool PageEngine::MayBeLast(const CacheEntry& entry) const {
  return entry.HasRead() && !entry.IsOwner() && ViewOf(entry.txn) < lost_in_;
}

// E1. The copy goes by an invalidation, or becomes the owner's; or it is asked again, since nobody serves the page yet.
Task<absl::Status> PageEngine::AskToDrop(PageId page) {
  asked_to_drop_[page] = clock_->Now() + kLocateTimeout;
  const absl::Status located = co_await Locate(page, clock_->Now() + kLocateTimeout);
  if (stopped_ || !located.ok()) co_return located;
  asked_to_drop_[page] = clock_->Now() + 5 * options_.resend_after;
  const CachedPage* cached = FindCached(page);
  if (cached == nullptr || !MayBeLast(cached->entry)) co_return absl::OkStatus();
  Turn turn(this);
  Message ask;
  ask.kind = MessageKind::kEvictRequest;
  ask.page = page;
  Post(ResponsibleFor(page), std::move(ask));
  co_return absl::OkStatus();
}

bool PageEngine::HasRoom(uint64_t besides) const { return charged_ + besides < options_.cache_pages; }

// A page counts while it has a frame or waits for one.
void PageEngine::Charge(CachedPage& cached) {
  const bool charged = cached.entry.HasRead() || cached.entry.IsWaiting();
  if (charged == cached.charged) return;
  cached.charged = charged;
  if (charged) {
    ++charged_;
    if (charged_ + EvictionMargin(options_.cache_pages) >= options_.cache_pages) StartEvicting();
  } else {
    --charged_;
    if (!frame_waiters_.empty()) WakeFrameWaiters(absl::OkStatus());
  }
  peer_eviction_.OnCharge();
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

// Where peers may have room, no more than are needed: what is offered is gone only in a moment.
size_t PageEngine::HowManyVictims() {
  if (!peer_eviction_.IsOn()) return kVictimsPerRound;
  const uint64_t cache = options_.cache_pages;
  const uint64_t batch = std::clamp<uint64_t>(cache / 16, 1, kVictimsPerRound);
  const uint64_t outstanding = peer_eviction_.Outstanding();
  const uint64_t wanted = charged_ + EvictionMargin(cache) + batch;
  const uint64_t left = cache + outstanding;
  return wanted <= left ? 0 : std::min<uint64_t>(wanted - left, kVictimsPerRound);
}

// At most `most`, none of `stuck`. Returns whether there is anything that can be evicted, now or after waiting for what is
// under way.
bool PageEngine::PickVictims(size_t most, const absl::flat_hash_set<PageId>& stuck, Victims& victims) {
  bool hope = false;
  bool others_soon = false;         // A page that is not kept can be evicted in a moment.
  absl::flat_hash_set<PageId> met;  // The hand may pass twice.
  std::vector<PageId> kept;
  absl::erase_if(asked_to_drop_, [now = clock_->Now()](const auto& asked) { return asked.second <= now; });
  Victims owned;  // Where no peer has room for them, what another node has as well goes first.
  const bool copies_first = peer_eviction_.IsOn() && !peer_eviction_.HasRoomyPeer();
  const auto consider = [&](PageId page, CachedPage& cached) {
    const CacheEntry& e = cached.entry;
    const bool under_way = cached.carrying || e.IsWaiting() || e.state == CacheState::kEvicting || e.reported ||
                           peer_eviction_.IsOffered(page) || (MayBeLast(e) && asked_to_drop_.contains(page));
    if (under_way) hope = true;
    const bool is_kept = IsKeptInRam(page);
    const bool can_offer = !is_kept && !under_way && !e.IsPinned() && peer_eviction_.CanOffer(page, e);
    const bool is_volatile = e.IsOwner() && e.replicas == 0 && !can_offer;
    if (!is_kept && !e.IsPinned() && !is_volatile && !e.IsWaiting() && (under_way || clock_->Now() < e.hold_until)) {
      others_soon = true;
    }
    if (under_way || e.IsPinned() || is_volatile || stuck.contains(page)) return;
    hope = true;
    if (std::exchange(cached.referenced, false) || clock_->Now() < e.hold_until || !met.insert(page).second) return;
    if (is_kept) return kept.push_back(page);
    if (can_offer) return victims.offers.push_back(page);
    Victims& to = copies_first && e.IsOwner() ? owned : victims;
    if (to.size() >= most) return;
    (MustFlush(e) ? to.dirty : to.clean).push_back(page);
  };
  for (PageId page : peer_eviction_.Guests(2 * most)) {
    CachedPage* cached = FindCached(page);
    if (cached == nullptr || !cached->charged || cached->referenced) {
      peer_eviction_.ForgetGuest(page);
    } else if (victims.size() + owned.size() < most) {
      consider(page, *cached);
    }
  }
  size_t steps = 2 * cache_.size();
  size_t steps_for_copies = 8 * kVictimsPerRound;
  while (steps-- > 0 && victims.size() < most) {
    if (owned.size() >= most && steps_for_copies-- == 0) break;
    const auto [page, cached] = cache_.Next();
    if (cached->charged) consider(page, *cached);
  }
  if (victims.size() == 0) victims = std::move(owned);
  if (victims.size() > 0 || others_soon) return hope;
  if (kept.size() > most) kept.resize(most);
  for (PageId page : kept) (MustFlush(FindCached(page)->entry) ? victims.dirty : victims.clean).push_back(page);
  return hope;
}

absl::Status PageEngine::CannotFlush(const absl::Status& why) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the RAM cache of ", options_.cache_pages, " pages is full, and dirty pages cannot be flushed: ", why.message()));
}

// Whether none of the pages can be dropped, having been flushed in vain.
bool PageEngine::AreAllStuck(const std::vector<PageId>& pages) const {
  return std::all_of(pages.begin(), pages.end(), [this](PageId page) {
    const CachedPage* cached = FindCached(page);
    return cached != nullptr && !cached->entry.CanDrop();
  });
}

// A page that a core holder refuses, as one that is not allocated any more there, keeps no other from being evicted.
Task<absl::Status> PageEngine::EvictSome() {
  const std::shared_ptr<bool> alive = alive_;  // Nobody ends its pauses.
  absl::flat_hash_set<PageId> stuck;
  absl::Status why;  // They are.
  while (!stopped_ && charged_ + EvictionMargin(options_.cache_pages) >= options_.cache_pages) {
    Victims victims;
    const size_t most = HowManyVictims();
    const bool hope = most == 0 || PickVictims(most, stuck, victims);
    const bool offers = most == 0 || !victims.offers.empty();
    if (!victims.offers.empty()) peer_eviction_.Offer(std::move(victims.offers));
    std::vector<PageId>& clean = victims.clean;
    if (!victims.dirty.empty()) {
      const absl::Status status = co_await FlushOwned(victims.dirty, clock_->Now() + kFlushTimeout);
      if (absl::IsFailedPrecondition(status)) {
        why = status;
        std::copy_if(victims.dirty.begin(), victims.dirty.end(), std::inserter(stuck, stuck.end()),
                     [this](PageId page) { return AreAllStuck({page}); });
      } else if (!status.ok() && !absl::IsAborted(status) && clean.empty() && !offers && AreAllStuck(victims.dirty)) {
        co_return CannotFlush(status);
      }
      clean.insert(clean.end(), victims.dirty.begin(), victims.dirty.end());
    }
    {
      Turn turn(this);
      for (PageId page : clean) {
        const CachedPage* cached = FindCached(page);
        if (cached == nullptr || !cached->entry.HasRead() || cached->entry.IsWaiting()) continue;
        ++counters_.evictions;
        if (MayBeLast(cached->entry)) {
          Spawn<absl::Status>(AskToDrop(page), [page](const absl::Status& status) {
            if (!status.ok()) LogDebug("cannot ask who else has page ", ToString(page), ": ", status.message());
          });
        } else {
          LocalEvent(page, CacheEvent::kWantEvict);
        }
      }
    }
    if (!hope && !HasRoom() && !why.ok()) co_return CannotFlush(why);
    if (!hope && !HasRoom()) {
      co_return absl::ResourceExhaustedError(
          absl::StrCat("the RAM cache is full: every one of its ", options_.cache_pages,
                       " pages is locked or volatile; release locks, or give the node a larger cache"));
    }
    if (frame_waiters_.empty() && clean.empty() && !offers) break;
    co_await SleepUntil(clock_, clock_->Now() + (clean.empty() && !offers ? kPause : kPause / 10));
    if (!*alive) break;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
