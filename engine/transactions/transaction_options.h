// What a node's transactions are told at their making.

#pragma once

#include <cstdint>

#include "directory/planted_bugs.h"
#include "engine/node_operations.h"
#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove {

struct TransactionsOptions {
  NodeInstance self;
  uint32_t replicas = 2;      // Core holders of the logs.
  uint64_t log_pages = 1024;  // Of this node's log, with its header; kLeastLogPages to kMostLogPages.
  DurationNs lock_timeout = 200 * kMillisecond;  // A page that others have locked is waited for.
  const PlantedBugs* bugs = &kNoPlantedBugs;
};

// Page locks of transactions are of no program.
constexpr ClientId kTransactionsClient = UINT64_MAX - 2;

}  // namespace mangrove
