// The example that counts words, over and over, by workers on all nodes in one mapped table. A fault in the middle may end it with an
// error, which it tells and ends with 1 for; where it ends without one, its count must be right. While there is no fault it has to.

#pragma once

#include <cstdint>
#include <string>

#include "tests/cluster/soak_work.h"

namespace mangrove::cluster_test {

// A text of which each node's worker has a file, and beside it what is to come out.
void MakeCorpus(const std::string& directory, int nodes, uint64_t seed);
// What the counter has said each time that it ended with an error.
std::string SoakWordErrorsIn(const std::string& directory);
// Never returns.
int CountWords(const std::string& sockets, const std::string& directory, SoakShared& shared);
// "", or what is wrong. REQUIRES: there is no fault.
std::string WhatIsWrongWithWords(const std::string& sockets, const std::string& directory, const std::string& region);

}  // namespace mangrove::cluster_test
