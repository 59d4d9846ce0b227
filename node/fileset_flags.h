// What "fileset set" is given on the command line, and what the daemon is told of it (node/fileset_settings.h).

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "node/arguments.h"

namespace mangrove {

constexpr uint64_t kMostQuota = uint64_t{1} << 60;

// A flag with a number, 0 and "none" for no limit. `bytes`: K, M, G, T or P may follow, powers of 1024.
Flag QuotaFlag(const std::string& name, bool bytes, std::optional<uint64_t>* value);
// What the daemon is told: {"name", "copies", "quota_bytes", "quota_inodes"}, those that have a value.
std::string SetFilesetRequest(const std::string& name, std::optional<uint64_t> copies,
                              std::optional<uint64_t> quota_bytes, std::optional<uint64_t> quota_inodes);

}  // namespace mangrove
