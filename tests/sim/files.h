// Users with files: each has a directory of a fileset that every node has an instance of, and works in it by the instance of its node. What
// operations answer, and what is there after the node was lost, must be what a plain tree says (tests/sim/files_model.h).
//
// Each node also has files open that other nodes take the names of; these it can use until it closes them, whichever other node dies.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fs/engine_pages.h"
#include "fs/instance.h"
#include "tests/sim/files_model.h"
#include "tests/sim/work.h"

namespace mangrove::sim {

// Where the fileset is: segments of its own.
constexpr PageRange kFilesetRegion{PageId(absl::uint128(1) << 40), fs::kRegionPages};

// All but `allocate`.
fs::EnginePagesNode EnginePagesNodeOf(const SimHost& host);

struct FilesOptions {
  int users_per_node = 2;
  DurationNs min_think = 100 * kMicrosecond;
  DurationNs max_think = 10 * kMillisecond;
};

class FilesWork final : public Work {
 public:
  FilesWork(SimCluster* cluster, const FilesOptions& options);

  void OnReady(SimHost& host) override;
  void Prepare() override;
  bool prepared() const override { return prepared_; }
  void StopClients() override { stopped_ = true; }
  bool AllClientsEnded() const override { return users_running_ == 0; }
  void StartProgressCheck(DurationNs bound) override;
  bool ProgressCheckEnded() const override { return checks_running_ == 0; }
  void StartReadAll(int slot, DurationNs bound) override;
  std::vector<PageId> pages() const override { return {kFilesetRegion.first}; }
  const WorkloadCounters& counters() const override { return counters_; }

 private:
  // What a node has of the fileset.
  struct Home {
    SimHost* host;
    std::unique_ptr<fs::EnginePages> pages;
    std::unique_ptr<fs::Instance> instance;
  };
  using HomePtr = std::shared_ptr<Home>;
  // A file that a node has open, and its name.
  struct Held {
    std::string name;
    fs::FoundFile file;
    bool is_open = false;
  };
  struct User {
    int number = 0;
    int slot = 0;
    SimRandom random;
    FileHistory history;
    uint64_t last_id = 0;
    bool was_here = false;  // Since its node began.
    uint64_t losses = 0;    // Of nodes, when it last looked around. Bytes that were not synced may go with any of them.
  };

  uint64_t Losses() const;
  std::unique_ptr<fs::EnginePages> PagesOn(SimHost& host);
  Task<absl::Status> Allocate(SimHost* host, PageRange pages, AllocateOptions options, TimeNs deadline);
  Task<absl::StatusOr<HomePtr>> OpenOn(SimHost* host);
  Task<bool> RunHost(SimHost* host);
  Task<bool> RunUser(HomePtr home, User* user);
  // files_open.cc
  void BeginHolding(const HomePtr& home);
  HomePtr SomeOtherHome(const Home& home, SimRandom* random);
  Task<bool> TakeCare(HomePtr home);
  Task<bool> HoldFiles(HomePtr home);
  Task<absl::Status> MakeHeld(HomePtr home, Held* held);
  Task<bool> UseHeld(HomePtr home, Held held, SimRandom random);
  Task<bool> TakeNameAway(HomePtr home, std::string name);
  Task<bool> TakeTables(HomePtr home);
  Task<bool> LookAround(HomePtr home, User* user);
  Task<bool> RunOperation(HomePtr home, User* user);
  FileOperation NextOperation(User* user);
  Task<int> Carry(HomePtr home, User* user, const FileOperation* operation);
  Task<int> CarryNames(HomePtr home, fs::InodeNumber top, const FileOperation* operation);
  Task<int> CarryFile(HomePtr home, User* user, fs::InodeNumber inode, const FileOperation* operation);
  Task<absl::StatusOr<fs::InodeNumber>> Walk(HomePtr home, fs::InodeNumber from, std::string path);
  Task<absl::StatusOr<fs::InodeNumber>> WalkToDirectory(HomePtr home, fs::InodeNumber from, std::string path);
  Task<absl::StatusOr<fs::InodeNumber>> TopOf(HomePtr home, const User* user);
  Task<absl::Status> ReadTree(HomePtr home, fs::InodeNumber directory, std::string path, ModelTree* tree);
  Task<bool> PrepareAll(SimHost* host);
  Task<bool> CheckProgress(SimHost* host, DurationNs bound, bool writes);
  Task<absl::Status> TryAll(SimHost* host, bool writes);

  SimCluster* const cluster_;
  SimWorld* const world_;
  const FilesOptions options_;
  std::vector<std::unique_ptr<User>> users_;
  std::map<int, std::weak_ptr<Home>> homes_;  // By their slots.
  struct Allocating {
    const SimHost* host = nullptr;
    uint64_t life = 0;
  };
  std::map<PageId, Allocating> allocating_;
  std::set<PageId> allocated_;
  uint64_t next_client_ = 0;
  int users_running_ = 0;
  int checks_running_ = 0;
  bool prepared_ = false;
  bool stopped_ = false;
  WorkloadCounters counters_;
};

}  // namespace mangrove::sim
