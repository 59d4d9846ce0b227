// A directory's entries: records in the tree of its inode.
//
// An entry's key is 55 bits of its name's hash (XXH3-64) and 8 bits that tell names of one hash apart, so it is below 2^63 and stays the same as
// long as the entry is there: it is also its place in a listing. Its bytes are: inode 8, type 1 (mode >> 12), zeros 7, the name.
//
// Works in an edit.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/attributes.h"
#include "fs/inode.h"
#include "fs/tree.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

constexpr size_t kMostNameBytes = 255;

// Looked up before a name, it is the directory of that file's named streams (fs/streams.cc); alone, that of the directory itself.
inline constexpr std::string_view kStreamsPrefix = ".mangrove-streams:";

// EINVAL, ENAMETOOLONG or EPERM (it begins with kStreamsPrefix) says what is wrong with it.
absl::Status CheckName(std::string_view name);

class Directory {
 public:
  struct Entry {
    uint64_t key = 0;
    InodeNumber inode;
    mode_t type = 0;  // S_IFMT's bits.
    std::string name;
  };

  // EIO: a directory cannot have such a record.
  static absl::StatusOr<Entry> Decode(const TreeRecord& record);
  // Whether an entry of this name is found under the key.
  static bool MayHave(uint64_t key, std::string_view name);

  Directory(Edit* edit, MetadataPages* metadata, const Inode& inode) : tree_(edit, metadata, inode.main_root()) {}

  Task<absl::StatusOr<std::optional<Entry>>> Find(std::string name);
  // Entries behind `key`, at most `most`.
  Task<absl::StatusOr<std::vector<Entry>>> List(uint64_t key, size_t most);
  bool IsEmpty() const { return tree_.IsEmpty(); }

  // REQUIRES: the inode was obtained for writing, and there is no such name.
  Task<absl::Status> Add(std::string name, InodeNumber inode, mode_t type);
  // Another file under the name of the entry.
  Task<absl::Status> Replace(Entry entry, InodeNumber inode, mode_t type);
  Task<absl::Status> Remove(uint64_t key) { return tree_.Erase(key); }

 private:
  Tree tree_;
};

}  // namespace mangrove::fs
