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
// Looks every few seconds, and at nothing but extents where nothing is lost. What was found is of the disks that counted then
// (`Footing`): when others do, it is not said any more, and looked for at once; and of a look that goes on just those extents are
// looked at again that have pages on a disk which is concerned. Owned by the loop.

#pragma once

#include <functional>
#include <map>
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
  static constexpr size_t kAskedAtOnce = 8;                    // Disks.
  static constexpr int kMostPasses = 16;                       // Over the extents, in one look.
  static constexpr DurationNs kAskAgain = 200 * kMillisecond;  // Before the next pass, if a disk has not answered.

  // Whether the extent that has the page is a learned one at that node.
  using AskLearned = std::function<Task<absl::StatusOr<bool>>(NodeId node, PageId page)>;

  // All outlive this object.
  LostPages(NodeId self, Clock* clock, PageEngine* engine, PageStore* store, AskLearned ask);
  ~LostPages();
  LostPages(const LostPages&) = delete;
  LostPages& operator=(const LostPages&) = delete;

  // What the last look has found. Nothing: this disk does not count, or has not been looked at yet since others count than before.
  std::optional<RangeSummary> found() const;

 private:
  struct Suspects {
    std::vector<Extent> learned;
    std::vector<PageId> marked;  // In no extent of these.
    bool empty() const { return learned.empty() && marked.empty(); }
  };
  // Which disk is a page's first current one goes by this, and who may know of it.
  struct Footing {
    std::set<NodeId> disks;
    DiskWeights weights;
    std::map<NodeId, Incarnation> current;
    friend bool operator==(const Footing&, const Footing&) = default;
  };
  struct Scanned {  // An extent.
    std::shared_ptr<const Footing> on;
    std::set<NodeId> holders;  // Of all of its pages.
    RangeSummary lost{kMostRanges};
  };

  void LookLater();
  void Look();
  bool Counts() const;
  bool IsFirst(PageId page, uint32_t replicas) const;
  void OnLooked(TimeNs began, absl::StatusOr<RangeSummary> lost);
  Footing FootingNow() const;
  // That of `known`, if it is still so.
  std::shared_ptr<const Footing> Kept(std::shared_ptr<const Footing> known) const;
  static bool IsStale(const Scanned& scanned, const Footing& now);
  Task<Suspects> FindSuspects();
  Task<absl::StatusOr<RangeSummary>> Scan();
  Task<absl::Status> Pass(const std::vector<Extent>& extents, std::map<PageId, Scanned>& scanned, size_t& looked_at);
  Task<absl::StatusOr<RangeSummary>> SumOf(const Suspects& suspects, const std::map<PageId, Scanned>& scanned);
  Task<absl::StatusOr<Scanned>> ScanExtent(Extent extent, std::shared_ptr<const Footing> on);
  Task<absl::StatusOr<std::set<NodeId>>> WhoKnows(Extent extent, std::set<NodeId> asked);
  Task<absl::Status> AddUnrecorded(Extent extent, PageRange part, Scanned& scanned);

  const NodeId self_;
  Clock* const clock_;
  PageEngine* const engine_;
  PageStore* const store_;
  const AskLearned ask_;
  std::optional<RangeSummary> found_;
  std::shared_ptr<const Footing> found_on_;
  bool looking_ = false;
  TimeNs not_before_ = 0;
  uint64_t said_ = 0;  // Pages, in the log.
  Clock::TimerId timer_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mangrove
