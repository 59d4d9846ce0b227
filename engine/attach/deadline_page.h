// A page that the daemon shares with every attached program: the moment until which what it has mapped may be believed.
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

  // In nanoseconds of CLOCK_MONOTONIC.
  void Set(int64_t deadline_ns) { page_->store(deadline_ns, std::memory_order_release); }
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

  int64_t Get() const { return page_->load(std::memory_order_acquire); }

 private:
  DeadlineView() = default;
  const std::atomic<int64_t>* page_ = nullptr;
};

}  // namespace mangrove
