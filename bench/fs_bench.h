// The measurements of files on mounts: `mangrove-bench fs`.

#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace mangrove::bench {

// Every name that there is, in the order of the report.
std::vector<std::string> FsNames();
// Those that `options` want. What cannot be measured is left out, with a line on standard error.
std::vector<Row> RunFs(const RunOptions& options);

}  // namespace mangrove::bench
