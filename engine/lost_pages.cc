#include "engine/lost_pages.h"

#include <algorithm>
#include <utility>

#include "engine/loop_turn.h"
#include "net/log.h"

namespace mangrove {
namespace {

constexpr int64_t kRest = 10;  // Times as long as a look took, before the next.
constexpr size_t kListedAtOnce = 4096;

absl::Status Changed() { return absl::AbortedError("other disks count than before"); }
absl::Status Ends() { return absl::CancelledError("this node ends"); }

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

std::optional<RangeSummary> LostPages::found() const {
  if (!found_ || !Counts() || *found_on_ != FootingNow()) return std::nullopt;
  return found_;
}

// --- What it goes by --------------------------------------------------------------------------------------------------

LostPages::Footing LostPages::FootingNow() const {
  const View& view = engine_->view();
  Footing footing{.disks = view.disks, .weights = view.weights, .current = {}};
  for (const auto& [node, incarnation] : view.members) {
    if (engine_->disks().IsCurrent(node)) footing.current[node] = incarnation;
  }
  return footing;
}

std::shared_ptr<const LostPages::Footing> LostPages::Kept(std::shared_ptr<const Footing> known) const {
  Footing now = FootingNow();
  if (known != nullptr && *known == now) return known;
  return std::make_shared<const Footing>(std::move(now));
}

// Where the same disks keep pages as before, an extent is only concerned by what has become of those that keep its own.
bool LostPages::IsStale(const Scanned& scanned, const Footing& now) {
  const Footing& then = *scanned.on;
  if (&then == &now) return false;
  if (then.disks != now.disks || then.weights != now.weights) return true;
  const auto incarnation = [](const Footing& footing, NodeId node) {
    const auto found = footing.current.find(node);
    return found == footing.current.end() ? Incarnation() : found->second;
  };
  return std::any_of(scanned.holders.begin(), scanned.holders.end(),
                     [&](NodeId node) { return incarnation(then, node) != incarnation(now, node); });
}

// --- A look -----------------------------------------------------------------------------------------------------------

void LostPages::Look() {
  if (!Counts()) {
    not_before_ = 0;
    return found_.reset();
  }
  const TimeNs now = clock_->Now();
  const bool is_stale = found_on_ != nullptr && *found_on_ != FootingNow();
  if (looking_ || (now < not_before_ && !is_stale)) return;
  looking_ = true;
  Spawn<absl::StatusOr<RangeSummary>>(Scan(), [this, now, alive = alive_](absl::StatusOr<RangeSummary> lost) {
    if (*alive) OnLooked(now, std::move(lost));
  });
}

void LostPages::OnLooked(TimeNs began, absl::StatusOr<RangeSummary> lost) {
  looking_ = false;
  not_before_ = clock_->Now() + (lost.ok() ? kRest : 1) * (clock_->Now() - began);
  if (!lost.ok()) {
    found_on_ = std::make_shared<const Footing>(FootingNow());
    return found_.reset();
  }
  found_ = *std::move(lost);
  if (found_->pages() > said_) {
    LogWarning(found_->pages(),
               " pages are lost, no disk has them any more; the first: ", ToString(found_->first().front()));
  }
  said_ = found_->pages();
}

Task<LostPages::Suspects> LostPages::FindSuspects() {
  const std::shared_ptr<bool> alive = alive_;
  const CoreHolder& core = engine_->core_holder();
  Suspects suspects;
  LoopTurn turn(clock_);
  for (auto it = core.extents().begin(); it != core.extents().end();) {
    const Extent& extent = it->second;
    const bool is_suspect = extent.learned && !extent.is_volatile && !TouchesSystemPages(extent.range);
    if (is_suspect) suspects.learned.push_back(extent);
    ++it;
    if (!turn.IsOver() || it == core.extents().end()) continue;
    const auto next = it->first;
    co_await YieldTo(clock_);
    if (!*alive) co_return Suspects();
    turn.Begin();
    it = core.extents().lower_bound(next);
  }
  for (auto it = core.lost().begin(); it != core.lost().end();) {
    const PageId page = it->first;
    const Extent* const extent = core.Find(page);
    const bool is_apart = extent != nullptr && (!extent->learned || TouchesSystemPages(extent->range));
    if (is_apart) suspects.marked.push_back(page);
    ++it;
    if (!turn.IsOver() || it == core.lost().end()) continue;
    co_await YieldTo(clock_);
    if (!*alive) co_return Suspects();
    turn.Begin();
    it = core.lost().upper_bound(page);
  }
  co_return suspects;
}

// Pass by pass over what is not known, or not any more, until all is of the same disks.
Task<absl::StatusOr<RangeSummary>> LostPages::Scan() {
  const std::shared_ptr<bool> alive = alive_;
  const Suspects suspects = co_await FindSuspects();
  if (!*alive) co_return Ends();
  std::map<PageId, Scanned> scanned;
  absl::Status status = Changed();
  for (int pass = 0; pass < kMostPasses; ++pass) {
    size_t looked_at = 0;
    status = co_await Pass(suspects.learned, scanned, looked_at);
    if (!*alive) co_return Ends();
    if (!status.ok()) {
      co_await SleepUntil(clock_, clock_->Now() + kAskAgain);
      if (!*alive) co_return Ends();
      continue;
    }
    if (looked_at > 0 && pass + 1 < kMostPasses) continue;
    absl::StatusOr<RangeSummary> sum = co_await SumOf(suspects, scanned);
    if (!*alive) co_return Ends();
    if (sum.ok()) co_return sum;
    status = sum.status();
  }
  co_return status;
}

// What a disk does not answer about is left for the next pass; the rest is looked at.
Task<absl::Status> LostPages::Pass(const std::vector<Extent>& extents, std::map<PageId, Scanned>& scanned,
                                   size_t& looked_at) {
  const std::shared_ptr<bool> alive = alive_;
  std::shared_ptr<const Footing> on = Kept(found_on_);
  absl::Status failed;
  LoopTurn turn(clock_);
  for (const Extent& extent : extents) {
    if (turn.IsOver()) {
      co_await YieldTo(clock_);
      if (!*alive) co_return Ends();
      turn.Begin();
      on = Kept(std::move(on));
    }
    const auto known = scanned.find(extent.range.first);
    if (known != scanned.end() && !IsStale(known->second, *on)) continue;
    ++looked_at;
    absl::StatusOr<Scanned> found = co_await ScanExtent(extent, on);
    if (!*alive) co_return Ends();
    turn.Begin();
    on = Kept(std::move(on));
    if (found.ok()) {
      scanned[extent.range.first] = *std::move(found);
    } else if (!absl::IsAborted(found.status())) {
      failed = found.status();
    }
  }
  co_return failed;
}

// Aborted: what was scanned is not all of the disks that count at the end.
Task<absl::StatusOr<RangeSummary>> LostPages::SumOf(const Suspects& suspects,
                                                    const std::map<PageId, Scanned>& scanned) {
  const std::shared_ptr<bool> alive = alive_;
  const std::shared_ptr<const Footing> on = Kept(found_on_);
  RangeSummary lost(kMostRanges);
  LoopTurn turn(clock_);
  for (PageId page : suspects.marked) {
    const Extent* const extent = engine_->core_holder().Find(page);
    if (extent != nullptr && IsFirst(page, extent->replicas)) lost.Add({page, 1});
    if (!turn.IsOver()) continue;
    co_await YieldTo(clock_);
    if (!*alive) co_return Ends();
    turn.Begin();
  }
  for (const Extent& extent : suspects.learned) {
    const auto of = scanned.find(extent.range.first);
    if (of == scanned.end() || IsStale(of->second, *on)) co_return Changed();
    for (PageRange range : of->second.lost.first()) lost.Add(range);
    lost.AddUnnamed(of->second.lost.unnamed());
    if (!turn.IsOver()) continue;
    co_await YieldTo(clock_);
    if (!*alive) co_return Ends();
    turn.Begin();
  }
  if (*on != FootingNow()) co_return Changed();
  found_on_ = on;
  co_return lost;
}

// --- An extent --------------------------------------------------------------------------------------------------------

// Of these disks, those that have the extent as one that was not learned: where one of these keeps a page, it knows of it.
Task<absl::StatusOr<std::set<NodeId>>> LostPages::WhoKnows(Extent extent, std::set<NodeId> asked) {
  const std::shared_ptr<bool> alive = alive_;
  std::set<NodeId> know;
  for (auto next = asked.begin(); next != asked.end();) {
    std::vector<std::pair<NodeId, Outcome<absl::StatusOr<bool>>>> outcomes;
    for (; next != asked.end() && outcomes.size() < kAskedAtOnce; ++next) {
      Outcome<absl::StatusOr<bool>> outcome(clock_);
      Spawn<absl::StatusOr<bool>>(ask_(*next, extent.range.first),
                                  [outcome](absl::StatusOr<bool> learned) mutable { outcome.Set(std::move(learned)); });
      outcomes.emplace_back(*next, outcome);
    }
    absl::Status failed;
    for (auto& [node, outcome] : outcomes) {
      const absl::StatusOr<bool> learned = co_await outcome.Get();
      if (!*alive) co_return Ends();
      if (!learned.ok()) {
        failed = learned.status();
      } else if (!*learned) {
        know.insert(node);
      }
    }
    if (!failed.ok()) co_return failed;
  }
  co_return know;
}

// Aborted: other disks count meanwhile, and they are concerned.
Task<absl::StatusOr<LostPages::Scanned>> LostPages::ScanExtent(Extent extent, std::shared_ptr<const Footing> on) {
  const std::shared_ptr<bool> alive = alive_;
  const Disks& disks = engine_->disks();
  Scanned scanned{.on = on, .holders = {}};
  std::shared_ptr<const Footing> now = on;
  LoopTurn turn(clock_);
  for (PageId page = extent.range.first; page < extent.range.end() && scanned.holders.size() < on->disks.size();
       page = SegmentStart(page) + kSegmentPages) {
    for (NodeId node : disks.Holders(page, extent.replicas)) scanned.holders.insert(node);
    if (!turn.IsOver()) continue;
    co_await YieldTo(clock_);
    if (!*alive) co_return Ends();
    turn.Begin();
    now = Kept(std::move(now));
    if (IsStale(scanned, *now)) co_return Changed();
  }
  std::set<NodeId> asked;
  for (NodeId node : scanned.holders) {
    if (node != self_ && disks.IsCurrent(node)) asked.insert(node);
  }
  const absl::StatusOr<std::set<NodeId>> know = co_await WhoKnows(extent, std::move(asked));
  if (!*alive) co_return Ends();
  now = Kept(std::move(now));
  if (IsStale(scanned, *now)) co_return Changed();
  if (!know.ok()) co_return know.status();
  turn.Begin();
  for (PageId page = extent.range.first; page < extent.range.end();) {
    const PageId end = std::min(extent.range.end(), SegmentStart(page) + kSegmentPages);
    const std::vector<NodeId> current = disks.Current(page, extent.replicas);
    const bool is_first = !current.empty() && current.front() == self_;
    const bool is_known = std::any_of(current.begin(), current.end(), [&](NodeId n) { return know->contains(n); });
    if (is_first && is_known) {
      const std::map<PageId, Version>& marked = engine_->core_holder().lost();
      for (auto it = marked.lower_bound(page); it != marked.end() && it->first < end; ++it) {
        scanned.lost.Add({it->first, 1});
      }
    } else if (is_first) {
      absl::Status status = co_await AddUnrecorded(extent, {page, end - page}, scanned);
      if (!status.ok()) co_return status;
    }
    page = end;
    if (!turn.IsOver()) continue;
    co_await YieldTo(clock_);
    if (!*alive) co_return Ends();
    turn.Begin();
    now = Kept(std::move(now));
    if (IsStale(scanned, *now)) co_return Changed();
  }
  co_return scanned;
}

// L2; and L1 of pages there.
Task<absl::Status> LostPages::AddUnrecorded(Extent extent, PageRange part, Scanned& scanned) {
  const std::shared_ptr<bool> alive = alive_;
  PageId next = part.first;
  while (next < part.end()) {
    Outcome<absl::StatusOr<PageList>> outcome(clock_);
    store_->ListPages({next, part.end() - next}, kListedAtOnce, PageStore::Listed::kAll,
                      [outcome](absl::StatusOr<PageList> list) mutable { outcome.Set(std::move(list)); });
    const absl::StatusOr<PageList> list = co_await outcome.Get();
    if (!*alive) co_return Ends();
    if (IsStale(scanned, FootingNow())) co_return Changed();
    if (!list.ok()) co_return list.status();
    const PageId end = list->next == PageId{} ? part.end() : list->next;
    for (const StoredPage& stored : list->pages) {
      // A corrupt one another disk may have.
      const bool counts = stored.config == extent.config || stored.version == Version{};
      if (!counts || engine_->core_holder().lost().contains(stored.page)) continue;
      scanned.lost.Add({next, stored.page - next});
      next = stored.page + 1;
    }
    scanned.lost.Add({next, end - next});
    next = end;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
