// One turn of the loop, and how its driver falls asleep.

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "net/check.h"
#include "net/runtime/loop_state.h"

namespace mangrove {
namespace {

// While the loop spins, descriptors of AddFd are looked at this often: each look is a system call.
constexpr DurationNs kFdPollInterval = 5 * kMicrosecond;
constexpr size_t kEventsAtOnce = 32;

}  // namespace

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

// --- One turn ---------------------------------------------------------------------------------------------------------

// Runs what was posted, due at `now`, deferred or polled. Returns whether there was anything.
bool Loop::State::Turn(TimeNs now, const Completion* until) {
  turn_now = now;
  last_turn = now;
  bool any = RunPosts();
  any |= RunTimers(now);
  any |= RunSoon();
  if (until != nullptr && until->IsSet()) return true;
  for (size_t i = 0; i < sources.size(); ++i) any |= sources[i]->Poll();
  // What came is waited for by what is to run soon: not after another look at everything.
  any |= RunSoon();
  if (until != nullptr && until->IsSet()) return true;
  if (handlers > 0 && now >= next_fd_poll) {
    next_fd_poll = now + kFdPollInterval;
    any |= PollFds();
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

bool Loop::State::MayHaveQueued() const {
  return std::any_of(sources.begin(), sources.end(), [](const PollSource* source) { return source->MayHaveQueued(); });
}

bool Loop::State::PollQueued() {
  bool any = false;
  for (size_t i = 0; i < sources.size(); ++i) {
    if (sources[i]->MayHaveQueued()) any |= sources[i]->Poll();
  }
  return any;
}

// Calls the handlers of the descriptors that are ready. Returns whether a handler was called.
bool Loop::State::PollFds() {
  std::array<epoll_event, kEventsAtOnce> events;
  const int count = epoll_wait(inner, events.data(), events.size(), 0);
  return Dispatch(std::span(events).first(static_cast<size_t>(std::max(count, 0))));
}

bool Loop::State::Dispatch(std::span<const epoll_event> ready) {
  bool any = false;
  for (const epoll_event& event : ready) {
    const int fd = static_cast<int>(event.data.u64 & UINT32_MAX);
    auto it = fds.find(fd);
    // A handler before it in this batch may have removed it, or who drove while these were waited for.
    if (it == fds.end() || it->second->generation != event.data.u64 >> 32) continue;
    std::shared_ptr<FdEntry> entry = it->second;
    if (!entry->handler) continue;
    entry->handler(event.events);
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

// Of the caller that is on duty. Others may drive meanwhile.
void Loop::State::SleepOnInner(Completion& completion) {
  if (!PrepareToSleep()) return;
  completion.BeforeLongWait();
  sleeper = &completion;
  EndDriving();
  std::array<epoll_event, kEventsAtOnce> events;
  const int count = epoll_wait(inner, events.data(), events.size(), -1);
  driver.lock();
  BeginDriving();
  sleeper = nullptr;
  asleep.store(false, std::memory_order_relaxed);
  Dispatch(std::span(events).first(static_cast<size_t>(std::max(count, 0))));
}

void Loop::State::WakeSleeper() {
  if (!asleep.load(std::memory_order_seq_cst) || !asleep.exchange(false, std::memory_order_seq_cst)) return;
  event_fd_written.store(true, std::memory_order_release);
  const uint64_t one = 1;
  while (write(event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

}  // namespace mangrove
