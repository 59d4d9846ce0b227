// Answers one fault of one mapping: has the page brought here, and maps it under a pin (page_state.h).
//
//   R1  A page is mapped with no more than the right it has while it is pinned.
//   R2  Every fault ends with a wake-up: it is mapped, poisoned, or made to try again.
//   R3  A page that cannot be had is poisoned. The kernel poisons only what is not mapped and has left no mark of a
//       former write protection. So the loop first removes the page from every mapping, and then the mark is deleted;
//       nobody maps the page in this program meanwhile, since its faults are served one at a time (fault_table.h), and R4.
//   R4  Other pages are mapped with it where faults come in order, by R1, and while no page is being poisoned.
//
// Thread-safe. Serve blocks as long as `acquire` does, and as the mmap lock of the program is held by itself.

#pragma once

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
  FaultCall Poison(const PageFault& fault);
  bool UnmapAndWait(PageId page);

  UniqueFd userfaultfd_;
  const uint64_t base_;
  const std::shared_ptr<RegionFrames> region_;
  const bool read_only_;
  AtomicCounters counters_;
  PoisonedPages poisoned_;
  std::mutex poisoning_;  // R4.
  // The pages, counted from the first, whose faults would go on in the row of the last one, upwards or downwards. A hint.
  std::atomic<uint64_t> next_up_{UINT64_MAX}, next_down_{UINT64_MAX};
  std::atomic<uint64_t> around_{0};  // Pages to map beside the next one in order.
};

}  // namespace mangrove
