// Makes pages durable: freeze what is here, store it on every core holder, and ask the owners of the rest to do so.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {

// Ends every writing of the page under its present version, and copies it. Aborted: this node is not its owner.
Outcome<PageEngine::Frozen> PageEngine::Freeze(PageId page) {
  Outcome<Frozen> outcome(clock_);
  if (FindCached(page) == nullptr) {
    outcome.Set({.status = absl::AbortedError("not the owner"), .page = page, .data = nullptr});
    return outcome;
  }
  WithPage(page, [this, page, outcome]() mutable {
    CachedPage& cached = Cached(page);
    if (!cached.entry.IsOwner()) {
      outcome.Set({.status = absl::AbortedError("not the owner"), .page = page, .data = nullptr});
      return;
    }
    if (cached.entry.open) {
      cached.entry.open = false;
      cached.effects.push_back({.kind = CacheEffect::Kind::kProtect, .to = {}, .message = {}, .data = {}});
    }
    // Runs when the protection is done.
    cached.events.push_front([this, page, outcome]() mutable {
      const CacheEntry& e = Cached(page).entry;
      Frozen frozen{.status = absl::OkStatus(),
                    .page = page,
                    .version = e.version,
                    .config = e.config,
                    .replicas = e.replicas,
                    .data = nullptr};
      if (e.IsDirty()) frozen.data = memory_->Copy(page);
      outcome.Set(std::move(frozen));
    });
  });
  return outcome;
}

Task<absl::Status> PageEngine::FlushOwned(std::vector<PageId> pages, TimeNs deadline) {
  std::vector<Outcome<Frozen>> freezes;
  {
    Turn turn(this);
    for (PageId page : pages) freezes.push_back(Freeze(page));
  }
  absl::Status first;
  struct Stored {
    PageId page;
    Version version;
    ConfigNumber config;
    Outcome<Message> outcome;
    bool last;
  };
  std::vector<Stored> stores;
  for (Outcome<Frozen>& freeze : freezes) {
    Frozen frozen = co_await freeze.Get();
    if (frozen.status.ok() && frozen.replicas == 0) {
      frozen.status =
          absl::FailedPreconditionError(absl::StrCat("page ", ToString(frozen.page), " is volatile: no disk holds it"));
    }
    if (!frozen.status.ok()) {
      if (first.ok() || absl::IsAborted(first)) first = frozen.status;
      continue;
    }
    if (frozen.data == nullptr) continue;  // Clean.
    Message store;
    store.kind = MessageKind::kStore;
    store.page = frozen.page;
    store.version = frozen.version;
    store.config = frozen.config;
    store.replicas = frozen.replicas;
    store.data = std::move(frozen.data);
    Turn turn(this);
    std::vector<NodeId> holders = locator_->CoreHolders(frozen.page, frozen.replicas);
    if (options_.bugs && options_.bugs->flush_one_holder) holders.resize(1);
    for (size_t i = 0; i < holders.size(); ++i) {
      stores.push_back({frozen.page, frozen.version, frozen.config,
                        StartCall(holders[i], store, deadline, 10 * options_.resend_after), i + 1 == holders.size()});
    }
  }
  bool all = true;
  for (Stored& store : stores) {
    const Message answer = co_await store.outcome.Get();
    const absl::Status status = answer.status();
    if (!status.ok()) all = false;
    if (!status.ok() && (first.ok() || absl::IsAborted(first))) first = status;
    if (!store.last) continue;
    if (all) {
      ++counters_.pages_flushed;
      if (FindCached(store.page) != nullptr) NoteFlushed(Cached(store.page).entry, store.version, store.config);
    }
    all = true;
  }
  co_return first;
}

Task<absl::Status> PageEngine::Flush(PageRange range, TimeNs deadline) {
  std::vector<PageId> left;
  for (uint64_t i = 0; i < range.count; ++i) left.push_back(range.first + i);
  while (!left.empty()) {
    if (stopped_) co_return absl::UnavailableError(absl::StrCat(ToString(options_.self.node), " is shutting down"));
    std::vector<PageId> owned;
    std::vector<std::pair<PageId, Outcome<Message>>> others;
    {
      Turn turn(this);
      for (PageId page : left) {
        const CachedPage* cached = FindCached(page);
        if (cached != nullptr && cached->entry.IsOwner()) {
          owned.push_back(page);
        } else {
          Message ask;
          ask.kind = MessageKind::kFlush;
          ask.page = page;
          others.emplace_back(
              page, StartCall(locator_->Responsible(page), std::move(ask), deadline, 5 * options_.resend_after));
        }
      }
    }
    left.clear();
    absl::Status first;
    if (!owned.empty()) {
      const absl::Status status = co_await FlushOwned(owned, deadline);
      if (absl::IsAborted(status)) {
        left = owned;  // One moved away meanwhile; those that are done are clean.
      } else {
        first = status;
      }
    }
    for (auto& [page, outcome] : others) {
      const Message answer = co_await outcome.Get();
      if (answer.code == absl::StatusCode::kAborted) {
        left.push_back(page);
      } else if (first.ok()) {
        first = answer.status();
      }
    }
    if (!first.ok()) co_return first;
    if (left.empty()) break;
    if (clock_->Now() >= deadline) {
      co_return absl::UnavailableError(
          absl::StrCat("page ", ToString(left.front()), " moves too fast between nodes to be flushed; try again"));
    }
    co_await SleepUntil(clock_, clock_->Now() + kMillisecond);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> PageEngine::FlushAll(TimeNs deadline) {
  constexpr size_t kPagesAtOnce = 256;
  const std::vector<PageId> all = SortedPages([this](PageId page) {
    const CacheEntry& entry = FindCached(page)->entry;
    return entry.IsDirty() && entry.replicas > 0;
  });
  absl::Status first;
  for (size_t begin = 0; begin < all.size(); begin += kPagesAtOnce) {
    const std::vector<PageId> some(all.begin() + begin, all.begin() + std::min(begin + kPagesAtOnce, all.size()));
    const absl::Status status = co_await FlushOwned(some, deadline);
    if (first.ok() && !absl::IsAborted(status)) first = status;
  }
  co_return first;
}

// As the owner, for the node that the message names.
void PageEngine::FlushForOther(const Message& message, NodeInstance from) {
  if (from.node != locator_->Responsible(message.page)) return;
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
