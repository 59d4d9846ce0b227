// The programs that have regions mapped, and the threads that answer their faults.
//
//   fault → a worker of the client reads it → FaultService::AcquireForFault, unless the page is here with the right →
//   the worker maps the page (Continue, or AllowStores) under a pin (page_state.h) → the program goes on
//
// Each mapping of each program has workers of its own: one at first, another when all are busy and a fault waits, at
// most `max_workers`. A fault of a page that is being served already is dropped; whoever serves the page wakes it.
// A page that cannot be had is poisoned in that mapping: the access gets SIGBUS, and so do later ones until Heal (in the
// node's own process also until the page has been here, and was taken away again, or the memory has been fenced).

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "directory/address.h"
#include "engine/mapping/region_frames.h"
#include "engine/mapping/unique_fd.h"
#include "engine/page_memory.h"
#include "net/runtime/clock.h"

namespace mangrove {

// The node, as fault workers see it.
class FaultService {
 public:
  virtual ~FaultService() = default;

  // Brings the page here with at least `rights`. Thread-safe; blocks, for no longer than the node's fault timeout. OK:
  // it had the right at some moment since the call, and the memory is not fenced: for as long as it is, this is called also
  // for a page that has the right, and has to wait. Implemented by Loop::RunUntil, so that the worker drives the loop.
  // `before_long_wait` is called at most once, by the calling thread: before it sleeps, or when it has waited for long.
  virtual absl::Status AcquireForFault(PageId page, Rights rights, absl::FunctionRef<void()> before_long_wait) = 0;
};

using MappingId = uint64_t;

struct MappedClientOptions {
  UniqueFd userfaultfd;
  uint64_t base = 0;  // Of the region's first byte, in the program.
  std::shared_ptr<RegionFrames> region;
  bool read_only = false;
  bool own_process = false;  // The program is the node's own process, and unmaps before Remove.
  int max_workers = 4;
  // How long an idle worker polls before it sleeps. Costs a processor for as long.
  DurationNs spin_ns = 0;
  // Called once, by a worker, when the kernel says that the program has ended. It may call Remove. May come while, and
  // shortly after, Remove is called elsewhere; ids are not used again. Optional: whoever holds the program's socket
  // learns it there too.
  std::function<void(MappingId)> on_gone;
};

struct MappingCounters {
  uint64_t read_faults = 0;
  uint64_t write_faults = 0;
  uint64_t resolved = 0;   // Pages mapped, or made writable.
  uint64_t acquired = 0;   // Of these, through the FaultService.
  uint64_t coalesced = 0;  // Faults of a page that was being served already.
  uint64_t poisoned = 0;
  uint64_t retries = 0;  // The page was taken away before it was mapped, or the mappings were changing.
  uint64_t foreign = 0;  // Faults outside of the mapping; never answered.
};

class MappedClients {
 public:
  // `service` outlives this object.
  explicit MappedClients(FaultService* service);
  // Removes all, and waits until their workers have ended: as long as a call of the FaultService takes at most. Must
  // not run on the loop, nor in a worker.
  ~MappedClients();
  MappedClients(const MappedClients&) = delete;
  MappedClients& operator=(const MappedClients&) = delete;

  // All thread-safe; none blocks, so they may be called on the loop.

  // Starts serving. InvalidArgument when the descriptor is no userfaultfd or `base` is not aligned.
  absl::StatusOr<MappingId> Add(MappedClientOptions options);
  // Ends serving: no fault is taken up any more, workers end after the one they are at, the last one closes the
  // userfaultfd. A program that still lives must have unmapped before. Does nothing for an unknown id.
  void Remove(MappingId id);

  // NotFound for an id that is not there.
  absl::StatusOr<MappingCounters> Counters(MappingId id) const;
  // The pages whose accesses get SIGBUS, in order.
  absl::StatusOr<std::vector<PageRange>> Poisoned(MappingId id) const;
  // Forgets the poisoned pages in `range` and returns them; the program then drops them (LocalMapping::Heal).
  absl::StatusOr<std::vector<PageRange>> Heal(MappingId id, PageRange range);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace mangrove
