// mangrove-reduplex-times: how fast the others keep what a node kept that is lost for ever. Three nodes as processes, with the settings
// that they have by themselves, and two copies of each page; beside it a plain copy of as many pages between two bare stores. It ends
// with 1 where the bar is not met.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"
#include "tests/cluster/plain_copy.h"

namespace mangrove::cluster_test {
namespace {

constexpr char kUsage[] =
    "usage: mangrove-reduplex-times [--mib N] [--times N]\n"
    "  --mib N    so much is flushed before (default 512)\n"
    "  --times N  how often, with new nodes each time (default 3)\n";

constexpr int kLost = 3;
constexpr int kDoneWithinS = 600;
constexpr double kBytesPerMib = 1 << 20;
constexpr double kLeastRatio = 0.5;  // The bar: of the rate to that of the plain copy, in the median.

struct CommandLine {
  uint64_t mib = 512;
  int times = 3;
};

[[noreturn]] void Refuse(const std::string& what) {
  std::fprintf(stderr, "mangrove-reduplex-times: %s\n%s", what.c_str(), kUsage);
  std::exit(2);
}

CommandLine Parse(int argc, char** argv) {
  CommandLine line;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) Refuse(absl::StrCat("unknown, or without a value: ", flag));
    const std::string value = argv[i + 1];
    if (flag == "--mib") {
      if (!absl::SimpleAtoi(value, &line.mib) || line.mib < 8 || line.mib > 65'536) {
        Refuse(absl::StrCat("--mib is \"", value, "\", expected a number from 8 to 65536"));
      }
    } else if (flag == "--times") {
      if (!absl::SimpleAtoi(value, &line.times) || line.times < 1 || line.times > 100) {
        Refuse(absl::StrCat("--times is \"", value, "\", expected a number from 1 to 100"));
      }
    } else {
      Refuse(absl::StrCat("unknown: ", flag));
    }
  }
  return line;
}

void FlushAll(Cluster& cluster, uint64_t mib) {
  const auto session = cluster.Attach(1, kDoneWithinS * 1000);
  const auto region = MakeRegion(*session, "r", mib << 20);
  const auto must = [](const absl::Status& status) {
    if (!status.ok()) throw std::runtime_error(status.ToString());
  };
  std::vector<uint64_t> words((1 << 20) / sizeof(uint64_t));
  for (uint64_t i = 0; i < mib; ++i) {
    std::fill(words.begin(), words.end(), i * 0x9e3779b97f4a7c15);
    must(region->Write(i << 20, std::as_bytes(std::span(words))));
    if (i % 16 == 15 || i + 1 == mib) must(region->Flush((i - i % 16) << 20, ((i % 16) + 1) << 20));
  }
}

uint64_t CopiedPages(Cluster& cluster) {
  uint64_t pages = 0;
  for (int node = 1; node < kLost; ++node)
    pages += cluster.Ask(node, {"status"})["disk"]["pages_copied"].get<uint64_t>();
  return pages;
}

struct Result {
  uint64_t pages = 0;
  double seconds = 0;
};

Result LoseOne(uint64_t mib) {
  Cluster cluster({.nodes = kLost, .replicas = 2});
  cluster.StartAll();
  FlushAll(cluster, mib);
  const uint64_t before = CopiedPages(cluster);
  const std::string name = absl::StrCat("node-", kLost);
  const auto lists = [&](const char* what) {
    const nlohmann::json names = cluster.Ask(1, {"status"})["membership"][what];
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  cluster.Kill(kLost);
  if (!Eventually([&] { return lists("missing"); })) throw std::runtime_error(name + " is not missed");
  const Stopwatch watch;
  const Output given_up = cluster.GiveUp(1, name);
  if (given_up.exit_code != 0) throw std::runtime_error(given_up.err);
  const bool done = Eventually(
      [&] {
        const nlohmann::json membership = cluster.Ask(1, {"status"})["membership"];
        const auto& disks = membership["disks"];
        return membership["next_disks"].empty() && std::find(disks.begin(), disks.end(), name) == disks.end();
      },
      kDoneWithinS);
  Result result{.pages = 0, .seconds = watch.Seconds()};
  if (!done) throw std::runtime_error(absl::StrCat("not all pages have two copies after ", kDoneWithinS, " s"));
  result.pages = CopiedPages(cluster) - before;
  return result;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  const CommandLine line = Parse(argc, argv);
  std::vector<double> rates;
  std::vector<double> floors;
  std::vector<double> ratios;
  for (int i = 1; i <= line.times; ++i) {
    const Result result = LoseOne(line.mib);
    const double mib = static_cast<double>(result.pages * kPageBytes) / kBytesPerMib;
    rates.push_back(mib / result.seconds);
    const TemporaryDirectory directory;
    floors.push_back(PlainCopyMibPerSecond(directory.path(), result.pages));
    ratios.push_back(rates.back() / floors.back());
    std::printf("%3d: %.0f MiB copied in %.2f s, %.0f MiB/s; plain copy %.0f MiB/s; ratio %.2f\n", i, mib,
                result.seconds, rates.back(), floors.back(), ratios.back());
    std::fflush(stdout);
  }
  const double ratio = Median(ratios);
  std::printf("median: %.0f MiB/s; plain copy %.0f MiB/s; ratio %.2f\n", Median(rates), Median(floors), ratio);
  const bool is_met = ratio >= kLeastRatio;
  std::printf("%s: ratio %.2f, expected at least %.2f\n", is_met ? "bar met" : "BAR NOT MET", ratio, kLeastRatio);
  return is_met ? 0 : 1;
}

}  // namespace
}  // namespace mangrove::cluster_test

int main(int argc, char** argv) {
  try {
    return mangrove::cluster_test::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mangrove-reduplex-times: %s\n", error.what());
    return 1;
  }
}
