// Timers in the order of (deadline, order of creation): the same calls give the same order in every run.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "net/runtime/clock.h"

namespace mangrove {

// A binary heap of slots that are reused, so that a timer costs no allocation of its own. Thread-compatible.
//  I1  heap_[slots_[s].position] == s for every slot in use.
//  I2  An id names one timer for ever: it holds the slot and how often the slot was used before.
class TimerHeap {
 public:
  Clock::TimerId Add(TimeNs deadline, absl::AnyInvocable<void()> callback);
  // Does nothing if the timer is gone.
  void Cancel(Clock::TimerId id);
  // kForever if there is none.
  TimeNs Earliest() const { return heap_.empty() ? kForever : slots_[heap_[0]].deadline; }
  // Removes the earliest timer. REQUIRES: there is one.
  absl::AnyInvocable<void()> Pop();
  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }

 private:
  struct Slot {
    TimeNs deadline = 0;
    uint64_t order = 0;
    uint32_t use = 0;  // Counts the timers that this slot has held.
    size_t position = kUnused;
    absl::AnyInvocable<void()> callback;
  };
  static constexpr size_t kUnused = SIZE_MAX;

  bool Before(uint32_t a, uint32_t b) const;
  void Place(size_t position, uint32_t slot);
  void SiftUp(size_t position);
  void SiftDown(size_t position);
  absl::AnyInvocable<void()> Remove(size_t position);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> heap_;  // Slots.
  uint64_t next_order_ = 0;
};

}  // namespace mangrove
