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
// A visitor gives what follows from its `start` so many.
constexpr int kTurnsOfVisit = 16;
// A caller that waits for another driver spins at most this long: the driver may need its processor.
constexpr DurationNs kMaxWaiterSpin = 20 * kMicrosecond;

// A caller that has waited so long says so, if it wants to (Completion): others keep the loop busy, and it may never sleep.
constexpr DurationNs kLongWait = 50 * kMicrosecond;

// So many callers that leave within so long come often.
constexpr int kBurstCalls = 8;
constexpr DurationNs kBurstSpan = 500 * kMicrosecond;
// How often a loop is looked at that is watched, and how often in vain, since a caller drives it all the time.
constexpr DurationNs kWatchInterval = 100 * kMicrosecond;
constexpr int kLooksInVain = 4;
constexpr int kTurnsPerLook = 16;
// Past this a caller that leaves takes a turn.
constexpr DurationNs kLongestWithoutTurn = kMillisecond;

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

// Callers that this thread has to wake. Who is woken may get this processor at once, and call the loop again: so it is
// woken when the driver's mutex is free. It may be gone by then, and its stack with it: a wake-up on that address then does
// nothing, or is one that its next sleeper has to expect anyway.
struct Wakes {
  bool drives = false;
  std::vector<std::atomic<uint32_t>*> words;
};
thread_local Wakes to_wake;

void WakeOrNote(std::atomic<uint32_t>* word) {
  if (to_wake.drives) {
    to_wake.words.push_back(word);
  } else {
    FutexWake(word);
  }
}

}  // namespace

void Completion::Set() {
  const uint32_t before = state_.fetch_or(kSet, std::memory_order_acq_rel);
  CHECK((before & kSet) == 0);
  if ((before & kAsleep) != 0 && (before & kPosted) == 0) WakeOrNote(&state_);
}

// False if the waiting caller sleeps, or needs no driver any more.
bool Completion::OfferDuty() {
  uint32_t now = state_.load(std::memory_order_relaxed);
  while ((now & (kSet | kAsleep)) == 0) {
    if (state_.compare_exchange_weak(now, now | kDrive, std::memory_order_acq_rel)) return true;
  }
  return false;
}

// `start` has returned: it uses nothing of the caller's any more.
void Completion::Started() {
  const uint32_t before = state_.fetch_and(~kPosted, std::memory_order_acq_rel);
  if ((before & kSet) != 0 && (before & kAsleep) != 0) WakeOrNote(&state_);
}

void Completion::BeforeLongWait() {
  if (const auto call = std::exchange(before_long_wait_, std::nullopt)) (*call)();
}

void Loop::State::BeginDriving() {
  driving.store(&thread_marker, std::memory_order_relaxed);
  to_wake.drives = true;
  turn_now = MonotonicNow();
}

void Loop::State::EndDriving() {
  driving.store(nullptr, std::memory_order_relaxed);
  driver.unlock();
  to_wake.drives = false;
  for (std::atomic<uint32_t>* word : to_wake.words) FutexWake(word);
  to_wake.words.clear();
}

// Between two turns. `on_duty`: as before; false afterwards if a caller has relieved the own thread meanwhile.
void Loop::State::WakeCallers(bool* on_duty) {
  if (to_wake.words.empty()) return;
  const bool own_thread = !caller_on_duty.load(std::memory_order_relaxed);
  EndDriving();
  driver.lock();
  BeginDriving();
  *on_duty = !own_thread || !caller_on_duty.load(std::memory_order_relaxed);
  if (*on_duty) asleep.store(false, std::memory_order_relaxed);
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

// Puts a caller on duty that waits and is awake. Who sleeps goes on sleeping: waking it takes longer than waking the
// own thread when there is something to do. Returns false if there is none.
bool Loop::State::HandOver() {
  if (waiting.load(std::memory_order_relaxed) == 0) return false;
  std::lock_guard<std::mutex> lock(waiters_mutex);
  for (auto it = waiters.begin(); it != waiters.end(); ++it) {
    if (!(*it)->OfferDuty()) continue;
    waiters.erase(it);
    caller_on_duty.store(true, std::memory_order_relaxed);
    // Somebody who was on duty for a moment may have armed it while the own thread woke others.
    Disarm();
    return true;
  }
  return false;
}

// REQUIRES: driving. For a caller, unless another one has it.
bool Loop::State::TakeDuty() {
  if (caller_on_duty.load(std::memory_order_relaxed)) return false;
  caller_on_duty.store(true, std::memory_order_relaxed);
  Disarm();
  return true;
}

// Ends driving, of who is on duty, which passes on. Keeps I1 to I3.
void Loop::State::Leave() {
  if (!HandOver()) {
    bool idle = PrepareToSleep();
    for (int turn = 0; !idle && turn < kTurnsBeforeLeaving; ++turn) {
      Turn(MonotonicNow());
      idle = PrepareToSleep();
    }
    caller_on_duty.store(false, std::memory_order_relaxed);
    Arm();
    if (!idle || wants_watch) {
      asleep.store(true, std::memory_order_seq_cst);
      WakeSleeper();
    }
  }
  EndDriving();
}

// I6. By the time when this caller began to drive: a clock is not read for it.
void Loop::State::TurnIfDue() {
  if (turn_now - last_turn >= kLongestWithoutTurn) Turn(turn_now);
}

// Ends a visit: what came of `start` at once is done, the rest is that caller's. The sources are left alone, unless the
// visit has queued something there: what else there is for them wakes the sleeper.
void Loop::State::EndVisit() {
  TurnIfDue();
  for (int turn = 0; turn < kTurnsOfVisit && (RunPosts() || RunSoon() || PollQueued()); ++turn) {
  }
  SyncTimerFd();
  asleep.store(true, std::memory_order_seq_cst);
  const bool idle = posts.load(std::memory_order_seq_cst) == nullptr && soon.empty() && !MayHaveQueued();
  if (!idle || (sleeper != nullptr && sleeper->IsSet())) WakeSleeper();
  EndDriving();
}

// A caller's Leave.
void Loop::State::LeaveAsCaller() {
  TurnIfDue();
  if (!watching.load(std::memory_order_relaxed)) {
    if (CallersComeOften()) wants_watch = true;
    return Leave();
  }
  visits.fetch_add(1, std::memory_order_relaxed);
  if (!HandOver()) {
    caller_on_duty.store(false, std::memory_order_seq_cst);
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

// Of the own thread, driving before and after. Returns whether it is still on duty.
bool Loop::State::Watch() {
  wants_watch = false;
  watching.store(true, std::memory_order_seq_cst);
  uint64_t seen = visits.load(std::memory_order_relaxed);
  bool used = true;
  for (int in_vain = 0; used && !stopping.load(std::memory_order_relaxed);) {
    if (!caller_on_duty.load(std::memory_order_relaxed)) HandOver();  // Otherwise it is not ours to pass on.
    EndDriving();
    bool drives = false;
    while (!drives) {
      FutexWaitFor(&watch_call, 0, kWatchInterval);
      watch_call.store(0, std::memory_order_seq_cst);
      used = std::exchange(seen, visits.load(std::memory_order_relaxed)) != seen;
      drives = !caller_on_duty.load(std::memory_order_relaxed) && TryDrive();
      in_vain = drives || used ? 0 : in_vain + 1;
      if (in_vain >= kLooksInVain || stopping.load(std::memory_order_relaxed)) break;
    }
    if (!drives) {
      driver.lock();
      BeginDriving();
    }
    // A caller that has come meanwhile does what there is, now or when it wakes.
    if (caller_on_duty.load(std::memory_order_relaxed)) continue;
    for (int turn = 0; turn < kTurnsPerLook && Turn(MonotonicNow()); ++turn) {
    }
  }
  watching.store(false, std::memory_order_seq_cst);
  burst_began = 0;
  return !caller_on_duty.load(std::memory_order_relaxed);
}

void Loop::State::PauseOrYield() const {
  if (expected_posts > 0) {
    sched_yield();
  } else {
    Pause();
  }
}

void Loop::State::OwnThread() {
  prctl(PR_SET_TIMERSLACK, 1000);  // ns: Watch sleeps for short.
  while (true) {
    driver.lock();
    BeginDriving();
    // What woke this thread was meant for a caller if one is on duty meanwhile.
    bool on_duty = !caller_on_duty.load(std::memory_order_relaxed);
    if (on_duty) {
      armed = false;  // What woke this thread has disarmed it.
      asleep.store(false, std::memory_order_relaxed);
      if (wants_watch) on_duty = Watch();
    } else {
      CHECK(!armed);
    }
    TimeNs last_event = MonotonicNow();
    while (on_duty && !stopping.load(std::memory_order_relaxed)) {
      const TimeNs now = MonotonicNow();
      if (Turn(now)) {
        last_event = now;
      } else if (now - last_event >= options.spin_ns) {
        break;
      } else {
        PauseOrYield();
      }
      WakeCallers(&on_duty);
      if (on_duty && HandOver()) on_duty = false;
    }
    if (stopping.load(std::memory_order_relaxed)) {
      EndDriving();
      return;
    }
    on_duty ? Leave() : EndDriving();
    epoll_event event;
    while (epoll_wait(outer, &event, 1, -1) < 0 && errno == EINTR) {
    }
  }
}

bool Loop::State::TryDrive() {
  if (!driver.try_lock()) return false;
  BeginDriving();
  return true;
}

// Waits until the completion is set, or this thread drives and is on duty (then returns true).
bool Loop::State::WaitForDuty(Completion& completion) {
  std::atomic<uint32_t>& state = completion.state_;
  const TimeNs spin_until = MonotonicNow() + std::min(options.spin_ns, kMaxWaiterSpin);
  while (true) {
    const uint32_t now = state.load(std::memory_order_acquire);
    if (now & Completion::kDrive) {
      driver.lock();
      BeginDriving();
      return true;
    }
    if (Completion::IsOver(now)) return false;
    if (!caller_on_duty.load(std::memory_order_relaxed) && TryDrive()) {
      if (TakeDuty()) return true;
      EndDriving();
    }
    // Whoever is on duty sees what this caller has posted, so it may sleep although the mutex is free.
    if (waiting.load(std::memory_order_relaxed) == 1 && MonotonicNow() < spin_until) {
      Pause();
    } else {
      completion.BeforeLongWait();
      const uint32_t before = state.fetch_or(Completion::kAsleep, std::memory_order_acq_rel);
      if ((before & Completion::kDrive) == 0 && !Completion::IsOver(before))
        FutexWait(&state, before | Completion::kAsleep);
    }
  }
}

// WaitForDuty among the waiters that may be put on duty.
bool Loop::State::WaitAmongWaiters(Completion& completion) {
  {
    std::lock_guard<std::mutex> lock(waiters_mutex);
    waiters.push_back(&completion);
    waiting.fetch_add(1, std::memory_order_relaxed);
  }
  const bool on_duty = WaitForDuty(completion);
  {
    std::lock_guard<std::mutex> lock(waiters_mutex);
    std::erase(waiters, &completion);
    waiting.fetch_sub(1, std::memory_order_relaxed);
  }
  if (on_duty) return true;
  if ((completion.state_.load(std::memory_order_acquire) & Completion::kDrive) == 0) return false;
  // It was put on duty while its completion was being set: nobody else is.
  driver.lock();
  BeginDriving();
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
  if (state_->watching.load(std::memory_order_seq_cst) && state_->driving.load() == nullptr &&
      !state_->caller_on_duty.load(std::memory_order_seq_cst)) {
    state_->CallWatch();
  }
}

void Loop::RunUntil(absl::FunctionRef<void()> start, Completion& completion) {
  CHECK(state_->running.load(std::memory_order_relaxed) && !IsDriving());
  bool on_duty = false;
  if (state_->TryDrive()) {
    // Before `start`: the answer to what it sends may come before it returns.
    on_duty = state_->TakeDuty();
    if (!on_duty) state_->asleep.store(false, std::memory_order_relaxed);
    start();
    if (!on_duty) {
      state_->EndVisit();
      if (!completion.IsSet()) on_duty = state_->WaitAmongWaiters(completion);
    }
  } else {
    completion.state_.store(Completion::kPosted, std::memory_order_relaxed);
    Post([&completion, start] {
      start();
      completion.Started();
    });
    on_duty = state_->WaitAmongWaiters(completion);
    // As driver it has to run it itself.
    while (on_duty && completion.IsPosted()) state_->Turn(MonotonicNow());
  }
  if (!on_duty) return;
  if (!completion.IsSet()) state_->asleep.store(false, std::memory_order_relaxed);
  TimeNs last_event = MonotonicNow();
  const TimeNs long_wait = last_event + std::min(state_->options.spin_ns, kLongWait);
  while (!completion.IsSet()) {
    const TimeNs now = MonotonicNow();
    if (now >= long_wait) completion.BeforeLongWait();
    if (state_->Turn(now, &completion)) {
      last_event = now;
      state_->WakeCallers(&on_duty);
    } else if (now - last_event < state_->options.spin_ns && state_->MayPoll()) {
      state_->PauseOrYield();
    } else {
      state_->SleepOnInner(completion);
    }
  }
  state_->LeaveAsCaller();
}

void Loop::ExpectPosts(int change) {
  state_->CheckOwned();
  state_->expected_posts += change;
}

bool Loop::IsDriving() const { return state_->IsDriving(); }

TimeNs Loop::ExactNow() const { return MonotonicNow(); }

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
