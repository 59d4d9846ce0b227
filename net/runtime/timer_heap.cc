#include "net/runtime/timer_heap.h"

#include <utility>

#include "net/check.h"

namespace mangrove {

bool TimerHeap::Before(uint32_t a, uint32_t b) const {
  const Slot& x = slots_[a];
  const Slot& y = slots_[b];
  return x.deadline != y.deadline ? x.deadline < y.deadline : x.order < y.order;
}

void TimerHeap::Place(size_t position, uint32_t slot) {
  heap_[position] = slot;
  slots_[slot].position = position;
}

void TimerHeap::SiftUp(size_t position) {
  const uint32_t slot = heap_[position];
  while (position > 0) {
    const size_t parent = (position - 1) / 2;
    if (!Before(slot, heap_[parent])) break;
    Place(position, heap_[parent]);
    position = parent;
  }
  Place(position, slot);
}

void TimerHeap::SiftDown(size_t position) {
  const uint32_t slot = heap_[position];
  while (true) {
    size_t child = 2 * position + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && Before(heap_[child + 1], heap_[child])) ++child;
    if (!Before(heap_[child], slot)) break;
    Place(position, heap_[child]);
    position = child;
  }
  Place(position, slot);
}

Clock::TimerId TimerHeap::Add(TimeNs deadline, absl::AnyInvocable<void()> callback) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  CHECK(slot.position == kUnused);
  slot.deadline = deadline;
  slot.order = next_order_++;
  ++slot.use;
  slot.callback = std::move(callback);
  heap_.push_back(index);
  SiftUp(heap_.size() - 1);
  // Slot numbers begin at 1 in ids, so that no id is 0.
  return (static_cast<uint64_t>(slot.use) << 32) | (index + 1);
}

absl::AnyInvocable<void()> TimerHeap::Remove(size_t position) {
  const uint32_t index = heap_[position];
  const uint32_t last = heap_.back();
  heap_.pop_back();
  if (index != last) {
    Place(position, last);
    SiftUp(position);
    SiftDown(slots_[last].position);
  }
  slots_[index].position = kUnused;
  free_.push_back(index);
  return std::exchange(slots_[index].callback, nullptr);
}

void TimerHeap::Cancel(Clock::TimerId id) {
  const uint64_t index = (id & UINT32_MAX) - 1;
  if (index >= slots_.size()) return;
  const Slot& slot = slots_[index];
  if (slot.position == kUnused || slot.use != id >> 32) return;
  Remove(slot.position);
}

absl::AnyInvocable<void()> TimerHeap::Pop() {
  CHECK(!heap_.empty());
  return Remove(0);
}

}  // namespace mangrove
