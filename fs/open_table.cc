#include "fs/open_table.h"

#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "net/little_endian.h"

namespace mangrove::fs {
namespace {

constexpr size_t kLifeAt = 8;
constexpr size_t kCountersAt = 16;
constexpr uint64_t kCountersOfPage = (kPageSize - kCountersAt) / sizeof(uint32_t);
constexpr uint64_t kCounters = OpenTable::kPages * kCountersOfPage;
constexpr DurationNs kTimeout = 5 * kSecond;

uint64_t CounterOf(InodeNumber inode) { return (inode.value * 0x9E3779B97F4A7C15 >> 32) % kCounters; }
size_t PlaceIn(uint64_t counter) { return kCountersAt + counter % kCountersOfPage * sizeof(uint32_t); }

}  // namespace

Incarnation OpenTable::OwnLife() const {
  const auto& members = engine_->view().members;
  const auto it = members.find(self_);
  return it == members.end() ? Incarnation{} : it->second;
}

bool OpenTable::IsThere(uint64_t place, Incarnation life) const {
  for (const auto& [node, incarnation] : engine_->view().members) {
    if (node.value % kNodePlaces == place && (life == Incarnation{} || life == incarnation)) return true;
  }
  return false;
}

// OK: this node may write to the page in this step of the loop.
Task<absl::Status> OpenTable::Hold(uint64_t page) {
  const PageId id = Own(page);
  while (engine_->RightsOf(id) != Rights::kWrite) {
    const absl::Status status = co_await engine_->Acquire({id, 1}, Rights::kWrite, clock_->Now() + kTimeout);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// All of it, whatever was there. REQUIRES: Hold, in the same step.
void OpenTable::Write(uint64_t page, Incarnation life) {
  std::array<std::byte, kPageSize> content{};
  written_in_[page] = engine_->view().epoch;
  StoreLittle(content.data(), written_in_[page].value);
  StoreLittle(content.data() + kLifeAt, life.value);
  for (auto it = counters_.lower_bound(page * kCountersOfPage);
       it != counters_.end() && it->first < (page + 1) * kCountersOfPage; ++it) {
    StoreLittle(content.data() + PlaceIn(it->first), it->second);
  }
  engine_->Store(Own(page), 0, content);
}

// O2
Task<absl::Status> OpenTable::Make(Incarnation life) {
  const PageRange pages{Own(0), kPages};
  engine_->SetKeepInRam(pages, life != Incarnation{});
  const TimeNs deadline = clock_->Now() + kTimeout;
  absl::Status status;
  do {  // Again, if a page was lost with a node that had taken it meanwhile.
    for (uint64_t page = 0; page < kPages; ++page) {
      status = co_await Hold(page);
      if (!status.ok()) co_return status;
      Write(page, life);
    }
    status = co_await engine_->Flush(pages, deadline);
  } while (absl::IsDataLoss(status) && clock_->Now() < deadline);
  if (status.ok()) life_ = life;
  co_return status;
}

Task<absl::Status> OpenTable::Publish(InodeNumber inode, bool open) {
  const uint64_t counter = CounterOf(inode);
  const uint64_t page = counter / kCountersOfPage;
  if (open) ++counters_[counter];
  if (!open && --counters_[counter] == 0) counters_.erase(counter);
  const Incarnation life = OwnLife();
  absl::Status status;
  if (life == Incarnation{}) status = absl::UnavailableError("this node is not in the view: it can open no file");
  if (status.ok() && life_ != life) status = co_await Make(life);
  if (status.ok()) status = co_await Hold(page);
  if (!status.ok()) {  // Then it is not open; or the table says of one more that it is.
    if (open && --counters_[counter] == 0) counters_.erase(counter);
    co_return status;
  }
  if (written_in_[page] != engine_->view().epoch) {  // O1
    Write(page, life_);
    co_return absl::OkStatus();
  }
  // As it is by now.
  std::array<std::byte, sizeof(uint32_t)> bytes;
  const auto now = counters_.find(counter);
  StoreLittle(bytes.data(), now == counters_.end() ? uint32_t{0} : now->second);
  engine_->Store(Own(page), PlaceIn(counter), bytes);
  co_return absl::OkStatus();
}

Task<absl::Status> OpenTable::Renew() {
  if (life_ == Incarnation{} || life_ != OwnLife()) co_return absl::OkStatus();
  for (uint64_t page = 0; page < kPages; ++page) {
    if (written_in_[page] == engine_->view().epoch) continue;
    const absl::Status status = co_await Hold(page);
    if (!status.ok()) co_return status;
    Write(page, life_);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> OpenTable::Retire() {
  if (life_ == Incarnation{}) co_return absl::OkStatus();
  co_return co_await Make({});
}

Task<absl::StatusOr<bool>> OpenTable::IsPublished(uint64_t place, InodeNumber inode) {
  const uint64_t counter = CounterOf(inode);
  const PageId page = region_.first + (PagesOf(place).first + counter / kCountersOfPage);
  while (engine_->RightsOf(page) == Rights::kNone) {
    const absl::Status status = co_await engine_->Acquire({page, 1}, Rights::kRead, clock_->Now() + kTimeout);
    if (absl::IsDataLoss(status)) co_return IsThere(place, {});
    if (!status.ok()) co_return status;
  }
  // The page and the view are of one step of the loop.
  std::array<std::byte, kCountersAt> head;
  engine_->Load(page, 0, head);
  const Incarnation life(LoadLittle<uint64_t>(head.data() + kLifeAt));
  if (life == Incarnation{} || !IsThere(place, life)) co_return false;
  if (LoadLittle<uint64_t>(head.data()) != engine_->view().epoch.value) co_return true;
  std::array<std::byte, sizeof(uint32_t)> bytes;
  engine_->Load(page, PlaceIn(counter), bytes);
  co_return LoadLittle<uint32_t>(bytes.data()) != 0;
}

}  // namespace mangrove::fs
