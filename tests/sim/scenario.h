// Named mixes of work and faults, and the run of one seed.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "directory/planted_bugs.h"
#include "tests/sim/faults.h"
#include "tests/sim/sim_cluster.h"
#include "tests/sim/workload.h"

namespace mangrove::sim {

constexpr uint32_t kSmallCaches = 1;       // More pages than fit.
constexpr uint32_t kStragglers = 2;        // Many messages are late, and nodes come back soon.
constexpr uint32_t kUnevenCaches = 4;      // Every other node has room for more.
constexpr uint32_t kMoves = 8;             // More nodes, and often others keep soon what one keeps that is away.
constexpr uint32_t kAccounts = 16;         // Transactions move money between accounts; nothing else is done.
constexpr uint32_t kJoins = 32;            // Some nodes come later.
constexpr uint32_t kFiles = 256;           // Users work with files; nothing else is done.
constexpr uint32_t kNewAnchors = 128;      // Enough nodes for all anchors to be others, and one more.
constexpr uint32_t kReaders = 512;         // Regions are read without a lease.
constexpr uint32_t kSizes = 1024;          // Disks are of many sizes, and weighed soon.
constexpr uint32_t kLostNames = 64;        // No log is on those disks alone that keep the page that names the logs.
constexpr uint32_t kReturns = 2048;        // Nodes come back whose disks are behind, and others are not heard.
constexpr uint32_t kFileLocks = 8192;      // Owners lock files; nothing else is done.
constexpr uint32_t kKernelCaches = 16384;  // Kernels keep what they were told of files; nothing else is done.
constexpr uint32_t kReuse = 4096;          // Most pages are freed and allocated again, and stores are late.

struct Scenario {
  std::string_view name;
  std::string_view about;
  // How much of each kind, before the seed decides on the rest.
  std::array<uint32_t, kOperationKinds> work{};
  std::array<uint32_t, kFaultKinds> faults{};
  uint32_t traits = 0;  // kSmallCaches and so on.
};

// The first is the default.
const std::vector<Scenario>& Scenarios();
const Scenario* FindScenario(std::string_view name);
// Many seeds take turns in the scenarios.
const Scenario& ScenarioInTurn(uint64_t seed);

// The flags of PlantedBugs by name.
struct PlantedBug {
  std::string_view name;
  bool PlantedBugs::*flag;
  std::string_view scenario;  // In which it shows soonest.
};
const std::vector<PlantedBug>& AllPlantedBugs();
const PlantedBug* FindPlantedBug(std::string_view name);

struct RunOptions {
  uint64_t min_operations = 2000;
  uint64_t min_faults = 20;
  bool verbose = false;
  PlantedBugs bugs;
  NodeFactory factory;  // Empty: the engine.
};

struct RunResult {
  std::string failure;  // Empty: everything held.
  uint64_t hash = 0;
  uint64_t events = 0;
  uint64_t operations = 0;
  uint64_t succeeded = 0;
  uint64_t faults = 0;
  uint64_t reverts = 0;
  uint64_t loads = 0;
  uint64_t stores = 0;
  uint64_t stale_loads = 0;  // Without a lease.
  uint64_t weighed = 0;      // Views in which disks were to have other weights.
  uint64_t moved = 0;        // Pages, to other nodes, since there was no room for them.
  uint64_t leaders = 0;      // Of the anchors, one for each term that had one.
  uint64_t committed = 0;    // Entries of their log.
  TimeNs simulated = 0;
  int nodes = 0;
  uint32_t replicas = 0;
  std::array<uint64_t, kFaultKinds> faults_by_kind{};
  std::array<uint64_t, kOperationKinds> operations_by_kind{};
};

RunResult RunSeed(uint64_t seed, const Scenario& scenario, const RunOptions& options);

}  // namespace mangrove::sim
