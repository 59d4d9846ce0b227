#include "engine/own_segments.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace mangrove {

void OwnSegments::Remove(PageRange range) {
  std::vector<Run> cut;
  ForEach(range.first, range.end(), [&](const Run& run) { cut.push_back(run); });
  for (const Run& run : cut) {
    runs_.erase(run.range.first.value);
    Run left = run;
    if (run.range.first < range.first) {
      left.range = {run.range.first, range.first - run.range.first};
      runs_[left.range.first.value] = left;
    }
    if (range.end() < run.range.end()) {
      left.range = {range.end(), run.range.end() - range.end()};
      runs_[left.range.first.value] = left;
    }
  }
}

void OwnSegments::Add(const Run& run) {
  Remove(run.range);
  Run merged = run;
  const auto alike = [&](const Run& other) { return other.term == run.term && other.virgin == run.virgin; };
  const auto next = runs_.find(run.range.end().value);
  if (next != runs_.end() && alike(next->second)) {
    merged.range.count += next->second.range.count;
    runs_.erase(next);
  }
  const auto after = runs_.lower_bound(run.range.first.value);
  if (after != runs_.begin()) {
    Run& before = std::prev(after)->second;
    if (before.range.end() == run.range.first && alike(before)) {
      before.range.count += merged.range.count;
      return;
    }
  }
  runs_[merged.range.first.value] = merged;
}

const OwnSegments::Run* OwnSegments::Find(PageId page) const {
  const auto after = runs_.upper_bound(page.value);
  if (after == runs_.begin()) return nullptr;
  const Run& run = std::prev(after)->second;
  return run.range.Contains(page) ? &run : nullptr;
}

const OwnSegments::Run* OwnSegments::FirstFrom(PageId page) const {
  auto it = runs_.upper_bound(page.value);
  if (it != runs_.begin() && page < std::prev(it)->second.range.end()) --it;
  return it == runs_.end() ? nullptr : &it->second;
}

bool OwnSegments::Covers(PageRange range) const {
  PageId page = SegmentStart(range.first);
  while (page < range.end()) {
    const Run* run = Find(page);
    if (run == nullptr) return false;
    page = run->range.end();
  }
  return true;
}

void OwnSegments::ForEach(PageId first, PageId end, absl::FunctionRef<void(const Run&)> each) const {
  auto it = runs_.upper_bound(first.value);
  if (it != runs_.begin() && first < std::prev(it)->second.range.end()) --it;
  for (; it != runs_.end() && it->second.range.first < end; ++it) each(it->second);
}

}  // namespace mangrove
