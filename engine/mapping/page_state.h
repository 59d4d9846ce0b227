// One byte per page of a region: the page's right on this node, and who is about to map it. The bytes lie in a sparse
// memfd that applications map read-only, so that a call on a cached page needs no message.
//
//   bits 0-1  right           as `Rights`; changed by the loop alone
//   bit  2    mapped writable some mapping of an application may allow stores without a fault
//   bit  3    waited for      the loop waits until the last pin is gone, and is told by whoever takes it away
//   bits 4-7  pins            resolvers that are changing an application's page table for this page right now, and
//                             copiers that are copying from or to its frame
//
// A *resolver* is a thread that answers a fault. Its ioctl may be delayed without bound by the application's own lock,
// so the loop never waits for one on the spot; and a delayed ioctl must never map what was taken away meanwhile. A
// *copier* is a thread of the node's own process that reads or writes a page for a call, by the frames' descriptor or the mapping
// that the node has of them for itself (RegionFrames::ReadPage, ReadPages): no entry of an application's is made for it.
//
//   I1  A resolver changes page tables for a page only while it holds a pin. A pin is had only under a sufficient right.
//   I2  Under kWrite a resolver of a read-write mapping sets "mapped writable" together with its pin, so before the
//       mapping is writable. Under kRead it maps write-protected. Read-only mappings are never writable.
//   I3  To lower a right the loop first clears it, so that no pin comes any more, and touches the frame when the pins
//       are gone. Only then does the page get a right again. So an ioctl that began under an older right is over: it can
//       neither make a page writable that came back read-only, nor show one that is being filled.
//   I4  Without "mapped writable" and without pins, a store faults in every mapping, and no copier is at it.
//   I5  Punching a page out of the region's memfd removes it from every mapping, dropping its entry (MADV_DONTNEED) from
//       one; no store is under way when the call returns. What a pipe holds of the page since before (splice) has every
//       store up to then.
//   I6  "Mapped writable" is cleared when no mapping has the page, or each has it write-protected, not before.
//   I7  A copier touches the frame only while it holds a pin, had under the right for what it does, and touches nothing
//       else meanwhile that may fault for long. Copiers that write set no "mapped writable": pins stand for them.
//   I8  While a region is fenced nobody gets a pin: whoever has taken one looks at the fence afterwards, and whoever fences
//       looks at the pins afterwards, so one of them sees the other. The entries of this process's mappings are dropped
//       when the pins from before are gone. One that outlasts the wait was not waited for: its resolver finds the fence when
//       its ioctl is over, and drops what it mapped before it unpins; its copier says that it had not the right. The bytes
//       stay as they are, "mapped writable" too.
//   I9  While a region is fenced for all but loads, the same holds for stores: a pin is had for loads alone, and grants kRead,
//       whatever the right. An own mapping gets write-protected entries anew; one of another process has stores forbidden
//       by that process itself (engine/attach/region_mapping.h).

#pragma once

#include <atomic>
#include <cstdint>

#include "engine/page_memory.h"

namespace mangrove {

namespace page_state {
constexpr uint8_t kRightsMask = 0x03;
constexpr uint8_t kMappedWritable = 0x04;
constexpr uint8_t kWaitedFor = 0x08;
constexpr uint8_t kOnePin = 0x10;
constexpr uint8_t kPinsMask = 0xf0;

constexpr Rights RightsOf(uint8_t state) { return static_cast<Rights>(state & kRightsMask); }
constexpr bool IsPinned(uint8_t state) { return (state & kPinsMask) != 0; }
}  // namespace page_state

// What an application reads of the bytes. True: a load (or store) through its registered mapping needs no message,
// most likely; if the page is taken away meanwhile, the access faults and is served.
inline bool HasRights(const std::atomic<uint8_t>& state, Rights rights) {
  return page_state::RightsOf(state.load(std::memory_order_acquire)) >= rights;
}

// The result of asking for a pin.
enum class PinOutcome : uint8_t {
  kPinned,
  kInsufficient,  // The page has not the right; it must be acquired.
  kCrowded,       // Too many pins at once: try again.
};

// Thread-safe. `*granted` is the page's right, kRead at least, when pinned. `may_map_writable`: the mapping is read-write.
PinOutcome TryPin(std::atomic<uint8_t>& state, Rights wanted, bool may_map_writable, Rights* granted);

// Thread-safe. True: the caller was the last, and has to tell the loop (RegionFrames::Unpin does).
bool Unpin(std::atomic<uint8_t>& state);

}  // namespace mangrove
