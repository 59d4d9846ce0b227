#include "tests/sim/files_model.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mangrove::sim {
namespace {

using Kind = FileOperation::Kind;

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

// As a walk from the top finds it.
int CheckParents(const ModelTree& tree, const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const auto it = tree.find(path.substr(0, slash));
    if (it == tree.end()) return ENOENT;
    if (!it->second.is_directory) return ENOTDIR;
  }
  return 0;
}

bool IsBelow(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
         path[directory.size()] == '/';
}

bool IsEmpty(const ModelTree& tree, const std::string& directory) {
  return std::none_of(tree.begin(), tree.end(), [&](const auto& file) { return IsBelow(file.first, directory); });
}

void MoveTree(const std::string& from, const std::string& to, ModelTree* tree) {
  ModelTree moved;
  for (auto it = tree->begin(); it != tree->end();) {
    if (it->first == from || IsBelow(it->first, from)) {
      moved[to + it->first.substr(from.size())] = std::move(it->second);
      it = tree->erase(it);
    } else {
      ++it;
    }
  }
  tree->merge(moved);
}

int Rename(const FileOperation& operation, ModelTree* tree) {
  if (const int error = CheckParents(*tree, operation.path)) return error;
  if (const int error = CheckParents(*tree, operation.other)) return error;
  const auto source = tree->find(operation.path);
  if (source == tree->end()) return ENOENT;
  if (IsBelow(operation.other, operation.path)) return EINVAL;
  const auto target = tree->find(operation.other);
  if (operation.path == operation.other) return 0;
  if (target != tree->end()) {
    const bool is_directory = source->second.is_directory;
    if (is_directory && !target->second.is_directory) return ENOTDIR;
    if (!is_directory && target->second.is_directory) return EISDIR;
    if (is_directory && !IsEmpty(*tree, operation.other)) return ENOTEMPTY;
    tree->erase(target);
  }
  MoveTree(operation.path, operation.other, tree);
  return 0;
}

int MakeOrRemove(const FileOperation& operation, uint64_t new_id, ModelTree* tree) {
  if (const int error = CheckParents(*tree, operation.path)) return error;
  const auto it = tree->find(operation.path);
  const bool is_there = it != tree->end();
  switch (operation.kind) {
    case Kind::kMake:
    case Kind::kMakeDirectory:
      if (is_there) return EEXIST;
      (*tree)[operation.path] = {.is_directory = operation.kind == Kind::kMakeDirectory, .id = new_id};
      return 0;
    case Kind::kUnlink:
      if (!is_there) return ENOENT;
      if (it->second.is_directory) return EISDIR;
      tree->erase(it);
      return 0;
    default:
      if (!is_there) return ENOENT;
      if (!it->second.is_directory) return ENOTDIR;
      if (!IsEmpty(*tree, operation.path)) return ENOTEMPTY;
      tree->erase(it);
      return 0;
  }
}

void WriteAt(uint64_t offset, const std::string& bytes, std::string* content) {
  if (content->size() < offset + bytes.size()) content->resize(offset + bytes.size());
  content->replace(offset, bytes.size(), bytes);
}

}  // namespace

std::string ToString(const FileOperation& operation) {
  static const char* const names[] = {"make",   "mkdir",    "unlink", "rmdir", "rename",   "write",
                                      "append", "truncate", "read",   "list",  "setxattr", "sync"};
  return absl::StrCat(names[static_cast<size_t>(operation.kind)], " ", operation.path, " ", operation.other, " ",
                      operation.offset, " ", operation.bytes.size(), " of ", operation.bytes.substr(0, 1));
}

int Apply(const FileOperation& operation, uint64_t new_id, ModelTree* tree) {
  if (operation.kind == Kind::kRename) return Rename(operation, tree);
  if (operation.kind <= Kind::kRemoveDirectory) return MakeOrRemove(operation, new_id, tree);
  if (const int error = CheckParents(*tree, operation.path)) return error;
  const auto it = tree->find(operation.path);
  if (it == tree->end()) return ENOENT;
  ModelFile& file = it->second;
  if (operation.kind == Kind::kSetAttribute) {
    file.attributes["user.a"] = operation.bytes;
    return 0;
  }
  if (operation.kind == Kind::kList) return file.is_directory ? 0 : ENOTDIR;
  if (operation.kind == Kind::kSync) return 0;
  if (file.is_directory) return EISDIR;
  if (operation.kind == Kind::kWrite) WriteAt(operation.offset, operation.bytes, &file.content);
  if (operation.kind == Kind::kAppend) file.content += operation.bytes;
  if (operation.kind == Kind::kTruncate) file.content.resize(operation.offset);
  return 0;
}

std::vector<std::string> NamesIn(const ModelTree& tree, const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& [path, file] : tree) {
    if (ParentOf(path) == directory && !path.empty()) names.push_back(path.substr(path.rfind('/') + 1));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// --- History ----------------------------------------------------------------------------------------------------------

void FileHistory::NoteContents(const ModelTree& tree) {
  for (const auto& [path, file] : tree) {
    if (file.is_directory) continue;
    std::vector<std::string>& versions = contents_[file.id];
    if (versions.empty() || versions.back() != file.content) versions.push_back(file.content);
  }
}

void FileHistory::Happened() {
  NoteContents(attempt_.back());
  states_.push_back(std::move(attempt_.back()));
  attempt_.clear();
}

void FileHistory::Synced(uint64_t id) {
  states_.erase(states_.begin(), states_.end() - 1);
  std::vector<std::string>& versions = contents_[id];
  if (versions.empty()) return;
  versions.erase(versions.begin(), versions.end() - 1);
  synced_bytes_[id] = versions.back().size();
}

// Bytes that were not synced are those of some version, or zeros, or what was behind the end before.
bool FileHistory::MayBe(uint64_t id, size_t at, char byte) const {
  const auto has_it = [&](const std::string& version) { return at < version.size() && version[at] == byte; };
  const auto known = contents_.find(id);
  if (known == contents_.end() || known->second.size() <= 1) return false;
  if (byte == 0 || std::any_of(known->second.begin(), known->second.end(), has_it)) return true;
  const auto synced = synced_bytes_.find(id);
  if (synced != synced_bytes_.end() && at < synced->second) return false;
  const auto behind = behind_.find(id);
  return behind != behind_.end() && std::any_of(behind->second.begin(), behind->second.end(), has_it);
}

std::string FileHistory::CheckContents(const ModelTree& state, const ModelTree& found) const {
  for (const auto& [path, file] : state) {
    if (file.is_directory) continue;
    const std::string& content = found.at(path).content;
    for (size_t i = 0; i < content.size(); ++i) {
      if (content[i] != file.content[i] && !MayBe(file.id, i, content[i])) {
        return absl::StrCat("byte ", i, " of ", path, " is ", static_cast<int>(content[i]),
                            ", which nobody wrote; expected ", static_cast<int>(file.content[i]));
      }
    }
  }
  return "";
}

std::string FileHistory::Find(const ModelTree& found, bool lost) {
  std::vector<ModelTree> candidates = states_;
  if (!lost) candidates.erase(candidates.begin(), candidates.end() - 1);
  if (!attempt_.empty()) {
    NoteContents(attempt_.back());
    candidates.push_back(attempt_.back());
  }
  std::string wrong;
  for (auto candidate = candidates.rbegin(); candidate != candidates.rend(); ++candidate) {
    const bool same =
        std::equal(found.begin(), found.end(), candidate->begin(), candidate->end(), [](const auto& a, const auto& b) {
          return a.first == b.first && a.second.is_directory == b.second.is_directory &&
                 a.second.content.size() == b.second.content.size() && a.second.attributes == b.second.attributes;
        });
    if (!same) continue;
    wrong = CheckContents(*candidate, found);
    if (!wrong.empty()) continue;
    for (auto& [path, file] : *candidate) {
      file.content = found.at(path).content;
      if (file.is_directory) continue;
      for (const std::string& version : contents_[file.id]) {
        if (version.size() > file.content.size()) behind_[file.id].push_back(version);
      }
    }
    if (lost) states_.clear();
    NoteContents(*candidate);
    states_.push_back(std::move(*candidate));
    attempt_.clear();
    return "";
  }
  if (!wrong.empty()) return wrong;
  std::string paths;
  for (const auto& [path, file] : found)
    absl::StrAppend(&paths, " ", path, file.is_directory ? "/" : absl::StrCat("=", file.content.size()));
  std::string expected;
  for (const auto& [path, file] : states_.back())
    absl::StrAppend(&expected, " ", path, file.is_directory ? "/" : absl::StrCat("=", file.content.size()));
  return absl::StrCat("a tree that never was:", paths, "; the last of ", candidates.size(), " that were:", expected);
}

}  // namespace mangrove::sim
