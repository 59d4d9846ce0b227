// How the loop's threads share it.
//
// The driver's mutex makes one thread at a time the driver. The loop's own thread sleeps on an *outer* epoll descriptor
// that holds only the *inner* one, on which everything else is registered. A caller that drives disarms the inner one in
// the outer (so that the kernel does not wake the loop's thread for what the caller polls anyway) and arms it again when
// it leaves: an event that is pending then fires at once.
//
//  I1  At every moment somebody drives, or the inner descriptor is armed, or one waiting caller has been told to drive
//      (Completion::kDrive) and will take the mutex before it returns.
//  I2  While nobody polls, `asleep` is true, and whoever makes something to do after that writes the event descriptor.
//  I3  The timer descriptor expires no later than the earliest timer while nobody polls. It may expire earlier.

#include "net/runtime/loop.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "net/check.h"
#include "net/runtime/timer_heap.h"

namespace mangrove {
namespace {

// While the loop spins, descriptors of AddFd are looked at this often: each look is a system call.
constexpr DurationNs kFdPollInterval = 5 * kMicrosecond;
// A caller that leaves gives what is still to do at most this many turns, then wakes the loop's own thread for it.
constexpr int kTurnsBeforeLeaving = 3;
// A caller that waits for another driver spins at most this long: the driver may need its processor.
constexpr DurationNs kMaxWaiterSpin = 20 * kMicrosecond;

// Its address identifies a thread.
thread_local char thread_marker;

struct PostNode {
  absl::AnyInvocable<void()> task;
  PostNode* next = nullptr;
};

struct FdEntry {
  uint32_t generation = 0;
  absl::AnyInvocable<void(uint32_t)> handler;  // Null for the descriptors of sources and of the loop itself.
};

// A caller of RunUntil that does not drive.
struct Waiter {
  Completion* completion;
  std::atomic<bool> started{false};  // `start` has returned: nothing of the caller's stack is used any more.
};

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void FutexWait(std::atomic<uint32_t>* word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

TimeNs MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<TimeNs>(now.tv_sec) * kSecond + now.tv_nsec;
}

}  // namespace

void Completion::Set() {
  const uint32_t before = state_.fetch_or(kSet, std::memory_order_acq_rel);
  CHECK((before & kSet) == 0);
  // The waiter may be gone by now, and its stack with it: a wake-up on that address then does nothing, or is one that
  // its next sleeper has to expect anyway.
  if (before & kAsleep) FutexWake(&state_);
}

struct Loop::State {
  explicit State(const LoopOptions& o) : options(o) {}

  void Open();
  void Close();
  void CheckOwned() const { CHECK(!running.load(std::memory_order_relaxed) || IsDriving()); }
  bool IsDriving() const { return driving.load(std::memory_order_relaxed) == &thread_marker; }
  void BeginDriving();
  void EndDriving();
  void Watch(int fd, uint32_t events, absl::AnyInvocable<void(uint32_t)> handler);
  void Unwatch(int fd);

  bool Turn(TimeNs now);
  bool RunPosts();
  bool RunTimers(TimeNs now);
  bool RunSoon();
  bool PollFds(int timeout_ms);
  void SyncTimerFd();
  bool PrepareToSleep();
  void SleepOnInner();

  void Arm();
  void Disarm();
  void Leave();
  bool HandOver();
  void OwnThread();
  bool WaitForTurn(Waiter& waiter);
  bool WaitForDriver(Waiter& waiter);
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
  bool armed = false;

  // Of everybody.
  std::atomic<PostNode*> posts{nullptr};  // Last first.
  std::atomic<bool> asleep{true};
  std::atomic<bool> event_fd_written{false};

  std::atomic<uint32_t> waiting{0};
  std::mutex waiters_mutex;
  std::deque<Waiter*> waiters;  // Guarded by waiters_mutex, in the order of arrival.
};

// --- Set-up -----------------------------------------------------------------------------------------------------------

void Loop::State::Open() {
  inner = epoll_create1(EPOLL_CLOEXEC);
  outer = epoll_create1(EPOLL_CLOEXEC);
  event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (inner < 0 || outer < 0 || event_fd < 0 || timer_fd < 0) {
    setup = absl::ErrnoToStatus(errno, "the loop's descriptors cannot be made");
    return;
  }
  Watch(event_fd, EPOLLIN, nullptr);
  Watch(timer_fd, EPOLLIN, nullptr);
  epoll_event event{};
  event.events = EPOLLONESHOT;
  if (epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) != 0) {
    setup = absl::ErrnoToStatus(errno, "the loop's epoll descriptors cannot be nested");
  }
}

void Loop::State::Close() {
  for (int fd : {inner, outer, event_fd, timer_fd}) {
    if (fd >= 0) close(fd);
  }
}

void Loop::State::Watch(int fd, uint32_t events, absl::AnyInvocable<void(uint32_t)> handler) {
  CHECK(fd >= 0 && !fds.contains(fd));
  if (!setup.ok()) return;
  auto entry = std::make_shared<FdEntry>();
  entry->generation = next_generation++;
  entry->handler = std::move(handler);
  if (entry->handler) ++handlers;
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<uint64_t>(entry->generation) << 32) | static_cast<uint32_t>(fd);
  if (epoll_ctl(inner, EPOLL_CTL_ADD, fd, &event) != 0) {
    CHECK(errno != EBADF && errno != EEXIST && errno != EPERM);
    setup = absl::ErrnoToStatus(errno, "a descriptor cannot be watched");
    CHECK(!running.load());
  }
  fds.emplace(fd, std::move(entry));
}

void Loop::State::Unwatch(int fd) {
  auto it = fds.find(fd);
  if (it == fds.end()) return;
  if (it->second->handler) --handlers;
  epoll_ctl(inner, EPOLL_CTL_DEL, fd, nullptr);
  fds.erase(it);
}

void Loop::State::BeginDriving() { driving.store(&thread_marker, std::memory_order_relaxed); }

void Loop::State::EndDriving() {
  driving.store(nullptr, std::memory_order_relaxed);
  driver.unlock();
}

// --- One turn ---------------------------------------------------------------------------------------------------------

// Runs what was posted, due at `now`, deferred or polled. Returns whether there was anything.
bool Loop::State::Turn(TimeNs now) {
  bool any = RunPosts();
  any |= RunTimers(now);
  any |= RunSoon();
  for (size_t i = 0; i < sources.size(); ++i) any |= sources[i]->Poll();
  if (handlers > 0 && now >= next_fd_poll) {
    next_fd_poll = now + kFdPollInterval;
    any |= PollFds(0);
  }
  return any;
}

bool Loop::State::RunPosts() {
  if (posts.load(std::memory_order_relaxed) == nullptr) return false;
  PostNode* reversed = nullptr;
  for (PostNode* node = posts.exchange(nullptr, std::memory_order_acquire); node != nullptr;) {
    reversed = std::exchange(node, std::exchange(node->next, reversed));
  }
  while (reversed != nullptr) {
    std::unique_ptr<PostNode> node(std::exchange(reversed, reversed->next));
    node->task();
  }
  return true;
}

bool Loop::State::RunTimers(TimeNs now) {
  bool any = false;
  // Not those that the callbacks add: a callback that arms itself for the past must not stop the loop.
  for (size_t count = timers.size(); count > 0 && timers.Earliest() <= now; --count) {
    timers.Pop()();
    any = true;
  }
  return any;
}

bool Loop::State::RunSoon() {
  size_t count = soon.size();
  if (count == 0) return false;
  for (; count > 0; --count) {
    absl::AnyInvocable<void()> task = std::move(soon.front());
    soon.pop_front();
    task();
  }
  return true;
}

// Calls the handlers of the descriptors that are ready. Returns whether a handler was called.
bool Loop::State::PollFds(int timeout_ms) {
  std::array<epoll_event, 32> events;
  const int count = epoll_wait(inner, events.data(), events.size(), timeout_ms);
  asleep.store(false, std::memory_order_relaxed);
  bool any = false;
  for (int i = 0; i < count; ++i) {
    const int fd = static_cast<int>(events[i].data.u64 & UINT32_MAX);
    auto it = fds.find(fd);
    // A handler before it in this batch may have removed it.
    if (it == fds.end() || it->second->generation != events[i].data.u64 >> 32) continue;
    std::shared_ptr<FdEntry> entry = it->second;
    if (!entry->handler) continue;
    entry->handler(events[i].events);
    any = true;
  }
  return any;
}

// --- Sleeping ---------------------------------------------------------------------------------------------------------

void Loop::State::SyncTimerFd() {
  const TimeNs earliest = timers.Earliest();
  // An expired descriptor stays readable until it is set again; a later deadline can wait until it has expired.
  if (earliest >= timer_fd_deadline && (timer_fd_deadline == kForever || timer_fd_deadline > MonotonicNow())) return;
  itimerspec spec{};
  if (earliest != kForever) {
    const TimeNs deadline = std::max<TimeNs>(earliest, 1);  // 0 would disarm it.
    spec.it_value.tv_sec = deadline / kSecond;
    spec.it_value.tv_nsec = deadline % kSecond;
  }
  CHECK(timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
  timer_fd_deadline = earliest;
}

// Returns false if there is something to do now. Else I2 and I3 hold.
bool Loop::State::PrepareToSleep() {
  if (event_fd_written.load(std::memory_order_acquire)) {
    // If the write is still to come, it wakes a sleeper once for nothing.
    event_fd_written.store(false, std::memory_order_relaxed);
    uint64_t count;
    while (read(event_fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
  }
  SyncTimerFd();
  asleep.store(true, std::memory_order_seq_cst);
  // Stop's write may be the one that was just read.
  bool idle = posts.load(std::memory_order_seq_cst) == nullptr && soon.empty() && !stopping.load();
  for (size_t i = 0; idle && i < sources.size(); ++i) idle = sources[i]->MaySleep();
  if (!idle) asleep.store(false, std::memory_order_relaxed);
  return idle;
}

void Loop::State::SleepOnInner() {
  if (PrepareToSleep()) PollFds(-1);
}

void Loop::State::WakeSleeper() {
  if (!asleep.load(std::memory_order_seq_cst) || !asleep.exchange(false, std::memory_order_seq_cst)) return;
  event_fd_written.store(true, std::memory_order_release);
  const uint64_t one = 1;
  while (write(event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
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
    if (!idle) {
      asleep.store(true, std::memory_order_seq_cst);
      WakeSleeper();
    }
  }
  EndDriving();
}

void Loop::State::OwnThread() {
  while (true) {
    driver.lock();
    BeginDriving();
    armed = false;  // What woke this thread has disarmed it.
    asleep.store(false, std::memory_order_relaxed);
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
    if (driver.try_lock()) return true;
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
}

void Loop::RunUntil(absl::FunctionRef<void()> start, Completion& completion) {
  CHECK(state_->running.load(std::memory_order_relaxed) && !IsDriving());
  if (state_->driver.try_lock()) {
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
    if (state_->Turn(now)) {
      last_event = now;
    } else if (now - last_event < state_->options.spin_ns) {
      Pause();
    } else {
      state_->SleepOnInner();
    }
  }
  state_->Leave();
}

bool Loop::IsDriving() const { return state_->IsDriving(); }

TimeNs Loop::Now() const { return MonotonicNow(); }

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
