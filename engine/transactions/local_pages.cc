#include "engine/transactions/local_pages.h"

#include <utility>

#include "net/check.h"

namespace mangrove {

LocalPages::Page* LocalPages::Find(PageId page) {
  const auto it = pages_.find(page);
  return it == pages_.end() ? nullptr : it->second.get();
}

// P3
bool LocalPages::IsOverdue(PageId page, const Page& local) const {
  const DurationNs tenure = clock_->Now() - local.since;
  return tenure > kMostTenure || (tenure > kTenure && all_->IsLockAwaited(page));
}

bool LocalPages::Take(PageId page, uint64_t transaction, LockMode mode) {
  Page& local = *pages_.at(page);
  if (IsOverdue(page, local)) return false;
  if (local.writer != 0 && local.writer != transaction) return false;  // P2
  if (mode == LockMode::kShared) {
    if (local.writer == 0) local.readers.insert(transaction);
    return true;
  }
  const bool is_sole_reader = local.readers.size() == 1 && local.readers.contains(transaction);
  if (!local.readers.empty() && !is_sole_reader) return false;
  local.readers.clear();
  local.writer = transaction;
  return true;
}

Task<bool> LocalPages::Wait(PageId page, TimeNs deadline) {
  const std::shared_ptr<Page> local = pages_.at(page);
  const bool woken = co_await local->changed.Wait(deadline);
  co_return woken;
}

void LocalPages::Leave(PageId page, uint64_t transaction) {
  Page* const local = Find(page);
  if (local == nullptr) return;
  if (local->writer == transaction) local->writer = 0;
  local->readers.erase(transaction);
  local->changed.WakeAll();
  GiveUpIfIdle(page);
}

LocalPages::Page* LocalPages::Add(PageId page, uint64_t transaction, HeldPages lock) {
  auto local = std::make_shared<Page>(clock_);
  local->lock = std::move(lock);
  local->writer = transaction;
  local->since = clock_->Now();
  CHECK(pages_.emplace(page, local).second);
  return local.get();
}

void LocalPages::Applied(PageId page) {
  Page* const local = Find(page);
  if (local == nullptr) return;  // The node ends.
  CHECK(local->pending > 0);
  --local->pending;
  GiveUpIfIdle(page);
}

void LocalPages::Clear() {
  for (auto& [page, local] : std::exchange(pages_, {})) local->changed.WakeAll();
}

void LocalPages::GiveUpIfIdle(PageId page) {
  const auto it = pages_.find(page);
  if (it == pages_.end()) return;
  const std::shared_ptr<Page> local = it->second;
  if (local->pending > 0 || local->writer != 0 || !local->readers.empty()) return;
  pages_.erase(it);
  local->lock.Release();  // Who waits still has the rest of it.
  local->changed.WakeAll();
}

}  // namespace mangrove
