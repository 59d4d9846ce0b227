#include <algorithm>

#include "fs/instance.h"

namespace mangrove::fs {
namespace {

// How long a count does: a while, and so long that counting takes a small part of the time.
constexpr int64_t kLeastNs = 1'000'000'000;
constexpr int64_t kTimesItsOwn = 20;

}  // namespace

Task<absl::StatusOr<Usage>> Instance::UsageNow() {
  absl::StatusOr<Usage> usage = co_await GetQuota(pages_);
  if (!usage.ok() || usage->is_counted) co_return usage;
  const int64_t begin = pages_->NowNs();
  if (begin >= counted_until_ns_) {
    const absl::StatusOr<Usage> counted = co_await GetUsage(pages_);
    if (!counted.ok()) co_return counted;
    counted_ = counted->used;
    const int64_t end = pages_->NowNs();
    counted_until_ns_ = end + std::max(kLeastNs, kTimesItsOwn * (end - begin));
  }
  usage->used = counted_;
  co_return usage;
}

Task<absl::StatusOr<Space>> Instance::GetSpace() {
  absl::StatusOr<Space> space = co_await pages_->GetSpace();
  if (!space.ok()) co_return space;
  const absl::StatusOr<Usage> usage = co_await UsageNow();
  if (!usage.ok()) co_return usage.status();
  const auto left = [&](Counted kind) {
    const uint64_t limit = usage->limit(kind);
    return limit - std::min(limit, usage->count(kind));
  };
  if (const uint64_t limit = usage->limit(Counted::kPages); limit != 0) {
    space->total_pages = limit;
    space->available_pages = std::min(space->free_pages, left(Counted::kPages));
    space->free_pages = left(Counted::kPages);
  } else {
    space->available_pages = space->free_pages;
  }
  space->inodes = usage->count(Counted::kInodes);
  space->free_inodes = usage->limit(Counted::kInodes) != 0 ? left(Counted::kInodes) : space->free_pages;
  co_return space;
}

}  // namespace mangrove::fs
