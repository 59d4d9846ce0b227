#include "engine/mapping/fault_workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr size_t kFaultsPerRead = 16;
// After faults of two threads, so many waits count as crowded.
constexpr int kCrowdedWaits = 64;

TimeNs Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<TimeNs>(now.tv_sec) * kSecond + now.tv_nsec;
}

// The embedding program's signals are not for our threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

FaultWorkers::FaultWorkers(MappedClientOptions options, FaultService* service, std::function<void()> on_gone)
    : max_workers_(options.max_workers),
      spin_ns_(options.spin_ns),
      service_(service),
      on_gone_(std::move(on_gone)),
      resolver_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<FaultWorkers>> FaultWorkers::Start(MappedClientOptions options, FaultService* service,
                                                                  std::function<void()> on_gone) {
  std::unique_ptr<FaultWorkers> workers(new FaultWorkers(std::move(options), service, std::move(on_gone)));
  if (absl::Status opened = workers->Open(); !opened.ok()) return opened;
  if (absl::Status started = workers->StartThread(); !started.ok()) return started;
  return workers;
}

FaultWorkers::~FaultWorkers() {
  Stop();
  while (true) {
    std::vector<std::thread> threads;
    {
      std::lock_guard lock(mutex_);
      threads.swap(threads_);
    }
    if (threads.empty()) return;
    for (std::thread& thread : threads) thread.join();
  }
}

absl::Status FaultWorkers::Open() {
  kick_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick_.ok()) return absl::ErrnoToStatus(errno, "eventfd");
  epoll_event on_edge{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
  epoll_event disarmed{.events = EPOLLONESHOT, .data = {.u64 = 0}};
  for (UniqueFd* epoll : {&first_epoll_, &standby_epoll_}) {
    epoll->Reset(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll->ok()) return absl::ErrnoToStatus(errno, "epoll_create1");
    epoll_event* faults = epoll == &first_epoll_ ? &on_edge : &disarmed;
    if (epoll_ctl(epoll->get(), EPOLL_CTL_ADD, kick_.get(), &on_edge) != 0 ||
        epoll_ctl(epoll->get(), EPOLL_CTL_ADD, resolver_.userfaultfd(), faults) != 0) {
      return absl::ErrnoToStatus(errno, "EPOLL_CTL_ADD");
    }
  }
  return absl::OkStatus();
}

absl::Status FaultWorkers::StartThread() {
  std::lock_guard lock(mutex_);
  if (stopping_.load() || static_cast<int>(threads_.size()) >= max_workers_) return absl::OkStatus();
  SignalsBlocked blocked;
  alive_.fetch_add(1);
  try {
    const bool standby = !threads_.empty();
    threads_.emplace_back([this, standby] { Run(standby); });
  } catch (const std::system_error& error) {
    alive_.fetch_sub(1);
    return absl::ResourceExhaustedError(absl::StrCat("starting a thread for faults: ", error.what()));
  }
  return absl::OkStatus();
}

void FaultWorkers::Stop() {
  stopping_.store(true);
  Kick();
}

void FaultWorkers::Run(bool standby) {
  pthread_setname_np(pthread_self(), "mangrove-fault");
  RunUntilStopped(standby);
  Kick();  // The next one.
  // Only stopped threads get here, and then none is started any more: the last one is the last.
  if (alive_.fetch_sub(1, std::memory_order_acq_rel) == 1) resolver_.Close();
}

void FaultWorkers::RunUntilStopped(bool standby) {
  while (!stopping_.load()) {
    if (ServeNext() || TakeUpFaults()) continue;
    const TimeNs until = spin_ns_ > 0 && !standby ? Now() + spin_ns_ : 0;
    bool taken = false;
    while (!taken && until != 0 && Now() < until && !stopping_.load()) taken = TakeUpFaults();
    if (!taken) Sleep(standby);
  }
}

// False: nothing is queued.
bool FaultWorkers::ServeNext() {
  std::optional<PageFault> fault;
  bool more = false;
  {
    std::lock_guard lock(mutex_);
    fault = table_.Next();
    more = table_.HasQueued();
  }
  if (!fault) return false;
  if (more && sleeping_standbys_.load() > 0) Kick();
  const bool alive = resolver_.Serve(*fault, [this](PageId page, Rights rights) { return Acquire(page, rights); });
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    wake = table_.Finish(fault->page);
  }
  if (wake) resolver_.Wake(fault->page);
  if (!alive) OnGone();
  // The program goes on. Where it has to do so on this processor its next fault is here when this thread is again.
  sched_yield();
  return true;
}

// False: no fault is waiting.
bool FaultWorkers::TakeUpFaults() {
  std::array<Fault, kFaultsPerRead> faults;
  const int count = resolver_.Read(faults);
  if (count < 0) OnGone();
  if (count <= 0) return false;
  std::lock_guard lock(mutex_);
  for (int i = 0; i < count; ++i) {
    PageFault fault;
    const uint32_t thread = faults[static_cast<size_t>(i)].thread;
    if (std::exchange(last_thread_, thread) != thread) crowded_.store(kCrowdedWaits, std::memory_order_relaxed);
    if (!resolver_.Decode(faults[static_cast<size_t>(i)], &fault)) continue;
    if (!table_.Admit(fault)) resolver_.CountCoalesced();
  }
  return true;
}

absl::Status FaultWorkers::Acquire(PageId page, Rights rights) {
  BeginAcquire();
  absl::Status status = service_->AcquireForFault(page, rights, [this] { CallStandby(); });
  EndAcquire();
  return status;
}

void FaultWorkers::BeginAcquire() {
  {
    std::lock_guard lock(acquire_mutex_);
    ++acquiring_;
  }
  if (crowded_.load(std::memory_order_relaxed) <= 0) return;
  crowded_.fetch_sub(1, std::memory_order_relaxed);
  CallStandby();
}

// From now on, until nobody waits for another node, a standby wakes for each fault.
void FaultWorkers::CallStandby() {
  // A failure leaves the threads that there are: faults wait longer.
  if (sleeping_standbys_.load() == 0 && alive_.load() < max_workers_) StartThread().IgnoreError();
  std::lock_guard lock(acquire_mutex_);
  called_ = true;
  ArmStandby(true);
}

void FaultWorkers::EndAcquire() {
  std::lock_guard lock(acquire_mutex_);
  if (--acquiring_ == 0 && std::exchange(called_, false)) ArmStandby(false);
}

// Armed: one standby wakes if a fault is waiting, or as soon as one does. REQUIRES: acquire_mutex_.
void FaultWorkers::ArmStandby(bool armed) {
  epoll_event event{.events = EPOLLONESHOT, .data = {.u64 = 0}};
  if (armed) event.events |= EPOLLIN;
  CHECK(epoll_ctl(standby_epoll_.get(), EPOLL_CTL_MOD, resolver_.userfaultfd(), &event) == 0);
}

bool FaultWorkers::HasQueued() {
  std::lock_guard lock(mutex_);
  return table_.HasQueued();
}

void FaultWorkers::Sleep(bool standby) {
  if (standby) {
    sleeping_standbys_.fetch_add(1);
    std::lock_guard lock(acquire_mutex_);
    if (called_) ArmStandby(true);  // What woke us disarmed it.
  }
  // Whoever queues a fault later than this sees that we sleep, or we see the fault.
  if (!HasQueued() && !stopping_.load()) {
    epoll_event event;
    const int ready = epoll_wait(standby ? standby_epoll_.get() : first_epoll_.get(), &event, 1, -1);
    CHECK(ready >= 0 || errno == EINTR);
  }
  if (standby) sleeping_standbys_.fetch_sub(1);
}

void FaultWorkers::Kick() {
  const uint64_t one = 1;
  // Fails only when the count is at its end, and then the event is there.
  [[maybe_unused]] const ssize_t written = write(kick_.get(), &one, sizeof(one));
}

void FaultWorkers::OnGone() {
  stopping_.store(true);
  if (!gone_.exchange(true) && on_gone_) on_gone_();
}

}  // namespace mangrove
