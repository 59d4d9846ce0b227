// Deletes what a disk has of pages that it does not keep any more (U7).

#include <utility>
#include <vector>

#include "engine/catch_up.h"
#include "engine/page_engine.h"

namespace mangrove {
namespace {

constexpr size_t kTrimsAtOnce = 512;  // Pages that are looked at, and deleted together.

}  // namespace

// Where this disk lacks something, that comes first.
void CatchUp::TrimIfDue() {
  const View& view = engine_->view_;
  const bool is_other = view.move.value != 0 || view.disks != disks_then_ || view.weights != weights_then_;
  disks_then_ = view.disks;
  weights_then_ = view.weights;
  trim_due_ = trim_due_ || is_other;
  if (!goal_.empty() || view.move.value != 0 || !trim_due_) return;
  if (trimming_) {
    trim_again_ = true;
    return;
  }
  trimming_ = true;
  trim_due_ = false;
  Spawn<absl::Status>(Trim(), [this, alive = engine_->alive_](const absl::Status& status) {
    if (!*alive) return;
    trimming_ = false;
    if (!status.ok()) {
      LogDebug("deleting what is kept elsewhere has ended: ", status.message());
      trim_due_ = true;  // With the next view.
    }
    if (std::exchange(trim_again_, false)) TrimIfDue();
  });
}

Task<absl::Status> CatchUp::Trim() {
  PageId next;
  do {
    const absl::Status status = co_await TrimFrom(next, &next);
    if (!status.ok()) co_return status;
  } while (next != PageId{});
  co_return absl::OkStatus();
}

Task<absl::Status> CatchUp::TrimFrom(PageId from, PageId* next) {
  const PageId first = FirstKept(from);
  *next = PageId{};
  if (first == PageId{}) co_return absl::OkStatus();
  const absl::uint128 count = kSpacePages - first.value;
  const PageRange range{first, static_cast<uint64_t>(std::min<absl::uint128>(count, UINT64_MAX))};
  auto [listed, list_done] = Await<absl::StatusOr<PageList>>();
  engine_->store_->ListPages(range, kTrimsAtOnce, PageStore::Listed::kAll, std::move(list_done));
  const absl::StatusOr<PageList> list = co_await listed.Get();
  if (!list.ok()) co_return list.status();
  if (engine_->stopped_) co_return engine_->stopped_status_;
  // As it is now; what is stored from here on is written behind the deletion.
  if (!goal_.empty() || engine_->view_.move.value != 0) co_return absl::AbortedError("this disk is to get pages");
  std::vector<PageId> pages;
  for (const StoredPage& stored : list->pages) {
    const Extent* const extent = engine_->core_.Find(stored.page);
    if (extent == nullptr || extent->is_volatile) continue;
    if (!engine_->disks_.Stores(engine_->options_.self.node, stored.page, extent->replicas)) {
      pages.push_back(stored.page);
    }
  }
  if (!pages.empty()) {
    auto [deleted, delete_done] = Await<absl::Status>();
    engine_->core_.DeletePages(pages, std::move(delete_done));
    const absl::Status status = co_await deleted.Get();
    if (!status.ok()) co_return status;
    progress_.pages_trimmed += pages.size();
  }
  *next = list->next;
  co_return absl::OkStatus();
}

}  // namespace mangrove
