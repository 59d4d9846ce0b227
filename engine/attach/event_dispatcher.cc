#include "engine/attach/event_dispatcher.h"

#include <algorithm>
#include <thread>

#include "directory/address.h"
#include "engine/attach/library_thread.h"

namespace mangrove {

void RegionListener::SetCallback(Callback callback) {
  auto shared = callback ? std::make_shared<Callback>(std::move(callback)) : nullptr;
  const std::lock_guard lock(mutex_);
  callback_ = std::move(shared);
}

void RegionListener::Deliver(const RegionEvent& event) {
  std::shared_ptr<Callback> callback;
  {
    const std::lock_guard lock(mutex_);
    callback = callback_;
  }
  if (callback) (*callback)(event);
}

void RegionListener::Count(const RegionEvent& event) {
  const bool reverted = event.kind == RegionEvent::Kind::kReverted || event.kind == RegionEvent::Kind::kMaybeReverted;
  if (reverted) reverted_pages_.fetch_add(event.length_bytes >> kPageShift, std::memory_order_relaxed);
}

struct EventDispatcher::Shared {
  using Key = std::pair<RegionHandle, RegionEvent::Kind>;

  std::vector<std::shared_ptr<RegionListener>> ListenersOf(RegionHandle region) {
    std::vector<std::shared_ptr<RegionListener>> result;
    const auto [first, last] = listeners.equal_range(region);
    for (auto it = first; it != last; ++it) result.push_back(it->second);
    return result;
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  std::multimap<RegionHandle, std::shared_ptr<RegionListener>> listeners;
  std::map<Key, RegionEvent> waiting;
  std::thread thread;
};

std::shared_ptr<EventDispatcher::Shared> EventDispatcher::MakeShared() { return std::make_shared<Shared>(); }

EventDispatcher::~EventDispatcher() {
  if (shared_ == nullptr) return;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->ended = true;
  }
  shared_->changed.notify_all();
  if (!shared_->thread.joinable()) return;
  if (shared_->thread.get_id() == std::this_thread::get_id()) {
    shared_->thread.detach();
  } else {
    shared_->thread.join();
  }
}

void EventDispatcher::Abandon() {
  // Its lock may be held, and its thread joinable, for ever: it is left alone.
  static_cast<void>(new std::shared_ptr<Shared>(std::move(shared_)));
}

void EventDispatcher::Add(RegionHandle region, const std::shared_ptr<RegionListener>& listener) {
  const std::lock_guard lock(shared_->mutex);
  shared_->listeners.emplace(region, listener);
}

void EventDispatcher::Remove(RegionHandle region, const std::shared_ptr<RegionListener>& listener) {
  const std::lock_guard lock(shared_->mutex);
  const auto [first, last] = shared_->listeners.equal_range(region);
  const auto it = std::find_if(first, last, [&](const auto& entry) { return entry.second == listener; });
  if (it != last) shared_->listeners.erase(it);
}

void EventDispatcher::Start() {
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->thread.joinable()) shared_->thread = StartLibraryThread([shared = shared_] { Run(shared); });
}

void EventDispatcher::Post(const AttachEvent& event) {
  const RegionEvent added{event.kind, event.pages.first << kPageShift, event.pages.count << kPageShift};
  {
    const std::lock_guard lock(shared_->mutex);
    const auto listeners = shared_->ListenersOf(event.pages.region);
    for (const auto& listener : listeners) listener->Count(added);
    if (listeners.empty()) return;
    const auto [it, is_new] = shared_->waiting.try_emplace({event.pages.region, event.kind}, added);
    if (!is_new) {
      RegionEvent& waiting = it->second;
      const uint64_t end =
          std::max(waiting.offset_bytes + waiting.length_bytes, added.offset_bytes + added.length_bytes);
      waiting.offset_bytes = std::min(waiting.offset_bytes, added.offset_bytes);
      waiting.length_bytes = end - waiting.offset_bytes;
    }
  }
  shared_->changed.notify_one();
}

void EventDispatcher::PostFenced() {
  {
    const std::lock_guard lock(shared_->mutex);
    for (const auto& [region, listener] : shared_->listeners) {
      const auto kind = RegionEvent::Kind::kFenced;
      shared_->waiting.try_emplace({region, kind}, RegionEvent{.kind = kind});
    }
  }
  shared_->changed.notify_one();
}

void EventDispatcher::Run(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    shared->changed.wait(lock, [&] { return shared->ended || !shared->waiting.empty(); });
    if (shared->ended) return;
    const auto first = shared->waiting.begin();
    const RegionEvent event = first->second;
    auto listeners = shared->ListenersOf(first->first.first);
    shared->waiting.erase(first);
    lock.unlock();
    for (const auto& listener : listeners) listener->Deliver(event);
    listeners.clear();
    lock.lock();
  }
}

}  // namespace mangrove
