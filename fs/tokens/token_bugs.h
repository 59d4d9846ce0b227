// Bugs that a test has the machines make, to see that it would find them. Nothing but tests sets one.

#pragma once

#include <cstdint>

namespace mangrove::fs {

enum class TokenBug : uint8_t {
  kNone = 0,
  kReturnBeforeInvalidated,  // The client answers a recall while what it is the right to is still there.
  kUsesWhatIsLent,           // The client forgets that it has lent.
  kTwoWriters,               // The server leaves conflicts of two writes out.
  kBelievesCrossedReturn,    // The server takes the levels of a return that was sent before its last grant was seen.
};

}  // namespace mangrove::fs
