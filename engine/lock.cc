// Page locks of local programs: pins that the cache's machine respects, with the same rules among local programs.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {

bool PageEngine::TryPin(PageId page, LockMode mode) {
  const Rights needed = mode == LockMode::kExclusive ? Rights::kWrite : Rights::kRead;
  if (!HasRights(page, needed)) return false;
  CacheEntry& e = Cached(page).entry;
  if (e.exclusive_pins > 0) return false;
  if (mode == LockMode::kShared) {
    ++e.shared_pins;
    return true;
  }
  if (e.shared_pins > 0) return false;
  ++e.exclusive_pins;
  return true;
}

void PageEngine::Unpin(PageId page, LockMode mode) {
  CachedPage& cached = Cached(page);
  mode == LockMode::kExclusive ? --cached.entry.exclusive_pins : --cached.entry.shared_pins;
  std::vector<Outcome<absl::Status>> waiters;
  if (cached.work != nullptr) waiters = std::exchange(cached.work->unlock_waiters, {});
  for (auto& waiter : waiters) waiter.Set(absl::OkStatus());
  Unblock(page);
}

// Until the page has been pinned. Its rights may go before that, and others may have it locked.
Task<absl::Status> PageEngine::WaitToPin(PageId page, LockMode mode, TimeNs deadline) {
  const Rights rights = mode == LockMode::kExclusive ? Rights::kWrite : Rights::kRead;
  while (!TryPin(page, mode)) {
    CachedPage* cached = FindCached(page);
    const bool here = HasRights(page, rights);  // Then another local program has it locked.
    if (clock_->Now() >= deadline) {
      if (!here) co_return TimeoutStatus(page, cached == nullptr ? NodeId{} : cached->entry.delayed_by, rights);
      co_return absl::DeadlineExceededError(
          absl::StrCat("page ", ToString(page), " is locked by another program of this node"));
    }
    absl::Status status;
    if (here) {
      Outcome<absl::Status> unlocked(clock_);
      WorkOf(*cached).unlock_waiters.push_back(unlocked);
      const Clock::TimerId timer = clock_->CallAt(deadline, [unlocked]() mutable { unlocked.Set(absl::OkStatus()); });
      status = co_await unlocked.Get();
      clock_->Cancel(timer);
      cached = FindCached(page);
      if (cached != nullptr && cached->work != nullptr) {
        std::erase_if(cached->work->unlock_waiters, [](const auto& waiter) { return waiter.IsSet(); });
        DropWorkIfOver(*cached);
      }
    } else {
      status = co_await AcquireBlock({page, 1}, rights, Purpose::kAhead, deadline);
    }
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Three quarters of the cache at most. With all of it locked nobody else would get a page in, nor would the log of transactions, for
// which those wait that hold the locks.
absl::Status PageEngine::CheckMayLock(uint64_t pages) const {
  const uint64_t most = options_.cache_pages - options_.cache_pages / 4;
  if (pages <= most && locks_.pages <= most - pages) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      pages, " pages cannot be locked: ", locks_.pages, " are locked on this node, and its cache has ",
      options_.cache_pages, ", of which three quarters may be; release locks, or give the node a larger cache"));
}

// In the order of the addresses, so that of two programs that lock overlapping ranges one gets all of its own.
Task<absl::StatusOr<uint64_t>> PageEngine::Lock(ClientId client, PageRange range, LockMode mode, TimeNs deadline) {
  const Rights rights = mode == LockMode::kExclusive ? Rights::kWrite : Rights::kRead;
  absl::Status status = CheckQuorum(range.first);
  if (status.ok()) status = CheckFits(range);
  uint64_t pinned = 0;
  locks_.pages += range.count;
  while (status.ok() && pinned < range.count) {
    const PageRange block = BlockOf(range, pinned);
    status = co_await AcquireBlock(block, rights, Purpose::kLock, deadline);
    while (status.ok() && range.first + pinned < block.end()) {
      const PageId page = range.first + pinned;
      if (!TryPin(page, mode)) status = co_await WaitToPin(page, mode, deadline);
      if (status.ok()) ++pinned;
    }
    if (!status.ok() || pinned == range.count) break;
    co_await YieldTo(clock_);
    status = CheckGoesOn("locked", range, pinned, HasRights(BlockOf(range, pinned), rights) ? kForever : deadline);
  }
  if (status.ok()) status = CheckQuorum(range.first);
  if (!status.ok()) {
    Turn turn(this);
    for (uint64_t i = 0; i < pinned; ++i) Unpin(range.first + i, mode);
    locks_.pages -= range.count;
    co_return status;
  }
  const uint64_t id = locks_.next++;
  locks_.all[id] = {client, range, mode};
  co_return id;
}

absl::Status PageEngine::Unlock(ClientId client, uint64_t lock_id) {
  const auto it = locks_.all.find(lock_id);
  if (it == locks_.all.end() || it->second.client != client) {
    return absl::NotFoundError(absl::StrCat("no lock ", lock_id, " of this program"));
  }
  const PageLockRecord lock = it->second;
  locks_.all.erase(it);
  locks_.pages -= lock.range.count;
  Turn turn(this);
  for (uint64_t i = 0; i < lock.range.count; ++i) Unpin(lock.range.first + i, lock.mode);
  return absl::OkStatus();
}

bool PageEngine::IsLockAwaited(PageId page) const {
  const CachedPage* const cached = FindCached(page);
  if (cached == nullptr) return false;
  return cached->entry.deferred.has_value() || (cached->work != nullptr && !cached->work->unlock_waiters.empty());
}

void PageEngine::EndClient(ClientId client) {
  std::vector<uint64_t> ids;
  for (const auto& [id, lock] : locks_.all) {
    if (lock.client == client) ids.push_back(id);
  }
  for (uint64_t id : ids) Unlock(client, id).IgnoreError();
}

}  // namespace mangrove
