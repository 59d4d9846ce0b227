// Carries out what the cache's machines decide: memory first, then messages, then wake-ups, page by page in order.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/codec.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"
#include "net/log.h"

namespace mangrove {
namespace {

// A page that was given up is remembered for a while, so that what is stale about it is seen to be.
constexpr DurationNs kForgetAfter = 50 * kMillisecond;
constexpr size_t kSpareWorks = 2 * PageEngine::kBlockPages;

}  // namespace

PageEngine::PageEngine(const PageEngineOptions& options, Clock* clock, Transport* transport, PageStore* store,
                       PageMemory* memory, Entropy* entropy)
    : options_(options),
      members_(options.members.begin(), options.members.end()),
      clock_(clock),
      transport_(transport),
      store_(store),
      memory_(memory),
      entropy_(entropy),
      core_(store, options.bugs, options.system_replicas),
      pages_(this, &directory_memory_),
      claims_(this),
      tree_({kRamDirectoryRootPage, options.self.node}, &pages_, &claims_, clock, options.bugs,
            options.directory_limits),
      read_ahead_(std::min(options.read_ahead_pages, options.cache_pages / 8)),
      read_ahead_blocks_(read_ahead_.max_pages()) {}

PageEngine::~PageEngine() { *alive_ = false; }

void PageEngine::Shutdown(absl::Status why) {
  if (std::exchange(stopped_, true)) return;
  stopped_status_ = std::move(why);
  clock_->Cancel(tick_);
  clock_->Cancel(seal_timer_);
  clock_->Cancel(std::exchange(lease_timer_, 0));
  peer_eviction_.Stop();
  catch_up_.Stop();
  const absl::Status status = stopped_status_;
  for (PageId page : SortedPages([](PageId) { return true; })) {
    CachedPage& cached = *FindCached(page);
    FailWaiters(cached, status);
    if (cached.work == nullptr) continue;
    for (auto& waiter : cached.work->unlock_waiters) waiter.Set(status);
  }
  for (auto& [request, call] : calls_) {
    Message answer = call.message;
    answer.SetStatus(status);
    call.outcome.Set(std::move(answer));
  }
  for (auto& [request, call] : store_calls_) call.End(call.left, status);
  store_calls_.clear();
  WakeFrameWaiters(status);
  for (auto& waiter : std::exchange(lease_waiters_, {})) waiter.Set(status);
}

RequestId PageEngine::NextRequest() { return RequestId((options_.self.incarnation.value << 40) + next_request_++); }

CachedPage& PageEngine::Cached(PageId page) {
  return cache_.FindOrMake(page, [&](CachedPage&) { CountHeld(page, true); });
}

CachedPage* PageEngine::FindCached(PageId page) const { return cache_.find(page)->second; }

CacheContext PageEngine::ContextOf(PageId page) {
  return {.self = options_.self,
          .responsible = ResponsibleFor(page),
          .now = clock_->Now(),
          .hold = options_.hold,
          .next_request = NextRequest(),
          .bugs = options_.bugs};
}

void PageEngine::LocalEvent(PageId page, CacheEvent event) {
  WithPage(page, [this, page, event](CachedPage& cached) {
    const bool must_stay = !cached.entry.CanDrop() || cached.entry.IsPinned();
    if (event == CacheEvent::kWantEvict && must_stay) return;
    const bool waited = cached.entry.IsWaiting();
    StepCacheLocal(cached.entry, page, event, ContextOf(page), cached.work->effects);
    if (!waited && cached.entry.IsWaiting()) {
      cached.sent_at = clock_->Now();
      if (cached.entry.wanted == Access::kRead) ++counters_.read_requests;
      if (cached.entry.wanted == Access::kWrite) ++counters_.write_requests;
    }
  });
}

// WithPage, but that the message is copied only where it has to wait.
void PageEngine::CacheMessage(const Message& message, NodeInstance from) {
  CachedPage& cached = Cached(message.page);
  if (cached.carrying) {
    Message kept = message;
    OwnData(kept);
    WorkOf(cached).events.emplace_back(
        [this, kept = std::move(kept), from](CachedPage& later) { OnCacheMessage(later, kept, from); });
    return;
  }
  Turn turn(this);
  LendRoom(cached);
  OnCacheMessage(cached, message, from);
  Carry(message.page, cached);
}

void PageEngine::OnCacheMessage(CachedPage& cached, const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;  // Its sender was lost while this waited.
  NoteSpeaker(cached, message, from.node);
  if (message.kind == MessageKind::kGrant && !message.active && IsLent(message)) {
    Message kept = message;  // As it may be, until it counts.
    OwnData(kept);
    return OnCacheMessage(cached, kept, from);
  }
  CacheContext context = ContextOf(message.page);
  const bool is_move = message.kind == MessageKind::kForward && message.access == Access::kMove;
  if (is_move) context.may_move = peer_eviction_.MayMove(message.page, cached.referenced);
  const bool had_copy = cached.entry.HasRead();
  const std::optional<CacheEvent> event =
      StepCacheMessage(cached.entry, message, from.node, context, cached.work->effects);
  if (!event) ++counters_.stale_messages;
  if (event == CacheEvent::kForwardMove) {
    peer_eviction_.OnForwarded(message.page, had_copy && !cached.entry.HasRead());
  }
}

PageWork& PageEngine::WorkOf(CachedPage& cached) {
  if (cached.work != nullptr) return *cached.work;
  if (spare_works_.empty()) {
    cached.work = std::make_unique<PageWork>();
  } else {
    cached.work = std::move(spare_works_.back());
    spare_works_.pop_back();
  }
  return *cached.work;
}

void PageEngine::DropWorkIfOver(CachedPage& cached) {
  if (cached.work == nullptr || cached.carrying || !cached.work->IsOver()) return;
  if (spare_works_.size() < kSpareWorks) spare_works_.push_back(std::move(cached.work));
  cached.work = nullptr;
}

// Steps write their effects into room that is there already. Pages that nothing happens to keep none.
void PageEngine::LendRoom(CachedPage& cached) {
  PageWork& work = WorkOf(cached);
  if (work.effects.capacity() > 0 || spare_effects_.empty()) return;
  work.effects = std::move(spare_effects_.back());
  spare_effects_.pop_back();
}

void PageEngine::ReturnRoom(std::vector<CacheEffect> effects) {
  constexpr size_t kSpareEffects = 16;
  if (spare_effects_.size() < kSpareEffects) spare_effects_.push_back(std::move(effects));
}

void PageEngine::Carry(PageId page, CachedPage& cached) {
  PageWork& work = *cached.work;
  cached.carrying = true;
  while (true) {
    while (work.next_effect < work.effects.size()) {
      CacheEffect effect = std::move(work.effects[work.next_effect++]);
      if (!CarryOne(page, cached, effect)) return;  // Goes on in the callback.
    }
    work.effects.clear();
    work.next_effect = 0;
    if (work.events.empty()) break;
    auto event = std::move(work.events.front());
    work.events.erase(work.events.begin());
    event(cached);
  }
  cached.carrying = false;
  ReturnRoom(std::exchange(work.effects, {}));
  AfterEffects(page, cached);
}

// False: the effect ends in a callback, which carries on.
bool PageEngine::CarryOne(PageId page, CachedPage& cached, CacheEffect& effect) {
  using Kind = CacheEffect::Kind;
  auto resume = [this, page, alive = alive_] {
    if (!*alive) return;
    Turn turn(this);
    Carry(page, Cached(page));
  };
  switch (effect.kind) {
    case Kind::kProtect: {
      auto step = std::make_shared<int>(1);  // 2 if the callback of the call below came while it was running.
      MemoryOf(page)->Protect(page, [step, resume] {
        if (std::exchange(*step, 2) != 1) resume();
      });
      return std::exchange(*step, 0) == 2;
    }
    case Kind::kTake:
    case Kind::kTakeRetain: {
      const bool retain = effect.kind == Kind::kTakeRetain;
      watches_->TellLeft(page);
      if (retain) NoteGivenAway(page, cached.entry);
      auto step = std::make_shared<int>(1);  // As above.
      ++counters_.invalidations;
      auto taken = [this, page, retain, step, resume, alive = alive_](PageBuffer data) {
        if (!*alive) return;
        if (retain) {
          CachedPage& owner = Cached(page);
          if (owner.entry.retained) owner.entry.retained->data = std::move(data);
        }
        if (std::exchange(*step, 2) != 1) resume();
      };
      if (!watches_->IsGuarded(page)) {
        MemoryOf(page)->Take(page, retain, std::move(taken));
      } else {
        watches_->WhenMayLeave(page, [this, page, retain, taken = std::move(taken), alive = alive_] {
          if (*alive) MemoryOf(page)->Take(page, retain, taken);
        });
      }
      return std::exchange(*step, 0) == 2;
    }
    case Kind::kInstall:
      cached.expected = false;
      MemoryOf(page)->Install(page, effect.data ? effect.data->bytes.data() : nullptr,
                              effect.write ? Rights::kWrite : Rights::kRead);
      NoteFetched({page, 1});
      return true;
    case Kind::kRaise: MemoryOf(page)->Raise(page); return true;
    case Kind::kSend: Post(effect.to, std::move(effect.message)); return true;
    case Kind::kSendLate: PostLate(effect.to, std::move(effect.message)); return true;
    case Kind::kSendFrame:
      effect.message.data = MemoryOf(page)->Copy(page);
      ++counters_.pages_given;
      Post(effect.to, std::move(effect.message));
      return true;
    case Kind::kSendRetained:
      if (cached.entry.retained) effect.message.data = cached.entry.retained->data;
      ++counters_.pages_given;
      Post(effect.to, std::move(effect.message));
      if (DropsSentFrame(options_.bugs, effect.message)) cached.entry.retained.reset();
      return true;
    case Kind::kWake: WakeWaiters(cached); return true;
    case Kind::kFail: RefuseWaiters(cached, effect.message.status()); return true;
    case Kind::kHoldTimer:
      clock_->CallAt(cached.entry.hold_until, [this, page, alive = alive_] {
        if (*alive) Unblock(page);
      });
      return true;
    case Kind::kRefused: RefuseMessage(effect.message, ResponsibleFor(page)); return true;
  }
  return true;
}

// Of a segment of which something is here, or was given away from here, this node says where it was, if the directory is lost.
void PageEngine::CountHeld(PageId page, bool is_more) {
  if (IsFixed(page)) return;
  const PageId first = SegmentStart(page);
  uint32_t& pages = locations_[first].pages;
  is_more ? ++pages : --pages;
  if (pages == 0) held_.erase(first);
  if (pages == 1 && is_more) held_.insert(first);
}

void PageEngine::NoteGivenAway(PageId page, const CacheEntry& entry) {
  const auto& left = entry.retained;
  const bool is_dirty = left && left->owner && left->version != left->flushed;
  if (is_dirty && entry.replicas > 0) given_away_.Add(page, entry.config, left->version);
}

// What no node that keeps to the protocol sends.
void PageEngine::RefuseMessage(const Message& message, NodeId from) {
  ++counters_.bad_messages;
  said_once_.Log(LogLevel::kError, absl::StrCat(ToString(from), " ", Name(message.kind)),
                 absl::StrCat(ToString(from), " sent ", Name(message.kind), " of page ", ToString(message.page),
                              ", which makes no sense here; it is ignored"));
}

// Guests may be of regions that no program of this node has opened.
PageMemory* PageEngine::MemoryOf(PageId page) {
  if (IsRamDirectoryPage(page)) return &directory_memory_;
  return memory_->Knows(page) ? memory_ : peer_eviction_.memory();
}

void PageEngine::CountFetched(PageRange range) {
  if (!fetched_.try_emplace(range.first.value, range, 0).second) return;
  peer_eviction_.MoveInto(range, memory_);
}

void PageEngine::NoteFetched(PageRange range) {
  counters_.pages_received += range.count;
  auto it = fetched_.upper_bound(range.first.value);
  if (it != fetched_.begin()) --it;
  for (; it != fetched_.end() && it->first < range.end().value; ++it) {
    auto& [counted, count] = it->second;
    const PageId first = std::max(range.first, counted.first);
    const PageId end = std::min(range.end(), counted.end());
    if (first < end) count += end - first;
  }
}

uint64_t PageEngine::Fetched(PageId page) const {
  const auto next = fetched_.upper_bound(page.value);
  return next == fetched_.begin() ? 0 : std::prev(next)->second.second;
}

void PageEngine::Unblock(PageId page) {
  if (FindCached(page) == nullptr) return;
  WithPage(page, [this, page](CachedPage& cached) {
    StepCacheUnblocked(cached.entry, ContextOf(page), cached.work->effects);
  });
}

// What every step may have changed: the cache's size, what is watched, whether there is something to do still.
void PageEngine::AfterEffects(PageId page, CachedPage& cached) {
  Charge(cached);
  const Watch watch = WatchOf(cached);
  if (watch != cached.watch) cached.sent_at = clock_->Now();
  cached.watch = watch;
  if (watch != Watch::kNot) LookAt(page, cached, NextLook(cached));
  DropWorkIfOver(cached);
}

Watch PageEngine::WatchOf(const CachedPage& cached) {
  const CacheEntry& e = cached.entry;
  if (e.IsWaiting() || e.retained || e.state == CacheState::kEvicting || cached.HasWaiters()) return Watch::kAnswers;
  return e.state == CacheState::kInvalid ? Watch::kIsOver : Watch::kNot;
}

TimeNs PageEngine::NextLook(const CachedPage& cached) const {
  TimeNs next = cached.sent_at + (cached.watch == Watch::kIsOver ? kForgetAfter : 2 * options_.resend_after);
  if (cached.entry.IsWaiting() && !cached.HasWaiters()) next = 0;  // Nobody does any more.
  if (cached.HasWaiters()) {
    for (const PageWaiter& waiter : cached.work->waiters) next = std::min(next, waiter.deadline);
  }
  return std::max(next, clock_->Now() + 1);
}

void PageEngine::LookAt(PageId page, CachedPage& cached, TimeNs at) {
  if (cached.look_at != 0 && cached.look_at <= looks_.TickOf(at)) return;
  cached.look_at = looks_.Add(at, page);
  ArmTick();
}

void PageEngine::WakeWaiters(CachedPage& cached) {
  const Rights rights = cached.entry.HasWrite()  ? Rights::kWrite
                        : cached.entry.HasRead() ? Rights::kRead
                                                 : Rights::kNone;
  if (!cached.HasWaiters()) return;
  const auto waiters = std::exchange(cached.work->waiters, {});
  for (const PageWaiter& waiter : waiters) {
    // Whoever got less than it wants asks again.
    waiter.wait->Set(waiter.page,
                     rights >= waiter.rights ? absl::OkStatus() : absl::AbortedError("the page was taken away"));
  }
}

void PageEngine::RefuseWaiters(CachedPage& cached, const absl::Status& status) {
  if (!cached.HasWaiters()) return;
  const auto waiters = std::exchange(cached.work->waiters, {});
  for (const PageWaiter& waiter : waiters) {
    waiter.wait->Set(waiter.page, waiter.joined ? absl::AbortedError("an older request was refused") : status);
  }
}

void PageEngine::FailWaiters(CachedPage& cached, const absl::Status& status) {
  if (!cached.HasWaiters()) return;
  const auto waiters = std::exchange(cached.work->waiters, {});
  for (const PageWaiter& waiter : waiters) waiter.wait->Set(waiter.page, status);
}

void PageEngine::ArmTick() {
  if (tick_ != 0 || stopped_) return;
  tick_ = clock_->CallAt(clock_->Now() + kTick, [this, alive = alive_] {
    if (!*alive) return;
    tick_ = 0;
    Tick();
  });
}

void PageEngine::Tick() {
  Turn turn(this);
  TickCache();
  TickHome();
  TickCalls();
  TickStoreCalls();
  TickMoves();
  AskForHoldings();
  if (!looks_.empty() || !home_resends_.empty() || !calls_.empty() || !store_calls_.empty() || !joining_.empty() ||
      !leaving_.empty() || homes_.size() > options_.home_entries) {
    ArmTick();
  }
}

// A seal is against what a lost owner may have sent: past a message's life there is nothing left of it.
void PageEngine::ArmSealTimer() {
  if (seal_timer_ != 0 || stopped_ || core_.seals() == 0) return;
  seal_timer_ = clock_->CallAt(clock_->Now() + kMessageLifetime, [this, alive = alive_] {
    if (!*alive) return;
    seal_timer_ = 0;
    core_.ForgetOldSeals();
    ArmSealTimer();
  });
}

void PageEngine::TickCache() {
  const TimeNs now = clock_->Now();
  looks_.PopDue(now, [&](PageId page, TimeNs tick) {
    CachedPage* cached = FindCached(page);
    if (cached == nullptr || cached->look_at != tick) return;
    cached->look_at = 0;
    EndOverdueWaits(page, *cached);
    if (cached->carrying) {
      LookAt(page, *cached, now + 1);
    } else {
      TickPage(page, *cached);
    }
  });
}

void PageEngine::EndOverdueWaits(PageId page, CachedPage& cached) {
  if (!cached.HasWaiters()) return;
  auto& waiters = cached.work->waiters;
  const TimeNs now = clock_->Now();
  const auto overdue = std::remove_if(waiters.begin(), waiters.end(), [&](PageWaiter& waiter) {
    if (waiter.deadline > now) return false;
    waiter.wait->Set(page, TimeoutStatus(page, cached.entry.delayed_by, waiter.rights));
    return true;
  });
  waiters.erase(overdue, waiters.end());
}

// Sends again what was not answered, forgets what is over.
void PageEngine::TickPage(PageId page, CachedPage& cached) {
  const TimeNs now = clock_->Now();
  CacheEntry& e = cached.entry;
  if (e.IsWaiting() && !cached.HasWaiters()) {
    Message cancel;
    cancel.kind = MessageKind::kCancel;
    cancel.page = page;
    cancel.request = e.request;
    Post(ResponsibleFor(page), std::move(cancel));
    LocalEvent(page, CacheEvent::kCancel);
  }
  if (cached.watch == Watch::kAnswers && cached.sent_at + 2 * options_.resend_after <= now) {
    cached.sent_at = now;
    if (!IsLocated(page)) SearchAgain(SegmentStart(page));
    const NodeId responsible = ResponsibleFor(page);
    Message message;
    message.page = page;
    if (e.IsWaiting()) {
      ++counters_.resends;
      Post(responsible, OutstandingRequest(e, page));
    }
    if (e.retained) {
      message.kind = MessageKind::kStillRetained;
      message.txn = e.retained->txn;
      Post(responsible, message);
    }
    if (e.state == CacheState::kEvicting) {
      message.kind = MessageKind::kEvictRequest;
      Post(responsible, message);
    }
  }
  if (cached.carrying) return;  // LookAt when that is over.
  DropWorkIfOver(cached);
  const bool over = cached.watch == Watch::kIsOver && cached.work == nullptr;
  if (!over || now < cached.sent_at + kForgetAfter) return AfterEffects(page, cached);
  CHECK(!cached.charged);
  if (cached.expected) MemoryOf(page)->Unexpect(page);
  CountHeld(page, false);
  cache_.erase(page);
}

}  // namespace mangrove
