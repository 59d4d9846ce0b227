// mangrove-bench: what Mangrove's operations cost, each beside the plainest program that does the same work.
// docs/PERFORMANCE.md says what the names mean, and how the processes are placed.

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/engine_bench.h"
#include "bench/fs_bench.h"
#include "bench/report.h"
#include "bench/store_bench.h"
#include "bench/worker.h"

namespace mangrove::bench {
namespace {

constexpr char kUsage[] =
    "usage: mangrove-bench engine|store [--json] [--repetitions N] [--only NAME,...] [--pages N] [--spin-us N] [--dir "
    "PATH]\n"
    "       mangrove-bench fs [--json] [--repetitions N] [--only NAME,...] [--pages N] [--dir PATH] [--without-large] "
    "[MOUNT...]\n"
    "  --json           prints an array of {name, value, unit, floor, ratio, repetitions, spread}\n"
    "  --repetitions N  of each measurement and its floor, by turns (default 7)\n"
    "  --only NAME,...  engine: some of %s;\n"
    "                   store: some of %s;\n"
    "                   fs: some of %s\n"
    "  --pages N        pages or operations of one repetition (default 512, at most 4096)\n"
    "  --spin-us N      how long nodes and floors poll before they sleep (default 200)\n"
    "  --dir PATH       on the disk to be measured (default /var/tmp)\n"
    "  --without-large  no directory of 100,000 files\n"
    "  MOUNT...         where nodes have mounted one fileset; none: of three nodes that are started for it\n";

// What can be measured.
struct Subject {
  const char* command;
  std::vector<std::string> (*names)();
  std::vector<Row> (*run)(const RunOptions& options);
};
constexpr Subject kSubjects[] = {
    {"engine", EngineNames, RunEngine}, {"store", StoreNames, RunStore}, {"fs", FsNames, RunFs}};

struct CommandLine {
  RunOptions run;
  bool json = false;
};

[[noreturn]] void Refuse(const std::string& what) {
  std::fprintf(stderr, "mangrove-bench: %s\n", what.c_str());
  std::fprintf(stderr, kUsage, absl::StrJoin(EngineNames(), ", ").c_str(), absl::StrJoin(StoreNames(), ", ").c_str(),
               absl::StrJoin(FsNames(), ", ").c_str());
  std::exit(2);
}

uint64_t Number(const std::string& flag, const std::string& text, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < least || number > most) {
    Refuse(absl::StrCat(flag, " is \"", text, "\", expected a number from ", least, " to ", most));
  }
  return number;
}

const Subject& FindSubject(const std::string& command) {
  for (const Subject& subject : kSubjects) {
    if (command == subject.command) return subject;
  }
  Refuse("say what to measure: engine, store or fs");
}

CommandLine Parse(const std::vector<std::string>& arguments, const Subject& subject) {
  const std::vector<std::string> names = subject.names();
  const bool is_fs = subject.run == RunFs;
  CommandLine line;
  line.run.directory = "/var/tmp";
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& flag = arguments[i];
    if (flag == "--json") {
      line.json = true;
      continue;
    }
    if (is_fs && flag == "--without-large") {
      line.run.large = false;
      continue;
    }
    if (is_fs && !flag.starts_with("--")) {
      line.run.directories.push_back(flag);
      continue;
    }
    if (i + 1 == arguments.size()) Refuse("unknown, or without a value: " + flag);
    const std::string& value = arguments[++i];
    if (flag == "--repetitions") {
      line.run.repetitions = static_cast<int>(Number(flag, value, 1, 1000));
    } else if (flag == "--pages") {
      line.run.pages = Number(flag, value, 8, 4096);
    } else if (flag == "--spin-us") {
      line.run.spin_us = static_cast<int64_t>(Number(flag, value, 0, 100'000));
    } else if (flag == "--dir") {
      line.run.directory = value;
    } else if (flag == "--only") {
      for (const std::string& name : std::vector<std::string>(absl::StrSplit(value, ','))) {
        if (std::find(names.begin(), names.end(), name) == names.end()) Refuse("there is no measurement " + name);
        line.run.only.insert(name);
      }
    } else {
      Refuse("unknown: " + flag);
    }
  }
  return line;
}

int Main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const Subject& subject = FindSubject(arguments.empty() ? "" : arguments[0]);
  if (!arguments.empty()) arguments.erase(arguments.begin());
  CommandLine line = Parse(arguments, subject);
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) Refuse("two processors are needed");
  line.run.bin_directory = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  line.run.directory += "/mangrove-bench-XXXXXX";
  if (mkdtemp(line.run.directory.data()) == nullptr) Refuse("cannot make " + line.run.directory);
  const std::vector<Row> rows = subject.run(line.run);
  std::error_code ignored;
  std::filesystem::remove_all(line.run.directory, ignored);
  std::printf("%s\n", line.json ? ToJson(rows).c_str() : ToTable(rows).c_str());
  return 0;
}

}  // namespace
}  // namespace mangrove::bench

int main(int argc, char** argv) { return mangrove::bench::Main(argc, argv); }
