// Who drives the loop; see loop_state.h.

#include "net/runtime/loop.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "net/check.h"
#include "net/runtime/loop_state.h"

namespace mangrove {
namespace {

// A caller that leaves gives what is still to do at most this many turns, then wakes the loop's own thread for it.
constexpr int kTurnsBeforeLeaving = 3;
// A caller that waits for another driver spins at most this long: the driver may need its processor.
constexpr DurationNs kMaxWaiterSpin = 20 * kMicrosecond;

// So many callers that leave within so long come often.
constexpr int kBurstCalls = 8;
constexpr DurationNs kBurstSpan = 500 * kMicrosecond;
// How often a loop is looked at that is watched, and how often in vain, since a caller drives it all the time.
constexpr DurationNs kWatchInterval = 100 * kMicrosecond;
constexpr int kLooksInVain = 4;
constexpr int kTurnsPerLook = 16;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void FutexWait(std::atomic<uint32_t>* word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWaitFor(std::atomic<uint32_t>* word, uint32_t expected, DurationNs span) {
  const timespec timeout{.tv_sec = span / kSecond, .tv_nsec = span % kSecond};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, &timeout, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace

void Completion::Set() {
  const uint32_t before = state_.fetch_or(kSet, std::memory_order_acq_rel);
  CHECK((before & kSet) == 0);
  // The waiter may be gone by now, and its stack with it: a wake-up on that address then does nothing, or is one that
  // its next sleeper has to expect anyway.
  if (before & kAsleep) FutexWake(&state_);
}

// --- Who drives -------------------------------------------------------------------------------------------------------

void Loop::State::Arm() {
  if (armed) return;
  armed = true;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  CHECK(epoll_ctl(outer, EPOLL_CTL_MOD, inner, &event) == 0);
}

void Loop::State::Disarm() {
  if (!armed) return;
  armed = false;
  epoll_event event{};
  event.events = EPOLLONESHOT;
  CHECK(epoll_ctl(outer, EPOLL_CTL_MOD, inner, &event) == 0);
}

// Tells a waiting caller to drive. Returns false if none waits.
bool Loop::State::HandOver() {
  if (waiting.load(std::memory_order_relaxed) == 0) return false;
  std::lock_guard<std::mutex> lock(waiters_mutex);
  while (!waiters.empty()) {
    Waiter* waiter = waiters.front();
    waiters.pop_front();
    if (waiter->completion->IsSet()) continue;
    promised.store(true, std::memory_order_relaxed);
    const uint32_t before = waiter->completion->state_.fetch_or(Completion::kDrive, std::memory_order_acq_rel);
    if (before & Completion::kAsleep) FutexWake(&waiter->completion->state_);
    return true;
  }
  return false;
}

// Ends driving and keeps I1.
void Loop::State::Leave() {
  if (!HandOver()) {
    bool idle = PrepareToSleep();
    for (int turn = 0; !idle && turn < kTurnsBeforeLeaving; ++turn) {
      Turn(MonotonicNow());
      idle = PrepareToSleep();
    }
    Arm();
    if (!idle || wants_watch) {
      asleep.store(true, std::memory_order_seq_cst);
      WakeSleeper();
    }
  }
  EndDriving();
}

// A caller's Leave.
void Loop::State::LeaveAsCaller() {
  if (!watching.load(std::memory_order_relaxed)) {
    if (CallersComeOften()) wants_watch = true;
    return Leave();
  }
  visits.fetch_add(1, std::memory_order_relaxed);
  if (!HandOver()) {
    for (int turn = 0; HasWork() && turn < kTurnsBeforeLeaving; ++turn) Turn(MonotonicNow());
    if (HasWork()) CallWatch();
  }
  EndDriving();
}

bool Loop::State::CallersComeOften() {
  if (options.spin_ns == 0) return false;  // Nobody is to poll.
  if (turn_now - burst_began > kBurstSpan) {
    burst_began = turn_now;
    burst = 0;
  }
  return ++burst >= kBurstCalls;
}

bool Loop::State::HasWork() const { return posts.load(std::memory_order_seq_cst) != nullptr || !soon.empty(); }

void Loop::State::CallWatch() {
  if (watch_call.exchange(1, std::memory_order_seq_cst) == 0) FutexWake(&watch_call);
}

// Of the own thread, driving before and after.
void Loop::State::Watch() {
  wants_watch = false;
  watching.store(true, std::memory_order_seq_cst);
  uint64_t seen = visits.load(std::memory_order_relaxed);
  bool used = true;
  for (int in_vain = 0; used && !stopping.load(std::memory_order_relaxed);) {
    HandOver();
    EndDriving();
    bool drives = false;
    while (!drives) {
      FutexWaitFor(&watch_call, 0, kWatchInterval);
      watch_call.store(0, std::memory_order_seq_cst);
      used = std::exchange(seen, visits.load(std::memory_order_relaxed)) != seen;
      drives = TryDrive();
      in_vain = drives || used ? 0 : in_vain + 1;
      if (in_vain >= kLooksInVain || stopping.load(std::memory_order_relaxed)) break;
    }
    if (!drives) driver.lock();
    BeginDriving();
    for (int turn = 0; turn < kTurnsPerLook && Turn(MonotonicNow()); ++turn) {
    }
  }
  watching.store(false, std::memory_order_seq_cst);
  burst_began = 0;
}

void Loop::State::OwnThread() {
  prctl(PR_SET_TIMERSLACK, 1000);  // ns: Watch sleeps for short.
  while (true) {
    driver.lock();
    BeginDriving();
    armed = false;  // What woke this thread has disarmed it.
    asleep.store(false, std::memory_order_relaxed);
    if (wants_watch) Watch();
    TimeNs last_event = MonotonicNow();
    while (!stopping.load(std::memory_order_relaxed)) {
      const TimeNs now = MonotonicNow();
      if (Turn(now)) {
        last_event = now;
      } else if (now - last_event >= options.spin_ns) {
        break;
      } else {
        Pause();
      }
      if (waiting.load(std::memory_order_relaxed) > 0) break;
    }
    if (stopping.load(std::memory_order_relaxed)) {
      EndDriving();
      return;
    }
    Leave();
    epoll_event event;
    while (epoll_wait(outer, &event, 1, -1) < 0 && errno == EINTR) {
    }
  }
}

bool Loop::State::TryDrive() { return !promised.load(std::memory_order_relaxed) && driver.try_lock(); }

// Waits until the waiter's completion is set, or this thread holds the driver's mutex (then returns true).
bool Loop::State::WaitForTurn(Waiter& waiter) {
  std::atomic<uint32_t>& state = waiter.completion->state_;
  const TimeNs spin_until = MonotonicNow() + std::min(options.spin_ns, kMaxWaiterSpin);
  while (true) {
    const uint32_t now = state.load(std::memory_order_acquire);
    if (now & Completion::kDrive) {
      driver.lock();
      return true;
    }
    if (now & Completion::kSet) return false;
    if (TryDrive()) return true;
    // A leaving driver wakes the loop's own thread or a waiter, so this caller may sleep although the mutex is free.
    if (MonotonicNow() < spin_until) {
      Pause();
    } else {
      const uint32_t before = state.fetch_or(Completion::kAsleep, std::memory_order_acq_rel);
      if ((before & (Completion::kSet | Completion::kDrive)) == 0) FutexWait(&state, before | Completion::kAsleep);
    }
  }
}

// WaitForTurn among the waiters that a leaving driver can see.
bool Loop::State::WaitForDriver(Waiter& waiter) {
  {
    std::lock_guard<std::mutex> lock(waiters_mutex);
    waiters.push_back(&waiter);
    waiting.fetch_add(1, std::memory_order_relaxed);
  }
  const bool drives = WaitForTurn(waiter);
  {
    std::lock_guard<std::mutex> lock(waiters_mutex);
    std::erase(waiters, &waiter);
    waiting.fetch_sub(1, std::memory_order_relaxed);
  }
  if (drives) return true;
  if ((waiter.completion->state_.load(std::memory_order_acquire) & Completion::kDrive) == 0) return false;
  // It was told to drive while its completion was being set: nobody else was told.
  driver.lock();
  return true;
}

void Loop::State::DropPosts() {
  PostNode* node = posts.exchange(nullptr, std::memory_order_acquire);
  while (node != nullptr) delete std::exchange(node, node->next);
}

// --- Loop -------------------------------------------------------------------------------------------------------------

Loop::Loop(const LoopOptions& options) : state_(std::make_unique<State>(options)) { state_->Open(); }

Loop::~Loop() {
  CHECK(!state_->running.load());
  state_->DropPosts();
  state_->Close();
}

void Loop::AddSource(PollSource* source) {
  state_->CheckOwned();
  CHECK(std::find(state_->sources.begin(), state_->sources.end(), source) == state_->sources.end());
  state_->sources.push_back(source);
  if (source->WaitFd() >= 0) state_->Watch(source->WaitFd(), EPOLLIN, nullptr);
}

void Loop::RemoveSource(PollSource* source) {
  state_->CheckOwned();
  std::erase(state_->sources, source);
  if (source->WaitFd() >= 0) state_->Unwatch(source->WaitFd());
}

void Loop::AddFd(int fd, uint32_t events, absl::AnyInvocable<void(uint32_t)> handler) {
  state_->CheckOwned();
  CHECK(handler != nullptr);
  state_->Watch(fd, events, std::move(handler));
}

void Loop::ModifyFd(int fd, uint32_t events) {
  state_->CheckOwned();
  auto it = state_->fds.find(fd);
  CHECK(it != state_->fds.end());
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<uint64_t>(it->second->generation) << 32) | static_cast<uint32_t>(fd);
  CHECK(epoll_ctl(state_->inner, EPOLL_CTL_MOD, fd, &event) == 0);
}

void Loop::RemoveFd(int fd) {
  state_->CheckOwned();
  state_->Unwatch(fd);
}

absl::Status Loop::Start() {
  if (!state_->setup.ok()) return state_->setup;
  CHECK(!state_->running.load());
  state_->stopping.store(false);
  state_->running.store(true);
  state_->thread = std::thread([state = state_.get()] { state->OwnThread(); });
  return absl::OkStatus();
}

void Loop::Stop() {
  if (!state_->running.load()) return;
  CHECK(!IsDriving());
  state_->stopping.store(true);
  // Not WakeSleeper: its flag may be down because of a write that the thread has already seen.
  const uint64_t one = 1;
  state_->event_fd_written.store(true);
  while (write(state_->event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
  state_->CallWatch();
  state_->thread.join();
  state_->running.store(false);
  state_->DropPosts();
}

void Loop::Post(absl::AnyInvocable<void()> task) {
  auto* node = new PostNode{std::move(task)};
  node->next = state_->posts.load(std::memory_order_relaxed);
  while (!state_->posts.compare_exchange_weak(node->next, node, std::memory_order_seq_cst)) {
  }
  state_->WakeSleeper();
  // A driver looks for it. One that is leaving may miss it until the next look.
  if (state_->watching.load(std::memory_order_seq_cst) && state_->driving.load() == nullptr) state_->CallWatch();
}

void Loop::RunUntil(absl::FunctionRef<void()> start, Completion& completion) {
  CHECK(state_->running.load(std::memory_order_relaxed) && !IsDriving());
  if (state_->TryDrive()) {
    state_->BeginDriving();
    // Before `start`: the answer to what it sends may come before it returns.
    state_->Disarm();
    start();
  } else {
    Waiter waiter{&completion};
    Post([&waiter, start] {
      start();
      waiter.started.store(true, std::memory_order_release);
    });
    const bool drives = state_->WaitForDriver(waiter);
    if (drives) state_->BeginDriving();
    while (!waiter.started.load(std::memory_order_acquire)) {
      // As driver it has to run it itself; else whoever set the completion is about to return from it.
      if (drives) {
        state_->Turn(MonotonicNow());
      } else {
        Pause();
      }
    }
    if (!drives) return;
  }
  if (!completion.IsSet()) {
    state_->Disarm();
    state_->asleep.store(false, std::memory_order_relaxed);
  }
  TimeNs last_event = MonotonicNow();
  while (!completion.IsSet()) {
    const TimeNs now = MonotonicNow();
    if (state_->Turn(now, &completion)) {
      last_event = now;
    } else if (now - last_event < state_->options.spin_ns) {
      Pause();
    } else {
      state_->SleepOnInner();
    }
  }
  state_->LeaveAsCaller();
}

bool Loop::IsDriving() const { return state_->IsDriving(); }

TimeNs Loop::Now() const { return IsDriving() ? state_->turn_now : MonotonicNow(); }

Clock::TimerId Loop::CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) {
  state_->CheckOwned();
  return state_->timers.Add(deadline, std::move(callback));
}

void Loop::CallSoon(absl::AnyInvocable<void()> callback) {
  state_->CheckOwned();
  state_->soon.push_back(std::move(callback));
}

void Loop::Cancel(TimerId timer) {
  state_->CheckOwned();
  state_->timers.Cancel(timer);
}

}  // namespace mangrove
