// A queue from many threads to worker threads that poll briefly before they sleep.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

namespace mangrove::store {

// Thread-safe. A worker that finds nothing polls for `spin_ns` before it sleeps: waking it from sleep costs the one who
// pushes as much as several exchanges do.
template <typename T>
class WorkQueue {
 public:
  explicit WorkQueue(int64_t spin_ns) : spin_ns_(spin_ns) {}

  void Push(T item) {
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
      size_.store(items_.size(), std::memory_order_release);
      wake = sleepers_ > 0;
    }
    if (wake) wake_.notify_one();
  }

  // Waits for work. Moves items from the front to the end of `out`: the first one, and those after it for which
  // `take(item)` is true. False when the queue is closed and empty.
  template <typename Out, typename Take>
  bool Pop(Out& out, Take take) {
    Spin();
    std::unique_lock lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [this] { return !items_.empty() || closed_; });
    --sleepers_;
    if (items_.empty()) return false;
    do {
      out.push_back(std::move(items_.front()));
      items_.pop_front();
    } while (!items_.empty() && take(items_.front()));
    size_.store(items_.size(), std::memory_order_release);
    return true;
  }

  // Pop returns false once the queue is empty; nothing may be pushed any more.
  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      size_.store(1, std::memory_order_release);  // Ends the polling.
    }
    wake_.notify_all();
  }

 private:
  void Spin() const {
    if (spin_ns_ <= 0 || size_.load(std::memory_order_acquire) > 0) return;
    const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(spin_ns_);
    while (size_.load(std::memory_order_acquire) == 0 && std::chrono::steady_clock::now() < end) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

  const int64_t spin_ns_;
  std::atomic<size_t> size_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<T> items_;
  int sleepers_ = 0;
  bool closed_ = false;
};

}  // namespace mangrove::store
