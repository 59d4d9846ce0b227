// What two nodes' stores do by themselves about as many pages as a flush brings to each.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bench/worker.h"

namespace mangrove::bench {

// Two processes with a store each write all of its pages at a time, in their order, over those of the time before.
class StoreFloor {
 public:
  // REQUIRES: a multiple of 64 pages, or of 50.
  StoreFloor(const std::string& directory, uint64_t pages);
  ~StoreFloor();
  // Of the slower one.
  double MibPerSecond();

 private:
  std::unique_ptr<Worker> one_;
  std::unique_ptr<Worker> other_;
};

}  // namespace mangrove::bench
