// Clocks and order statistics of the benchmarks.

#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mangrove::bench {

inline int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// REQUIRES: not empty.
inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// The median of how long the `count` calls of operation(i) took, in ns.
template <typename Operation>
double MedianNs(uint64_t count, Operation operation) {
  std::vector<double> samples;
  samples.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    const int64_t begin = NowNs();
    operation(i);
    samples.push_back(static_cast<double>(NowNs() - begin));
  }
  return Median(std::move(samples));
}

}  // namespace mangrove::bench
