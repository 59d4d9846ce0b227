#include "tests/sim/scale_report.h"

#include <chrono>
#include <cstdio>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "net/log.h"
#include "tests/sim/scale.h"
#include "tests/sim/scale_directory.h"

namespace mangrove::sim {
namespace {

constexpr uint64_t kSeed = 1;
constexpr size_t kMostSizes = 9;

// Empty if it is no such thing.
std::vector<NodeId> ParseCluster(absl::string_view text) {
  std::vector<size_t> sizes;
  size_t count = 1;
  for (const absl::string_view part : absl::StrSplit(text, 'x')) {
    size_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size == 0 || size > kMostScaled) return {};
    sizes.push_back(size);
    count *= size;
    if (count > kMostScaled || sizes.size() > kMostSizes) return {};
  }
  if (count < kFewestScaled) return {};
  if (sizes.size() == 1) return NodesInGroups(count);
  for (const size_t size : sizes) {
    if (size > kGroupNodes) return {};
  }
  std::vector<NodeId> nodes = NodesInGroups(sizes);
  if (nodes.size() < kFewestScaled) return {};
  return nodes;
}

// How many there are of each level from the lowest on, but for the one that has all of them: "64, 4".
std::string GroupsOf(const std::vector<NodeId>& nodes) {
  std::string groups;
  std::set<uint64_t> level;
  for (NodeId node : nodes) level.insert(node.value);
  do {
    std::set<uint64_t> above;
    for (const uint64_t path : level) above.insert(path >> kGroupBits);
    level = std::move(above);
    if (level.size() > 1 || groups.empty()) {
      absl::StrAppendFormat(&groups, "%s%d", groups.empty() ? "" : ", ", level.size());
    }
  } while (level.size() > 1);
  return groups;
}

double Kib(size_t bytes) { return static_cast<double>(bytes) / 1024; }

template <typename Run>
auto WithProgress(const char* what, const ScaledCluster& cluster, Run run) {
  std::fprintf(stderr, "%s, %s: ", cluster.name.c_str(), what);
  std::fflush(stderr);
  const auto begin = std::chrono::steady_clock::now();
  auto result = run();
  const std::chrono::duration<double> gone = std::chrono::steady_clock::now() - begin;
  std::fprintf(stderr, "%.1f s\n", gone.count());
  return result;
}

void PrintHead(std::string_view head, int columns) {
  absl::PrintF("%s\n|", head);
  for (int i = 0; i < columns; ++i) absl::PrintF(" ---: |");
  absl::PrintF("\n");
}

void PrintMembership(const ScaledCluster& cluster, const ScaleResult& r) {
  absl::PrintF("| %s | %s | %.0f | %.0f | %.0f | %d | %d | %d | %.1f | %d | %d |\n", cluster.name,
               GroupsOf(cluster.nodes), r.messages_of_a_member, r.messages_of_a_monitor, r.messages_of_the_leader,
               r.member_lost / kMillisecond, r.monitor_lost / kMillisecond, r.leader_lost / kMillisecond,
               static_cast<double>(r.view_spreads) / kMillisecond, r.messages_of_a_change, r.leases_ended);
  std::fflush(stdout);
}

std::string Describe(const LookupCost& cost) {
  if (cost.lookups == 0) return "-";
  return absl::StrFormat("%.1f, %.1f, %.1f", cost.pages, cost.messages, cost.hops);
}

void PrintDirectory(const ScaledCluster& cluster, const ScaleResult& m, const DirectoryScaleResult& d) {
  absl::PrintF("| %s | %d | %d | %s | %s | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", cluster.name,
               d.segments, d.levels, Describe(d.first), Describe(d.leaf), Describe(d.all), d.idle_sends,
               Kib(m.bytes_of_a_member), Kib(m.bytes_of_a_monitor), Kib(m.bytes_of_the_leader), Kib(d.idle_bytes),
               Kib(d.responsible_bytes), Kib(d.asking_bytes));
  std::fflush(stdout);
}

}  // namespace

std::optional<std::vector<ScaledCluster>> ParseScale(std::string_view text) {
  std::vector<ScaledCluster> clusters;
  for (const absl::string_view part : absl::StrSplit(absl::string_view(text.data(), text.size()), ',')) {
    clusters.push_back({std::string(part), ParseCluster(part)});
    if (clusters.back().nodes.empty()) return std::nullopt;
  }
  return clusters;
}

void PrintScale(const std::vector<ScaledCluster>& clusters) {
  SetLogLevel(LogLevel::kOff);
  PrintHead(
      "| nodes | groups, by level | messages/s: member | busiest monitor | leader | ms to the view without: member "
      "| monitor | leader | ms until all know it | messages for it | leases lost by others |",
      11);
  std::vector<ScaleResult> memberships;
  for (const ScaledCluster& cluster : clusters) {
    memberships.push_back(WithProgress("membership", cluster, [&] { return RunScale(cluster.nodes, kSeed); }));
    PrintMembership(cluster, memberships.back());
  }
  absl::PrintF("\n");
  PrintHead(
      "| nodes | segments | levels | pages, messages, hops of the first lookup | with the leaf alone away | mean of "
      "the "
      "first 1,000 | messages/s sent by an idle engine | KiB, membership: member | monitor | leader | KiB, engine: "
      "idle | responsible | after 1,000 lookups |",
      13);
  for (size_t i = 0; i < clusters.size(); ++i) {
    const DirectoryScaleResult directory =
        WithProgress("directory", clusters[i], [&] { return RunDirectoryScale(clusters[i].nodes, kSeed); });
    PrintDirectory(clusters[i], memberships[i], directory);
  }
}

}  // namespace mangrove::sim
