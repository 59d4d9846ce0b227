// The real loop: one per shard of a node, and the only place of the node's protocol code where time passes.
//
// Everything that a node's protocol owns is touched only by the thread that *drives* the loop, one at a time. The
// loop's own thread drives when nobody else does. A caller that waits for something to happen on the loop drives it
// itself meanwhile (`RunUntil`), so that a miss costs no hand-over between threads; the loop's own thread is then kept
// asleep, not woken by what the driver handles. Where one caller waits so already, another one begins what it wants and
// sleeps until that has come about.
//
// Waiting: a driver polls for `spin_ns` after the last thing that happened, then sleeps until a descriptor, a timer or
// a post wakes it.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "net/runtime/clock.h"

namespace mangrove {

// Something that is polled at each turn of the loop, and has a descriptor to sleep on.
class PollSource {
 public:
  virtual ~PollSource() = default;
  // Handles what has happened, without blocking. Returns whether there was anything.
  virtual bool Poll() = 0;
  // Readable (for epoll) when there may be something to poll; -1 if there is none.
  virtual int WaitFd() const = 0;
  // Called before the loop sleeps: false if there is something to poll already.
  virtual bool MaySleep() = 0;
  // Whether calls of this process may have made something to poll that WaitFd does not tell of.
  virtual bool MayHaveQueued() const { return false; }
};

// A flag that a waiting caller and the loop share. `Set` is called on the loop, once.
class Completion {
 public:
  Completion() = default;
  // `before_long_wait` is called at most once, by the caller that waits: before it sleeps, or when it has driven the loop
  // for long.
  explicit Completion(absl::FunctionRef<void()> before_long_wait) : before_long_wait_(before_long_wait) {}

  void Set();
  bool IsSet() const { return (state_.load(std::memory_order_acquire) & kSet) != 0; }

 private:
  friend class Loop;
  static constexpr uint32_t kSet = 1;
  static constexpr uint32_t kAsleep = 2;  // The waiting caller sleeps on `state_`.
  static constexpr uint32_t kDrive = 4;   // It is on duty (loop_state.h): it must drive.
  static constexpr uint32_t kPosted = 8;  // The loop has still to run `start`, or is in it: it uses the caller's stack.
  static bool IsOver(uint32_t state) { return (state & (kSet | kPosted)) == kSet; }
  bool IsPosted() const { return (state_.load(std::memory_order_acquire) & kPosted) != 0; }
  bool OfferDuty();
  void Started();
  void BeforeLongWait();
  std::atomic<uint32_t> state_{0};
  std::optional<absl::FunctionRef<void()>> before_long_wait_;
};

struct LoopOptions {
  DurationNs spin_ns = 20 * kMicrosecond;
};

class Loop final : public Clock {
 public:
  explicit Loop(const LoopOptions& options);
  ~Loop() override;  // REQUIRES: stopped.

  // Before Start, or on the loop. The source or handler must outlive its registration.
  void AddSource(PollSource* source);
  void RemoveSource(PollSource* source);
  // Calls `handler` on the loop with epoll's event bits whenever `fd` is ready for `events` (level-triggered).
  void AddFd(int fd, uint32_t events, absl::AnyInvocable<void(uint32_t)> handler);
  void ModifyFd(int fd, uint32_t events);
  void RemoveFd(int fd);

  // Starts and ends the loop's own thread. After Stop nothing runs any more; what was posted is dropped.
  // Stop REQUIRES: no caller is in RunUntil.
  absl::Status Start();
  void Stop();

  // Thread-safe. Runs `task` on the loop, soon.
  void Post(absl::AnyInvocable<void()> task);

  // On the loop: so many more things, or fewer, are to come from threads of this process. Meanwhile whoever polls makes
  // way between two looks: such a thread may need this very processor.
  void ExpectPosts(int change);

  // Called by any thread but a callback of the loop: runs `start` on the loop, then waits until `completion` is set,
  // driving the loop where no other thread does. `start` must arrange that `completion` is set within a bounded time;
  // this function adds no bound of its own.
  void RunUntil(absl::FunctionRef<void()> start, Completion& completion);

  // True on the thread that drives the loop now.
  bool IsDriving() const;

  // Clock. CallAt, CallSoon and Cancel: only while driving, or before Start.
  // On the loop: when the present turn began, or its driver last woke.
  TimeNs Now() const override;
  TimeNs ExactNow() const override;
  TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) override;
  void CallSoon(absl::AnyInvocable<void()> callback) override;
  void Cancel(TimerId timer) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mangrove
