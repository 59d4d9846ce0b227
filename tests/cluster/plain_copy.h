// The floor of a reduplication: pages copied from one bare store to another one, in order, by one process that does nothing else.

#pragma once

#include <cstdint>
#include <string>

namespace mangrove::cluster_test {

// Makes both stores in `directory`, and so many pages in the first; returns MiB per second of the copy alone.
double PlainCopyMibPerSecond(const std::string& directory, uint64_t pages);

}  // namespace mangrove::cluster_test
