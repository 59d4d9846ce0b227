#include "engine/region_table_runs.h"

#include <algorithm>

#include "net/check.h"

namespace mangrove {

namespace {

// The first run that ends after `offset`.
RegionRuns::const_iterator FirstEndingAfter(const RegionRuns& runs, uint64_t offset) {
  return std::upper_bound(runs.begin(), runs.end(), offset,
                          [](uint64_t at, const RegionRun& run) { return at < run.end(); });
}

bool SameAttributes(const RegionRun& a, RegionRun b) {
  b.offset = a.offset;
  b.count = a.count;
  b.config = a.config;
  return a == b;
}

void JoinNeighbours(RegionRuns& runs) {
  RegionRuns joined;
  for (const RegionRun& run : runs) {
    if (joined.empty() || joined.back().end() != run.offset || !SameAttributes(joined.back(), run)) {
      joined.push_back(run);
      continue;
    }
    joined.back().count += run.count;
    joined.back().config = std::max(joined.back().config, run.config);
  }
  runs = std::move(joined);
}

RegionRun Part(const RegionRun& run, uint64_t offset, uint64_t end) {
  CHECK(run.offset <= offset && offset < end && end <= run.end());
  RegionRun part = run;
  part.offset = offset;
  part.count = end - offset;
  return part;
}

}  // namespace

std::optional<uint64_t> FirstHole(const RegionRuns& runs, uint64_t offset, uint64_t count) {
  const uint64_t end = offset + count;
  for (auto it = FirstEndingAfter(runs, offset); offset < end; ++it) {
    if (it == runs.end() || offset < it->offset) return offset;
    offset = it->end();
  }
  return std::nullopt;
}

std::optional<uint64_t> FirstAllocated(const RegionRuns& runs, uint64_t offset, uint64_t count) {
  const auto it = FirstEndingAfter(runs, offset);
  if (it == runs.end() || it->offset >= offset + count) return std::nullopt;
  return std::max(it->offset, offset);
}

const RegionRun* FindRun(const RegionRuns& runs, uint64_t offset) {
  const auto it = FirstEndingAfter(runs, offset);
  return it != runs.end() && it->offset <= offset ? &*it : nullptr;
}

RegionRuns RunsWithin(const RegionRuns& runs, uint64_t offset, uint64_t count) {
  RegionRuns within;
  const uint64_t end = offset + count;
  for (auto it = FirstEndingAfter(runs, offset); it != runs.end() && it->offset < end; ++it) {
    within.push_back(Part(*it, std::max(it->offset, offset), std::min(it->end(), end)));
  }
  return within;
}

void CutRuns(RegionRuns& runs, uint64_t offset, uint64_t count) {
  RegionRuns left;
  const uint64_t end = offset + count;
  for (const RegionRun& run : runs) {
    if (run.end() <= offset || end <= run.offset) {
      left.push_back(run);
      continue;
    }
    if (run.offset < offset) left.push_back(Part(run, run.offset, offset));
    if (end < run.end()) left.push_back(Part(run, end, run.end()));
  }
  runs = std::move(left);
}

void InsertRun(RegionRuns& runs, const RegionRun& run) {
  CHECK(run.count > 0 && !FirstAllocated(runs, run.offset, run.count));
  runs.insert(FirstEndingAfter(runs, run.offset), run);
  JoinNeighbours(runs);
}

void ChangeRuns(RegionRuns& runs, uint64_t offset, uint64_t count, absl::FunctionRef<void(RegionRun&)> change) {
  RegionRuns changed = RunsWithin(runs, offset, count);
  CutRuns(runs, offset, count);
  for (RegionRun& run : changed) {
    change(run);
    runs.insert(FirstEndingAfter(runs, run.offset), run);
  }
  JoinNeighbours(runs);
}

uint64_t PagesOf(const RegionRuns& runs) {
  uint64_t pages = 0;
  for (const RegionRun& run : runs) pages += run.count;
  return pages;
}

uint32_t LeastReplicas(const RegionRuns& runs, uint64_t offset, uint64_t count, uint32_t members) {
  if (FirstHole(runs, offset, count)) return 1;
  uint32_t least = members;
  for (const RegionRun& run : RunsWithin(runs, offset, count)) {
    if (!run.is_volatile) least = std::min(least, run.replicas);
  }
  return std::max<uint32_t>(least, 1);
}

}  // namespace mangrove
