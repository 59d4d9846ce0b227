// The floor of a mapped fault: a bare userfaultfd, with a handler thread that sleeps on the faulting thread's processor.

#pragma once

#include <cstdint>
#include <memory>

#include "bench/worker.h"

namespace mangrove::bench {

class FaultFloor {
 public:
  explicit FaultFloor(int core);
  ~FaultFloor();

  // Medians in ns. A load of a page that is in the memfd but not mapped, answered by CONTINUE.
  double MinorNs(uint64_t count) { return worker_->Call("minor", count); }
  // A store to a mapped, write-protected page, answered by WRITEPROTECT.
  double WriteProtectNs(uint64_t count) { return worker_->Call("write_protect", count); }

 private:
  std::unique_ptr<Worker> worker_;
};

}  // namespace mangrove::bench
