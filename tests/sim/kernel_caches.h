// Programs on every node use files by way of their node's kernel, which keeps what it was told of them (fs/mount/kernel_cache.h): none of them,
// also of those on a node that stands still, sees anything older than what was there when it began to look.
//
// A file is two pages, its inode and its bytes, with a counter on each that every write raises; a directory is one.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "fs/engine_pages.h"
#include "fs/mount/kernel_cache.h"
#include "fs/mount/known_files.h"
#include "tests/sim/kernel_model.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/work.h"

namespace mangrove::sim {

struct KernelCachesOptions {
  int programs_per_node = 2;
  DurationNs max_think = 10 * kMillisecond;
};

class KernelCachesWork final : public Work {
 public:
  KernelCachesWork(SimCluster* cluster, const KernelCachesOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return programs_running_ == 0; }
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;
  std::vector<PageId> pages() const override;
  const WorkloadCounters& counters() const override { return counters_; }
  // How often the kernel need not ask.
  uint64_t hits() const { return hits_; }
  uint64_t name_hits() const { return name_hits_; }

 private:
  static constexpr size_t kFiles = 3;
  static constexpr DurationNs kContended = 200 * kMillisecond;
  // What a node has.
  struct Home {
    Home(SimWorld* world, SimHost* of, const PlantedBugs* bugs)
        : host(of), life(of->life), kernel(world, of->slot), cache(&known, &kernel, bugs, kContended) {}
    SimHost* const host;
    const uint64_t life;
    std::unique_ptr<fs::EnginePages> pages;
    fs::KnownFiles known;
    KernelModel kernel;
    fs::KernelCache cache;
    std::array<int, kFiles> users{};         // Programs that have found the file.
    std::map<uint64_t, uint64_t> looked_up;  // How often, by numbers.
    // As the kernel locks the directory.
    int listing = 0;
    bool changes_names = false;
  };
  using HomePtr = std::shared_ptr<Home>;
  // A file as a program has found it.
  struct Found {
    uint64_t number = 0;
    bool is_open = false;
    bool may_keep = false;
  };
  struct Program {
    SimRandom random;
    std::array<Found, kFiles> files;
  };
  // What came of a change, or may have.
  struct Committed {
    uint64_t value = 0;
    int slot = 0;
    uint64_t life = 0;
    TimeNs at = 0;
    bool is_durable = false;
  };
  // A program's question to the daemon.
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  Task<bool> PrepareAll(SimHost* host);
  Task<bool> RunProgram(HomePtr home, Program program);
  Task<bool> LookUp(HomePtr home, Program* program, size_t file);
  Task<bool> Stat(HomePtr home, Program* program, uint64_t number, uint64_t page);
  void Forget(const HomePtr& home, Found* found, size_t file);
  Task<bool> Open(HomePtr home, Program* program, Found* file);
  Task<bool> Close(HomePtr home, Found* file);
  Task<bool> ReadBytes(HomePtr home, Program* program, size_t file);
  Task<bool> Write(HomePtr home, Program* program, size_t file);
  Task<bool> List(HomePtr home, Program* program);
  Task<bool> ChangeNames(HomePtr home, Program* program);
  bool LookAtNames(const HomePtr& home);
  Task<bool> CheckProgress(SimHost* host, DurationNs bound);

  // The daemon's side.
  static Task<std::optional<uint64_t>> Get(HomePtr home, uint64_t page);
  static Task<std::optional<uint64_t>> GetLocked(HomePtr home, std::vector<uint64_t> pages);
  // `value`: of all of them from then on.
  Task<bool> Raise(HomePtr home, std::vector<uint64_t> pages, uint64_t* value = nullptr);
  Task<bool> MakeDurable(HomePtr home, std::vector<uint64_t> pages);
  Task<bool> Answer(HomePtr home, CallPtr call, Task<bool> task);
  // Runs `task` on the node, while that does not stand still, and then goes on in its kernel: so long after the answer.
  Task<DurationNs> Ask(HomePtr home, Program* program, Task<bool> task);

  void Pass(const HomePtr& home, DurationNs time, std::function<void()> then);
  uint64_t LeastAt(uint64_t page, TimeNs begun) const;
  void Check(const Home& home, uint64_t page, TimeNs begun, uint64_t value, const char* what);

  SimCluster* const cluster_;
  SimWorld* const world_;
  const KernelCachesOptions options_;
  std::map<int, HomePtr> homes_;                        // By their slots.
  std::map<uint64_t, std::vector<Committed>> changes_;  // By pages.
  uint64_t next_client_ = 0;
  uint64_t hits_ = 0;
  uint64_t name_hits_ = 0;
  int programs_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
