#include "node/stop_signals.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "net/check.h"

namespace mangrove {

struct StopSignals::State {
  std::mutex mutex;
  std::condition_variable changed;
  int first = 0;
  bool hung_up = false;
  bool interrupted = false;
};

namespace {

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

int NextSignal() {
  const sigset_t signals = Signals();
  int signal = 0;
  CHECK(sigwait(&signals, &signal) == 0);
  return signal;
}

}  // namespace

StopSignals::StopSignals() : state_(std::make_shared<State>()) {
  const sigset_t signals = Signals();
  CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  // It waits as long as the process lives.
  std::thread([state = state_] {
    while (true) {
      const int signal = NextSignal();
      const std::lock_guard lock(state->mutex);
      if (signal != SIGHUP && state->first != 0) _exit(128 + signal);
      if (signal == SIGHUP) {
        state->hung_up = true;
      } else {
        state->first = signal;
      }
      state->changed.notify_all();
    }
  }).detach();
}

int StopSignals::Wait() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->first != 0 || state_->hung_up || state_->interrupted; });
  if (state_->first != 0) return state_->first;
  if (std::exchange(state_->hung_up, false)) return SIGHUP;
  state_->interrupted = false;
  return 0;
}

void StopSignals::Interrupt() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->interrupted = true;
  }
  state_->changed.notify_all();
}

bool StopSignals::HasComeWithin(int64_t seconds) {
  std::unique_lock lock(state_->mutex);
  return state_->changed.wait_for(lock, std::chrono::seconds(seconds), [this] { return state_->first != 0; });
}

void StopSignals::EndWithin(int64_t limit_s, int exit_code, std::function<void()> report) {
  std::thread([limit_s, exit_code, report = std::move(report)] {
    std::this_thread::sleep_for(std::chrono::seconds(limit_s));
    report();
    _exit(exit_code);
  }).detach();
}

}  // namespace mangrove
