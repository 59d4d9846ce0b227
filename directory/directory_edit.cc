#include "directory/directory_edit.h"

#include <algorithm>
#include <utility>

#include "net/check.h"

namespace mangrove {

bool Merges(const DirectoryEntry& run, const DirectoryEntry& next) {
  return run.range.end() == next.range.first && run.responsible == next.responsible && run.term == next.term &&
         run.range.count + next.range.count <= kMaxRunPages;
}

namespace {

// REQUIRES: not empty, and at most 2^64 pages.
DirectoryEntry Cut(const DirectoryEntry& entry, PageInterval interval) {
  const PageInterval both = Intersect(IntervalOf(entry.range), interval);
  return {.range = {both.first, both.end - both.first}, .responsible = entry.responsible, .term = entry.term};
}

// The runs that are left of `runs` without the pages of `interval`; `each` gets what is cut out.
template <typename Each>
std::vector<DirectoryEntry> Without(const std::vector<DirectoryEntry>& runs, PageInterval interval, Each each) {
  std::vector<DirectoryEntry> left;
  left.reserve(runs.size() + 2);
  for (const DirectoryEntry& run : runs) {
    const PageInterval both = Intersect(IntervalOf(run.range), interval);
    if (both.empty() || !each(Cut(run, interval))) {
      AppendRun(&left, run);
      continue;
    }
    if (run.range.first < both.first) AppendRun(&left, Cut(run, {run.range.first, both.first}));
    if (both.end < run.range.end()) AppendRun(&left, Cut(run, {both.end, run.range.end()}));
  }
  return left;
}

}  // namespace

void AppendRunsIn(const DirectoryPageView& leaf, PageInterval interval, std::vector<DirectoryEntry>* out) {
  const size_t from = leaf.CountUpTo(interval.first);
  for (size_t i = from == 0 ? 0 : from - 1; i < leaf.size(); ++i) {
    const DirectoryEntry run = leaf.run(i);
    if (interval.end <= run.range.first) break;
    if (!Intersect(IntervalOf(run.range), interval).empty()) AppendRun(out, Cut(run, interval));
  }
}

void AppendRunsIn(const DirectoryPage& leaf, PageInterval interval, std::vector<DirectoryEntry>* out) {
  for (const DirectoryEntry& run : leaf.runs) {
    if (!Intersect(IntervalOf(run.range), interval).empty()) AppendRun(out, Cut(run, interval));
  }
}

PageId FirstGap(const DirectoryPageView& leaf, PageInterval interval) {
  PageId at = interval.first;
  const size_t from = leaf.CountUpTo(at);
  for (size_t i = from == 0 ? 0 : from - 1; i < leaf.size() && at < interval.end; ++i) {
    const PageRange range = leaf.run(i).range;
    if (at < range.first) break;
    if (at < range.end()) at = range.end();
  }
  return at < interval.end ? at : interval.end;
}

PageId FillGaps(DirectoryPage* leaf, PageInterval interval, NodeId node, size_t most,
                std::vector<DirectoryEntry>* given) {
  CHECK(leaf->level == 0 && leaf->keys.first <= interval.first && interval.end <= leaf->keys.end);
  std::vector<DirectoryEntry> runs;
  runs.reserve(leaf->runs.size() + 1);
  size_t behind = leaf->runs.size();  // Runs that are not in `runs` yet.
  PageId at = interval.first;
  bool full = false;
  const auto fill = [&](PageId end, const DirectoryEntry* next) {
    while (!full && at < end) {
      const uint64_t count =
          end.value - at.value < kMaxRunPages ? static_cast<uint64_t>(end.value - at.value) : kMaxRunPages;
      const DirectoryEntry gap{.range = {at, count}, .responsible = node, .term = 1};
      const bool grows = runs.empty() || !Merges(runs.back(), gap);
      DirectoryEntry last = gap;
      if (!grows) last.range = {runs.back().range.first, runs.back().range.count + count};
      const bool joins = next != nullptr && Merges(last, *next);
      full = runs.size() + (grows ? 1 : 0) + behind - (joins ? 1 : 0) > most;
      if (full) return;
      AppendRun(&runs, gap);
      AppendRun(given, gap);
      at = gap.range.end();
    }
  };
  for (const DirectoryEntry& run : leaf->runs) {
    fill(run.range.first < interval.end ? run.range.first : interval.end, &run);
    AppendRun(&runs, run);
    --behind;
    if (!full && at < run.range.end()) at = run.range.end() < interval.end ? run.range.end() : interval.end;
  }
  fill(interval.end, nullptr);
  leaf->runs = std::move(runs);
  return at;
}

PageId TakeOver(DirectoryPage* leaf, PageInterval interval, NodeId node, size_t most,
                absl::FunctionRef<bool(NodeId)> is_gone, std::vector<DirectoryEntry>* given) {
  std::vector<DirectoryEntry> runs;
  AppendRunsIn(*leaf, interval, &runs);
  for (const DirectoryEntry& run : runs) {
    if (!is_gone(run.responsible) || run.term == UINT32_MAX) continue;
    const DirectoryEntry taken{.range = run.range, .responsible = node, .term = run.term + 1};
    std::vector<DirectoryEntry> before = leaf->runs;
    Assign(leaf, taken);
    if (leaf->runs.size() > most) {
      leaf->runs = std::move(before);
      return run.range.first;
    }
    given->push_back(taken);
  }
  return interval.end;
}

void Assign(DirectoryPage* leaf, const DirectoryEntry& entry) {
  CHECK(leaf->level == 0 && leaf->keys.first <= entry.range.first && entry.range.end() <= leaf->keys.end);
  const std::vector<DirectoryEntry> others =
      Without(leaf->runs, IntervalOf(entry.range), [](const DirectoryEntry&) { return true; });
  leaf->runs.clear();
  bool placed = false;
  for (const DirectoryEntry& run : others) {
    if (!placed && entry.range.first < run.range.first) {
      AppendRun(&leaf->runs, entry);
      placed = true;
    }
    AppendRun(&leaf->runs, run);
  }
  if (!placed) AppendRun(&leaf->runs, entry);
}

void Erase(DirectoryPage* leaf, PageInterval interval, NodeId node, std::vector<DirectoryEntry>* erased) {
  CHECK(leaf->level == 0);
  leaf->runs = Without(leaf->runs, interval, [&](const DirectoryEntry& run) {
    if (run.responsible != node) return false;
    AppendRun(erased, run);
    return true;
  });
}

PageId CutFor(const DirectoryPage& page, PageId wanted) {
  CHECK(page.runs.size() + page.children.size() >= 2);
  if (page.level == 0) {
    if (page.runs.back().range.end() <= wanted) return SegmentStart(wanted);
    return page.runs[page.runs.size() / 2].range.first;
  }
  if (page.children.back().start <= wanted) return page.children.back().start;
  return page.children[page.children.size() / 2].start;
}

DirectoryPage SplitOff(DirectoryPage* page, PageId cut) {
  CHECK(page->keys.first < cut && cut < page->keys.end);
  DirectoryPage right{.level = page->level, .keys = {cut, page->keys.end}, .order = page->order};
  const auto run = std::find_if(page->runs.begin(), page->runs.end(),
                                [cut](const DirectoryEntry& entry) { return cut <= entry.range.first; });
  CHECK(run == page->runs.begin() || (run - 1)->range.end() <= cut);
  right.runs.assign(run, page->runs.end());
  page->runs.erase(run, page->runs.end());
  const auto child = std::find_if(page->children.begin(), page->children.end(),
                                  [cut](const DirectoryChild& entry) { return cut <= entry.start; });
  right.children.assign(child, page->children.end());
  page->children.erase(child, page->children.end());
  page->keys.end = cut;
  return right;
}

}  // namespace mangrove
