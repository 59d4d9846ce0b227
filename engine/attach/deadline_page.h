// A page that the daemon shares with every attached program: until when it is sure to be served, and until when what it has mapped
// may be believed.
// A daemon that is stopped or hangs no longer moves it, and its sockets do not tell. See watchdog.h.

#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

// The daemon's side. Owned by the loop.
class DeadlineStamp {
 public:
  static absl::StatusOr<DeadlineStamp> Create();
  DeadlineStamp(DeadlineStamp&& other) noexcept;
  ~DeadlineStamp();

  // Both in nanoseconds of CLOCK_MONOTONIC. `lease_ns`: until then what is mapped may be used.
  void Set(int64_t deadline_ns, int64_t lease_ns) {
    page_[0].store(deadline_ns, std::memory_order_release);
    page_[1].store(lease_ns, std::memory_order_release);
  }
  // A new descriptor that can only be read.
  absl::StatusOr<UniqueFd> OpenReadOnly() const;

 private:
  DeadlineStamp() = default;
  UniqueFd memory_;
  std::atomic<int64_t>* page_ = nullptr;
};

// The program's side.
class DeadlineView {
 public:
  static absl::StatusOr<DeadlineView> Create(const UniqueFd& memory);
  DeadlineView(DeadlineView&& other) noexcept;
  ~DeadlineView();

  int64_t deadline_ns() const { return page_[0].load(std::memory_order_acquire); }
  int64_t lease_ns() const { return page_[1].load(std::memory_order_acquire); }

 private:
  DeadlineView() = default;
  const std::atomic<int64_t>* page_ = nullptr;
};

}  // namespace mangrove
