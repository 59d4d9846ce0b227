// Which pages no disk has any more that counts: reading them is DataLoss until they are written, or allocated anew.
//
// Each node looks for those of which its own disk is the first current one, so that what all nodes say adds up. A page of these is
// lost if
//
//   L1  it is marked as lost (K7 of engine/core_holder.h); or
//   L2  there is no record of it, and its extent is one that was learned, here and at each other current disk that keeps the page:
//       no disk can say that it was never written (K4). So pages that never were count as well, as they do when they are read.
//
// Whether a node has such a page in RAM it does not know.
//
// Looks every few seconds, and at nothing but extents where nothing is lost. Owned by the loop.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core_holder.h"
#include "engine/page_engine.h"
#include "engine/page_store.h"
#include "engine/range_summary.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class LostPages {
 public:
  static constexpr size_t kMostRanges = 24;  // That are named.
  static constexpr DurationNs kLookAgain = 2 * kSecond;

  // Whether the extent that has the page is a learned one at that node.
  using AskLearned = std::function<Task<absl::StatusOr<bool>>(NodeId node, PageId page)>;

  // All outlive this object.
  LostPages(NodeId self, Clock* clock, PageEngine* engine, PageStore* store, AskLearned ask);
  ~LostPages();
  LostPages(const LostPages&) = delete;
  LostPages& operator=(const LostPages&) = delete;

  // What the last look has found. Nothing: this disk does not count, or has not been looked at yet.
  const std::optional<RangeSummary>& found() const { return found_; }

 private:
  struct Suspects {
    std::vector<Extent> learned;
    std::vector<PageId> marked;  // In no extent of these.
  };

  void LookLater();
  void Look();
  bool Counts() const;
  bool IsFirst(PageId page, uint32_t replicas) const;
  Suspects FindSuspects() const;
  Task<absl::StatusOr<RangeSummary>> Scan(Suspects suspects);
  Task<absl::Status> ScanExtent(Extent extent, Epoch view, RangeSummary& lost);
  Task<absl::StatusOr<std::set<NodeId>>> WhoKnows(Extent extent, Epoch view);
  Task<absl::Status> AddUnrecorded(Extent extent, PageRange part, Epoch view, RangeSummary& lost);

  const NodeId self_;
  Clock* const clock_;
  PageEngine* const engine_;
  PageStore* const store_;
  const AskLearned ask_;
  std::optional<RangeSummary> found_;
  bool looking_ = false;
  TimeNs not_before_ = 0;
  uint64_t looks_ = 0;  // At segments.
  uint64_t said_ = 0;   // Pages, in the log.
  Clock::TimerId timer_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mangrove
