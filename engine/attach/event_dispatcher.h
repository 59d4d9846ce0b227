// Brings regions' events to the application's callbacks, on a thread of its own: a callback may take its time, and
// neither the watchdog nor the loop waits for it.
//
// Bounded: what waits is at most one event for each region and kind. Events that would come on top are joined to a
// range that covers them, so a slow callback learns of more pages than it would have, never of fewer.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/attach/attach_messages.h"
#include "engine/mangrove.h"

namespace mangrove {

// The receiving end of one Region object. Thread-safe.
class RegionListener {
 public:
  using Callback = std::function<void(const RegionEvent&)>;

  void SetCallback(Callback callback);
  void Deliver(const RegionEvent& event);
  void Count(const RegionEvent& event);
  uint64_t reverted_pages() const { return reverted_pages_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  std::shared_ptr<Callback> callback_;
  std::atomic<uint64_t> reverted_pages_{0};
};

// Thread-safe.
class EventDispatcher {
 public:
  EventDispatcher() = default;
  // Waits for a callback that is running, unless called from it.
  ~EventDispatcher();
  EventDispatcher(const EventDispatcher&) = delete;
  EventDispatcher& operator=(const EventDispatcher&) = delete;

  void Add(RegionHandle region, const std::shared_ptr<RegionListener>& listener);
  void Remove(RegionHandle region, const std::shared_ptr<RegionListener>& listener);
  // Callbacks come from now on: makes the thread, in the process that wants it.
  void Start();

  // Does not block. Events of regions without listeners are dropped.
  void Post(const AttachEvent& event);
  // To every listener: this process was cut off.
  void PostFenced();
  // In a child of fork, where the thread is not.
  void Abandon();

 private:
  struct Shared;
  static void Run(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_ = MakeShared();
  static std::shared_ptr<Shared> MakeShared();
};

}  // namespace mangrove
