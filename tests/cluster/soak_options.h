// What mangrove-soak is asked for.

#pragma once

#include <cstdint>
#include <optional>

namespace mangrove::cluster_test {

struct SoakOptions {
  int faults = 100;
  uint64_t seed = 0;
  int nodes = 3;
  bool full_disks = true;
  bool only_lists = false;
  std::optional<bool> monitors;
  bool has_monitors() const { return monitors.value_or(seed % 2 == 1); }
};

// Ends the process, with a word on what is wrong, where that is no command line.
SoakOptions ParseSoakOptions(int argc, char** argv);

}  // namespace mangrove::cluster_test
