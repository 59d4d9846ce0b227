// The log's files, written into space that is already there.
//
// A sync after an append makes the filesystem commit its journal too, since the file has grown, or, in reserved space,
// since an extent is no longer unwritten; it is a second wait for the disk, and one for the journal's thread. So zeros are
// written ahead of the log, a MiB at a time, and the syncs until these are used up are of data alone: half the time. Where
// a crash leaves zeros, log_scan.h knows them.
//
// Includes RocksDB's headers; for rocks_open.cc only.

#pragma once

#include <rocksdb/env.h>

#include <memory>

namespace mangrove::store {

// RocksDB's default environment, but for the files of the log.
std::unique_ptr<rocksdb::Env> MakePrewrittenLogEnv();

}  // namespace mangrove::store
