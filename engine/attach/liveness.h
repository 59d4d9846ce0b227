// Whether this process is served: one flag that every fast path looks at. It is cleared when the process is cut off
// from its node, and reads as cleared in children of fork, which have neither the mappings nor the threads.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace mangrove {

// Thread-safe.
class Liveness {
 public:
  static absl::StatusOr<std::unique_ptr<Liveness>> Create();
  ~Liveness();
  Liveness(const Liveness&) = delete;
  Liveness& operator=(const Liveness&) = delete;

  bool alive() const { return flag_->load(std::memory_order_acquire) != 0; }
  void End() { flag_->store(0, std::memory_order_release); }
  // False in a child of fork. A system call.
  bool IsOwnProcess() const;

 private:
  Liveness() = default;
  std::atomic<uint32_t>* flag_ = nullptr;  // On a page that children of fork get empty.
  pid_t process_ = 0;
};

}  // namespace mangrove
