// A FUSE session and what its requests need. Known to fs/mount/*.cc alone.

#pragma once

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "fs/mount/kernel_cache.h"
#include "fs/mount/kernel_notices.h"
#include "fs/mount/known_files.h"
#include "fs/mount/mount.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// In a handle: what is read by it the kernel may keep.
constexpr uint64_t kKeepsBytes = uint64_t{1} << 63;
// The handle of those that KernelNotices opens.
constexpr uint64_t kDropsBytes = uint64_t{1} << 62;

struct Mount::State : public std::enable_shared_from_this<Mount::State> {
  ~State();
  void BeginToRead();
  void ReadRequests(uint32_t events);
  void End();

  MountOptions options;
  fuse_session* session = nullptr;
  int fd = -1;           // The session's.
  bool is_read = false;  // By the loop.
  fuse_buf buffer{};
  bool has_late_request = false;  // That was read, and is answered in the next turn of the loop.
  Loop* loop = nullptr;
  Filesystem* filesystem = nullptr;
  std::function<void()> ended;
  KnownFiles known;
  KernelNotices notices{&known};
  KernelCache cache{&known, &notices};
  size_t under_way = 0;
  bool keeps_access_times = false;
  uint16_t number = 0;             // Of this mount, for its locks.
  uint64_t last_handle = 0;        // Of an open file; kKeepsBytes comes on top.
  std::set<LockWait*> lock_waits;  // That are under way.
  // kernel_channel.h
  uint64_t first_request = 0;
  bool can_map_direct_io = false;
  bool has_direct_io = false;
  bool has_setxattr_flags = false;
  std::string damage_said;  // What the log was told last.
  // Of the request that was read last:
  bool clears_set_id = false;   // if it writes,
  bool clears_set_gid = false;  // if it sets an attribute.
};

// The table of what the kernel asks for; requests' user data is a Mount::State.
const fuse_lowlevel_ops& FuseOperations();

}  // namespace mangrove::fs
