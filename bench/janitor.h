// Takes mounts and a directory away when the process that made them has ended, however it has.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace mangrove::bench {

class Janitor {
 public:
  // Forks a process. `directory` and what is in it is removed, when nothing is mounted at `mounts`, directories in it, any more.
  Janitor(std::string directory, std::vector<std::string> mounts);
  // Waits for that.
  ~Janitor();
  Janitor(const Janitor&) = delete;
  Janitor& operator=(const Janitor&) = delete;

 private:
  pid_t pid_ = 0;
  int channel_ = -1;
};

}  // namespace mangrove::bench
