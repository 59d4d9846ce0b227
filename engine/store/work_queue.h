// A queue from many threads to worker threads that poll briefly before they sleep.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace mangrove::store {

// Thread-safe. A worker that finds nothing polls for `spin_ns` before it sleeps: waking it from sleep costs the one who
// pushes as much as several exchanges do. One that finds less than it expects polls for `gather_ns` before it takes that.
template <typename T>
class WorkQueue {
 public:
  WorkQueue(int64_t spin_ns, int64_t gather_ns) : spin_(spin_ns), gather_(gather_ns) {}

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

  size_t size() const { return size_.load(std::memory_order_acquire); }

  // Waits for work. Moves items from the front to the end of `out`: the first one, and those after it for which
  // `take(item)` is true. Calls `idle()` before it sleeps. False when the queue is closed and empty.
  template <typename Out, typename Take, typename Idle>
  bool Pop(Out& out, size_t expected, Take take, Idle idle) {
    Poll(expected);
    if (size() == 0) idle();
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
      size_.store(SIZE_MAX, std::memory_order_release);  // Ends the polling.
    }
    wake_.notify_all();
  }

 private:
  void Poll(size_t expected) const {
    if (size() >= expected) return;
    const auto begin = std::chrono::steady_clock::now();
    for (auto now = begin;; now = std::chrono::steady_clock::now()) {
      const size_t found = size();
      if (found >= expected || now - begin >= (found == 0 ? spin_ : gather_)) return;
      // Where cores are few, those that are to push may be waiting for this one.
      std::this_thread::yield();
    }
  }

  const std::chrono::nanoseconds spin_;
  const std::chrono::nanoseconds gather_;
  std::atomic<size_t> size_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<T> items_;
  int sleepers_ = 0;
  bool closed_ = false;
};

}  // namespace mangrove::store
