// How much room is left on this node's disk, and whether an operator is to be told. In what follows free bytes are those beside the
// node's reserve.
//
//   is full           nothing is free: what is flushed here is refused
//   is low            less than 15 % of what the node may use is free
//   lacks headroom    if another node is lost for ever, what of it comes to this disk does not fit. Where it is kept, no more
//                     pages are taken there (PeerEviction::HasDiskRoom)
//
// Each is over only when there is somewhat more room than where it begins, so that a disk at a bound says so once.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "engine/page_store.h"
#include "net/runtime/clock.h"
#include "recovery/messages.h"

namespace mangrove {

struct DiskRoom {
  bool is_full = false;
  bool is_low = false;
  bool lacks_headroom = false;
  friend bool operator==(const DiskRoom&, const DiskRoom&) = default;
};

// What comes to this disk if another one is lost: it is spread over those that are left. 0 where `disks` are so few that each that
// is left has everything already.
uint64_t HeadroomBytes(const StoreUsage& usage, size_t disks, uint32_t replicas);

// `before`: what was found last.
DiskRoom RoomOf(const StoreUsage& usage, uint64_t headroom_bytes, const DiskRoom& before);

// As pulses say it.
DiskSize DiskSizeOf(const StoreUsage& usage);

// What is to be done about it; empty where there is enough room.
std::string AdviceOn(const DiskRoom& room, const StoreUsage& usage, uint64_t headroom_bytes);

// Looks every few seconds, and logs each change once. Owned by the loop.
class DiskWatch {
 public:
  struct Found {
    StoreUsage usage;
    uint64_t headroom_bytes = 0;
    DiskRoom room;
  };
  // How many disks keep pages now, on how many each page is to be, and what of its disk the node leaves free.
  struct Spread {
    size_t disks = 0;
    uint32_t replicas = 1;
    uint64_t reserve_bytes = 0;
  };

  // All outlive this object.
  DiskWatch(Clock* clock, const PageStore* store, std::function<Spread()> spread);
  ~DiskWatch();
  DiskWatch(const DiskWatch&) = delete;
  DiskWatch& operator=(const DiskWatch&) = delete;

  // Is told what was found after each look.
  void SetSink(std::function<void(const Found&)> sink) { sink_ = std::move(sink); }
  // As of now.
  const Found& Look();

 private:
  void LookLater();

  Clock* const clock_;
  const PageStore* const store_;
  const std::function<Spread()> spread_;
  std::function<void(const Found&)> sink_;
  Found found_;
  Clock::TimerId timer_ = 0;
};

}  // namespace mangrove
