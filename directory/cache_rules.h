// The rules before the cache's table (R1 to R3, directory/cache_machine.h): which event a message is. Private to cache_*.cc.

#pragma once

#include <optional>

#include "directory/cache_machine.h"

namespace mangrove {

// The event that `m`, from the node `from`, is; nothing if it is stale.
std::optional<CacheEvent> Classify(const CacheEntry& e, const Message& m, NodeId from, const CacheContext& context);

// R2
bool IsBlocked(const CacheEntry& e, const Message& m, TimeNs now);

// False for a grant to whom has the content already. A grant from disk may carry zeros, without data.
bool CarriesContent(const Message& grant);

}  // namespace mangrove
