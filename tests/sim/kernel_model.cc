#include "tests/sim/kernel_model.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace mangrove::sim {
namespace {

// A thread is woken, and wakes the loop.
constexpr DurationNs kDropTime = 100 * kMicrosecond;

}  // namespace

std::optional<uint64_t> KernelModel::Attributes(uint64_t number) const {
  const auto it = files_.find(number);
  if (it == files_.end() || world_->now() >= it->second.attributes.until) return std::nullopt;
  return it->second.attributes.value;
}

std::optional<uint64_t> KernelModel::Names() const {
  if (names_.epoch != epoch_ || world_->now() >= names_.until) return std::nullopt;
  return names_.value;
}

std::optional<uint64_t> KernelModel::Bytes(uint64_t number) const {
  const auto it = files_.find(number);
  return it == files_.end() ? std::nullopt : it->second.bytes;
}

void KernelModel::TakeAttributes(uint64_t number, uint64_t asked_in, uint64_t value, DurationNs time) {
  File& file = files_[number];
  if (file.version > asked_in) return;
  file.attributes = {.value = value, .until = world_->now() + time, .epoch = 0};
  file.version = ++version_;
}

void KernelModel::TakeNames(uint64_t asked_in, uint64_t value, DurationNs time) {
  names_ = {.value = value, .until = world_->now() + time, .epoch = asked_in};
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

// Without a mark that what was asked for before is older.
void KernelModel::ChangedNames(uint64_t directory) {
  names_.until = 0;
  const auto it = files_.find(directory);
  if (it != files_.end()) it->second.attributes.until = 0;
}

bool KernelModel::DropAttributes(uint64_t number) {
  const auto it = files_.find(number);
  if (it == files_.end()) return false;
  Wrote(number);
  return true;
}

bool KernelModel::DropNames() {
  ++epoch_;
  return true;
}

void KernelModel::DropBytes(uint64_t number) {
  const auto it = files_.find(number);
  if (it == files_.end()) return;
  if (it->second.reads > 0) world_->Fail(absl::StrCat("the loop waits for a read of file ", number, ", for ever"));
  it->second.bytes.reset();
}

void KernelModel::DropBytesBesideReads(uint64_t number, std::function<void()> done) {
  const auto it = files_.find(number);
  if (it == files_.end()) {
    world_->After(kDropTime, slot_, EventKind::kClient, std::move(done));
    return;
  }
  it->second.drops.push_back(std::move(done));
  EndDrops(&it->second);
}

void KernelModel::EndDrops(File* file) {
  if (file->reads > 0 || file->drops.empty()) return;
  file->bytes.reset();
  for (auto& done : std::exchange(file->drops, {}))
    world_->After(kDropTime, slot_, EventKind::kClient, std::move(done));
}

}  // namespace mangrove::sim
