#include "tests/cluster/soak_options.h"

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

constexpr char kUsage[] =
    "usage: mangrove-soak [--faults N] [--seed N] [--nodes 3|5] [--full-disks yes|no] [--monitors yes|no] [--list "
    "yes|no]\n"
    "  --faults N  how many (default 100)\n"
    "  --seed N    what they are drawn from (default: one that nobody has tried)\n"
    "  --nodes N   3 (default) or 5, on which programs run; beside them is one that joins, and leaves\n"
    "  --full-disks yes|no  whether disks are filled (default yes)\n"
    "  --monitors yes|no    whether nodes pulse by way of monitors, as in large clusters (default: where the seed is "
    "odd)\n"
    "  --list yes|no        only say which faults would be drawn, where nothing is left out (default no)\n";

[[noreturn]] void Refuse(const std::string& what) {
  std::fprintf(stderr, "mangrove-soak: %s\n%s", what.c_str(), kUsage);
  std::exit(2);
}

}  // namespace

SoakOptions ParseSoakOptions(int argc, char** argv) {
  SoakOptions options{.seed = std::random_device{}(), .monitors = std::nullopt};
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) Refuse(absl::StrCat("unknown, or without a value: ", flag));
    const std::string value = argv[i + 1];
    const bool is_choice = value == "yes" || value == "no";
    if (flag == "--faults") {
      if (!absl::SimpleAtoi(value, &options.faults) || options.faults < 1 || options.faults > 10'000) {
        Refuse(absl::StrCat("--faults is \"", value, "\", expected a number from 1 to 10000"));
      }
    } else if (flag == "--seed") {
      if (!absl::SimpleAtoi(value, &options.seed)) Refuse(absl::StrCat("--seed is \"", value, "\", expected a number"));
    } else if (flag == "--nodes" && (value == "3" || value == "5")) {
      options.nodes = value == "3" ? 3 : 5;
    } else if (flag == "--full-disks" && is_choice) {
      options.full_disks = value == "yes";
    } else if (flag == "--monitors" && is_choice) {
      options.monitors = value == "yes";
    } else if (flag == "--list" && is_choice) {
      options.only_lists = value == "yes";
    } else {
      Refuse(absl::StrCat("unknown: ", flag, " ", value));
    }
  }
  return options;
}

}  // namespace mangrove::cluster_test
