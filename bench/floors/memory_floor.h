// The floor of a node's memory: a process that has an empty RocksDB and libfabric connections, and nothing else.

#pragma once

#include <cstddef>
#include <string>

namespace mangrove::bench {

// Resident MiB with the database in `directory`, which is removed, and so many peers. Each connection has four buffers
// of 8 KiB.
double MemoryFloorMib(const std::string& directory, size_t peers);

}  // namespace mangrove::bench
