// What is measured, beside what it is compared with, and how it is printed.

#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace mangrove::bench {

// One name of the report. `value`, `floor` and `local`, if there is one, measure once each, long enough for a figure of its own.
struct Measurement {
  std::string name;
  std::string unit;  // "ns", "us", "ms", "1/s", "MiB", "x", "msgs".
  std::function<double()> value;
  std::function<double()> floor;
  std::function<double()> local = nullptr;
};

struct Row {
  std::string name;
  std::string unit;
  double value = 0;  // Medians of the repetitions.
  double floor = 0;
  double ratio = 0;  // value / floor.
  double local = 0;  // The same on a directory of this host; 0: not measured.
  int repetitions = 0;
  double spread = 0;  // (largest - smallest value) / median.
};

// What was asked for on the command line.
struct RunOptions {
  int repetitions = 7;
  std::set<std::string> only;            // Empty: all.
  std::string directory;                 // For stores and files; on the disk to be measured.
  std::string bin_directory;             // Where this program and mangroved are.
  int64_t spin_us = 200;                 // How long nodes and floors poll before they sleep,
  int64_t flush_spin_us = 20;            // and where they wait for a disk.
  uint64_t pages = 512;                  // Pages, or operations, of one repetition.
  std::vector<std::string> directories;  // fs: mounts of one fileset; none: of a cluster made for it.
  bool large = true;                     // fs: with what takes long.

  bool Wants(const std::string& name) const { return only.empty() || only.contains(name); }
};

// Measures floor and value by turns, so that what disturbs the machine meets both.
Row Measure(const Measurement& measurement, int repetitions);

// Adds the rows that are wanted, and says on standard error what is being measured.
class Group {
 public:
  Group(const RunOptions& options, std::vector<Row>* rows) : options_(options), rows_(rows) {}
  void Add(std::string name, std::string unit, std::function<double()> value, std::function<double()> floor);

 private:
  const RunOptions& options_;
  std::vector<Row>* const rows_;
};

std::string ToJson(const std::vector<Row>& rows);
std::string ToTable(const std::vector<Row>& rows);

}  // namespace mangrove::bench
