// What a user's files should be: a plain tree, and what of it may be there after the user's node was lost.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mangrove::sim {

struct ModelFile {
  bool is_directory = false;
  uint64_t id = 0;  // Of a file, under whatever name.
  std::string content;
  std::map<std::string, std::string> attributes;

  friend bool operator==(const ModelFile&, const ModelFile&) = default;
};

// Files by their paths, "a/b".
using ModelTree = std::map<std::string, ModelFile>;

// One operation; only what it needs has a value.
struct FileOperation {
  enum class Kind : uint8_t {
    kMake,
    kMakeDirectory,
    kUnlink,
    kRemoveDirectory,
    kRename,
    kWrite,
    kAppend,
    kTruncate,
    kRead,
    kList,
    kSetAttribute,
    kSync
  };
  static constexpr int kKinds = 12;
  Kind kind = Kind::kMake;
  std::string path;
  std::string other;  // A path.
  uint64_t offset = 0;
  std::string bytes;
};
std::string ToString(const FileOperation& operation);

// What it does to the tree: an errno, 0 if it succeeds; otherwise nothing has changed.
int Apply(const FileOperation& operation, uint64_t new_id, ModelTree* tree);
std::vector<std::string> NamesIn(const ModelTree& tree, const std::string& directory);

// The states of a user's tree that a loss may leave, and what each file may hold.
class FileHistory {
 public:
  const ModelTree& now() const { return states_.back(); }
  // It is going to be tried; `tree` is what it makes of the present state.
  void Begin(ModelTree tree) { attempt_.push_back(std::move(tree)); }
  // It has happened.
  void Happened();
  // It has not.
  void DidNotHappen() { attempt_.clear(); }
  // Everything so far outlives the node, and so does the content of this file.
  void Synced(uint64_t id);

  // The tree as somebody found it; `lost`: after the node was lost. Empty, if it may be so: then it is the present state. Otherwise what is wrong.
  std::string Find(const ModelTree& found, bool lost);

 private:
  std::string CheckContents(const ModelTree& state, const ModelTree& found) const;
  void NoteContents(const ModelTree& tree);
  bool MayBe(uint64_t id, size_t at, char byte) const;

  std::vector<ModelTree> states_{ModelTree{}};             // From the last one that is durable on.
  std::vector<ModelTree> attempt_;                         // One at most.
  std::map<uint64_t, std::vector<std::string>> contents_;  // Of each file, from what was synced on.
  // Versions that were longer than the file was when somebody looked: writes that were lost, or failed, may have left their bytes behind its
  // end. And that end, when it was synced.
  std::map<uint64_t, std::vector<std::string>> behind_;
  std::map<uint64_t, size_t> synced_bytes_;
};

}  // namespace mangrove::sim
