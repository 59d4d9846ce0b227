// Locks on pages and views of them, for every implementation of Region.

#include <utility>

#include "engine/mangrove.h"
#include "net/check.h"

namespace mangrove {

absl::StatusOr<PageView> Region::Access(uint64_t offset, uint64_t length, AccessMode mode, int64_t timeout_ms) {
  const bool write = mode == AccessMode::kWrite;
  auto lock = Lock(offset, length, write ? LockMode::kExclusive : LockMode::kShared, timeout_ms);
  if (absl::IsUnavailable(lock.status()) && !write) {
    // Nobody is locked out by a node without quorum; what it has can be looked at all the same.
    const auto stale = StaleViewAddress(offset, length);
    if (!stale.ok()) return lock.status();
    PageView view;
    view.region_ = shared_from_this();
    view.bytes_ = {*stale, length};
    return view;
  }
  if (!lock.ok()) return lock.status();
  auto address = ViewAddress(offset, length);
  if (!address.ok()) return address.status();
  PageView view;
  view.region_ = std::move(lock->region_);
  view.lock_id_ = lock->lock_id_;
  view.bytes_ = {*address, length};
  view.writable_ = write;
  return view;
}

absl::StatusOr<PageLock> Region::Lock(uint64_t offset, uint64_t length, LockMode mode, int64_t timeout_ms) {
  auto lock_id = LockPages(offset, length, mode, timeout_ms);
  if (!lock_id.ok()) return lock_id.status();
  PageLock lock;
  lock.region_ = shared_from_this();
  lock.lock_id_ = *lock_id;
  return lock;
}

PageView::PageView(PageView&& other) noexcept
    : region_(std::move(other.region_)),
      bytes_(std::exchange(other.bytes_, {})),
      lock_id_(std::exchange(other.lock_id_, 0)),
      writable_(std::exchange(other.writable_, false)) {}

PageView& PageView::operator=(PageView&& other) noexcept {
  if (this == &other) return *this;
  Release().IgnoreError();
  region_ = std::move(other.region_);
  bytes_ = std::exchange(other.bytes_, {});
  lock_id_ = std::exchange(other.lock_id_, 0);
  writable_ = std::exchange(other.writable_, false);
  return *this;
}

PageView::~PageView() { Release().IgnoreError(); }

std::span<std::byte> PageView::mutable_bytes() {
  CHECK(writable_);
  return bytes_;
}

absl::Status PageView::Release() {
  const std::shared_ptr<Region> region = std::move(region_);
  bytes_ = {};
  writable_ = false;
  const uint64_t lock_id = std::exchange(lock_id_, 0);
  return region == nullptr || lock_id == 0 ? absl::OkStatus() : region->UnlockPages(lock_id);
}

PageLock::PageLock(PageLock&& other) noexcept
    : region_(std::move(other.region_)), lock_id_(std::exchange(other.lock_id_, 0)) {}

PageLock& PageLock::operator=(PageLock&& other) noexcept {
  if (this == &other) return *this;
  Release().IgnoreError();
  region_ = std::move(other.region_);
  lock_id_ = std::exchange(other.lock_id_, 0);
  return *this;
}

PageLock::~PageLock() { Release().IgnoreError(); }

absl::Status PageLock::Release() {
  const std::shared_ptr<Region> region = std::move(region_);
  return region == nullptr ? absl::OkStatus() : region->UnlockPages(std::exchange(lock_id_, 0));
}

}  // namespace mangrove
