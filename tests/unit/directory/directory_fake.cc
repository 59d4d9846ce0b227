#include "tests/unit/directory/directory_fake.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mangrove::directory_test {

PageId FakeSpace::NewPageOf(NodeId node) {
  if (!retired.empty() && random.PerMille(700)) {
    const PageRef ref = retired[random.Below(retired.size())];
    if (ref.responsible == node && !pages.contains(ref.page.value)) return ref.page;
  }
  return PageId(next_page++);
}

Task<absl::StatusOr<FakePage*>> FakeAccess::Reach(PageRef ref, TimeNs deadline) {
  co_await SleepUntil(space_->clock, space_->clock->Now() + space_->Delay());
  if (space_->Fails()) co_return absl::UnavailableError("no luck");
  while (true) {
    if (dead_) co_return IsDead();
    const auto at = space_->pages.find(ref.page.value);
    const bool lost = at == space_->pages.end() || at->second.content == nullptr;
    if (lost && ref != FakeSpace::kRoot) co_return absl::DataLossError(absl::StrCat(ToString(ref), " is lost"));
    if (lost && space_->on_lost_root) space_->on_lost_root();
    if (!lost && at->second.lock == 0) co_return &at->second;
    if (space_->clock->Now() >= deadline) co_return absl::DeadlineExceededError(absl::StrCat("for ", ToString(ref)));
    co_await SleepUntil(space_->clock, space_->clock->Now() + 1 + space_->Delay());
  }
}

Task<absl::StatusOr<PageBuffer>> FakeAccess::Read(PageRef ref, TimeNs deadline) {
  const absl::StatusOr<FakePage*> page = co_await Reach(ref, deadline);
  if (!page.ok()) co_return page.status();
  (*page)->cached_by.insert(this);
  PageBuffer content = (*page)->content;
  co_await SleepUntil(space_->clock, space_->clock->Now() + space_->Delay());
  if (dead_) co_return IsDead();
  co_return content;
}

Task<absl::StatusOr<uint64_t>> FakeAccess::Lock(PageRef ref, TimeNs deadline) {
  const absl::StatusOr<FakePage*> page = co_await Reach(ref, deadline);
  if (!page.ok()) co_return page.status();
  const uint64_t lock = ++space_->next_lock;
  (*page)->lock = lock;
  (*page)->cached_by.clear();
  space_->locked.emplace(lock, ref.page.value);
  locks_.insert(lock);
  most_locks_ = std::max(most_locks_, locks_.size());
  co_await SleepUntil(space_->clock, space_->clock->Now() + space_->Delay());
  if (dead_) co_return IsDead();
  co_return lock;
}

PageBuffer FakeAccess::LoadLocked(uint64_t lock) {
  CHECK(!dead_ && locks_.contains(lock));
  return space_->pages.at(space_->locked.at(lock)).content;
}

void FakeAccess::StoreLocked(uint64_t lock, const PageBytes& content) {
  if (dead_) return;
  CHECK(locks_.contains(lock));
  FakePage& page = space_->pages.at(space_->locked.at(lock));
  page.content = std::make_shared<PageBytes>(content);
  page.last_writer = node_;
  ++space_->stores;
}

Task<absl::StatusOr<PageRef>> FakeAccess::Create(const PageBytes& content, TimeNs deadline) {
  co_await SleepUntil(space_->clock, space_->clock->Now() + space_->Delay());
  if (dead_) co_return IsDead();
  if (space_->Fails()) co_return absl::UnavailableError("no luck");
  if (space_->clock->Now() >= deadline) co_return absl::DeadlineExceededError("for a new page");
  const PageId id = space_->NewPageOf(node_);
  FakePage& page = space_->pages[id.value];
  page.content = std::make_shared<PageBytes>(content);
  page.last_writer = node_;
  page.cached_by.insert(this);
  co_await SleepUntil(space_->clock, space_->clock->Now() + space_->Delay());
  if (dead_) co_return IsDead();
  co_return PageRef{id, node_};
}

void FakeAccess::Retire(PageRef ref) {
  CHECK(ref != FakeSpace::kRoot);
  if (dead_) return;
  space_->clock->CallAt(space_->clock->Now() + space_->Delay(), [space = space_, ref] {
    const auto at = space->pages.find(ref.page.value);
    if (at == space->pages.end() || at->second.lock != 0) return;
    space->pages.erase(at);
    space->retired.push_back(ref);
  });
}

}  // namespace mangrove::directory_test
