#include "engine/store/rocks_log.h"

#include <cstdio>

#include "net/log.h"

namespace mangrove::store {
namespace {

constexpr size_t kMostBytes = 1024;  // Of a line; the rest is left out.

}  // namespace

void RocksLog::Logv(const char*, va_list) {}

void RocksLog::Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) {
  if (level < GetInfoLogLevel() || level >= rocksdb::HEADER_LEVEL) return;
  char text[kMostBytes];
  if (std::vsnprintf(text, sizeof(text), format, arguments) < 0) return;
  if (level == rocksdb::WARN_LEVEL) {
    LogWarning("rocksdb: ", text);
  } else {
    LogError("rocksdb: ", text);
  }
}

}  // namespace mangrove::store
