// What POSIX and Linux say that a tree of files does, as plainly as it can be written: against it fs::Instance is tested.
//
// Files have numbers of their own (FileId), in the order in which they were made; they take the place of inode numbers in what goes in
// and comes out. Nothing is shared with fs/ but the types of its interface.
//
// What Linux leaves to a filesystem is as docs/FILESYSTEM.md has it: a directory has 4096 bytes; access times are those of relatime, and
// change when a regular file is read; fallocate changes the time of modification.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fs/attributes.h"
#include "fs/filesystem.h"

namespace mangrove::fs {

using FileId = uint64_t;
constexpr FileId kRootFile = 1;
constexpr size_t kMostInstances = 2;

enum class OpKind : uint8_t {
  kLookup,
  kMakeNode,
  kMakeDirectory,
  kMakeSymlink,
  kMakeUnnamed,
  kLink,
  kUnlink,
  kRemoveDirectory,
  kRename,
  kReadLink,
  kParent,
  kGetAttributes,
  kSetAttributes,
  kGetXattr,
  kSetXattr,
  kRemoveXattr,
  kListXattr,
  kOpen,
  kClose,
  kRead,
  kWrite,
  kAllocate,
  kSeek,
  kSync,
};

// One call of Filesystem; each kind uses what it needs.
struct Op {
  OpKind kind = OpKind::kLookup;
  size_t instance = 0;  // Which of the peers is asked.
  FileId file = kRootFile;
  std::string name{};
  FileId other = kRootFile;  // The directory of a link, or where a rename goes to.
  std::string new_name{};
  Caller caller{};
  mode_t mode = 0;
  dev_t device = 0;
  int flags = 0;  // Of a rename, fallocate's mode, lseek's whence.
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string bytes{};  // Written, a value, a target.
  bool append = false;
  XattrMode xattr_mode = XattrMode::kAny;
  AttributesChange change{};
};
std::string ToString(const Op& op);

// What the call answers.
struct Answer {
  int error = 0;
  std::optional<Attributes> attributes{};  // The inode's number is a FileId; generation and pages are not compared.
  std::string bytes{};
  uint64_t number = 0;               // Of a parent, or a place that was sought.
  std::vector<std::string> names{};  // Sorted.
};

class PosixModel {
 public:
  struct File {
    Attributes attributes;
    FileId parent = 0;                        // Of a directory.
    std::map<std::string, FileId> entries{};  // Of a directory.
    std::string content{};                    // Of a regular file; a symbolic link's target.
    std::map<std::string, std::string> xattrs{};
    std::array<uint32_t, kMostInstances> opens{};
    bool may_be_named = false;  // It was made without a name.

    mode_t type() const { return attributes.mode & S_IFMT; }
    bool IsDirectory() const { return S_ISDIR(attributes.mode); }
    bool IsRegular() const { return S_ISREG(attributes.mode); }
    bool IsOpen() const;
  };

  // An empty tree, its root made at `now`.
  explicit PosixModel(int64_t now);

  Answer Apply(const Op& op);
  void SetNow(int64_t now) { now_ = now; }
  // All instances are gone: nothing is open.
  void CloseAll();

  const std::map<FileId, File>& files() const { return files_; }  // That have a name, or are open.
  File* Find(FileId file);
  // By a path from the root, "a/b"; 0 if there is none.
  FileId At(const std::string& path) const;
  FileId next() const { return next_; }

 private:
  Answer Lookup(const Op& op);
  Answer Make(const Op& op);
  Answer Link(const Op& op);
  Answer Unlink(const Op& op);
  Answer RemoveDirectory(const Op& op);
  Answer Rename(const Op& op);
  Answer SetAttributes(const Op& op);
  Answer OfXattr(const Op& op);
  Answer SetXattr(const Op& op, File* file);
  Answer OpenOrClose(const Op& op);
  Answer Read(const Op& op);
  Answer Write(const Op& op);
  Answer Allocate(const Op& op);

  // The directory, or the error.
  int Directory(FileId id, File** out);
  bool IsBelow(FileId directory, FileId other) const;
  void Touch(File* directory);
  void DropName(FileId directory, const std::string& name);
  void DropIfUnused(FileId id);
  void SetMode(File* file, mode_t mode);
  void TakeOver(const File& directory, const Op& op, File* made);

  std::map<FileId, File> files_;
  FileId next_ = kRootFile + 1;
  int64_t now_;
};

}  // namespace mangrove::fs
