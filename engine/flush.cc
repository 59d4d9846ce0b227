// Makes pages durable: freeze what is here, store it on every core holder, and ask the owners of the rest to do so.

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

// Of one flush: blocks that are copied and on their way.
constexpr size_t kFlushesAtOnce = 6;
// What could not be flushed is tried again, ever more seldom.
constexpr DurationNs kFlushAgain = kMillisecond;
constexpr DurationNs kFlushSeldom = 16 * kMillisecond;

}  // namespace

// A page, or pages side by side that differ in their content alone.
struct PageEngine::Frozen {
  absl::Status status;
  PageRange pages;
  Version version;
  ConfigNumber config;
  uint32_t replicas = 0;
  PageBuffer data;  // Of all pages, one behind the other. Null: they are clean.
};

struct PageEngine::Freezes {
  std::vector<Frozen> runs;  // At once.
  std::vector<std::pair<PageId, Outcome<Frozen>>> pages;
};

// A run that one of its core holders was asked to store.
struct PageEngine::Storing {
  PageRange pages;
  Version version;
  ConfigNumber config;
  Outcome<Stored> outcome;
  bool last;  // Core holder of the run.
};

// Ends every writing of the page under its present version, and copies it. Aborted: this node is not its owner.
Outcome<PageEngine::Frozen> PageEngine::Freeze(PageId page) {
  Outcome<Frozen> outcome(clock_);
  if (FindCached(page) == nullptr) {
    outcome.Set({.status = absl::AbortedError("not the owner"), .pages = {page, 1}, .data = nullptr});
    return outcome;
  }
  WithPage(page, [this, page, outcome](CachedPage& cached) mutable {
    if (!cached.entry.IsOwner()) {
      outcome.Set({.status = absl::AbortedError("not the owner"), .pages = {page, 1}, .data = nullptr});
      return;
    }
    if (cached.entry.open) {
      cached.entry.open = false;
      cached.work->effects.push_back({.kind = CacheEffect::Kind::kProtect, .to = {}, .message = {}, .data = {}});
    }
    // Runs when the protection is done.
    cached.work->events.insert(cached.work->events.begin(), [this, page, outcome](CachedPage& frozen_page) mutable {
      const CacheEntry& e = frozen_page.entry;
      Frozen frozen{.status = absl::OkStatus(),
                    .pages = {page, 1},
                    .version = e.version,
                    .config = e.config,
                    .replicas = e.replicas,
                    .data = nullptr};
      if (e.IsDirty()) frozen.data = MemoryOf(page)->Copy(page);
      outcome.Set(std::move(frozen));
    });
  });
  return outcome;
}

// Those of the range that are as its first, as far as they lie in one segment: how many. A page whose protection takes a while, or
// whose machine is at work, is frozen by itself.
uint64_t PageEngine::FreezeAlike(PageRange range, Freezes& freezes) {
  const Alike alike = range.count == 1 || IsFixed(range.first) ? Alike{} : AlikeFrom(range, nullptr);
  if (alike.size() < 2) {
    freezes.pages.emplace_back(range.first, Freeze(range.first));
    return 1;
  }
  CachedPage& first = *alike.front();
  Frozen run{.status = absl::OkStatus(),
             .pages = {},
             .version = first.entry.version,
             .config = first.entry.config,
             .replicas = first.entry.replicas,
             .data = nullptr};
  const bool is_owner = first.entry.IsOwner();
  const bool dirty = first.entry.IsDirty();
  if (!is_owner) run.status = absl::AbortedError("not the owner");
  std::vector<bool> done(alike.size(), true);
  if (is_owner && first.entry.open) {
    LendRoom(first);
    for (CachedPage* cached : alike) cached->entry.open = false;
    first.work->effects.push_back({.kind = CacheEffect::Kind::kProtect, .to = {}, .message = {}, .data = {}});
    done = CarryAlike(range.first, alike);
  }
  for (uint64_t i = 0; i < alike.size();) {
    const PageId page = range.first + i;
    uint64_t count = 0;
    while (i + count < alike.size() && done[i + count]) ++count;
    if (count > 0) {
      run.pages = {page, count};
      if (is_owner && dirty && run.replicas > 0) run.data = CopyOf(run.pages);
      freezes.runs.push_back(run);
    } else {
      freezes.pages.emplace_back(page, Freeze(page));
    }
    i += std::max<uint64_t>(count, 1);
  }
  return alike.size();
}

PageEngine::Freezes PageEngine::FreezeAll(const std::vector<PageId>& pages) {
  Turn turn(this);
  Freezes freezes;
  for (size_t i = 0; i < pages.size();) {
    PageRange range{pages[i], 1};
    while (range.count < PageRow::kPages && i + range.count < pages.size() && pages[i + range.count] == range.end() &&
           SegmentStart(range.end()) == SegmentStart(range.first)) {
      ++range.count;
    }
    i += FreezeAlike(range, freezes);
  }
  return freezes;
}

// A program that does not let go of its memory must not keep the flush for ever.
Clock::TimerId PageEngine::LimitFreezes(const Freezes& freezes, TimeNs deadline) {
  const auto is_set = [](const auto& freeze) { return freeze.second.IsSet(); };
  if (std::all_of(freezes.pages.begin(), freezes.pages.end(), is_set)) return 0;
  return clock_->CallAt(deadline, [pages = freezes.pages]() mutable {
    for (auto& [page, freeze] : pages) {
      freeze.Set(
          {.status = absl::DeadlineExceededError(absl::StrCat(
               "page ", ToString(page), " could not be protected in time against stores by the programs of this node")),
           .pages = {page, 1},
           .data = nullptr});
    }
  });
}

// Asks every core holder of each run that is in the view to store it (D1); in one turn, so that neighbours travel together.
std::vector<PageEngine::Storing> PageEngine::StoreAll(std::vector<Frozen> runs, TimeNs deadline) {
  Turn turn(this);
  std::vector<Storing> stores;
  for (Frozen& frozen : runs) {
    Message store;
    store.kind = MessageKind::kStore;
    store.page = frozen.pages.first;
    store.repeat = static_cast<uint32_t>(frozen.pages.count);
    store.version = frozen.version;
    store.config = frozen.config;
    store.replicas = frozen.replicas;
    store.data = std::move(frozen.data);
    std::vector<NodeId> holders = disks_.Storing(store.page, frozen.replicas);
    if (options_.bugs && options_.bugs->flush_one_holder) holders.resize(1);
    if (options_.bugs->store_where_they_are) {
      std::erase_if(holders, [&](NodeId node) { return !disks_.Keeps(node, store.page, frozen.replicas); });
    }
    // The pages are on their way to the others before this disk begins.
    std::stable_partition(holders.begin(), holders.end(), [this](NodeId node) { return node != options_.self.node; });
    for (size_t i = 0; i < holders.size(); ++i) {
      stores.push_back({frozen.pages, frozen.version, frozen.config, StartStore(holders[i], store, deadline),
                        i + 1 == holders.size()});
    }
  }
  return stores;
}

// Every core holder has answered: those have the run's pages, but for the `failed` ones. Not if they are others by now: one that came
// meanwhile may have learned from these before they stored it.
absl::Status PageEngine::NoteStored(const Storing& run, const RowMask& failed, Epoch view) {
  if (failed.count() == run.pages.count) return absl::OkStatus();
  if (view != view_.epoch && !options_.bugs->acks_across_views) {
    return absl::AbortedError("others keep the page on disk by now");
  }
  for (uint64_t i = 0; i < run.pages.count; ++i) {
    if (failed.test(i)) continue;
    ++counters_.pages_flushed;
    given_away_.Flushed(run.pages.first + i, run.config, run.version);
    CachedPage* const cached = FindCached(run.pages.first + i);
    if (cached != nullptr) NoteFlushed(cached->entry, run.version, run.config);
  }
  return absl::OkStatus();
}

// At most kBlockPages pages, which are copied.
Task<absl::Status> PageEngine::FlushOwned(std::vector<PageId> pages, TimeNs deadline) {
  CHECK(pages.size() <= kBlockPages);
  absl::Status first;
  const auto note = [&first](const absl::Status& status) {
    if (!status.ok() && (first.ok() || absl::IsAborted(first))) first = status;
  };
  Freezes freezes = FreezeAll(pages);
  const Clock::TimerId limit = LimitFreezes(freezes, deadline);
  std::vector<Frozen> dirty = std::move(freezes.runs);
  for (auto& [page, freeze] : freezes.pages) dirty.push_back(co_await freeze.Get());
  clock_->Cancel(limit);
  std::erase_if(dirty, [&note](const Frozen& frozen) {
    note(frozen.status);
    if (frozen.status.ok() && frozen.replicas == 0) {
      note(absl::FailedPreconditionError(
          absl::StrCat("page ", ToString(frozen.pages.first), " is volatile: no disk holds it")));
    }
    return !frozen.status.ok() || frozen.replicas == 0 || frozen.data == nullptr;
  });
  std::erase_if(dirty, [this, &note](const Frozen& frozen) {
    const absl::Status disks = disks_.Check(frozen.pages.first, frozen.replicas);
    const bool is_soon = !disks.ok() && disks_.MayGet(frozen.pages.first, frozen.replicas);
    note(is_soon ? absl::AbortedError(disks.message()) : disks);
    return !disks.ok();
  });
  const Epoch view = view_.epoch;
  std::vector<Storing> stores = StoreAll(std::move(dirty), deadline);
  RowMask failed;
  for (Storing& store : stores) {
    const Stored stored = co_await store.outcome.Get();
    note(stored.first_error);
    failed |= stored.failed;
    if (!store.last) continue;
    note(NoteStored(store, failed, view));
    failed.reset();
  }
  co_return first;
}

// Some blocks at a time: while what this node owns of one is on its way to the disks, that of the next is frozen.
Task<absl::Status> PageEngine::Flush(PageRange range, TimeNs deadline, SayLost say) {
  const GivenAway::UnderWay under_way = given_away_.BeginFlush(range);
  std::deque<Outcome<absl::Status>> blocks;
  absl::Status status = CheckQuorum(range.first);
  for (uint64_t done = 0; status.ok() && done < range.count;) {
    if (blocks.size() == kFlushesAtOnce) {
      status = co_await blocks.front().Get();
      blocks.pop_front();
      if (status.ok()) status = CheckGoesOn("flushed", range, done, deadline);
      continue;
    }
    const PageRange block = BlockOf(range, done);
    done += block.count;
    if (OwnsSome(block)) {
      Outcome<absl::Status>& flushed = blocks.emplace_back(clock_);
      Spawn<absl::Status>(FlushPages(block, deadline),
                          [flushed](absl::Status s) mutable { flushed.Set(std::move(s)); });
    } else {
      status = co_await FlushOthers(block, deadline);
      // How far it came, besides whom it waited for at that moment.
      const absl::Status late = CheckGoesOn("flushed", range, done - block.count, deadline);
      if (absl::IsUnavailable(status) && absl::IsDeadlineExceeded(late) && block.count < range.count) {
        status = absl::DeadlineExceededError(absl::StrCat(late.message(), "; ", status.message()));
      }
    }
    if (!status.ok() || done == range.count) break;
    co_await YieldTo(clock_);
    status = CheckGoesOn("flushed", range, done, deadline);
  }
  for (Outcome<absl::Status>& block : blocks) {
    const absl::Status last = co_await block.Get();
    if (status.ok()) status = last;
  }
  // With a lease now, this node was in the view all the time: nobody has taken over what it went by.
  if (status.ok()) status = co_await WaitForLeaseOn(range.first, deadline);
  co_return given_away_.EndFlush(under_way, status, say);
}

bool PageEngine::OwnsSome(PageRange block) const {
  for (uint64_t i = 0; i < block.count; ++i) {
    const CachedPage* cached = FindCached(block.first + i);
    if (cached != nullptr && cached->entry.IsOwner()) return true;
  }
  return false;
}

// In a large range most of what this node does not own has nothing to flush: one question to the responsible node settles
// that for a block.
Task<absl::Status> PageEngine::FlushOthers(PageRange block, TimeNs deadline) {
  constexpr uint64_t kWorthAsking = 8;
  if (block.count >= kWorthAsking && !stopped_) {
    const absl::Status located = co_await Locate(block.first, deadline);
    if (!located.ok()) co_return located;
    const Message answer = co_await AskToFlush(block, deadline).Get();
    if (answer.code != absl::StatusCode::kAborted) co_return answer.status();
  }
  const absl::Status status = co_await FlushPages(block, deadline);
  co_return status;
}

Outcome<Message> PageEngine::AskToFlush(PageRange block, TimeNs deadline) {
  Message ask;
  ask.kind = MessageKind::kFlush;
  ask.page = block.first;
  ask.count = block.count;
  return StartCall(ResponsibleFor(block.first), std::move(ask), deadline, 5 * options_.resend_after);
}

Task<absl::Status> PageEngine::FlushPages(PageRange block, TimeNs deadline) {
  DurationNs pause = kFlushAgain;
  std::vector<PageId> left;
  for (uint64_t i = 0; i < block.count; ++i) left.push_back(block.first + i);
  while (!left.empty()) {
    if (stopped_) co_return stopped_status_;
    const absl::Status located = co_await Locate(block.first, deadline);
    if (!located.ok()) co_return located;
    std::vector<PageId> owned;
    std::vector<std::pair<PageId, Outcome<Message>>> others;
    {
      Turn turn(this);
      for (PageId page : left) {
        const CachedPage* cached = FindCached(page);
        if (cached != nullptr && cached->entry.IsOwner()) {
          owned.push_back(page);
        } else {
          others.emplace_back(page, AskToFlush({page, 1}, deadline));
        }
      }
    }
    left.clear();
    absl::Status first;
    absl::Status again;
    if (!owned.empty()) {
      const absl::Status status = co_await FlushOwned(owned, deadline);
      if (absl::IsAborted(status)) {
        left = owned;  // One moved away meanwhile, or its disks changed; those that are done are clean.
        again = status;
      } else {
        first = status;
      }
    }
    for (auto& [page, outcome] : others) {
      const Message answer = co_await outcome.Get();
      if (answer.code == absl::StatusCode::kAborted) {
        left.push_back(page);
        again = answer.status();
      } else if (first.ok()) {
        first = answer.status();
      }
    }
    if (!first.ok()) co_return first;
    if (left.empty()) break;
    if (clock_->Now() >= deadline) {
      co_return absl::UnavailableError(absl::StrCat("page ", ToString(left.front()),
                                                    " could not be flushed in time: ", again.message(), "; try again"));
    }
    co_await SleepUntil(clock_, clock_->Now() + pause);
    pause = std::min(2 * pause, kFlushSeldom);
  }
  co_return absl::OkStatus();
}

// What of a page only this node has: its own dirty copy, or one that it gave up and may get back.
bool PageEngine::HoldsUnflushed(PageId page) const {
  const CachedPage* cached = FindCached(page);
  if (cached == nullptr || cached->entry.replicas == 0) return false;
  const auto& retained = cached->entry.retained;
  return cached->entry.IsDirty() || (retained && retained->owner && retained->version != retained->flushed);
}

Task<absl::Status> PageEngine::FlushAll(TimeNs deadline) {
  const absl::Status stopped = co_await peer_eviction_.StopTaking(deadline);
  if (!stopped.ok()) co_return stopped;
  const std::vector<PageId> all = SortedPages([this](PageId page) { return HoldsUnflushed(page); });
  absl::Status first;
  for (size_t begin = 0; begin < all.size(); begin += kBlockPages) {
    std::vector<PageId> some(all.begin() + begin, all.begin() + std::min(begin + kBlockPages, all.size()));
    const absl::Status status = co_await FlushUnlessGone(std::move(some), deadline);
    if (first.ok()) first = status;
  }
  co_return first;
}

// A page that was not flushed since it moves is another node's only when it has arrived there.
Task<absl::Status> PageEngine::FlushUnlessGone(std::vector<PageId> pages, TimeNs deadline) {
  while (true) {
    absl::Status status = co_await FlushOwned(pages, deadline);
    if (!absl::IsAborted(status)) co_return status;
    std::erase_if(pages, [this](PageId page) { return !HoldsUnflushed(page); });
    if (pages.empty()) co_return absl::OkStatus();
    if (stopped_ || clock_->Now() >= deadline) {
      co_return absl::UnavailableError(
          absl::StrCat("page ", ToString(pages.front()),
                       " was not flushed, and has not arrived at another node: ", status.message()));
    }
    co_await SleepUntil(clock_, clock_->Now() + kMillisecond);
  }
}

// As the owner, for the node that the message names.
void PageEngine::FlushForOther(const Message& message) {
  Message answer;
  answer.kind = MessageKind::kFlushed;
  answer.page = message.page;
  answer.request = message.request;
  const TimeNs deadline = clock_->Now() + 2 * kSecond;
  Spawn<absl::Status>(FlushOwned({message.page}, deadline),
                      [this, answer, to = message.peer.node, alive = alive_](absl::Status status) mutable {
                        if (!*alive) return;
                        Turn turn(this);
                        answer.SetStatus(status);
                        Post(to, std::move(answer));
                      });
}

}  // namespace mangrove
