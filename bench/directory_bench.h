// What it costs to find out who is responsible for a segment; a part of `mangrove-bench engine`.

#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace mangrove::bench {

std::vector<std::string> DirectoryNames();
void RunDirectory(const RunOptions& options, std::vector<Row>* rows);

}  // namespace mangrove::bench
