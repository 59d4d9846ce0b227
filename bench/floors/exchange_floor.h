// Floors of everything that goes to another node and comes back: bare programs that exchange messages over libfabric,
// for themselves or for a program beside them.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/worker.h"

namespace mangrove::bench {

// A client on core 0 and servers on core 1, all waiting by polling for `spin_us`, then sleeping.
class ExchangeFloor {
 public:
  ExchangeFloor(int64_t spin_us, int servers);
  ~ExchangeFloor();

  // Of `request_bytes` with every server at a time, each answering with `answer_bytes`: the median in ns.
  double ExchangeNs(uint64_t answer_bytes, uint64_t count, uint64_t request_bytes = 64);

 private:
  std::vector<std::unique_ptr<Worker>> servers_;
  std::unique_ptr<Worker> client_;
};

// A program on core 0 asks a process beside it by a local socket; that one exchanges 64 bytes for a page with a third,
// on core 1, puts the page into memory that the program shares, and answers.
class RelayFloor {
 public:
  explicit RelayFloor(int64_t spin_us);
  ~RelayFloor();

  double ExchangeNs(uint64_t count);

 private:
  std::unique_ptr<Worker> server_;
  std::unique_ptr<Worker> relay_;
  std::unique_ptr<Worker> program_;
};

}  // namespace mangrove::bench
