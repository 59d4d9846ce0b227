// The plainest filesystem in user space: one thread reads the kernel's requests one by one, and does them on a directory of this host.
//
// Mounted as filesets are (fs/mount/mount.h): the kernel keeps no names, no attributes and no bytes. It waits for a request in read(2).

#pragma once

#include <sys/types.h>

#include <string>

namespace mangrove::bench {

// A process that serves `source` at `mount`, two directories that are there; from when the constructor returns.
class PassThrough {
 public:
  PassThrough(const std::string& source, const std::string& mount);
  ~PassThrough();
  PassThrough(const PassThrough&) = delete;
  PassThrough& operator=(const PassThrough&) = delete;

 private:
  const std::string mount_;
  pid_t pid_ = 0;
};

}  // namespace mangrove::bench
