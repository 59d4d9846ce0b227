// Lets a test act as a user without privileges who may handle page faults, whatever this machine's device says.

#pragma once

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace mangrove {

constexpr uid_t kNobody = 65534;
constexpr gid_t kDeviceGroup = 4711;

// For good: nobody, in `groups` and in that of the device for page faults, as ./run sets it up. The device is one of this
// process's own: nothing changes for the rest of the machine. REQUIRES: root, and one thread.
inline void BecomeNobody(std::vector<gid_t> groups = {}) {
  const std::string node = "/mnt/userfaultfd";
  struct stat device {};
  groups.push_back(kDeviceGroup);
  const bool done = stat("/dev/userfaultfd", &device) == 0 && unshare(CLONE_NEWNS) == 0 &&
                    mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                    mount("none", "/mnt", "tmpfs", 0, nullptr) == 0 &&
                    mknod(node.c_str(), S_IFCHR | 0660, device.st_rdev) == 0 &&
                    chown(node.c_str(), 0, kDeviceGroup) == 0 && chmod(node.c_str(), 0660) == 0 &&
                    mount(node.c_str(), "/dev/userfaultfd", nullptr, MS_BIND, nullptr) == 0 &&
                    setgroups(groups.size(), groups.data()) == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0 &&
                    prctl(PR_SET_DUMPABLE, 1) == 0;  // As a program has it that such a user starts.
  if (done) return;
  perror("cannot become nobody");
  _exit(90);
}

}  // namespace mangrove
