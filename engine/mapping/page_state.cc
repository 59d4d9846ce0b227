#include "engine/mapping/page_state.h"

namespace mangrove {

using page_state::kMappedWritable;
using page_state::kOnePin;
using page_state::kPinsMask;
using page_state::kWaitedFor;
using page_state::RightsOf;

PinOutcome TryPin(std::atomic<uint8_t>& state, Rights wanted, bool may_map_writable, Rights* granted) {
  uint8_t seen = state.load(std::memory_order_relaxed);
  while (true) {
    const Rights rights = RightsOf(seen);
    if (rights == Rights::kNone || rights < wanted) return PinOutcome::kInsufficient;
    if ((seen & kPinsMask) == kPinsMask) return PinOutcome::kCrowded;
    uint8_t pinned = static_cast<uint8_t>(seen + kOnePin);
    if (rights == Rights::kWrite && may_map_writable) pinned |= kMappedWritable;
    // In one order with the fence (I8).
    if (state.compare_exchange_weak(seen, pinned, std::memory_order_seq_cst, std::memory_order_relaxed)) {
      *granted = rights;
      return PinOutcome::kPinned;
    }
  }
}

bool Unpin(std::atomic<uint8_t>& state) {
  const uint8_t before = state.fetch_sub(kOnePin, std::memory_order_acq_rel);
  return (before & kPinsMask) == kOnePin && (before & kWaitedFor) != 0;
}

}  // namespace mangrove
