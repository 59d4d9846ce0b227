// The floor of a flush to two disks: a page goes over, both sides overwrite it in place and sync, then the answer comes.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bench/worker.h"

namespace mangrove::bench {

struct SyncFloorOptions {
  std::string directory;  // On the disk to be measured.
  int64_t spin_us = 0;    // How long a thread polls for the other side before it sleeps.
  uint64_t threads = 1;   // On either side, each with a connection and a file of its own.
  int client_core = -1;   // Any.
  int server_core = -1;
};

class SyncFloor {
 public:
  explicit SyncFloor(const SyncFloorOptions& options);
  ~SyncFloor();

  double LatencyNs(uint64_t count);                 // Median of all threads' medians.
  double RatePerSecond(uint64_t count_per_thread);  // Of all threads.

 private:
  double Run(const std::string& verb, uint64_t count);
  std::unique_ptr<Worker> server_;
  std::unique_ptr<Worker> client_;
};

}  // namespace mangrove::bench
