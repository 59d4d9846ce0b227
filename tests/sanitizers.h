// Builds with sanitizers, in which all takes five to twenty times as long.

#pragma once

#include <cstdint>

namespace mangrove {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// How many of `count` random histories a test tries: a tenth with sanitizers, which look for other defects than the
// histories do and find these in the first ones.
constexpr uint64_t Histories(uint64_t count) { return kSanitized ? (count + 9) / 10 : count; }

}  // namespace mangrove
