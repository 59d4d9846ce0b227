// Versions of a page, and configurations of a range.

#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "net/ids.h"

namespace mangrove {

// Version of a page's content. `epoch` is that of the write grant under which it was written, given by the responsible
// node; a grant of a later epoch beats every version of an earlier one. `counter` grows within the grants of one epoch.
// {0, 0} is the content of a page that was never written: zeros.
struct Version {
  Epoch epoch;
  uint64_t counter = 0;
  friend constexpr auto operator<=>(const Version&, const Version&) = default;
};

inline std::string ToString(const Version& v) {
  return std::to_string(v.epoch.value) + "." + std::to_string(v.counter);
}

// Numbers the configurations (sets of core holders) of a range. A holder refuses a store under an older number.
using ConfigNumber = StrongId<struct ConfigNumberTag>;

}  // namespace mangrove
