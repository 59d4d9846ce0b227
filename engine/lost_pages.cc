#include "engine/lost_pages.h"

#include <algorithm>
#include <utility>

#include "net/log.h"

namespace mangrove {
namespace {

constexpr uint64_t kLooksAtOnce = 512;  // At segments; then others run.
constexpr int64_t kRest = 10;           // Times as long as a look took, before the next.
constexpr size_t kListedAtOnce = 4096;

absl::Status Changed() { return absl::AbortedError("the view is another one, or this node ends"); }

}  // namespace

LostPages::LostPages(NodeId self, Clock* clock, PageEngine* engine, PageStore* store, AskLearned ask)
    : self_(self), clock_(clock), engine_(engine), store_(store), ask_(std::move(ask)) {
  LookLater();
}

LostPages::~LostPages() {
  *alive_ = false;
  clock_->Cancel(timer_);
}

void LostPages::LookLater() {
  timer_ = clock_->CallAt(clock_->Now() + kLookAgain, [this] {
    Look();
    LookLater();
  });
}

bool LostPages::Counts() const { return engine_->disks().IsCurrent(self_); }

bool LostPages::IsFirst(PageId page, uint32_t replicas) const {
  const std::vector<NodeId> current = engine_->disks().Current(page, replicas);
  return !current.empty() && current.front() == self_;
}

LostPages::Suspects LostPages::FindSuspects() const {
  const CoreHolder& core = engine_->core_holder();
  Suspects suspects;
  for (const auto& [first, extent] : core.extents()) {
    if (extent.learned && !extent.is_volatile && !TouchesSystemPages(extent.range)) suspects.learned.push_back(extent);
  }
  for (const auto& [page, version] : core.lost()) {
    const Extent* const extent = core.Find(page);
    if (extent == nullptr) continue;
    if (!extent->learned || TouchesSystemPages(extent->range)) suspects.marked.push_back(page);
  }
  return suspects;
}

void LostPages::Look() {
  const TimeNs now = clock_->Now();
  if (looking_ || now < not_before_) return;
  if (!Counts()) return found_.reset();
  Suspects suspects = FindSuspects();
  if (suspects.learned.empty() && suspects.marked.empty()) {
    found_ = RangeSummary(kMostRanges);
    said_ = 0;
    return;
  }
  looking_ = true;
  Spawn<absl::StatusOr<RangeSummary>>(
      Scan(std::move(suspects)), [this, now, alive = alive_](absl::StatusOr<RangeSummary> lost) {
        if (!*alive) return;
        looking_ = false;
        not_before_ = clock_->Now() + kRest * (clock_->Now() - now);
        if (!lost.ok()) return found_.reset();
        found_ = *std::move(lost);
        if (found_->pages() > said_) {
          LogWarning(found_->pages(),
                     " pages are lost, no disk has them any more; the first: ", ToString(found_->first().front()));
        }
        said_ = found_->pages();
      });
}

Task<absl::StatusOr<RangeSummary>> LostPages::Scan(Suspects suspects) {
  RangeSummary lost(kMostRanges);
  const Epoch view = engine_->view().epoch;
  for (PageId page : suspects.marked) {
    const Extent* const extent = engine_->core_holder().Find(page);
    if (extent != nullptr && IsFirst(page, extent->replicas)) lost.Add({page, 1});
  }
  for (const Extent& extent : suspects.learned) {
    const absl::Status status = co_await ScanExtent(extent, view, lost);
    if (!status.ok()) co_return status;
  }
  co_return lost;
}

// Of the other current disks, those that have the extent as one that was not learned: where one of these keeps a page, it knows of it.
Task<absl::StatusOr<std::set<NodeId>>> LostPages::WhoKnows(Extent extent, Epoch view) {
  std::set<NodeId> know;
  const std::vector<NodeId> disks = engine_->disks().All(extent.range.first);
  for (NodeId node : disks) {
    if (node == self_ || !engine_->disks().IsCurrent(node)) continue;
    const std::shared_ptr<bool> alive = alive_;
    const absl::StatusOr<bool> learned = co_await ask_(node, extent.range.first);
    if (!*alive) co_return Changed();
    if (!learned.ok()) co_return learned.status();
    if (view != engine_->view().epoch) co_return Changed();
    if (!*learned) know.insert(node);
  }
  co_return know;
}

Task<absl::Status> LostPages::ScanExtent(Extent extent, Epoch view, RangeSummary& lost) {
  const absl::StatusOr<std::set<NodeId>> know = co_await WhoKnows(extent, view);
  if (!know.ok()) co_return know.status();
  const std::shared_ptr<bool> alive = alive_;
  for (PageId page = extent.range.first; page < extent.range.end();) {
    const PageId end = std::min(extent.range.end(), SegmentStart(page) + kSegmentPages);
    const std::vector<NodeId> current = engine_->disks().Current(page, extent.replicas);
    const bool is_first = !current.empty() && current.front() == self_;
    const bool is_known = std::any_of(current.begin(), current.end(), [&](NodeId n) { return know->contains(n); });
    if (is_first && is_known) {
      const std::map<PageId, Version>& marked = engine_->core_holder().lost();
      for (auto it = marked.lower_bound(page); it != marked.end() && it->first < end; ++it) lost.Add({it->first, 1});
    } else if (is_first) {
      absl::Status status = co_await AddUnrecorded(extent, {page, end - page}, view, lost);
      if (!status.ok()) co_return status;
    }
    page = end;
    if (++looks_ % kLooksAtOnce != 0) continue;
    co_await YieldTo(clock_);
    if (!*alive || view != engine_->view().epoch) co_return Changed();
  }
  co_return absl::OkStatus();
}

// L2; and L1 of pages there.
Task<absl::Status> LostPages::AddUnrecorded(Extent extent, PageRange part, Epoch view, RangeSummary& lost) {
  const std::shared_ptr<bool> alive = alive_;
  PageId next = part.first;
  while (next < part.end()) {
    Outcome<absl::StatusOr<PageList>> outcome(clock_);
    store_->ListPages({next, part.end() - next}, kListedAtOnce, PageStore::Listed::kAll,
                      [outcome](absl::StatusOr<PageList> list) mutable { outcome.Set(std::move(list)); });
    const absl::StatusOr<PageList> list = co_await outcome.Get();
    if (!*alive || view != engine_->view().epoch) co_return Changed();
    if (!list.ok()) co_return list.status();
    const PageId end = list->next == PageId{} ? part.end() : list->next;
    for (const StoredPage& stored : list->pages) {
      // A corrupt one another disk may have.
      const bool counts = stored.config == extent.config || stored.version == Version{};
      if (!counts || engine_->core_holder().lost().contains(stored.page)) continue;
      lost.Add({next, stored.page - next});
      next = stored.page + 1;
    }
    lost.Add({next, end - next});
    next = end;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
