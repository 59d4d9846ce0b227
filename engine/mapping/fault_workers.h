// The threads that serve one mapping.
//
//   W1  One thread, the first, sleeps until a fault comes. The others, standbys, sleep until a fault comes *while some
//       thread waits for another node* and they are armed. Woken for every fault they would steal it from the first thread
//       while that is on its way back to sleep, at the cost of a switch more per fault. Arming and disarming takes a system
//       call each: it is done at once where several threads of the program fault in turn, else before the wait is long.
//   W2  Faults are read from the kernel only while the queue is empty, so the queue is bounded by max_workers reads.
//   W3  While a fault waits in the queue or in the kernel and some thread waits for long until another node answers (at most
//       50 us, Completion), a standby is awake, has been woken, or does not exist since all max_workers wait.
//   W4  Events are edge-triggered or one-shot: one thread wakes for each.
//
// Thread-safe.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/fault_resolver.h"
#include "engine/mapping/fault_table.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

class FaultWorkers {
 public:
  // `on_gone` is called once, by a worker, when the program has ended.
  static absl::StatusOr<std::unique_ptr<FaultWorkers>> Start(MappedClientOptions options, FaultService* service,
                                                             std::function<void()> on_gone);
  // Waits for the threads. REQUIRES: not called by one of them.
  ~FaultWorkers();

  // Makes the threads end soon, without waiting. The last one closes the userfaultfd.
  void Stop();
  // True: the destructor does not wait.
  bool Ended() const { return alive_.load(std::memory_order_acquire) == 0; }

  FaultResolver& resolver() { return resolver_; }

 private:
  FaultWorkers(MappedClientOptions options, FaultService* service, std::function<void()> on_gone);
  absl::Status Open();
  absl::Status StartThread();
  void Run(bool standby);
  void RunUntilStopped(bool standby);
  bool ServeNext();
  bool TakeUpFaults();
  absl::Status Acquire(PageId page, Rights rights);
  void BeginAcquire();
  void EndAcquire();
  void CallStandby();
  void ArmStandby(bool armed);
  bool HasQueued();
  void Sleep(bool standby);
  void Kick();
  void OnGone();

  const int max_workers_;
  const DurationNs spin_ns_;
  FaultService* const service_;
  const std::function<void()> on_gone_;
  FaultResolver resolver_;
  UniqueFd first_epoll_;    // Where the first thread sleeps,
  UniqueFd standby_epoll_;  // and where the others do.
  UniqueFd kick_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> gone_{false};
  std::atomic<int> alive_{0};  // Threads.
  std::atomic<int> sleeping_standbys_{0};

  std::mutex acquire_mutex_;
  // Guarded by acquire_mutex_, as is the arming of standbys.
  int acquiring_ = 0;    // Threads that wait for another node.
  bool called_ = false;  // Standbys are armed, or have been woken, meanwhile.

  std::atomic<int> crowded_{0};  // So many of the next waits arm at once.

  std::mutex mutex_;  // Guards what follows.
  uint32_t last_thread_ = 0;
  FaultTable table_;
  std::vector<std::thread> threads_;
};

}  // namespace mangrove
