// A thread that does one thing at a time for another one, which does something else meanwhile.

#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/functional/function_ref.h"

namespace mangrove::store {

// Owned by one thread.
class HelperThread {
 public:
  HelperThread() : thread_([this] { Run(); }) {}
  ~HelperThread() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  HelperThread(const HelperThread&) = delete;
  HelperThread& operator=(const HelperThread&) = delete;

  // Returns when both are done: `task`, there, and `meanwhile`, here.
  void Do(absl::FunctionRef<void()> task, absl::FunctionRef<void()> meanwhile) {
    {
      const std::lock_guard lock(mutex_);
      task_.emplace(task);
    }
    changed_.notify_all();
    meanwhile();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !task_.has_value(); });
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return task_.has_value() || ends_; });
      if (ends_) return;
      lock.unlock();
      (*task_)();
      lock.lock();
      task_.reset();
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<absl::FunctionRef<void()>> task_;  // Guarded by mutex_; until it is done.
  bool ends_ = false;                              // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace mangrove::store
