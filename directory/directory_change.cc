// What changes the directory: appointments, moves, removals; and the splits that make room for them.

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/directory_edit.h"
#include "directory/directory_tree.h"
#include "directory/run_collector.h"
#include "net/check.h"

namespace mangrove {

namespace {

absl::Status CheckSegments(PageRange range) {
  const bool whole = SegmentStart(range.first) == range.first && range.count % kSegmentPages == 0 && range.count > 0;
  if (whole && range.first < kSpaceEnd && range.end() <= kSpaceEnd) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the range ", ToString(range), " is not one of whole segments of ",
                                                 kSegmentPages, " pages within the space"));
}

// The run that has the page; null if none has.
const DirectoryEntry* RunOf(const DirectoryPage& leaf, PageId page) {
  for (const DirectoryEntry& run : leaf.runs) {
    if (run.range.Contains(page)) return &run;
  }
  return nullptr;
}

template <typename Wanted>
bool HasRun(const DirectoryPageView& leaf, PageInterval interval, Wanted wanted) {
  std::vector<DirectoryEntry> runs;
  AppendRunsIn(leaf, interval, &runs);
  return std::any_of(runs.begin(), runs.end(), [&](const DirectoryEntry& run) { return wanted(run.responsible); });
}

}  // namespace

Task<absl::StatusOr<std::vector<DirectoryEntry>>> DirectoryTree::Appoint(PageRange range, NodeId node,
                                                                         OnWritten on_written, TimeNs deadline) {
  if (absl::Status s = CheckSegments(range); !s.ok()) co_return s;
  RunCollector result;
  Search search{.key = range.first, .deadline = deadline};
  for (int leaves = 1; search.key < range.end(); ++leaves) {
    std::vector<DirectoryEntry> runs;
    const absl::StatusOr<PageId> next =
        co_await AppointIn(&search, {search.key, range.end()}, node, &on_written, &runs);
    if (!next.ok()) {
      absl::Status again = co_await Retry(&search, next.status());
      if (!again.ok()) co_return again;
      continue;
    }
    result.Append(runs);
    search.key = *next;
    search.restarts = 0;
    if (leaves % kPagesAtOnce == 0) co_await YieldTo(clock_);
    if (search.key < range.end() && clock_->Now() >= deadline) {
      co_return absl::DeadlineExceededError(
          absl::StrCat("appointing for ", ToString(range), " from page ", ToString(search.key), " on"));
    }
  }
  std::vector<DirectoryEntry> all = co_await result.Take(SIZE_MAX, clock_);
  co_return all;
}

Task<absl::StatusOr<PageId>> DirectoryTree::AppointIn(Search* search, PageInterval interval, NodeId node,
                                                      OnWritten* on_written, std::vector<DirectoryEntry>* runs) {
  absl::Status reached = co_await Reach(search, 0);
  if (!reached.ok()) co_return reached;
  const auto seen = DirectoryPageView::Of(*search->path.back().content);
  const PageInterval seen_here = Intersect(interval, seen->keys());
  const PageId seen_gap = FirstGap(*seen, seen_here);
  const auto is_gone = [this](NodeId n) { return claims_->IsGone(n); };
  if (seen_gap == seen_here.end && !HasRun(*seen, seen_here, is_gone)) {
    AppendRunsIn(*seen, seen_here, runs);
    co_return seen_here.end;
  }
  absl::StatusOr<LockedPage> locked = co_await LockReached(search, 0);
  if (!locked.ok()) co_return locked.status();
  DirectoryPage& leaf = locked->page;
  const PageInterval here = Intersect(interval, leaf.keys);
  std::vector<DirectoryEntry> given;
  if (bugs_->appoint_unchecked && here.Contains(seen_gap)) {
    given.push_back({.range = {seen_gap, kSegmentPages}, .responsible = node, .term = 1});
    Assign(&leaf, given.back());
  }
  const PageId taken = TakeOver(&leaf, here, node, limits_.runs, is_gone, &given);
  const PageId next = FillGaps(&leaf, {here.first, taken}, node, limits_.runs, &given);
  if (given.empty() && next < here.end) {
    absl::Status split = co_await Split(search, *std::move(locked), next);
    co_return split;
  }
  if (!given.empty()) locked->held.Store(leaf);
  for (const DirectoryEntry& run : given) (*on_written)(run, leaf.order);
  AppendRunsIn(leaf, {here.first, next}, runs);
  co_return next;
}

Task<absl::Status> DirectoryTree::Move(PageId segment, NodeId from, NodeId to, HandOver hand_over, OnWritten on_written,
                                       TimeNs deadline) {
  if (absl::Status s = CheckSegments({segment, kSegmentPages}); !s.ok()) co_return s;
  if (from == to) co_return absl::InvalidArgumentError(absl::StrCat("a move from ", ToString(from), " to itself"));
  Search search{.key = segment, .deadline = deadline};
  while (true) {
    absl::Status outcome;
    absl::Status tried = co_await MoveIn(&search, from, to, &hand_over, &on_written, &outcome);
    if (tried.ok()) co_return outcome;
    absl::Status again = co_await Retry(&search, std::move(tried));
    if (!again.ok()) co_return again;
  }
}

Task<absl::Status> DirectoryTree::MoveIn(Search* search, NodeId from, NodeId to, HandOver* hand_over,
                                         OnWritten* on_written, absl::Status* outcome) {
  absl::StatusOr<LockedPage> locked = co_await LockPage(search, 0);
  if (!locked.ok()) co_return locked.status();
  DirectoryPage leaf = locked->page;
  const DirectoryEntry* run = RunOf(leaf, search->key);
  if (run == nullptr || run->responsible != from) {
    *outcome = absl::FailedPreconditionError(absl::StrCat("segment ", ToString(search->key), " is ",
                                                          run == nullptr ? "nobody" : ToString(run->responsible),
                                                          "'s, not ", ToString(from), "'s"));
    co_return absl::OkStatus();
  }
  if (run->term == UINT32_MAX) {
    *outcome = absl::FailedPreconditionError(absl::StrCat(ToString(search->key), " is in its last term"));
    co_return absl::OkStatus();
  }
  const DirectoryEntry moved{.range = {search->key, kSegmentPages}, .responsible = to, .term = run->term + 1};
  Assign(&leaf, moved);
  if (leaf.runs.size() > limits_.runs) {
    absl::Status split = co_await Split(search, *std::move(locked), search->key);
    co_return split;
  }
  *outcome = co_await (*hand_over)();
  if (!outcome->ok()) co_return absl::OkStatus();
  if (IsVoid(*search)) co_return absl::AbortedError("claims were asked for while the segment was handed over");
  locked->held.Store(leaf);
  (*on_written)(moved, leaf.order);
  co_return absl::OkStatus();
}

Task<absl::Status> DirectoryTree::Remove(PageInterval interval, NodeId node, DirectoryOrder order, OnWritten on_written,
                                         TimeNs deadline) {
  if (absl::Status s = CheckInSpace(interval); !s.ok()) co_return s;
  if (SegmentStart(interval.first) != interval.first || SegmentStart(interval.end) != interval.end) {
    co_return absl::InvalidArgumentError(absl::StrCat(ToString(interval), " is not of whole segments"));
  }
  Search search{.key = interval.first, .deadline = deadline};
  for (int leaves = 1; search.key < interval.end; ++leaves) {
    const absl::StatusOr<PageId> next =
        co_await RemoveIn(&search, {search.key, interval.end}, node, order, &on_written);
    if (!next.ok()) {
      absl::Status again = co_await Retry(&search, next.status());
      if (!again.ok()) co_return again;
      continue;
    }
    search.key = *next;
    search.restarts = 0;
    if (leaves % kPagesAtOnce == 0) co_await YieldTo(clock_);
    if (search.key < interval.end && clock_->Now() >= deadline) {
      co_return absl::DeadlineExceededError(
          absl::StrCat("removing ", ToString(node), " from page ", ToString(search.key), " on"));
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<PageId>> DirectoryTree::RemoveIn(Search* search, PageInterval interval, NodeId node,
                                                     DirectoryOrder order, OnWritten* on_written) {
  absl::Status reached = co_await Reach(search, 0);
  if (!reached.ok()) co_return reached;
  const auto seen = DirectoryPageView::Of(*search->path.back().content);
  const PageInterval seen_here = Intersect(interval, seen->keys());
  if (!HasRun(*seen, seen_here, [node](NodeId n) { return n == node; })) co_return seen_here.end;
  absl::StatusOr<LockedPage> locked = co_await LockReached(search, 0);
  if (!locked.ok()) co_return locked.status();
  DirectoryPage leaf = locked->page;
  const PageInterval here = Intersect(interval, leaf.keys);
  std::vector<DirectoryEntry> erased;
  Erase(&leaf, here, node, &erased);
  if (erased.empty()) co_return here.end;
  if (leaf.runs.size() > limits_.runs) {
    absl::Status split = co_await Split(search, *std::move(locked), here.first);
    co_return split;
  }
  leaf.order = Merge(leaf.order, order);
  locked->held.Store(leaf);
  for (const DirectoryEntry& run : erased) (*on_written)(run, leaf.order);
  co_return here.end;
}

Task<absl::Status> DirectoryTree::Split(Search* search, LockedPage locked, PageId wanted) {
  DirectoryPage left = std::move(locked.page);
  const PageId cut = CutFor(left, wanted);
  DirectoryPage right = SplitOff(&left, cut);
  right.right = left.right;
  const PageBuffer content = SerializeDirectoryPage(right);
  const absl::StatusOr<PageRef> created = co_await access_->Create(*content, search->deadline);
  if (!created.ok()) co_return created.status();
  left.right = *created;
  if (locked.ref == root_) {
    absl::Status split = co_await SplitRoot(search, std::move(locked), std::move(left), cut);
    co_return split;
  }
  if (IsVoid(*search)) {
    access_->Retire(*created);
    co_return absl::AbortedError("claims were asked for during a split");
  }
  locked.held.Store(left);
  locked.held.Release();
  absl::Status posted = co_await Post({left.level, cut, *created}, search->rounds, search->deadline);
  if (!posted.ok()) co_return posted;
  co_return absl::AbortedError("the page was split");
}

Task<absl::Status> DirectoryTree::SplitRoot(Search* search, LockedPage locked, DirectoryPage left, PageId cut) {
  const PageBuffer content = SerializeDirectoryPage(left);
  const absl::StatusOr<PageRef> created = co_await access_->Create(*content, search->deadline);
  if (!created.ok() || IsVoid(*search)) {
    access_->Retire(left.right);
    if (!created.ok()) co_return created.status();
    access_->Retire(*created);
    co_return absl::AbortedError("claims were asked for during the root's split");
  }
  DirectoryPage root{.level = static_cast<uint8_t>(left.level + 1), .keys = kWholeSpace};
  root.children = {{left.keys.first, *created}, {cut, left.right}};
  locked.held.Store(root);
  co_return absl::AbortedError("the root was split");
}

Task<absl::Status> DirectoryTree::Post(Unposted unposted, uint64_t rounds, TimeNs deadline) {
  Search search{.key = unposted.start, .deadline = deadline};
  while (true) {
    absl::StatusOr<LockedPage> parent = co_await LockPage(&search, unposted.level + 1);
    if (claims_->RoundsAbout(unposted.start, rounds) != 0) {
      co_return absl::AbortedError("claims were asked for before a page was named by its parent");
    }
    absl::Status tried = parent.status();
    if (parent.ok()) {
      std::vector<DirectoryChild>& children = parent->page.children;
      auto at = children.begin();
      while (at != children.end() && at->start < unposted.start) ++at;
      if (at != children.end() && at->start == unposted.start) co_return absl::OkStatus();
      if (children.size() < limits_.children) {
        children.insert(at, {unposted.start, unposted.ref});
        parent->held.Store(parent->page);
        co_return absl::OkStatus();
      }
      tried = co_await Split(&search, *std::move(parent), unposted.start);
    }
    absl::Status again = co_await Retry(&search, std::move(tried));
    if (!again.ok()) co_return again;
  }
}

}  // namespace mangrove
