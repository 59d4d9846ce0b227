#include "engine/disk_watch.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/log.h"

namespace mangrove {
namespace {

constexpr DurationNs kLookAgain = 5 * kSecond;
constexpr uint64_t kLowPercent = 15;
constexpr uint64_t kLowEndsPercent = 17;

uint64_t PercentFree(const StoreUsage& usage) {
  const double all = static_cast<double>(usage.used_bytes) + static_cast<double>(usage.free_bytes);
  return all == 0 ? 0 : static_cast<uint64_t>(100.0 * static_cast<double>(usage.free_bytes) / all);
}

std::string MiB(uint64_t bytes) { return absl::StrCat(bytes >> 20, " MiB"); }

}  // namespace

uint64_t HeadroomBytes(const StoreUsage& usage, size_t disks, uint32_t replicas) {
  return disks <= std::max<size_t>(replicas, 1) ? 0 : usage.used_bytes / (disks - 1);
}

DiskRoom RoomOf(const StoreUsage& usage, uint64_t headroom_bytes, const DiskRoom& before) {
  DiskRoom room;
  room.is_full = usage.free_bytes == 0;
  room.is_low = PercentFree(usage) < (before.is_low ? kLowEndsPercent : kLowPercent);
  room.lacks_headroom = usage.free_bytes < headroom_bytes + (before.lacks_headroom ? headroom_bytes / 8 : 0);
  return room;
}

// 0 would say nothing.
DiskSize DiskSizeOf(const StoreUsage& usage) {
  const uint64_t all = usage.used_bytes + usage.free_bytes;
  const double used = all == 0 ? 1 : static_cast<double>(usage.used_bytes) / static_cast<double>(all);
  return {.mib = static_cast<uint32_t>(std::clamp<uint64_t>(all >> 20, 1, UINT32_MAX)),
          .used = static_cast<uint16_t>(1 + std::lround(used * (DiskSize::kAllUsed - 1)))};
}

std::string AdviceOn(const DiskRoom& room, const StoreUsage& usage, uint64_t headroom_bytes) {
  const std::string is_free = absl::StrCat(PercentFree(usage), " % of this node's disk, ", MiB(usage.free_bytes));
  if (room.is_full) {
    return absl::StrCat(is_free,
                        ", is free: what is written here cannot be flushed; unallocate pages, free space on the "
                        "filesystem of data_dir, or drain this node");
  }
  if (room.is_low)
    return absl::StrCat(is_free, ", is free: let another node join, or enlarge the disk, before it is full");
  if (!room.lacks_headroom) return "";
  return absl::StrCat(is_free, ", is free: if another node is lost for ever, about ", MiB(headroom_bytes),
                      " come here, and do not fit; let another node join, or enlarge the disks");
}

DiskWatch::DiskWatch(Clock* clock, const PageStore* store, std::function<Spread()> spread)
    : clock_(clock), store_(store), spread_(std::move(spread)) {
  LookLater();
}

DiskWatch::~DiskWatch() { clock_->Cancel(timer_); }

void DiskWatch::LookLater() {
  timer_ = clock_->CallAt(clock_->Now() + kLookAgain, [this] {
    Look();
    LookLater();
  });
}

const DiskWatch::Found& DiskWatch::Look() {
  const DiskRoom before = found_.room;
  const Spread spread = spread_();
  found_.usage = store_->Usage();
  found_.usage.free_bytes -= std::min(found_.usage.free_bytes, spread.reserve_bytes);
  found_.headroom_bytes = HeadroomBytes(found_.usage, spread.disks, spread.replicas);
  found_.room = RoomOf(found_.usage, found_.headroom_bytes, before);
  if (sink_) sink_(found_);
  if (found_.room == before) return found_;
  const std::string advice = AdviceOn(found_.room, found_.usage, found_.headroom_bytes);
  if (advice.empty()) {
    LogInfo("this node's disk has room again: ", MiB(found_.usage.free_bytes), " are free");
  } else {
    LogWarning(advice);
  }
  return found_;
}

}  // namespace mangrove
