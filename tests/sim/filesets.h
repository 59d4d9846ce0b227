// Operators on all nodes who make, use and delete filesets, each those with names of its own, all in one list. What was said to have
// happened has, whatever node dies then; what was interrupted is as before, as after, or says that it is on its way, and goes on from
// there; and what is not there any more has left nothing.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fs/super_root.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/sim_regions.h"
#include "tests/sim/work.h"

namespace mangrove::sim {

struct FilesetsOptions {
  int names_per_node = 2;
  DurationNs min_think = kMillisecond;
  DurationNs max_think = 30 * kMillisecond;
};

class FilesetsWork final : public Work {
 public:
  FilesetsWork(SimCluster* cluster, const FilesetsOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return operators_running_ == 0; }
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;
  std::vector<PageId> pages() const override { return {kSuperRootPage}; }
  const WorkloadCounters& counters() const override { return counters_; }

 private:
  // What a node has.
  struct Home {
    SimHost* host;
    std::unique_ptr<SimRegions> regions;
    std::unique_ptr<fs::SuperRoot> filesets;
  };
  using HomePtr = std::shared_ptr<Home>;
  using State = fs::FilesetState;
  // What is known of one.
  struct Known {
    State state = State::kFree;
    uint64_t number = 0;     // Of the fileset that is there, or that is being made or deleted.
    bool has_mark = false;   // It says what its number is.
    std::set<State> others;  // In one of these it may be as well, if the node dies.
  };
  struct Operator {
    int slot = 0;
    SimRandom random;
    std::map<std::string, Known> filesets;  // By their names.
  };

  HomePtr HomeOn(SimHost* host);
  fs::EnginePagesNode NodeOf(const Home& home) const;
  Task<bool> PrepareAll(SimHost* host);
  Task<bool> RunOperator(HomePtr home, Operator* one);
  Task<bool> LookAround(HomePtr home, Operator* one, bool is_new_life);
  Task<bool> RunOperation(HomePtr home, Operator* one);
  Task<absl::Status> Carry(HomePtr home, std::string name, Known* known, State to);
  Task<absl::Status> Use(HomePtr home, const Known* known, bool must_be_there);
  Task<absl::Status> CheckRegions(HomePtr home);
  Task<bool> CheckProgress(SimHost* host, DurationNs bound, bool writes);
  Task<absl::Status> TryAll(HomePtr home, bool writes);
  void Fail(const Home& home, const std::string& what);

  SimCluster* const cluster_;
  SimWorld* const world_;
  const FilesetsOptions options_;
  std::vector<std::unique_ptr<Operator>> operators_;
  std::set<uint64_t> numbers_;  // That filesets have had.
  uint64_t next_client_ = 0;
  int operators_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
