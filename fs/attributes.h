// What a file is, as programs see it, and what an operation is told of who asks.

#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace mangrove::fs {

// A file's number in its fileset: that of the page in the fileset's region which is its inode.
struct InodeNumber {
  uint64_t value = 0;
  friend constexpr auto operator<=>(InodeNumber, InodeNumber) = default;
};

// A file as somebody has found it. Its number may be another file's by now: what is asked of it is not for that one.
struct FoundFile {
  FoundFile() = default;
  FoundFile(InodeNumber number) : inode(number) {}  // NOLINT: whichever file has the number.
  FoundFile(InodeNumber number, uint64_t generation_then) : inode(number), generation(generation_then) {}

  InodeNumber inode;
  uint64_t generation = 0;  // Attributes::generation, or 0: any.
};

struct Attributes {
  FoundFile id() const { return {inode, generation}; }

  InodeNumber inode;
  uint64_t generation = 0;  // Of the inode's number: another one when the number is used again. Not 0.
  mode_t mode = 0;          // With the type.
  uint32_t links = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  dev_t device = 0;  // Of device nodes.
  uint64_t size_bytes = 0;
  uint64_t pages = 0;  // That are there for its data; without holes.
  // Nanoseconds since 1970.
  int64_t accessed_ns = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  int64_t born_ns = 0;
  bool is_of_streams = false;  // Some of it is its owner's, on another page.
};

// Those that have a value change. Times: nullopt_t stays.
struct AttributesChange {
  std::optional<mode_t> mode;  // Without the type.
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<uint64_t> size_bytes;
  std::optional<int64_t> accessed_ns;
  std::optional<int64_t> modified_ns;
};

// On whose behalf files are made. What a caller may do the kernel has decided (docs/FILESYSTEM.md).
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 0;
};

struct Space {
  uint64_t total_pages = 0;
  uint64_t free_pages = 0;
  uint64_t available_pages = 0;  // Of the free ones, as far as disks have room where a quota gives more.
  uint64_t inodes = 0;           // Used.
  uint64_t free_inodes = 0;
};

}  // namespace mangrove::fs
