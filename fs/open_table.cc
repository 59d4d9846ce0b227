#include "fs/open_table.h"

#include <array>
#include <cstring>
#include <span>

#include "engine/page_engine.h"
#include "net/little_endian.h"

namespace mangrove::fs {
namespace {

// In the zone of what describes the fileset, behind the places.
constexpr uint64_t kFirstTablePage = 4096;
constexpr uint64_t kTablePages = 4;
constexpr uint64_t kCountersOfPage = kPageSize / sizeof(uint32_t);
constexpr uint64_t kCounters = kTablePages * kCountersOfPage;
constexpr DurationNs kTimeout = 5 * kSecond;

uint64_t CounterOf(InodeNumber inode) { return inode.value * 0x9E3779B97F4A7C15 >> 32 & (kCounters - 1); }

}  // namespace

PageRange OpenTable::PagesOf(uint64_t place) const {
  return {region_.first + (kFirstTablePage + place * kTablePages), kTablePages};
}

// Some node that has the place.
bool OpenTable::IsThere(uint64_t place) const {
  for (const auto& [node, incarnation] : engine_->view().members) {
    if (node.value % kNodePlaces == place) return true;
  }
  return false;
}

Task<absl::Status> OpenTable::Make() {
  const PageRange pages = PagesOf(place_);
  AllocateOptions options;
  options.persistent = false;
  absl::Status status = co_await allocate_(pages, options, clock_->Now() + kTimeout);
  if (absl::IsAlreadyExists(status)) status = absl::OkStatus();
  if (!status.ok()) co_return status;
  engine_->SetKeepInRam(pages, true);
  co_return co_await Write();
}

// All of it: what a node before this one had open is not open any more.
Task<absl::Status> OpenTable::Write() {
  const PageRange pages = PagesOf(place_);
  for (uint64_t i = 0; i < kTablePages; ++i) {
    const PageId page = pages.first + i;
    while (engine_->RightsOf(page) != Rights::kWrite) {
      const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kWrite, clock_->Now() + kTimeout);
      if (!status.ok()) co_return status;
    }
    std::array<std::byte, kPageSize> content{};
    for (auto it = counters_.lower_bound(i * kCountersOfPage);
         it != counters_.end() && it->first < (i + 1) * kCountersOfPage; ++it) {
      StoreLittle(content.data() + it->first % kCountersOfPage * sizeof(uint32_t), it->second);
    }
    engine_->Store(page, 0, content);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> OpenTable::Publish(InodeNumber inode, bool open) {
  const uint64_t counter = CounterOf(inode);
  if (open) ++counters_[counter];
  if (!open && --counters_[counter] == 0) counters_.erase(counter);
  const PageId page = PagesOf(place_).first + counter / kCountersOfPage;
  while (engine_->RightsOf(page) != Rights::kWrite) {
    absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kWrite, clock_->Now() + kTimeout);
    // It was at a node that is gone: O1 until it is written anew.
    if (absl::IsDataLoss(status)) status = co_await Make();
    if (status.ok()) continue;
    // Then it is not open; or the table says of one more that it is.
    if (open && --counters_[counter] == 0) counters_.erase(counter);
    co_return status;
  }
  // As it is by now.
  std::array<std::byte, sizeof(uint32_t)> bytes;
  const auto now = counters_.find(counter);
  StoreLittle(bytes.data(), now == counters_.end() ? uint32_t{0} : now->second);
  engine_->Store(page, counter % kCountersOfPage * sizeof(uint32_t), bytes);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<bool>> OpenTable::IsPublished(uint64_t place, InodeNumber inode) {
  const uint64_t counter = CounterOf(inode);
  const PageId page = PagesOf(place).first + counter / kCountersOfPage;
  while (engine_->RightsOf(page) == Rights::kNone) {
    const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kRead, clock_->Now() + kTimeout);
    if (absl::IsFailedPrecondition(status)) co_return false;  // It never had a table.
    if (absl::IsDataLoss(status)) co_return IsThere(place);   // O1
    if (!status.ok()) co_return status;
  }
  std::array<std::byte, sizeof(uint32_t)> bytes;
  engine_->Load(page, counter % kCountersOfPage * sizeof(uint32_t), bytes);
  co_return LoadLittle<uint32_t>(bytes.data()) != 0;
}

}  // namespace mangrove::fs
