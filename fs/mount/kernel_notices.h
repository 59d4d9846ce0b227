// What the kernel is told to drop (KernelCache::Kernel).
//
// Most is said by notifications on the session's descriptor, which the loop writes. But where reads are under way the kernel waits, for whoever
// has bytes dropped, until these are answered: and a process that was killed while it waits so, with the session's descriptor, would never end,
// nor would the mount. So there threads open the file as any program could, and the answer of the loop (IsOwn) has the kernel drop its bytes on
// their behalf. They have tables of descriptors of their own, without the session's: if the process is killed that is closed, and the kernel ends
// all that waits.

#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fs/mount/kernel_cache.h"
#include "net/runtime/loop.h"

namespace mangrove::fs {

class KernelNotices final : public KernelCache::Kernel {
 public:
  // `known`: outlives it.
  explicit KernelNotices(const KnownFiles* known) : known_(known) {}
  ~KernelNotices() override;

  // Not on the loop; before anything else. `directory`: where it is mounted. EMFILE, ENFILE.
  absl::Status Prepare(std::string directory);
  // On the loop, which outlives it. `fd`: the session's, open until Stop.
  void Begin(int fd, Loop* loop);
  // On the loop: what is not dropped yet is not, and nothing is done any more.
  void End();
  // Blocks. REQUIRES: after End. What the kernel asks meanwhile is answered with an error, for nobody else does.
  void Stop();

  // Who opens a file is such a thread: the kernel is to drop its bytes, and nothing else happens.
  bool IsOwn(pid_t thread);

  bool DropAttributes(uint64_t number) override;
  void DropBytes(uint64_t number) override;
  void DropBytesBesideReads(uint64_t number, std::function<void(bool dropped)> done) override;
  // As far as is known after Prepare.
  bool CanDropBytes() const { return can_open_; }

 private:
  // As the kernel names a file for who has no path.
  struct Wanted {
    uint64_t number = 0;
    uint64_t generation = 0;
    std::function<void(bool)> done;
  };
  void Run();
  void Finish();
  void Wake();
  // False: it could not be opened.
  bool OpenOnce(const Wanted& wanted) const;

  const KnownFiles* const known_;
  std::string directory_;
  dev_t device_ = 0;
  bool can_open_ = false;
  int fd_ = -1;
  Loop* loop_ = nullptr;
  int done_fd_ = -1;  // Of an event: something is in done_.
  std::vector<std::thread> threads_;
  std::mutex mutex_;  // Of what follows.
  std::condition_variable wanted_;
  std::deque<Wanted> bytes_;
  std::vector<std::function<void()>> done_;
  std::set<pid_t> ids_;  // Of threads that open files.
  size_t running_ = 0;   // Threads that have not ended, those that are about to begin too.
  size_t idle_ = 0;
  bool ends_ = false;
};

}  // namespace mangrove::fs
