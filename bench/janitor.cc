#include "bench/janitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "bench/worker.h"

namespace mangrove::bench {

Janitor::Janitor(std::string directory, std::vector<std::string> mounts) {
  int ends[2];
  Must(pipe2(ends, O_CLOEXEC), "pipe");
  pid_ = static_cast<pid_t>(Must(fork(), "fork"));
  if (pid_ != 0) {
    close(ends[0]);
    channel_ = ends[1];
    return;
  }
  close(ends[1]);
  setsid();  // A terminal's signals are for the others.
  signal(SIGTERM, SIG_IGN);
  char byte = 0;
  while (read(ends[0], &byte, 1) > 0) {
  }
  for (const std::string& mount : mounts) umount2(mount.c_str(), MNT_DETACH);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  _exit(0);
}

Janitor::~Janitor() {
  close(channel_);
  waitpid(pid_, nullptr, 0);
}

}  // namespace mangrove::bench
