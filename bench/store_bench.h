// The measurements of the page store alone: `mangrove-bench store`.

#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace mangrove::bench {

// Every name that there is, in the order of the report.
std::vector<std::string> StoreNames();
// Those that `options` want.
std::vector<Row> RunStore(const RunOptions& options);

}  // namespace mangrove::bench
