#include "bench/engine_bench.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cluster.h"
#include "bench/directory_bench.h"
#include "bench/floors/bulk_floor.h"
#include "bench/floors/exchange_floor.h"
#include "bench/floors/fault_floor.h"
#include "bench/floors/memory_floor.h"
#include "bench/floors/store_floor.h"
#include "bench/floors/sync_floor.h"
#include "engine/mangrove.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kRegionPages = 4096;
constexpr uint64_t kCachedLoads = 20'000'000;
constexpr uint64_t kCachedCalls = 500'000;
constexpr double kNsPerUs = 1000;

bool WantsAny(const RunOptions& options, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return options.Wants(name); });
}

const std::vector<std::string> kPairNames = {
    "cached_load", "cached_read_call", "remote_read_call", "remote_fault_clean",    "remote_fault_dirty",
    "upgrade_0",   "upgrade_1",        "page_pingpong",    "record_pass_migratory", "record_pass_invalidate"};
const std::vector<std::string> kFlushNames = {"flush_latency_2_holders", "flush_rate_1_writer", "flush_rate_8_writers"};

const std::vector<std::string> kCommitNames = {"commit_rate_1", "commit_rate_8"};

const std::vector<std::string> kBulkNames = {"sequential_read_1gib", "sequential_read_mapped_1gib",
                                             "sequential_takeover_1gib", "flush_1gib"};

// Two nodes, each on a core of its own; the first does what is timed.
void RunPair(const RunOptions& options, std::vector<Row>* rows) {
  if (!WantsAny(options, kPairNames)) return;
  Cluster cluster(
      {.directory = options.directory + "/pair", .cores = {0, 1}, .spin_us = options.spin_us, .pages = kRegionPages});
  Worker& here = cluster.node(0);
  Worker& other = cluster.node(1);
  ExchangeFloor exchange(options.spin_us, 1);
  FaultFloor fault(0);
  Group group(options, rows);
  const uint64_t n = options.pages;
  const auto page_us = [&] { return exchange.ExchangeNs(4096, 4 * n) / kNsPerUs; };
  const auto small_us = [&] { return exchange.ExchangeNs(64, 4 * n) / kNsPerUs; };
  const auto minor_us = [&] { return fault.MinorNs(4 * n) / kNsPerUs; };
  const auto protect_us = [&] { return fault.WriteProtectNs(4 * n) / kNsPerUs; };

  group.Add(
      "cached_load", "ns", [&] { return here.Call("chase", kCachedLoads); },
      [&] { return here.Call("chase_private", kCachedLoads); });
  group.Add(
      "cached_read_call", "ns", [&] { return here.Call("copy", kCachedCalls); },
      [&] { return here.Call("copy_private", kCachedCalls); });
  group.Add(
      "remote_read_call", "us",
      [&] {
        other.Call("write", 0, n);
        return here.Call("read", 0, n) / kNsPerUs;
      },
      page_us);
  group.Add(
      "remote_fault_clean", "us",
      [&] {
        other.Call("store", 0, n);
        other.Call("flush", 0, n);
        return here.Call("load", 0, n) / kNsPerUs;
      },
      [&] { return page_us() + minor_us(); });
  group.Add(
      "remote_fault_dirty", "us",
      [&] {
        other.Call("store", 0, n);
        return here.Call("load", 0, n) / kNsPerUs;
      },
      [&] { return page_us() + minor_us(); });
  group.Add(
      "upgrade_0", "us",
      [&] {
        here.Call("store", 0, n);
        here.Call("flush", 0, n);
        here.Call("load", 0, n);
        return here.Call("store", 0, n) / kNsPerUs;
      },
      protect_us);
  group.Add(
      "upgrade_1", "us",
      [&] {
        here.Call("store", 0, n);
        other.Call("load", 0, n);
        here.Call("load", 0, n);
        return here.Call("store", 0, n) / kNsPerUs;
      },
      [&] { return small_us() + protect_us(); });
  group.Add(
      "page_pingpong", "us",
      [&] {
        here.Call("store", 0, 1);
        other.Call("load", 0, 1);
        here.Begin("turns", 1, n);
        other.Begin("turns", 0, n);
        other.End();
        return here.End() / kNsPerUs;
      },
      [&] { return page_us() + minor_us() + small_us() + protect_us(); });

  const auto pass_us = [&](CoherenceProtocol protocol) {
    for (Worker* node : {&here, &other}) node->Call("protocol", static_cast<uint64_t>(protocol));
    other.Call("update", 0, n);
    return here.Call("update", 0, n) / kNsPerUs;
  };
  group.Add(
      "record_pass_migratory", "us", [&] { return pass_us(CoherenceProtocol::kMigratory); },
      [&] { return page_us() + minor_us(); });
  group.Add(
      "record_pass_invalidate", "us", [&] { return pass_us(CoherenceProtocol::kInvalidate); },
      [&] { return page_us() + minor_us() + small_us() + protect_us(); });
}

// The first node writes pages of which two thirds fit into its cache; the rest is in the other's.
void RunEvictToPeer(const RunOptions& options, std::vector<Row>* rows) {
  if (!options.Wants("evict_to_peer")) return;
  constexpr uint64_t kCacheMib = 4;
  constexpr uint64_t kPages = (kCacheMib << 20) / kPageBytes * 3 / 2;
  Cluster cluster({.directory = options.directory + "/evict",
                   .cores = {0, 1},
                   .spin_us = options.spin_us,
                   .pages = kPages,
                   .first_cache_mib = kCacheMib});
  ExchangeFloor exchange(options.spin_us, 1);
  Group group(options, rows);
  cluster.node(0).Call("swap", 0, kPages);
  group.Add(
      "evict_to_peer", "us", [&] { return cluster.node(0).Call("swap", 0, kPages) / kNsPerUs; },
      [&] { return exchange.ExchangeNs(4096, 4 * options.pages, 4096) / kNsPerUs; });
}

// Three nodes on two cores: the writer has one, both others share one, and nobody polls.
void RunUpgradeOfThree(const RunOptions& options, std::vector<Row>* rows) {
  if (!options.Wants("upgrade_2")) return;
  Cluster cluster({.directory = options.directory + "/three", .cores = {0, 1, 1}, .spin_us = 0, .pages = kRegionPages});
  ExchangeFloor exchange(0, 2);
  FaultFloor fault(0);
  Group group(options, rows);
  const uint64_t n = options.pages;
  group.Add(
      "upgrade_2", "us",
      [&] {
        cluster.node(0).Call("store", 0, n);
        cluster.node(1).Call("load", 0, n);
        cluster.node(2).Call("load", 0, n);
        cluster.node(0).Call("load", 0, n);
        return cluster.node(0).Call("store", 0, n) / kNsPerUs;
      },
      [&] { return (exchange.ExchangeNs(64, n) + fault.WriteProtectNs(n)) / kNsPerUs; });
}

// A daemon and its program on one core, an embedded node on the other.
void RunAttached(const RunOptions& options, std::vector<Row>* rows) {
  if (!options.Wants("remote_read_call_attached")) return;
  const std::string daemon = options.bin_directory + "/mangroved";
  if (access(daemon.c_str(), X_OK) != 0) {
    std::fprintf(stderr, "remote_read_call_attached: left out, there is no %s\n", daemon.c_str());
    return;
  }
  Cluster cluster({.directory = options.directory + "/attached",
                   .cores = {0, 1},
                   .spin_us = options.spin_us,
                   .daemon = daemon,
                   .pages = kRegionPages});
  RelayFloor relay(options.spin_us);
  Group group(options, rows);
  const uint64_t n = options.pages;
  group.Add(
      "remote_read_call_attached", "us",
      [&] {
        cluster.node(1).Call("write", 0, n);
        return cluster.node(0).Call("read", 0, n) / kNsPerUs;
      },
      [&] { return relay.ExchangeNs(4 * n) / kNsPerUs; });
}

// Two nodes on any core: what waits for a disk is elsewhere meanwhile.
void RunFlush(const RunOptions& options, std::vector<Row>* rows) {
  if (!WantsAny(options, kFlushNames)) return;
  constexpr uint64_t kWriters = 8;
  Cluster cluster({.directory = options.directory + "/flush",
                   .cores = {-1, -1},
                   .spin_us = options.flush_spin_us,
                   .pages = kRegionPages});
  Worker& here = cluster.node(0);
  SyncFloor one({.directory = options.directory, .spin_us = options.flush_spin_us});
  SyncFloor many({.directory = options.directory, .spin_us = 0, .threads = kWriters});
  Group group(options, rows);
  const uint64_t n = options.pages;
  group.Add(
      "flush_latency_2_holders", "us", [&] { return here.Call("flush_each", 0, n) / kNsPerUs; },
      [&] { return one.LatencyNs(n) / kNsPerUs; });
  group.Add(
      "flush_rate_1_writer", "1/s", [&] { return here.Call("flush_rate", 1, 2 * n); },
      [&] { return one.RatePerSecond(2 * n); });
  group.Add(
      "flush_rate_8_writers", "1/s", [&] { return here.Call("flush_rate", kWriters, n); },
      [&] { return many.RatePerSecond(n); });
}

// Three nodes; beside each rate that of plain flushes by as many threads, on the same cluster.
void RunCommits(const RunOptions& options, std::vector<Row>* rows) {
  if (!WantsAny(options, kCommitNames)) return;
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kBehind = 64;  // The plain flushes' pages are not those of transactions.
  Cluster cluster({.directory = options.directory + "/commits",
                   .cores = {-1, -1, -1},
                   .spin_us = options.flush_spin_us,
                   .pages = kRegionPages});
  Worker& here = cluster.node(0);
  Group group(options, rows);
  const uint64_t n = options.pages;
  group.Add(
      "commit_rate_1", "1/s", [&] { return here.Call("commit_rate", 1, n); },
      [&] { return here.Call("flush_rate", 1, n, kBehind); });
  group.Add(
      "commit_rate_8", "1/s", [&] { return here.Call("commit_rate", kThreads, n); },
      [&] { return here.Call("flush_rate", kThreads, n, kBehind); });
}

// Many pages in order, into a cache that has room for them. 1 GiB with the default number of pages.
void RunBulk(const RunOptions& options, std::vector<Row>* rows) {
  if (!WantsAny(options, kBulkNames)) return;
  const uint64_t pages = 512 * options.pages;
  const uint64_t mib = pages * kPageBytes >> 20;
  Cluster cluster({.directory = options.directory + "/bulk",
                   .cores = {0, 1},
                   .spin_us = options.spin_us,
                   .pages = pages,
                   .cache_mib = mib + 256});
  Worker& here = cluster.node(0);
  Worker& other = cluster.node(1);
  BulkFloor bulk(options.spin_us);
  StoreFloor stores(options.directory, pages);
  Group group(options, rows);
  const auto stream = [&] { return bulk.MibPerSecond(mib); };
  const auto after_write = [&](const char* verb) {
    other.Call("write_all");
    return here.Call(verb);
  };
  group.Add(
      "sequential_read_1gib", "MiB/s", [&] { return after_write("read_all"); }, stream);
  group.Add(
      "sequential_read_mapped_1gib", "MiB/s", [&] { return after_write("load_all"); }, stream);
  group.Add(
      "sequential_takeover_1gib", "MiB/s", [&] { return after_write("take_all"); }, stream);
  group.Add(
      "flush_1gib", "MiB/s",
      [&] {
        here.Call("write_all");
        return here.Call("flush_all");
      },
      [&] { return stores.MibPerSecond(); });
}

// Starts a cluster for each repetition: memory is what a node has after its start and little work.
double FirstNodeMib(const RunOptions& options, size_t nodes) {
  Cluster cluster({.directory = options.directory + "/memory",
                   .cores = std::vector<int>(nodes, -1),
                   .spin_us = 0,
                   .replicas = 1,
                   .pages = 64});
  for (size_t i = 0; i < nodes; ++i) cluster.node(i).Call("load", 0, 64);
  return cluster.node(0).Call("resident");
}

void RunMemory(const RunOptions& options, std::vector<Row>* rows) {
  constexpr size_t kPeers = 7;
  Group group(options, rows);
  group.Add(
      "memory_empty_node", "MiB", [&] { return FirstNodeMib(options, 1); },
      [&] { return MemoryFloorMib(options.directory + "/memory-floor", 0); });
  group.Add(
      "memory_per_peer", "MiB", [&] { return (FirstNodeMib(options, 1 + kPeers) - FirstNodeMib(options, 1)) / kPeers; },
      [&] {
        const double alone = MemoryFloorMib(options.directory + "/memory-floor", 0);
        return (MemoryFloorMib(options.directory + "/memory-floor", kPeers) - alone) / kPeers;
      });
}

}  // namespace

std::vector<std::string> EngineNames() {
  std::vector<std::string> names{"cached_load",
                                 "cached_read_call",
                                 "remote_read_call",
                                 "remote_read_call_attached",
                                 "remote_fault_clean",
                                 "remote_fault_dirty",
                                 "upgrade_0",
                                 "upgrade_1",
                                 "upgrade_2",
                                 "page_pingpong",
                                 "record_pass_migratory",
                                 "record_pass_invalidate",
                                 "evict_to_peer",
                                 "flush_latency_2_holders",
                                 "flush_rate_1_writer",
                                 "flush_rate_8_writers",
                                 "commit_rate_1",
                                 "commit_rate_8",
                                 "sequential_read_1gib",
                                 "sequential_read_mapped_1gib",
                                 "sequential_takeover_1gib",
                                 "flush_1gib",
                                 "memory_empty_node",
                                 "memory_per_peer"};
  for (const std::string& name : DirectoryNames()) names.push_back(name);
  return names;
}

std::vector<Row> RunEngine(const RunOptions& options) {
  std::vector<Row> rows;
  RunPair(options, &rows);
  RunAttached(options, &rows);
  RunUpgradeOfThree(options, &rows);
  RunEvictToPeer(options, &rows);
  RunFlush(options, &rows);
  RunCommits(options, &rows);
  RunBulk(options, &rows);
  RunMemory(options, &rows);
  RunDirectory(options, &rows);
  std::vector<Row> ordered;
  for (const std::string& name : EngineNames()) {
    for (const Row& row : rows) {
      if (row.name == name) ordered.push_back(row);
    }
  }
  return ordered;
}

}  // namespace mangrove::bench
