// Pairs of calls: one on a mount changes the tree, and what the next one sees on another mount must be so. A model says what is to be seen.
//
//   W1  Nothing else uses the directories.
//   W2  The mount that looks has often looked just before the change, and has files open from long ago: what it kept would be stale.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace mangrove::cluster_test {

class Pairs {
 public:
  // `roots`: one directory by its paths on all mounts, empty.
  Pairs(std::vector<std::string> roots, uint64_t seed);
  ~Pairs();
  Pairs(const Pairs&) = delete;
  Pairs& operator=(const Pairs&) = delete;

  // One pair. An exception: what was not as it should be, with the seed and the pair.
  void Step();
  // Everything, as each mount has it.
  void CheckAll();

 private:
  struct File {
    std::string bytes;
    mode_t mode = 0644;
    std::map<std::string, std::string> attributes;
    size_t names = 1;
    std::vector<int> opened;  // By mount; -1: not there.
  };
  using FilePtr = std::shared_ptr<File>;

  // What the change has touched, and is then looked at.
  struct Touched {
    std::string path;
    std::string other;  // Of a rename, where it came from; of a link, the first name.
    FilePtr file;       // Also if it has no name any more.
  };

  Touched Change(size_t mount);
  Touched MakeFile(size_t mount);
  Touched MakeDirectory(size_t mount);
  Touched RemoveDirectory(size_t mount);
  Touched Rename(size_t mount);
  Touched Link(size_t mount);
  Touched Unlink(size_t mount);
  Touched ChangeMode(size_t mount);
  Touched Write(size_t mount, bool appends);
  Touched Truncate(size_t mount);
  Touched ChangeAttribute(size_t mount);
  Touched Store(size_t mount);

  void Look(size_t mount, const Touched& touched);
  void LookAtPath(size_t mount, const std::string& path);
  void LookAtStatus(size_t mount, const std::string& path);
  void LookAtListing(size_t mount, const std::string& directory);
  void LookAtAttributes(size_t mount, const std::string& path);
  void LookAtBytes(size_t mount, const std::string& path, bool mapped);
  void LookAtOpened(size_t mount, const File& file);
  void CompareBytes(const std::string& what, const std::string& seen, const std::string& expected);

  size_t Below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random_); }
  bool Chance(int percent) { return Below(100) < static_cast<size_t>(percent); }
  std::string SomeBytes(size_t most);
  std::string SomeName();  // With its directory; it may be there already.
  std::string SomeFile();
  std::string PathAt(size_t mount, const std::string& path) const { return roots_[mount] + path; }
  // A descriptor of the file on the mount that stays open.
  int Opened(size_t mount, const std::string& path);
  void DropName(const std::string& path);
  void Require(bool is_so, const std::string& what) const;
  // After a call: `result` is not -1.
  void Done(int64_t result, const std::string& call) const;

  const std::vector<std::string> roots_;
  const uint64_t seed_;
  std::mt19937_64 random_;
  uint64_t pair_ = 0;
  std::string change_;  // In words.
  // Paths begin with '/'; the root is "".
  std::map<std::string, FilePtr> files_;
  std::set<std::string> directories_{""};
};

}  // namespace mangrove::cluster_test
