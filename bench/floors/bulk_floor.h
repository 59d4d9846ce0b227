// The plainest ways of moving many pages: over a connection into memory, and onto a disk.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bench/worker.h"

namespace mangrove::bench {

// A process streams messages of a MiB; the other copies each to where it belongs.
class BulkFloor {
 public:
  explicit BulkFloor(int64_t spin_us);
  ~BulkFloor();
  double MibPerSecond(uint64_t mib);

 private:
  std::unique_ptr<Worker> server_;
  std::unique_ptr<Worker> client_;
};

// Two processes at a time write so much each, a MiB at a time, and sync it at the end.
class PlainWriteFloor {
 public:
  explicit PlainWriteFloor(const std::string& directory);
  ~PlainWriteFloor();
  double MibPerSecond(uint64_t mib);

 private:
  std::unique_ptr<Worker> one_;
  std::unique_ptr<Worker> other_;
};

}  // namespace mangrove::bench
