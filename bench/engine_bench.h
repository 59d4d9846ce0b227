// The measurements of the engine: `mangrove-bench engine`.

#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace mangrove::bench {

// Every name that there is, in the order of the report.
std::vector<std::string> EngineNames();
// Those that `options` want. What cannot be measured is left out, with a line on standard error.
std::vector<Row> RunEngine(const RunOptions& options);

}  // namespace mangrove::bench
