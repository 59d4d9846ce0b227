// The inside of Loop: how its threads share it. One turn and sleeping are in loop_turn.cc, who drives in loop.cc.
//
// The driver's mutex makes one thread at a time the driver. One thread is *on duty*: when nobody drives, it sleeps on the
// descriptors, and becomes the driver when one is ready. That is the loop's own thread, or a caller that waits. A caller that
// finds another one on duty visits: it drives for no longer than its `start` and what follows from it at once, then sleeps
// until its completion is set. So it wakes nobody, and waits for nobody else's answer.
//
// The own thread sleeps on an *outer* epoll descriptor that holds only the *inner* one, on which everything else is
// registered. A caller that goes on duty disarms the inner one in the outer (so that the kernel does not wake the loop's
// thread for what the caller waits for) and arms it again at the end: an event that is pending then fires at once.
//
//  I1  At every moment one thread is on duty: a caller (`caller_on_duty`), who drives, sleeps on the inner descriptor
//      (`sleeper`), or has been told to drive (Completion::kDrive) and will take the mutex before it returns; or the own
//      thread, who drives, *watches* (see I5), or the inner descriptor is armed.
//  I2  While nobody polls, nor watches, `asleep` is true, and whoever makes something to do after that writes the event
//      descriptor.
//  I3  The timer descriptor expires no later than the earliest timer while nobody polls. It may expire earlier.
//  I4  A visitor that sets the completion of the sleeper wakes it: it sleeps on the descriptors.
//  I5  When callers come often, arming and disarming for each costs more than it saves. Then the loop's thread watches: it
//      looks every kWatchInterval, or when it is called (`watch_call`), and drives if nobody does and no caller is on duty;
//      callers leave without a system call, if nothing is left to do. It stops watching, and arms, when no caller has come
//      since its last look, or one stays on duty. `watching` changes under the driver's mutex.
//  I6  Callers that come one after the other, and are through with what they wanted at once, take turns for the others: no
//      timer and no source waits for the own thread, which may never have the mutex (TurnIfDue).

#pragma once

#include <sys/epoll.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "net/check.h"
#include "net/runtime/loop.h"
#include "net/runtime/timer_heap.h"

namespace mangrove {

// Its address identifies a thread.
inline thread_local char thread_marker;

struct PostNode {
  absl::AnyInvocable<void()> task;
  PostNode* next = nullptr;
};

struct FdEntry {
  uint32_t generation = 0;
  absl::AnyInvocable<void(uint32_t)> handler;  // Null for the descriptors of sources and of the loop itself.
};

inline TimeNs MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<TimeNs>(now.tv_sec) * kSecond + now.tv_nsec;
}

struct Loop::State {
  explicit State(const LoopOptions& o) : options(o) {}

  void Open();
  void Close();
  void CheckOwned() const { CHECK(!running.load(std::memory_order_relaxed) || IsDriving()); }
  bool IsDriving() const { return driving.load(std::memory_order_relaxed) == &thread_marker; }
  void BeginDriving();
  void EndDriving();
  void WakeCallers(bool* on_duty);
  void Watch(int fd, uint32_t events, absl::AnyInvocable<void(uint32_t)> handler);
  void Unwatch(int fd);

  // `until`: what the driver waits for; when it is set, nothing more is begun.
  bool Turn(TimeNs now, const Completion* until = nullptr);
  bool RunPosts();
  bool RunTimers(TimeNs now);
  bool RunSoon();
  bool PollFds();
  bool PollQueued();
  bool MayHaveQueued() const;
  void SyncTimerFd();
  bool PrepareToSleep();
  void SleepOnInner(Completion& completion);
  bool Dispatch(std::span<const epoll_event> ready);

  void Arm();
  void Disarm();
  bool TakeDuty();
  void Leave();
  void EndVisit();
  void TurnIfDue();
  bool MayPoll() const { return waiting.load(std::memory_order_relaxed) == 0; }
  void LeaveAsCaller();
  bool CallersComeOften();
  bool HasWork() const;
  bool Watch();
  void CallWatch();
  bool HandOver();
  void OwnThread();
  void PauseOrYield() const;
  bool WaitForDuty(Completion& completion);
  bool WaitAmongWaiters(Completion& completion);
  bool TryDrive();
  void WakeSleeper();
  void DropPosts();

  const LoopOptions options;
  absl::Status setup;
  int inner = -1;
  int outer = -1;
  int event_fd = -1;
  int timer_fd = -1;
  std::thread thread;
  std::atomic<bool> running{false};
  std::atomic<bool> stopping{false};

  std::mutex driver;
  std::atomic<const void*> driving{nullptr};

  // Of the driver.
  TimerHeap timers;
  TimeNs timer_fd_deadline = kForever;
  std::deque<absl::AnyInvocable<void()>> soon;
  std::vector<PollSource*> sources;
  std::unordered_map<int, std::shared_ptr<FdEntry>> fds;
  size_t handlers = 0;  // Entries of `fds` with a handler.
  uint32_t next_generation = 1;
  TimeNs next_fd_poll = 0;
  TimeNs turn_now = 0;   // When the turn, or this driving, began.
  TimeNs last_turn = 0;  // When the last turn began.
  int expected_posts = 0;
  bool armed = false;
  const Completion* sleeper = nullptr;  // What the caller that sleeps on the inner descriptor waits for.
  bool wants_watch = false;
  TimeNs burst_began = 0;
  int burst = 0;  // Callers that left since then.

  // Of everybody.
  std::atomic<PostNode*> posts{nullptr};  // Last first.
  std::atomic<bool> asleep{true};
  std::atomic<bool> event_fd_written{false};

  std::atomic<bool> caller_on_duty{false};  // Changed by the driver.
  std::atomic<bool> watching{false};
  std::atomic<uint32_t> watch_call{0};
  std::atomic<uint64_t> visits{0};  // Callers that left while the loop was watched.

  std::atomic<uint32_t> waiting{0};
  std::mutex waiters_mutex;
  std::deque<Completion*> waiters;  // Of callers that do not drive. Guarded by waiters_mutex, in the order of arrival.
};

}  // namespace mangrove
