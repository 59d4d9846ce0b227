// One instance of a fileset: what a mount calls. Every node may have one; all are peers and see one tree.
//
// Each operation that changes the tree is one transaction of the engine (fs/edit.h): it happens whole or not at all, whichever
// node dies, and every instance sees it at once. Operations lock what they use, page by page, in transactions that are tried again
// when they meet.
//
// Errors are Posix statuses (fs/status.h). Names are 1 to 255 bytes without '/' and NUL; "." and ".." are refused (the kernel
// resolves them), except where it is said. ENAMETOOLONG for longer ones.
// ESTALE: the file has gone, and its number is nobody's or another file's by now: whoever has its path looks it up again.
//
// Permissions are the kernel's to check: the mount is made with default_permissions. What follows from a caller is here: owner and
// group of new files, the set-group-id bit that a directory hands down, default ACLs, set-id bits that a write clears.
//
// Owned by the loop. Operations are applets; each ends within the instance's time limit.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/attributes.h"
#include "fs/locks/file_lock.h"
#include "fs/page_copies.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// Of a listing.
struct DirectoryEntry {
  std::string name;
  uint64_t cookie = 0;  // Where the listing goes on behind this entry. Below 2^63.
  Attributes attributes;
  // False: the inode cannot be read, or is none. Of `attributes` there are its number and the type in `mode`, as the directory has them.
  bool is_readable = true;
};

// An extended attribute's change, as of setxattr(2).
enum class XattrMode : uint8_t { kAny, kCreate, kReplace };

struct XattrOptions {
  XattrOptions(XattrMode given, bool clears = false)
      : mode(given), clears_set_gid(clears) {}  // NOLINT: mostly that is all.
  XattrMode mode;
  // Who sets an access ACL may not give files of that group the set-group-id bit: it goes.
  bool clears_set_gid;
};

struct WriteOptions {
  bool append = false;         // At the end of the file, whatever the offset is.
  bool clears_set_id = false;  // The writer may not give files set-id bits: those that are there go.
};

class Filesystem {
 public:
  virtual ~Filesystem() = default;

  virtual InodeNumber root() const = 0;

  // --- Names
  virtual Task<absl::StatusOr<Attributes>> Lookup(FoundFile directory, std::string name) = 0;
  // A regular file, a fifo, a socket or a device: `mode` has the type. EEXIST if there is such a name.
  virtual Task<absl::StatusOr<Attributes>> MakeNode(Caller caller, FoundFile directory, std::string name, mode_t mode,
                                                    dev_t device) = 0;
  virtual Task<absl::StatusOr<Attributes>> MakeDirectory(Caller caller, FoundFile directory, std::string name,
                                                         mode_t mode) = 0;
  virtual Task<absl::StatusOr<Attributes>> MakeSymlink(Caller caller, FoundFile directory, std::string name,
                                                       std::string target) = 0;
  // A regular file that has no name and is open here, once: it takes after the directory as one that is made in it. `may_be_named`: by Link.
  virtual Task<absl::StatusOr<Attributes>> MakeUnnamed(Caller caller, FoundFile directory, mode_t mode,
                                                       bool may_be_named) = 0;
  virtual Task<absl::StatusOr<Attributes>> Link(FoundFile file, FoundFile directory, std::string name) = 0;
  virtual Task<absl::Status> Unlink(FoundFile directory, std::string name) = 0;
  virtual Task<absl::Status> RemoveDirectory(FoundFile directory, std::string name) = 0;
  // `flags` as of renameat2(2): 0, RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL otherwise.
  virtual Task<absl::Status> Rename(FoundFile from, std::string name, FoundFile to, std::string new_name,
                                    unsigned flags) = 0;
  virtual Task<absl::StatusOr<std::string>> ReadLink(FoundFile file) = 0;
  // Entries behind `cookie` (0: from the beginning), without "." and "..", at most `most`. Empty: that was all. What is there all the while is
  // listed once; what comes and goes meanwhile, or not. An inode that cannot be read keeps nobody from the others.
  virtual Task<absl::StatusOr<std::vector<DirectoryEntry>>> ReadDirectory(FoundFile directory, uint64_t cookie,
                                                                          size_t most) = 0;
  // Of ".." in a listing.
  virtual Task<absl::StatusOr<InodeNumber>> Parent(FoundFile directory) = 0;

  // --- Attributes
  virtual Task<absl::StatusOr<Attributes>> GetAttributes(FoundFile file) = 0;
  virtual Task<absl::StatusOr<Attributes>> SetAttributes(FoundFile file, AttributesChange change) = 0;
  // ENODATA: there is no such attribute. Values are at most 64 KiB.
  virtual Task<absl::StatusOr<std::string>> GetXattr(FoundFile file, std::string name) = 0;
  virtual Task<absl::Status> SetXattr(FoundFile file, std::string name, std::string value, XattrOptions options) = 0;
  virtual Task<absl::Status> RemoveXattr(FoundFile file, std::string name) = 0;
  virtual Task<absl::StatusOr<std::vector<std::string>>> ListXattr(FoundFile file) = 0;

  // --- Data, of regular files
  // While it is open somewhere, as often as it was opened, a file outlives its last name. ESTALE: that has gone already.
  virtual Task<absl::Status> Open(FoundFile file) = 0;
  virtual Task<absl::Status> Close(FoundFile file) = 0;
  // Less than `length` only at the end of the file.
  virtual Task<absl::StatusOr<std::string>> Read(FoundFile file, uint64_t offset, uint64_t length) = 0;
  // The same, and the time of access stays.
  virtual Task<absl::StatusOr<std::string>> ReadUnnoticed(FoundFile file, uint64_t offset, uint64_t length) = 0;
  // Atomic against other reads and writes, on every node.
  virtual Task<absl::Status> Write(FoundFile file, uint64_t offset, std::string bytes, WriteOptions options) = 0;
  // As fallocate(2): 0, or FALLOC_FL_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE in their allowed combinations; EOPNOTSUPP otherwise.
  virtual Task<absl::Status> Allocate(FoundFile file, int mode, uint64_t offset, uint64_t length) = 0;
  // As lseek(2) with SEEK_DATA or SEEK_HOLE. ENXIO: `offset` is behind the end.
  virtual Task<absl::StatusOr<uint64_t>> Seek(FoundFile file, uint64_t offset, int whence) = 0;
  // OK: everything that any instance wrote to the file before, and what is needed to find it, is durable.
  virtual Task<absl::Status> Sync(FoundFile file) = 0;

  // Locks of files that are open, for all mounts of this node.
  virtual FileLocks* locks() = 0;

  // Copies of pages that this node has, by which it knows files: each by the page of its number (Attributes::is_of_streams says of which that
  // is not all). Null: nothing may be kept of it.
  virtual PageCopies* copies() { return nullptr; }

  virtual Task<absl::StatusOr<Space>> GetSpace() = 0;
};

}  // namespace mangrove::fs
