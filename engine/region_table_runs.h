// Sorted lists of runs: which pages of a region are allocated, and how.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/region_table_format.h"

namespace mangrove {

using RegionRuns = std::vector<RegionRun>;

// Everywhere: `count` pages from `offset` on, in pages from the region's first. REQUIRES: they do not wrap around.

// The first of them that is in no run, or in one.
std::optional<uint64_t> FirstHole(const RegionRuns& runs, uint64_t offset, uint64_t count);
std::optional<uint64_t> FirstAllocated(const RegionRuns& runs, uint64_t offset, uint64_t count);

// The run that holds the page at `offset`, if any.
const RegionRun* FindRun(const RegionRuns& runs, uint64_t offset);

// What of the runs lies there, cut to it.
RegionRuns RunsWithin(const RegionRuns& runs, uint64_t offset, uint64_t count);

// Takes the pages out.
void CutRuns(RegionRuns& runs, uint64_t offset, uint64_t count);

// Adds a run, and joins neighbours of equal attributes (with the newer configuration number). REQUIRES: no page of it is in
// a run.
void InsertRun(RegionRuns& runs, const RegionRun& run);

// Changes the attributes of the pages' runs, which are split at both ends, and joins neighbours.
void ChangeRuns(RegionRuns& runs, uint64_t offset, uint64_t count, absl::FunctionRef<void(RegionRun&)> change);

uint64_t PagesOf(const RegionRuns& runs);

// On how many disks each of the pages is at least; 1 where no run says so. `members`: on all of so many is what is volatile.
uint32_t LeastReplicas(const RegionRuns& runs, uint64_t offset, uint64_t count, uint32_t members);

}  // namespace mangrove
