#include "engine/mapping/fault_workers.h"

#include <pthread.h>
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
      on_gone_(std::move(on_gone)),
      resolver_(std::move(options), service) {}

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
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.ok()) return absl::ErrnoToStatus(errno, "epoll_create1");
  kick_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick_.ok()) return absl::ErrnoToStatus(errno, "eventfd");
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
  for (int fd : {kick_.get(), resolver_.userfaultfd()}) {
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return absl::ErrnoToStatus(errno, "EPOLL_CTL_ADD");
  }
  return absl::OkStatus();
}

absl::Status FaultWorkers::StartThread() {
  std::lock_guard lock(mutex_);
  if (stopping_.load() || static_cast<int>(threads_.size()) >= max_workers_) return absl::OkStatus();
  SignalsBlocked blocked;
  alive_.fetch_add(1);
  try {
    threads_.emplace_back([this] { Run(); });
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

void FaultWorkers::Run() {
  pthread_setname_np(pthread_self(), "mangrove-fault");
  RunUntilStopped();
  Kick();  // The next one.
  // Only stopped threads get here, and then none is started any more: the last one is the last.
  if (alive_.fetch_sub(1, std::memory_order_acq_rel) == 1) resolver_.Close();
}

void FaultWorkers::RunUntilStopped() {
  while (!stopping_.load()) {
    if (ServeNext() || TakeUpFaults()) continue;
    const TimeNs until = spin_ns_ > 0 ? Now() + spin_ns_ : 0;
    bool taken = false;
    while (!taken && spin_ns_ > 0 && Now() < until && !stopping_.load()) taken = TakeUpFaults();
    if (!taken) Sleep();
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
  if (more) EnsureStandby();
  if (more && sleeping_.load() > 0) Kick();
  const bool alive = resolver_.Serve(*fault, [this] { EnsureStandby(); });
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    wake = table_.Finish(fault->page);
  }
  if (wake) resolver_.Wake(fault->page);
  if (!alive) OnGone();
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
    if (!resolver_.Decode(faults[static_cast<size_t>(i)], &fault)) continue;
    if (!table_.Admit(fault)) resolver_.CountCoalesced();
  }
  return true;
}

// A failure leaves the threads that there are: faults wait longer.
void FaultWorkers::EnsureStandby() {
  if (sleeping_.load() == 0 && alive_.load() < max_workers_) StartThread().IgnoreError();
}

void FaultWorkers::Sleep() {
  sleeping_.fetch_add(1);
  bool queued = false;
  {
    // Whoever queues a fault later than this sees that we sleep.
    std::lock_guard lock(mutex_);
    queued = table_.HasQueued();
  }
  if (!queued && !stopping_.load()) {
    epoll_event event;
    const int ready = epoll_wait(epoll_.get(), &event, 1, -1);
    CHECK(ready >= 0 || errno == EINTR);
  }
  sleeping_.fetch_sub(1);
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
