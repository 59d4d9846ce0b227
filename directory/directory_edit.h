// What a change does to one page of the directory: pure functions on parsed pages.

#pragma once

#include <cstddef>
#include <vector>

#include "absl/functional/function_ref.h"
#include "directory/directory_page.h"

namespace mangrove {

// Whether `next` goes on where `run` ends, and is like it.
bool Merges(const DirectoryEntry& run, const DirectoryEntry& next);

// Appends a run behind the last one; both become one where they are alike and touch. `Runs`: a vector or a deque.
template <typename Runs>
void AppendRun(Runs* runs, const DirectoryEntry& run) {
  if (!runs->empty() && Merges(runs->back(), run)) {
    runs->back().range.count += run.range.count;
  } else {
    runs->push_back(run);
  }
}

// Appends the runs of a leaf in `interval`, cut to it.
void AppendRunsIn(const DirectoryPageView& leaf, PageInterval interval, std::vector<DirectoryEntry>* out);
void AppendRunsIn(const DirectoryPage& leaf, PageInterval interval, std::vector<DirectoryEntry>* out);

// The first page of `interval` that no run of the leaf has; its end if there is none.
PageId FirstGap(const DirectoryPageView& leaf, PageInterval interval);

// Gives the gaps in `interval`, from its start on, to `node` in term 1, as long as the leaf then has at most `most` runs.
// Appends what was given to `given`. Returns the first page that is still nobody's; the interval's end if there is none.
// REQUIRES: the interval is within the page's keys, of whole segments.
PageId FillGaps(DirectoryPage* leaf, PageInterval interval, NodeId node, size_t most,
                std::vector<DirectoryEntry>* given);

// Gives what is in `interval` of nodes that are gone to `node`, in the next term each, from the interval's start on, as long as
// the leaf then has at most `most` runs. Appends what was given to `given`. Returns the first page that is still of one that
// is gone; the interval's end if there is none. REQUIRES: as FillGaps.
PageId TakeOver(DirectoryPage* leaf, PageInterval interval, NodeId node, size_t most,
                absl::FunctionRef<bool(NodeId)> is_gone, std::vector<DirectoryEntry>* given);

// `entry` is what stands in its range afterwards, whatever stood there. REQUIRES: the range is within the page's keys.
void Assign(DirectoryPage* leaf, const DirectoryEntry& entry);

// Takes out what is `node`'s in `interval`. Appends what it took to `erased`.
void Erase(DirectoryPage* leaf, PageInterval interval, NodeId node, std::vector<DirectoryEntry>* erased);

// Where to split a page that has no room for an entry at `wanted`: behind all entries if that is where it would go, so
// that entries that come in order leave full pages; else in the middle. REQUIRES: at least two entries.
PageId CutFor(const DirectoryPage& page, PageId wanted);

// Takes what is at `cut` and behind it out of the page, and returns it as a page of its own. The order is both's; the
// right links are the caller's matter. REQUIRES: low key < cut < high key, and no run has pages on both sides.
DirectoryPage SplitOff(DirectoryPage* page, PageId cut);

}  // namespace mangrove
