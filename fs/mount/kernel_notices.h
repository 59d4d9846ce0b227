// What the kernel is told to drop (KernelCache::Kernel): notifications on the session's descriptor.
//
// Most are written by the loop. Bytes beside reads are dropped by a thread, for the kernel waits then until these reads are answered. The
// thread has a descriptor of its own of the same session, and no other: if the process is killed while it waits, the session's descriptor is
// closed all the same, so that the kernel ends these reads, and with them the wait.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "fs/mount/kernel_cache.h"
#include "net/runtime/loop.h"

namespace mangrove::fs {

class KernelNotices final : public KernelCache::Kernel {
 public:
  ~KernelNotices() override { Stop(); }

  // `fd`: the session's, open until Stop. `loop` outlives it.
  void Begin(int fd, Loop* loop);
  // Not on the loop, blocks. What the kernel asks meanwhile is answered with an error, for nobody else does; what is not dropped yet is not.
  void Stop();

  bool DropAttributes(uint64_t number) override;
  bool DropNames() override;
  void DropBytes(uint64_t number) override;
  void DropBytesBesideReads(uint64_t number, std::function<void()> done) override;

 private:
  void Run();

  int fd_ = -1;
  Loop* loop_ = nullptr;
  std::thread thread_;  // From the first time on that it is needed.
  std::mutex mutex_;    // Of what follows.
  std::condition_variable wanted_;
  std::deque<std::pair<uint64_t, std::function<void()>>> bytes_;
  bool ends_ = false;
  bool has_ended_ = false;
};

}  // namespace mangrove::fs
