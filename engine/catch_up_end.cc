// Whether everything was learned that there is to learn, and what is lost (U4, U5).

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/catch_up.h"
#include "engine/page_engine.h"

namespace mangrove {
namespace {

constexpr uint64_t kLooksAtOnce = 1024;  // At segments; then others run.

}  // namespace

// `part`: what is in one segment.
CatchUp::Cover CatchUp::CoverOf(const Extent& extent, PageRange part, Coverage& all) const {
  const Disks& disks = engine_->disks_;
  const NodeId self = engine_->options_.self.node;
  if (!disks.Learns(self, part.first, extent.replicas)) return Cover::kWhole;
  std::vector<NodeId> holders = disks.Holders(part.first, extent.replicas);
  const auto was_learned_from = [&](NodeId node) { return WasComparedWith(node, part); };
  const auto knows = [&](NodeId node) {
    return was_learned_from(node) && std::none_of(learned_there_.begin(), learned_there_.end(), [&](const auto& other) {
             return other.first == node && other.second.Overlaps(part);
           });
  };
  if (std::any_of(holders.begin(), holders.end(), knows)) return Cover::kWhole;
  if (!disks.Gains(self, part.first, extent.replicas)) return Cover::kOwn;
  if (std::any_of(holders.begin(), holders.end(), was_learned_from)) return Cover::kNone;
  std::erase_if(holders, [&](NodeId node) { return engine_->view_.lost.contains(node); });
  all.waits.insert(holders.begin(), holders.end());
  if (holders.empty() && had_all_of_ && had_all_of_->Gains(self, part.first, extent.replicas)) return Cover::kOwn;
  if (holders.empty()) all.lost.push_back(part);
  return Cover::kNone;
}

// A move that is begun anew since a disk was given up asks for pages that are here already: of what only that disk kept
// they are the last copies.
void CatchUp::NoteWhatIsHad() {
  const View& view = engine_->view_;
  const NodeId self = engine_->options_.self.node;
  if (view.move != view_before_.move) {
    // In a view that this node has not seen others may have stored without it.
    const bool had_all = view.epoch == Epoch(view_before_.epoch.value + 1) &&
                         view_before_.Has(engine_->options_.self) && view_before_.next_disks.contains(self) &&
                         !view_before_.behind.contains(self) &&
                         (view_before_.moved.contains(self) || (moved_ == view_before_.move && moved_ != Epoch()));
    had_all_of_ = had_all && view.next_disks.contains(self) ? disks_before_ : std::nullopt;
  }
  if (view.behind.contains(self) || !view.next_disks.contains(self)) had_all_of_.reset();
  if (view.next_disks.contains(self)) {
    view_before_ = view;
    disks_before_ = engine_->disks_;
  } else {
    view_before_ = View();
    disks_before_.reset();
  }
}

Task<absl::StatusOr<CatchUp::Coverage>> CatchUp::LookAtAll() {
  const uint64_t round = round_;
  Coverage all;
  uint64_t looks = 0;
  for (PageId at;;) {
    const auto& extents = engine_->core_.extents();
    const auto it = extents.lower_bound(at.value);
    if (it == extents.end()) break;
    const Extent extent = it->second;
    at = extent.range.end();
    if (extent.since_start && !extent.learned) continue;  // All that was ever stored of it was stored here, too.
    Cover cover = extent.is_volatile && pages_of_.empty() ? Cover::kOwn : Cover::kWhole;
    for (PageId page = extent.range.first; !extent.is_volatile && page < extent.range.end();) {
      const PageId end = std::min(extent.range.end(), SegmentStart(page) + kSegmentPages);
      cover = std::max(cover, CoverOf(extent, {page, end - page}, all));
      page = end;
      if (++looks % kLooksAtOnce != 0) continue;
      co_await YieldTo(engine_->clock_);
      if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
    }
    if (cover == Cover::kWhole) all.covered.push_back(extent);
    if (cover == Cover::kNone) all.unknown.push_back(extent);
  }
  co_return all;
}

// What is here of pages whose disks are all lost is older than what they had.
Task<absl::Status> CatchUp::Forget(PageRange lost) {
  const uint64_t round = round_;
  for (PageInterval part{lost.first, lost.end()}; part.first < part.end;) {
    const absl::StatusOr<Part> here = co_await VersionsHere(part);
    if (absl::Status status = CheckGoesOn(round); !status.ok()) co_return status;
    if (!here.ok()) co_return here.status();
    std::vector<PageId> pages;
    for (const auto& [page, version] : here->versions) pages.push_back(page);
    auto [deleted, done] = Await<absl::Status>();
    engine_->core_.DeletePages(pages, std::move(done));
    absl::Status status = co_await deleted.Get();
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
    part.first = here->end;
  }
  // Of what every cluster has from its start nothing else says that it is not as new as that.
  for (PageId page = lost.first; TouchesSystemPages(lost) && page < lost.end(); page = page + 1) {
    if (engine_->core_.WasStoredSince(page)) continue;
    auto [marked, done] = Await<absl::Status>();
    engine_->core_.MarkLost(page, kUnknownVersion, std::move(done));
    absl::Status status = co_await marked.Get();
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
    ++progress_.pages_lost;
  }
  co_return absl::OkStatus();
}

// Of pages that come with the move, what no disk has all of, this one has not, either: "no record" does not mean zeros.
Task<absl::Status> CatchUp::NoteLost(const Coverage& all) {
  const uint64_t round = round_;
  if (goal_.move.value == 0) co_return absl::OkStatus();
  if (!all.lost.empty()) {
    LogWarning("pages ", ToString(all.lost.front()), " and ", all.lost.size() - 1,
               " more segments are lost with all of the disks that kept them, as far as they were ever written");
  }
  for (const PageRange& lost : all.lost) {
    const absl::Status status = co_await Forget(lost);
    if (!status.ok()) co_return status;
  }
  for (const Extent& extent : all.unknown) {
    if (extent.learned) continue;
    auto [marked, done] = Await<absl::Status>();
    engine_->core_.MarkLearned(extent, std::move(done));
    absl::Status status = co_await marked.Get();
    if (status.ok()) status = CheckGoesOn(round);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// Those that had more than this disk, and are lost.
void CatchUp::SayWhatIsOlder() const {
  const View& view = engine_->view_;
  const auto own = view.behind.find(engine_->options_.self.node);
  std::vector<std::string> lost;
  for (NodeId node : view.lost) {
    const auto other = view.behind.find(node);
    if (own == view.behind.end() || other == view.behind.end() || other->second <= own->second) continue;
    lost.push_back(ToString(node));
  }
  if (lost.empty()) return;
  LogWarning("what was flushed after this node had left view ", own->second.value, ", and was kept by ",
             absl::StrJoin(lost, ", "), " alone, is lost: pages that both kept are as they were before");
}

// What was learned from disks that have all of it is not in doubt any more.
Task<absl::Status> CatchUp::Finish() {
  const uint64_t round = round_;
  absl::Status status = co_await Settle();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Coverage> all = co_await LookAtAll();
  if (!all.ok()) co_return all.status();
  uncovered_.insert(all->waits.begin(), all->waits.end());
  const bool has_all = uncovered_.empty();
  const absl::Status waits = absl::UnavailableError("disks that keep what is to come here are not there");
  // U9
  const bool is_current_soon = goal_.behind && engine_->view_.disks.contains(engine_->options_.self.node);
  if (!has_all && (!is_current_soon || caught_up_)) co_return waits;
  if (has_all) status = co_await NoteLost(*all);
  if (!status.ok()) co_return status;
  // In the meantime a view may have brought somebody to learn from.
  if (NextSource(pages_of_) || !WaitsFor().empty()) co_return absl::AbortedError("there is more to learn");
  std::set<std::pair<PageId, ConfigNumber>> covered;
  for (const Extent& extent : all->covered) covered.emplace(extent.range.first, extent.config);
  const auto is_covered = [&](const Extent& extent) { return covered.contains({extent.range.first, extent.config}); };
  auto [outcome, done] = Await<absl::Status>();
  StoreBatch batch;
  if (goal_.all) batch = engine_->core_.EndLearning(is_covered);
  engine_->NoteComplete(std::move(batch), std::move(done));
  const absl::Status durable = co_await outcome.Get();
  if (!durable.ok()) {
    engine_->core_.UndoEndLearning();
    co_return durable;
  }
  status = CheckGoesOn(round);
  if (!status.ok()) co_return status;
  if (NextSource(pages_of_)) co_return absl::AbortedError("there is more to learn");
  SayWhatIsOlder();
  has_all_ = has_all;
  if (goal_.behind) caught_up_ = true;
  if (has_all) moved_ = goal_.move;
  LogInfo("this node's disk has what it lacked: ", progress_.pages_compared, " pages compared, ",
          progress_.pages_copied, " copied, ", progress_.pages_lost, " lost");
  Say();
  co_return has_all ? absl::OkStatus() : waits;
}

}  // namespace mangrove
