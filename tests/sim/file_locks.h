// Owners of locks of files on every node: what one has been given nobody else is given, as long as its node is in the view; who waits is
// given it, or told that it waits in a ring; and a lock that is there is found.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "fs/engine_pages.h"
#include "fs/locks/lock_list.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/work.h"

namespace mangrove::sim {

struct FileLocksOptions {
  int owners_per_node = 2;
  DurationNs min_think = 100 * kMicrosecond;
  DurationNs max_think = 10 * kMillisecond;
};

class FileLocksWork final : public Work {
 public:
  FileLocksWork(SimCluster* cluster, const FileLocksOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return owners_running_ == 0; }
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;
  std::vector<PageId> pages() const override;
  const WorkloadCounters& counters() const override { return counters_; }

 private:
  // What a node has of the fileset.
  struct Home {
    SimHost* host;
    uint64_t life = 0;
    std::unique_ptr<fs::EnginePages> pages;
    bool has_news = true;
    int setting = 0;  // Of owners.
  };
  using HomePtr = std::shared_ptr<Home>;
  struct Owner {
    uint64_t number = 0;
    SimRandom random;
  };

  struct Wait {
    uint64_t place = 0;
    uint64_t life = 0;
    TimeNs ended = 0;  // 0: it has not.
  };

  Task<bool> PrepareAll(SimHost* host);
  Task<bool> Keep(HomePtr home);
  Task<bool> RunOwner(HomePtr home, Owner owner);
  Task<bool> SetOne(HomePtr home, Owner* owner, fs::FileLock lock);
  Task<bool> FindOne(HomePtr home, fs::FileLock lock);
  Task<bool> ClearAll(HomePtr home, uint64_t owner);
  Task<bool> CancelIn(SimHost* host, std::shared_ptr<fs::LockWait> wait, DurationNs in);
  Task<bool> CheckProgress(SimHost* host, DurationNs bound);
  fs::FileLock SomeLock(const Home& home, Owner* owner) const;
  bool IsThere(uint64_t place, uint64_t life) const;
  void DropTheGone();
  bool OthersWaited(uint64_t call, TimeNs since);
  void NoteSet(const Home& home, fs::FileLock lock);
  bool StillHas(const fs::FileLock& lock) const;

  SimCluster* const cluster_;
  SimWorld* const world_;
  const FileLocksOptions options_;
  std::map<int, HomePtr> homes_;        // By their slots.
  fs::LockList held_;                   // What owners were told that they have; each with a handle of its own.
  std::map<uint64_t, uint64_t> lives_;  // Of the places that have something.
  uint64_t handles_ = 0;
  uint64_t next_client_ = 0;
  uint64_t calls_ = 0;
  std::map<uint64_t, Wait> waits_;  // By their calls.
  int owners_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
