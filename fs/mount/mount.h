// A mount of a fileset in this host's tree: the kernel's FUSE requests, served by the node's loop itself. A request is read, its operation
// begun and its answer written on the loop, so that nothing is handed from thread to thread.
//
// The kernel keeps names, attributes, and bytes of files that are open for reading, while this node has their pages (kernel_cache.h). Files that are
// open for writing have direct I/O, and can be mapped all the same where the kernel allows that (kernel_channel.h): each read is one request,
// and whole. Permissions and ACLs the kernel checks itself, by attributes that it keeps or has just asked for.
//
//   M1  Every request is answered once, or the mount has ended.
//   M2  What is under way keeps the session; it goes with the last of it.
//
// Paths are looked up on threads of their own: a mount's directory may lie in another mount, which the loop serves.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/filesystem.h"
#include "net/runtime/loop.h"

namespace mangrove::fs {

struct MountOptions {
  std::string
      directory;  // Absolute: a directory without anything in it. In options() it is the name that the kernel has for it.
  std::string source;                   // What the list of mounts says is mounted there.
  std::vector<std::string> flags = {};  // IsMountOption.
};

// As mount(8) names them: ro, rw, noexec, exec, nosuid, suid, nodev, dev, noatime. Without them files are read, written and executed, their
// set-id bits and devices are nothing. With ro and noatime no time of access changes.
bool IsMountOption(std::string_view option);

class Mount {
 public:
  // Blocks; not on the loop. EINVAL: an option that is none. ENOENT, ENOTDIR, ENOTEMPTY, EBUSY (something is mounted there): the directory is not fit for it. What a process
  // that is gone had mounted there is taken away.
  static absl::StatusOr<std::unique_ptr<Mount>> Create(MountOptions options);
  // Blocks; REQUIRES: stopped, if it was served, and nothing is under way. It is taken out of the tree, whoever uses it.
  ~Mount();

  // On the loop. `filesystem` outlives what is under way. `ended`, if somebody else has taken the mount away: on the loop, once.
  void Serve(Loop* loop, Filesystem* filesystem, std::function<void()> ended);
  // On the loop: nothing more is read, who still waits gets an error of the kernel's. `ended` is not called any more.
  void Stop();
  // Blocks; not on the loop. EBUSY: somebody uses it, and it stays, unless `by_force`.
  static absl::Status Unmount(const std::string& directory, bool by_force);

  const MountOptions& options() const;
  // By which its locks are known (LockOwner::mount), of those that this process has.
  uint16_t number() const;
  // Operations that are under way.
  size_t under_way() const;
  // Files that the kernel has not forgotten.
  size_t known_files() const;
  struct State;  // fs/mount/session.h

 private:
  explicit Mount(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace mangrove::fs
