// What RocksDB says of itself, in the node's log. Its own log would be a file beside the tables: on a disk that is full RocksDB 7.8, built
// with its assertions, ends the process when it cannot write to that.

#pragma once

#include <rocksdb/env.h>

#include <cstdarg>

namespace mangrove::store {

class RocksLog final : public rocksdb::Logger {
 public:
  RocksLog() : rocksdb::Logger(rocksdb::WARN_LEVEL) {}
  void Logv(const char* format, va_list arguments) override;  // Without a level: what heads its log. Not kept.
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override;
};

}  // namespace mangrove::store
