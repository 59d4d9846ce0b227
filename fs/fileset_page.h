// The first page of a fileset's region.
//
//   16 number of groups of each zone: 3 times 4   28 replicas of its pages 4   32 root directory 8   40 when it was made 8
//   48 limit of its data in pages 8   56 limit of its inodes 8 (0: there is none)   64 pages of the region, by which it is cut into zones 8
//   72 of the quota (fs/quota.h): pages that are left 8   80 inodes 8   88 its number 4   92 its state 4

#pragma once

#include <cstdint>

#include "fs/bytes.h"
#include "fs/edit.h"
#include "fs/space.h"

namespace mangrove::fs {

constexpr size_t GroupCountAt(Zone zone) { return 16 + 4 * static_cast<size_t>(zone); }
constexpr size_t kReplicasAt = 28;
constexpr size_t kRootDirectoryAt = 32;
constexpr size_t kMadeAt = 40;
constexpr size_t kPageLimitAt = 48;
constexpr size_t kInodeLimitAt = 56;
constexpr size_t kRegionPagesAt = 64;
constexpr size_t kPagesLeftAt = 72;
constexpr size_t kInodesLeftAt = 80;
constexpr size_t kQuotaNumberAt = 88;
constexpr size_t kQuotaStateAt = 92;

}  // namespace mangrove::fs
