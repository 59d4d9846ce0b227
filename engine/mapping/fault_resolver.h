// Answers one fault of one mapping: has the page brought here, and maps it under a pin (page_state.h).
//
//   R1  A page is mapped with no more than the right it has while it is pinned.
//   R2  Every fault ends with a wake-up: it is mapped, poisoned, or made to try again.
//   R3  A page that cannot be had is poisoned. The kernel poisons only what is not mapped and has left no mark of a
//       former write protection. So the loop first removes the page from every mapping, and then the mark is deleted;
//       nobody maps the page in this program meanwhile, since its faults are served one at a time (fault_table.h), and R4.
//   R4  Other pages are mapped with it where faults come in order, by R1, and while no page is being poisoned.
//   R5  What the region's fence does not admit is a fault of a page that has not the right: `acquire` waits, or refuses it.
//
// Thread-safe. Serve blocks as long as `acquire` does, and as the mmap lock of the program is held by itself.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/mapping/fault_table.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/poisoned_pages.h"
#include "engine/mapping/region_frames.h"
#include "engine/mapping/userfaultfd.h"

namespace mangrove {

class FaultResolver {
 public:
  explicit FaultResolver(MappedClientOptions options);
  ~FaultResolver() { Close(); }

  // False: the fault is outside of the mapping.
  bool Decode(const Fault& fault, PageFault* out);
  // `acquire` has the page brought here, see FaultService. False: the program has ended.
  bool Serve(const PageFault& fault, absl::FunctionRef<absl::Status(PageId, Rights)> acquire);
  // Makes who waits for the page try again.
  void Wake(PageId page);

  // Reads faults that are waiting; see ReadFaults.
  int Read(std::span<Fault> out) { return ReadFaults(userfaultfd_.get(), out); }
  int userfaultfd() const { return userfaultfd_.get(); }
  // No call may be under way or follow.
  void Close();

  void CountCoalesced() { Add(counters_.coalesced); }
  MappingCounters Counters() const;
  PoisonedPages& poisoned() { return poisoned_; }

 private:
  struct AtomicCounters {
    std::atomic<uint64_t> read_faults{0}, write_faults{0}, resolved{0}, acquired{0}, coalesced{0}, poisoned{0},
        retries{0}, foreign{0};
  };
  static void Add(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

  uint64_t AddressOf(PageId page) const { return base_ + region_->OffsetOf(page); }
  FaultCall Map(const PageFault& fault, Rights granted);
  FaultCall ContinuePage(PageId page, bool write_protected);
  void MapAround(PageId page, Rights granted);
  uint64_t PinRun(PageId page, int64_t step, Rights granted, uint64_t most);
  void Unpin(PageRange pages);
  FaultCall Poison(const PageFault& fault);
  bool UnmapAndWait(PageId page);

  UniqueFd userfaultfd_;
  const uint64_t base_;
  const std::shared_ptr<RegionFrames> region_;
  const bool read_only_;
  AtomicCounters counters_;
  PoisonedPages poisoned_;
  std::mutex poisoning_;  // R4.
  // Faults in order. Two rows of them, since whoever copies a block may touch its end first. Guarded by poisoning_.
  struct Row {
    // Pages, counted from the region's first, whose faults go on with it, upwards or downwards, and how many were mapped
    // before that: some may have been taken away again.
    uint64_t next_up = UINT64_MAX;
    uint64_t next_down = UINT64_MAX;
    uint64_t above = 0;
    uint64_t below = 0;
    uint64_t around = 0;  // Pages to map beside the next one.

    bool GoesUp(uint64_t index) const { return next_up - index <= above; }
    bool GoesDown(uint64_t index) const { return index - next_down <= below; }
  };
  std::array<Row, 2> rows_;
  size_t last_row_ = 0;
};

}  // namespace mangrove
