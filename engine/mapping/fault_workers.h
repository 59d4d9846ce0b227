// The threads that serve one mapping.
//
//   W1  A thread that finds nothing to do sleeps on one epoll descriptor with all others of the mapping. Its events are
//       edge-triggered: a fault wakes one sleeping thread, the one that went to sleep last.
//   W2  Faults are read from the kernel only while the queue is empty, so the queue is bounded by max_workers reads.
//   W3  While a fault waits in the queue and a thread sleeps, one has been kicked. Before a thread may be held up by
//       another node it sees to it that a sleeping one is left, up to max_workers.
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
  void Run();
  void RunUntilStopped();
  bool ServeNext();
  bool TakeUpFaults();
  void EnsureStandby();
  void Sleep();
  void Kick();
  void OnGone();

  const int max_workers_;
  const DurationNs spin_ns_;
  const std::function<void()> on_gone_;
  FaultResolver resolver_;
  UniqueFd epoll_;
  UniqueFd kick_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> gone_{false};
  std::atomic<int> alive_{0};     // Threads.
  std::atomic<int> sleeping_{0};  // Of these, asleep or about to be.

  std::mutex mutex_;  // Guards what follows.
  FaultTable table_;
  std::vector<std::thread> threads_;
};

}  // namespace mangrove
