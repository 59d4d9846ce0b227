// What programs do in a run, as the run sees it.

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "net/runtime/clock.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

enum class OperationKind : uint8_t { kLoad, kStore, kReadModifyWrite, kLock, kFlush, kChurn, kScan };
constexpr int kOperationKinds = 7;
const char* Name(OperationKind kind);

struct WorkloadCounters {
  uint64_t ended = 0;  // Operations that had an answer.
  uint64_t succeeded = 0;
  std::array<uint64_t, kOperationKinds> by_kind{};
};

class Work {
 public:
  virtual ~Work() = default;

  // A node serves: its programs begin.
  virtual void OnReady(SimHost& host) = 0;

  // Allocates everything, from the first node, before anything else.
  virtual void Prepare() = 0;
  virtual bool prepared() const = 0;

  // Clients begin no further operation.
  virtual void StopClients() = 0;
  virtual bool AllClientsEnded() const = 0;

  // With no faults about: every node does what it can do, and all must succeed. Fails the world if something does not within
  // `bound`.
  virtual void StartProgressCheck(DurationNs bound) = 0;
  virtual bool ProgressCheckEnded() const = 0;
  // One node reads everything, so that what survived is looked at.
  virtual void StartReadAll(int slot, DurationNs bound) = 0;

  // Without which nothing holds.
  virtual std::vector<PageId> pages() const = 0;

  virtual const WorkloadCounters& counters() const = 0;
};

}  // namespace mangrove::sim
