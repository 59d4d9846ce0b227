// In which order pages are learned, and how fast (U10, U11).

#include <algorithm>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "engine/catch_up.h"
#include "engine/page_engine.h"

namespace mangrove {
namespace {

constexpr uint64_t kLooksAtOnce = 1024;  // At segments; then others run.
// Of some hundred pages each: about as many as a flush has on their way.
constexpr size_t kPartsAtOnce = 6;
// Pages that are on their way here at a time, and written together.
constexpr size_t kCopiesAtOnce = 256;

}  // namespace

// How many current disks a page has follows from these.
void CatchUp::NoteOrder() {
  std::set<NodeId> current;
  for (const auto& [node, incarnation] : engine_->view_.members) {
    if (engine_->disks_.IsCurrent(node)) current.insert(node);
  }
  if (current == current_ && engine_->view_.disks == ordered_by_) return;
  current_ = std::move(current);
  ordered_by_ = engine_->view_.disks;
  ++order_;
  one_copy_of_ = pages_of_;
}

std::optional<CatchUp::Step> CatchUp::NextStep() const {
  if (const std::optional<NodeId> source = NextSource(extents_of_)) return Step{Pass::kExtents, *source};
  const std::optional<NodeId> one_copy = NextSource(one_copy_of_);
  const std::optional<NodeId> rest = NextSource(pages_of_);
  // A source that fails holds up its own pages alone.
  if (one_copy && (*one_copy != failed_ || !rest || *rest == failed_)) return Step{Pass::kOneCopy, *one_copy};
  if (rest) return Step{Pass::kRest, *rest};
  return std::nullopt;
}

const PageIntervals& CatchUp::ComparedWith(NodeId source) const {
  static const PageIntervals kNothing;
  const auto compared = compared_with_.find(source);
  return compared == compared_with_.end() ? kNothing : compared->second;
}

// Whether all that this disk lacks of it was learned from `source`.
bool CatchUp::WasComparedWith(NodeId source, PageRange range) const {
  return pages_of_.contains(source) || ComparedWith(source).Contains(IntervalOf(range));
}

// Of what was not compared with the source yet. `up_to_one_copy`: of what is before the first page that comes in the first pass.
Task<CatchUp::Order> CatchUp::OrderOf(NodeId source, PageInterval part, bool up_to_one_copy) const {
  const uint64_t round = round_;
  const Disks& disks = engine_->disks_;
  Order order;
  PageInterval rest;
  uint64_t looks = 0;
  for (PageId page = part.first;;) {
    page = FirstKept(ComparedWith(source).NextOutside(page));
    if (page == PageId{} || part.end <= page) break;
    const Extent& extent = *engine_->core_.Find(page);
    const PageId end = std::min({extent.range.end(), SegmentStart(page) + kSegmentPages, part.end});
    const std::vector<NodeId> current = disks.Current(page, extent.replicas);
    const bool is_there = std::find(current.begin(), current.end(), source) != current.end();
    if (!extent.is_volatile && is_there && disks.Learns(engine_->options_.self.node, page, extent.replicas)) {
      if (current.size() > 1) {
        if (rest.empty()) rest.first = page;
        rest.end = end;
      } else {
        if (!rest.empty()) order.rest.push_back({rest.first, page});
        rest = {};
        order.one_copy = std::min(order.one_copy, page);
        if (up_to_one_copy) co_return order;
      }
    }
    page = end;
    if (++looks % kLooksAtOnce != 0) continue;
    co_await YieldTo(engine_->clock_);
    if (!CheckGoesOn(round).ok()) co_return order;
  }
  if (!rest.empty()) order.rest.push_back(rest);
  co_return order;
}

// From where on the source is asked; kSpaceEnd: there is no more to ask it in this pass.
Task<PageId> CatchUp::NextToAsk(NodeId source, Pass pass, PageId from) const {
  from = ComparedWith(source).NextOutside(from);
  if (pass == Pass::kRest || kSpaceEnd <= from) co_return from;
  const Order order = co_await OrderOf(source, {from, kSpaceEnd}, /*up_to_one_copy=*/true);
  // What need not come is compared on the way.
  co_return order.one_copy != kSpaceEnd&& order.rest.empty() ? from : order.one_copy;
}

// What of the part is compared in this pass, with what need not come.
Task<PageIntervals> CatchUp::ToCompare(NodeId source, Pass pass, PageInterval part) const {
  PageIntervals rest;
  if (pass == Pass::kOneCopy) {
    const Order order = co_await OrderOf(source, part, /*up_to_one_copy=*/false);
    for (const PageInterval& later : order.rest) rest.Add(later);
  }
  PageIntervals now;
  for (const PageInterval& open : ComparedWith(source).Outside(part)) {
    for (const PageInterval& interval : rest.Outside(open)) now.Add(interval);
  }
  co_return now;
}

// The pages of that pass that `source` and this node are both to keep. Some lists of pages at a time: while those of one are on
// their way, the next one is asked for.
Task<absl::Status> CatchUp::LearnPages(NodeId source, Pass pass) {
  const uint64_t round = round_;
  const uint64_t order = order_;
  std::deque<Outcome<absl::Status>> parts;
  absl::Status status;
  for (PageId from;;) {
    if (parts.size() == kPartsAtOnce) {
      status = co_await parts.front().Get();
      parts.pop_front();
      if (status.ok()) status = CheckGoesOn(round);
      if (!status.ok()) break;
    }
    const PageId first = co_await NextToAsk(source, pass, from);
    status = CheckGoesOn(round);
    if (!status.ok() || first == kSpaceEnd || order != order_) break;
    const absl::StatusOr<Message> answer = co_await AskForList(source, first, /*pages=*/true);
    status = answer.status();
    if (!status.ok()) break;
    absl::StatusOr<std::vector<StoredVersion>> listed = DecodeVersionList(*answer->data, first);
    status = listed.status();
    if (!status.ok()) break;
    const PageInterval part{first, answer->page == PageId{} ? kSpaceEnd : answer->page};
    Outcome<absl::Status> taken(engine_->clock_);
    parts.push_back(taken);
    Spawn<absl::Status>(TakePages(source, pass, *std::move(listed), part),
                        [taken](absl::Status s) mutable { taken.Set(std::move(s)); });
    if (part.end == kSpaceEnd) break;
    from = part.end;
  }
  for (Outcome<absl::Status>& part : parts) {
    const absl::Status taken = co_await part.Get();
    if (status.ok()) status = taken;
    if (status.ok()) status = CheckGoesOn(round);
  }
  co_return status;
}

// --- How fast ---------------------------------------------------------------------------------------------------------

// What is let go together is a tenth of a second's at most: it is smooth.
size_t CatchUp::CopiesAtOnce() const {
  if (copies_.per_second() == 0) return kCopiesAtOnce;
  const uint64_t tenth = copies_.per_second() / kPageBytes / 10;
  return static_cast<size_t>(std::clamp<uint64_t>(tenth, 1, kCopiesAtOnce));
}

// Until so many pages may be copied.
Task<absl::Status> CatchUp::WaitForTurn(size_t pages) {
  const TimeNs now = engine_->clock_->Now();
  const TimeNs goes = copies_.Take(now, pages * kPageBytes);
  if (goes <= now) co_return absl::OkStatus();
  auto [outcome, done] = Await<absl::Status>();
  engine_->clock_->CallAt(goes, [done = std::move(done)]() mutable { done(absl::OkStatus()); });
  const absl::Status status = co_await outcome.Get();
  co_return status;
}

}  // namespace mangrove
