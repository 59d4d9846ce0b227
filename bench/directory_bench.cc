#include "bench/directory_bench.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cluster.h"
#include "bench/directory_worker.h"
#include "bench/floors/exchange_floor.h"
#include "bench/timing.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kSizes[] = {10, 1'000, 100'000};
constexpr double kNsPerUs = 1000;
constexpr int kStarts = 3;             // Of the node that asks, for one repetition.
constexpr uint64_t kWarmups = 64;      // So that nothing but the directory is cold.
constexpr useconds_t kQuiet = 20'000;  // Until acknowledgements that nobody waits for are out.

std::string NameOf(const char* what, uint64_t segments) { return absl::StrCat("lookup_", what, "_", segments); }

// One node is responsible for all segments, and for the directory's root. The other one, which has just started and
// has never touched the directory, asks once.
void RunLookups(const RunOptions& options, uint64_t segments, std::vector<Row>* rows) {
  Cluster cluster({.directory = options.directory + "/directory",
                   .cores = {0, 1},
                   .spin_us = options.spin_us,
                   .make = MakeDirectoryVerbs});
  const auto root = static_cast<size_t>(cluster.node(0).Call("root")) - 1;
  const size_t asking = 1 - root;
  cluster.node(root).Call("touch", segments);
  const double depth = cluster.node(root).Call("depth", segments / 2);
  ExchangeFloor exchange(options.spin_us, 1);
  Group group(options, rows);
  const auto sent = [&] {
    usleep(kQuiet);
    return cluster.node(0).Call("sent") + cluster.node(1).Call("sent");
  };

  group.Add(
      NameOf("cold", segments), "us",
      [&] {
        std::vector<double> samples;
        for (int i = 0; i < kStarts; ++i) {
          cluster.Restart(asking);
          samples.push_back(cluster.node(asking).Call("lookup", segments / 2, root + 1, kWarmups));
        }
        return Median(std::move(samples)) / kNsPerUs;
      },
      [&] { return depth * exchange.ExchangeNs(4096, 4 * options.pages) / kNsPerUs; });
  group.Add(
      NameOf("messages", segments), "msgs",
      [&] {
        cluster.Restart(asking);
        const double before = sent();
        cluster.node(asking).Call("lookup", segments / 2);
        return sent() - before;
      },
      [&] { return 2 * depth; });
  group.Add(
      NameOf("warm", segments), "ns", [&] { return cluster.node(asking).Call("warm", segments); },
      [&] { return cluster.node(asking).Call("map", segments); });
}

}  // namespace

std::vector<std::string> DirectoryNames() {
  std::vector<std::string> names;
  for (const char* what : {"cold", "messages", "warm"}) {
    for (uint64_t segments : kSizes) names.push_back(NameOf(what, segments));
  }
  return names;
}

void RunDirectory(const RunOptions& options, std::vector<Row>* rows) {
  for (uint64_t segments : kSizes) {
    const bool wants = options.Wants(NameOf("cold", segments)) || options.Wants(NameOf("messages", segments)) ||
                       options.Wants(NameOf("warm", segments));
    if (wants) RunLookups(options, segments, rows);
  }
}

}  // namespace mangrove::bench
