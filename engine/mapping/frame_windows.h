// A region's frames as this process has them mapped for itself, beside the mappings that programs use: in windows, each mapped when the
// first page in it is wanted. So a region takes addresses as far as it is used, of which a process has 128 TiB in all: 16,000 windows.
//
// Thread-safe.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mangrove {

class FrameWindows {
 public:
  static constexpr int kShift = 33;
  static constexpr uint64_t kBytes = uint64_t{1} << kShift;

  // Of a memfd of `size_bytes`, which outlives it. With the first window, so that what the kernel lacks is said here.
  static absl::StatusOr<std::unique_ptr<FrameWindows>> Create(int frames, uint64_t size_bytes);
  ~FrameWindows();
  FrameWindows(const FrameWindows&) = delete;
  FrameWindows& operator=(const FrameWindows&) = delete;

  // What is behind `offset`, as far as its window. Null: the process cannot map any more.
  std::byte* At(uint64_t offset) {
    std::byte* window = windows_[offset >> kShift].load(std::memory_order_acquire);
    if (window == nullptr) window = Open(offset >> kShift);
    return window == nullptr ? nullptr : window + (offset & (kBytes - 1));
  }

 private:
  FrameWindows(int frames, uint64_t size_bytes);
  uint64_t count() const { return (size_bytes_ + kBytes - 1) >> kShift; }
  uint64_t BytesOf(uint64_t window) const;
  absl::StatusOr<std::byte*> Map(uint64_t window) const;
  std::byte* Open(uint64_t window);

  const int frames_;
  const uint64_t size_bytes_;
  std::unique_ptr<std::atomic<std::byte*>[]> windows_;
};

}  // namespace mangrove
