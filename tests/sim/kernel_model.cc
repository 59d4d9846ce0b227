#include "tests/sim/kernel_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mangrove::sim {
namespace {

// A thread is woken, and wakes the loop.
constexpr DurationNs kDropTime = 100 * kMicrosecond;
// It counts in ticks, rounded up, and what runs out in a tick is there until its end.
constexpr DurationNs kTick = 4 * kMillisecond;
TimeNs EndOf(TimeNs now, DurationNs time) { return time == 0 ? 0 : ((now + time) / kTick + 2) * kTick; }

}  // namespace

std::optional<uint64_t> KernelModel::Attributes(uint64_t number) const {
  const auto it = files_.find(number);
  if (it == files_.end() || world_->now() >= it->second.attributes.until) return std::nullopt;
  return it->second.attributes.value;
}

std::optional<uint64_t> KernelModel::Bytes(uint64_t number) const {
  const auto it = files_.find(number);
  return it == files_.end() ? std::nullopt : it->second.bytes;
}

std::optional<uint64_t> KernelModel::Names() const {
  if (world_->now() >= names_.until) return std::nullopt;
  return names_.value;
}

void KernelModel::TakeNames(uint64_t value, DurationNs time) {
  if (time > 0) names_ = {.value = std::max(value, own_names_), .until = EndOf(world_->now(), time)};
}

void KernelModel::TakeAttributes(uint64_t number, uint64_t asked_in, uint64_t value, DurationNs time) {
  File& file = files_[number];
  if (file.version > asked_in) return;
  file.attributes = {.value = value, .until = EndOf(world_->now(), time)};
  file.version = ++version_;
}

void KernelModel::EndRead(uint64_t number, std::optional<uint64_t> value) {
  const auto it = files_.find(number);
  if (it == files_.end()) return;
  if (value) it->second.bytes = value;
  --it->second.reads;
  EndDrops(&it->second);
}

void KernelModel::Wrote(uint64_t number) {
  const auto it = files_.find(number);
  if (it == files_.end()) return;
  it->second.version = ++version_;
  it->second.attributes.until = 0;
}

void KernelModel::ChangedNames(uint64_t directory, std::optional<uint64_t> value) {
  if (value) names_.value = own_names_ = *value;
  const auto it = files_.find(directory);
  if (it != files_.end()) it->second.attributes.until = 0;
}

bool KernelModel::DropAttributes(uint64_t number) {
  const auto it = files_.find(number);
  if (it == files_.end()) return false;
  Wrote(number);
  return true;
}

void KernelModel::DropBytes(uint64_t number) {
  const auto it = files_.find(number);
  if (it == files_.end()) return;
  if (it->second.reads > 0) world_->Fail(absl::StrCat("the loop waits for a read of file ", number, ", for ever"));
  it->second.bytes.reset();
}

void KernelModel::OpenWithoutKeeping(uint64_t number) {
  const auto it = files_.find(number);
  if (it != files_.end() && it->second.reads == 0) it->second.bytes.reset();
}

void KernelModel::DropBytesBesideReads(uint64_t number, std::function<void(bool)> done) {
  const auto it = files_.find(number);
  auto end = [done = std::move(done)] { done(true); };
  if (it == files_.end()) {
    world_->After(kDropTime, slot_, EventKind::kClient, std::move(end));
    return;
  }
  it->second.drops.emplace_back(std::move(end));
  EndDrops(&it->second);
}

void KernelModel::EndDrops(File* file) {
  if (file->reads > 0 || file->drops.empty()) return;
  file->bytes.reset();
  for (auto& done : std::exchange(file->drops, {})) {
    world_->After(kDropTime, slot_, EventKind::kClient, std::move(done));
  }
}

}  // namespace mangrove::sim
