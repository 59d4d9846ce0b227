// Applets: operations of several steps as straight-line coroutines that belong to one loop.
//
//   Task<absl::Status> Copy(...) { auto page = co_await Fetch(...); ... co_return absl::OkStatus(); }
//   Spawn(Copy(...), [](absl::Status s) { ... });
//
// A Task does nothing until it is awaited or spawned. It runs, and is resumed, only on its loop's driver; what it waits
// for (an Outcome, a timer) resumes it through the loop's queue, never from inside the call that brings the news. So an
// applet sees no other run between two of its awaits.
//
// An applet that waits when its loop ends is never resumed; its frame is then freed by nobody. A node's shutdown
// therefore ends its waits first.

#pragma once

#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "net/runtime/clock.h"

namespace mangrove {

// The result of a coroutine. Move-only; awaited or spawned at most once. T must not be void.
template <typename T>
class [[nodiscard]] Task {
 public:
  struct promise_type {
    std::optional<T> value;
    std::coroutine_handle<> continuation;

    Task get_return_object() { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct FinalAwaiter {
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) noexcept {
        return h.promise().continuation ? h.promise().continuation : std::noop_coroutine();
      }
      void await_resume() noexcept {}
    };
    FinalAwaiter final_suspend() noexcept { return {}; }
    template <typename U>
    void return_value(U&& u) {
      value.emplace(std::forward<U>(u));
    }
    void unhandled_exception() { std::terminate(); }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
    handle_.promise().continuation = awaiting;
    return handle_;
  }
  T await_resume() { return std::move(*handle_.promise().value); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

namespace task_internal {
// A coroutine that frees itself at its end.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

template <typename T>
Detached RunDetached(Task<T> task, absl::AnyInvocable<void(T)> done) {
  T result = co_await std::move(task);
  done(std::move(result));
}
}  // namespace task_internal

// Runs `task` now, until its first wait; `done` gets its result.
template <typename T>
void Spawn(Task<T> task, absl::AnyInvocable<void(T)> done) {
  task_internal::RunDetached<T>(std::move(task), std::move(done));
}

// A value that one applet waits for and somebody sets, once. Copies share it.
template <typename T>
class Outcome {
 public:
  explicit Outcome(Clock* clock) : state_(std::make_shared<State>()) { state_->clock = clock; }

  // Later calls are ignored: the first news counts.
  void Set(T value) {
    if (state_->value) return;
    state_->value.emplace(std::move(value));
    if (state_->waiter) state_->clock->CallSoon([h = std::exchange(state_->waiter, {})] { h.resume(); });
  }
  bool IsSet() const { return state_->value.has_value(); }

  // co_await outcome.Get(). REQUIRES: awaited once.
  auto Get() {
    struct Awaiter {
      std::shared_ptr<State> state;
      bool await_ready() const noexcept { return state->value.has_value(); }
      void await_suspend(std::coroutine_handle<> h) noexcept { state->waiter = h; }
      T await_resume() { return std::move(*state->value); }
    };
    return Awaiter{state_};
  }

 private:
  struct State {
    Clock* clock = nullptr;
    std::optional<T> value;
    std::coroutine_handle<> waiter;
  };
  std::shared_ptr<State> state_;
};

// co_await SleepUntil(clock, deadline).
inline auto SleepUntil(Clock* clock, TimeNs deadline) {
  struct Awaiter {
    Clock* clock;
    TimeNs deadline;
    bool await_ready() const noexcept { return clock->Now() >= deadline; }
    void await_suspend(std::coroutine_handle<> h) {
      clock->CallAt(deadline, [h] { h.resume(); });
    }
    void await_resume() noexcept {}
  };
  return Awaiter{clock, deadline};
}

// co_await YieldTo(clock): everything that is due already runs first.
inline auto YieldTo(Clock* clock) {
  struct Awaiter {
    Clock* clock;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      clock->CallSoon([h] { h.resume(); });
    }
    void await_resume() noexcept {}
  };
  return Awaiter{clock};
}

}  // namespace mangrove
