#include "tests/sim/old_pages.h"

#include <memory>
#include <utility>

#include "engine/page_turn.h"

namespace mangrove {

void OldPages::Take(PageEngine& engine, sim::SimMemory& memory) {
  pages_.clear();
  for (const PageId page : engine.SortedPages([](PageId p) { return !IsRamDirectoryPage(p); })) {
    const CachedPage& cached = *engine.FindCached(page);
    const CacheEntry& entry = cached.entry;
    const bool is_copy = entry.state == CacheState::kShared || entry.state == CacheState::kOwned;
    if (!is_copy || cached.carrying || entry.open || entry.IsPinned() || entry.IsWaiting() || entry.retained) continue;
    if (memory.RightsOf(page) != Rights::kRead) continue;
    auto data = std::make_shared<PageBytes>();
    memory.Load(page, 0, data->bytes);
    pages_[page] = {.state = entry.state,
                    .version = entry.version,
                    .flushed = entry.flushed,
                    .grant_epoch = entry.grant_epoch,
                    .config = entry.config,
                    .replicas = entry.replicas,
                    .data = std::move(data)};
  }
}

void OldPages::GiveBack(PageEngine& engine) {
  for (const auto& [page, old] : std::exchange(pages_, {})) {
    if (engine.FindCached(page) != nullptr) continue;
    engine.WithPage(page, [&old](CachedPage& cached) {
      CacheEntry& entry = cached.entry;
      entry.state = old.state;
      entry.version = old.version;
      entry.flushed = old.flushed;
      entry.grant_epoch = old.grant_epoch;
      entry.config = old.config;
      entry.replicas = old.replicas;
      cached.work->effects.push_back({.kind = CacheEffect::Kind::kInstall, .data = old.data});
    });
  }
}

}  // namespace mangrove
