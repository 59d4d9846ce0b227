// What people do with files by way of programs that are everywhere: tar, git and sqlite3; timed.

#pragma once

#include <cstdint>
#include <string>

namespace mangrove::bench {

// Whether there is such a program.
bool HasProgram(const std::string& name);

// What they read: a tar file, and a git repository, of `files` small files in directories of 50.
class ProgramSources {
 public:
  // In `directory`, which is there and goes with its owner.
  ProgramSources(const std::string& directory, uint64_t files);

  // In ms; each in a directory of its own below `parent`, of which nothing is left.
  double UntarMs(const std::string& parent) const;
  double CloneMs(const std::string& parent) const;
  double StatusMs(const std::string& parent) const;  // git's, of such a clone; its second one.

 private:
  const std::string tar_;
  const std::string repository_;
};

// Transactions of one row per second, each of which is durable, with a rollback journal or a log ahead (which one program uses alone, so
// that it needs no shared memory). The start of the program is in it.
double SqliteRate(const std::string& parent, uint64_t transactions, bool log_ahead);

}  // namespace mangrove::bench
