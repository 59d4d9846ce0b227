#include "tests/unit/fs/posix_model.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kDirectoryBytes = 4096;
constexpr int64_t kDay = int64_t{24} * 3600 * 1'000'000'000;
const std::string kAccess = "system.posix_acl_access";
const std::string kDefault = "system.posix_acl_default";

Answer Error(int error) { return {.error = error}; }

int CheckedName(const std::string& name) {
  if (name.size() > 255) return ENAMETOOLONG;
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos) return EINVAL;
  return 0;
}

// An ACL's bytes: version 4, entries of tag 2, permissions 2, id 4.
struct Acl {
  static constexpr uint16_t kUser = 1, kNamedUser = 2, kGroup = 4, kNamedGroup = 8, kMask = 16, kOther = 32;
  struct Entry {
    uint16_t tag;
    uint16_t permissions;
    uint32_t id;
  };
  std::vector<Entry> entries;

  explicit Acl(const std::string& bytes) {
    for (size_t at = 4; at + 8 <= bytes.size(); at += 8) {
      Entry entry{};
      std::memcpy(&entry, bytes.data() + at, 8);
      entries.push_back(entry);
    }
  }
  std::string Bytes() const {
    std::string bytes("\2\0\0\0", 4);
    for (const Entry& entry : entries) bytes.append(reinterpret_cast<const char*>(&entry), 8);
    return bytes;
  }
  uint16_t* Of(uint16_t tag) {
    for (Entry& entry : entries) {
      if (entry.tag == tag) return &entry.permissions;
    }
    return nullptr;
  }
  uint16_t* OfGroupClass() { return Of(kMask) != nullptr ? Of(kMask) : Of(kGroup); }
  bool IsSound() { return Of(kUser) && Of(kGroup) && Of(kOther) && (entries.size() == 3 || Of(kMask)); }
  bool IsMinimal() const { return entries.size() == 3; }
  mode_t Mode() { return mode_t{*Of(kUser)} << 6 | mode_t{*OfGroupClass()} << 3 | *Of(kOther); }
  void SetMode(mode_t mode) {
    *Of(kUser) = mode >> 6 & 7;
    *OfGroupClass() = mode >> 3 & 7;
    *Of(kOther) = mode & 7;
  }
};

bool Makes(OpKind kind) {
  return kind == OpKind::kMakeNode || kind == OpKind::kMakeDirectory || kind == OpKind::kMakeSymlink ||
         kind == OpKind::kMakeUnnamed;
}

mode_t ModeOfMade(const Op& op) {
  if (op.kind == OpKind::kMakeDirectory) return S_IFDIR | (op.mode & 07777);
  if (op.kind == OpKind::kMakeUnnamed) return S_IFREG | (op.mode & 07777);
  return op.kind == OpKind::kMakeSymlink ? S_IFLNK | 0777 : op.mode;
}

}  // namespace

std::string ToString(const Op& op) {
  static constexpr const char* kNames[] = {
      "Lookup",          "MakeNode",    "MakeDirectory", "MakeSymlink", "MakeUnnamed",   "Link",          "Unlink",
      "RemoveDirectory", "Rename",      "ReadLink",      "Parent",      "GetAttributes", "SetAttributes", "GetXattr",
      "SetXattr",        "RemoveXattr", "ListXattr",     "Open",        "Close",         "Read",          "Write",
      "Allocate",        "Seek",        "Sync"};
  std::string text = absl::StrCat(op.instance, ": ", kNames[static_cast<size_t>(op.kind)], " file ", op.file, " \"",
                                  op.name.substr(0, 20), "\" other ", op.other, " \"", op.new_name.substr(0, 20),
                                  "\" mode ", absl::Hex(op.mode), " flags ", op.flags, " offset ", op.offset,
                                  " length ", op.length, " bytes ", op.bytes.size(), op.append ? " append" : "");
  if (op.change.size_bytes) absl::StrAppend(&text, " size ", *op.change.size_bytes);
  if (op.change.mode) absl::StrAppend(&text, " to mode ", absl::Hex(*op.change.mode));
  return text;
}

bool PosixModel::File::IsOpen() const {
  return std::any_of(opens.begin(), opens.end(), [](uint32_t count) { return count > 0; });
}

PosixModel::PosixModel(int64_t now) : now_(now) {
  File root{.attributes = {.inode = {kRootFile},
                           .mode = S_IFDIR | 0755,
                           .links = 2,
                           .size_bytes = kDirectoryBytes,
                           .accessed_ns = now,
                           .modified_ns = now,
                           .changed_ns = now,
                           .born_ns = now},
            .parent = kRootFile};
  files_.emplace(kRootFile, root);
}

PosixModel::File* PosixModel::Find(FileId file) {
  const auto it = files_.find(file);
  return it == files_.end() ? nullptr : &it->second;
}

FileId PosixModel::At(const std::string& path) const {
  FileId at = kRootFile;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const auto& entries = files_.at(at).entries;
    const auto it = entries.find(path.substr(begin, end - begin));
    if (it == entries.end()) return 0;
    at = it->second;
    begin = end + 1;
  }
  return at;
}

void PosixModel::CloseAll() {
  std::vector<FileId> all;
  for (auto& [id, file] : files_) {
    file.opens = {};
    all.push_back(id);
  }
  for (const FileId id : all) DropIfUnused(id);
}

Answer PosixModel::Apply(const Op& op) {
  if (Makes(op.kind)) return Make(op);
  switch (op.kind) {
    case OpKind::kLookup: return Lookup(op);
    case OpKind::kLink: return Link(op);
    case OpKind::kUnlink: return Unlink(op);
    case OpKind::kRemoveDirectory: return RemoveDirectory(op);
    case OpKind::kRename: return Rename(op);
    case OpKind::kSetAttributes: return SetAttributes(op);
    case OpKind::kGetXattr:
    case OpKind::kSetXattr:
    case OpKind::kRemoveXattr:
    case OpKind::kListXattr: return OfXattr(op);
    case OpKind::kOpen:
    case OpKind::kClose: return OpenOrClose(op);
    case OpKind::kRead: return Read(op);
    case OpKind::kWrite: return Write(op);
    case OpKind::kAllocate: return Allocate(op);
    default: break;
  }
  const File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (op.kind == OpKind::kReadLink) return file->type() == S_IFLNK ? Answer{.bytes = file->content} : Error(EINVAL);
  if (op.kind == OpKind::kParent) return file->IsDirectory() ? Answer{.number = file->parent} : Error(ENOTDIR);
  if (op.kind == OpKind::kGetAttributes) return {.attributes = file->attributes};
  if (op.kind == OpKind::kSeek) {
    if (!file->IsRegular()) return Error(EINVAL);
    return op.offset >= file->content.size() ? Error(ENXIO) : Answer{};
  }
  return {};
}

int PosixModel::Directory(FileId id, File** out) {
  *out = Find(id);
  if (*out == nullptr) return ESTALE;
  return (*out)->IsDirectory() ? 0 : ENOTDIR;
}

void PosixModel::Touch(File* directory) { directory->attributes.modified_ns = directory->attributes.changed_ns = now_; }

void PosixModel::DropIfUnused(FileId id) {
  const File* const file = Find(id);
  if (file->attributes.links == 0 && !file->IsOpen()) files_.erase(id);
}

// The name and the link that it was.
void PosixModel::DropName(FileId directory, const std::string& name) {
  File* const parent = Find(directory);
  const FileId id = parent->entries.at(name);
  File* const file = Find(id);
  parent->entries.erase(name);
  if (file->IsDirectory()) --parent->attributes.links;
  file->attributes.links = file->IsDirectory() ? 0 : file->attributes.links - 1;
  file->attributes.changed_ns = now_;
  Touch(parent);
  DropIfUnused(id);
}

Answer PosixModel::Lookup(const Op& op) {
  if (int error = CheckedName(op.name); error != 0) return Error(error);
  File* directory = nullptr;
  if (int error = Directory(op.file, &directory); error != 0) return Error(error);
  const auto it = directory->entries.find(op.name);
  if (it == directory->entries.end()) return Error(ENOENT);
  return {.attributes = Find(it->second)->attributes};
}

// Permissions: by the directory's default ACL, or by the umask.
void PosixModel::TakeOver(const File& directory, const Op& op, File* made) {
  mode_t& mode = made->attributes.mode;
  if ((directory.attributes.mode & S_ISGID) != 0) {
    made->attributes.gid = directory.attributes.gid;
    if (made->IsDirectory()) mode |= S_ISGID;
  }
  if (made->type() == S_IFLNK) return;
  const auto handed = directory.xattrs.find(kDefault);
  if (handed == directory.xattrs.end()) {
    mode &= ~(op.caller.umask & 0777);
    return;
  }
  Acl acl(handed->second);
  const mode_t permissions = acl.Mode() & mode;
  acl.SetMode(permissions);
  mode = (mode & ~mode_t{0777}) | (permissions & 0777);
  if (!acl.IsMinimal()) made->xattrs[kAccess] = acl.Bytes();
  if (made->IsDirectory()) made->xattrs[kDefault] = handed->second;
}

Answer PosixModel::Make(const Op& op) {
  const bool is_link = op.kind == OpKind::kMakeSymlink;
  if (is_link && op.bytes.empty()) return Error(ENOENT);
  if (is_link && op.bytes.size() > 4095) return Error(ENAMETOOLONG);
  const bool has_name = op.kind != OpKind::kMakeUnnamed;
  if (int error = has_name ? CheckedName(op.name) : 0; error != 0) return Error(error);
  File* directory = nullptr;
  if (int error = Directory(op.file, &directory); error != 0) return Error(error);
  if (has_name && directory->entries.contains(op.name)) return Error(EEXIST);
  const mode_t mode = ModeOfMade(op);
  const bool is_directory = S_ISDIR(mode);
  File made{.attributes = {.inode = {next_},
                           .mode = mode,
                           .links = is_directory ? 2U
                                    : has_name   ? 1U
                                                 : 0U,
                           .uid = op.caller.uid,
                           .gid = op.caller.gid,
                           .device = S_ISCHR(mode) || S_ISBLK(mode) ? op.device : 0,
                           .size_bytes = is_directory ? kDirectoryBytes : op.bytes.size(),
                           .accessed_ns = now_,
                           .modified_ns = now_,
                           .changed_ns = now_,
                           .born_ns = now_},
            .parent = is_directory ? op.file : 0,
            .content = op.bytes};
  TakeOver(*directory, op, &made);
  if (has_name) {
    directory->entries[op.name] = next_;
    if (is_directory) ++directory->attributes.links;
    Touch(directory);
  } else {
    made.opens[op.instance] = 1;
    made.may_be_named = op.flags != O_EXCL;
  }
  const Answer answer{.attributes = made.attributes};
  files_.emplace(next_++, std::move(made));
  return answer;
}

Answer PosixModel::Link(const Op& op) {
  if (int error = CheckedName(op.new_name); error != 0) return Error(error);
  File* directory = nullptr;
  if (int error = Directory(op.other, &directory); error != 0) return Error(error);
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (directory->entries.contains(op.new_name)) return Error(EEXIST);
  if (file->IsDirectory()) return Error(EPERM);
  // As if it had gone: who has its path looks it up again.
  const bool gets_first = file->may_be_named && file->opens[op.instance] > 0;
  if (file->attributes.links == 0 && !gets_first) return Error(ESTALE);
  file->may_be_named = false;
  directory->entries[op.new_name] = op.file;
  ++file->attributes.links;
  file->attributes.changed_ns = now_;
  Touch(directory);
  return {.attributes = file->attributes};
}

Answer PosixModel::Unlink(const Op& op) {
  const Answer found = Lookup(op);
  if (found.error != 0) return found;
  if (S_ISDIR(found.attributes->mode)) return Error(EISDIR);
  DropName(op.file, op.name);
  return {};
}

Answer PosixModel::RemoveDirectory(const Op& op) {
  const Answer found = Lookup(op);
  if (found.error != 0) return found;
  if (!S_ISDIR(found.attributes->mode)) return Error(ENOTDIR);
  if (!Find(found.attributes->inode.value)->entries.empty()) return Error(ENOTEMPTY);
  DropName(op.file, op.name);
  return {};
}

bool PosixModel::IsBelow(FileId directory, FileId other) const {
  for (;; directory = files_.at(directory).parent) {
    if (directory == other) return true;
    if (directory == kRootFile) return false;
  }
}

// In the order of Linux's do_renameat2 and vfs_rename; but for a file that goes over a directory that it lies in: there the kernel says
// ENOTEMPTY and asks no filesystem.
Answer PosixModel::Rename(const Op& op) {
  const bool exchanges = op.flags == RENAME_EXCHANGE;
  if (op.flags != 0 && op.flags != RENAME_NOREPLACE && !exchanges) return Error(EINVAL);
  for (const std::string& name : {op.name, op.new_name}) {
    if (int error = CheckedName(name); error != 0) return Error(error);
  }
  File* from = nullptr;
  File* to = nullptr;
  if (int error = Directory(op.file, &from); error != 0) return Error(error);
  if (int error = Directory(op.other, &to); error != 0) return Error(error);
  if (!from->entries.contains(op.name)) return Error(ENOENT);
  const FileId source_id = from->entries.at(op.name);
  File* const source = Find(source_id);
  const bool has_target = to->entries.contains(op.new_name);
  if (has_target && op.flags == RENAME_NOREPLACE) return Error(EEXIST);
  if (!has_target && exchanges) return Error(ENOENT);
  const FileId target_id = has_target ? to->entries.at(op.new_name) : 0;
  File* const target = has_target ? Find(target_id) : nullptr;
  if (source->IsDirectory() && IsBelow(op.other, source_id)) return Error(EINVAL);
  if (exchanges && target->IsDirectory() && IsBelow(op.file, target_id)) return Error(EINVAL);
  if (source_id == target_id) return {};
  if (has_target && !exchanges) {
    if (source->IsDirectory() && !target->IsDirectory()) return Error(ENOTDIR);
    if (!source->IsDirectory() && target->IsDirectory()) return Error(EISDIR);
    if (target->IsDirectory() && !target->entries.empty()) return Error(ENOTEMPTY);
    DropName(op.other, op.new_name);
  }
  const auto moves = [&](File* file, File* leaves, File* gets, FileId gets_id) {
    if (!file->IsDirectory()) return;
    file->parent = gets_id;
    --leaves->attributes.links;
    ++gets->attributes.links;
  };
  from->entries.erase(op.name);
  if (exchanges) {
    from->entries[op.name] = target_id;
    target->attributes.changed_ns = now_;
    moves(target, to, from, op.file);
  }
  to->entries[op.new_name] = source_id;
  source->attributes.changed_ns = now_;
  moves(source, from, to, op.other);
  Touch(from);
  Touch(to);
  return {};
}

void PosixModel::SetMode(File* file, mode_t mode) {
  file->attributes.mode = file->type() | (mode & 07777);
  const auto acl = file->xattrs.find(kAccess);
  if (acl == file->xattrs.end()) return;
  Acl changed(acl->second);
  changed.SetMode(mode);
  acl->second = changed.Bytes();
}

Answer PosixModel::SetAttributes(const Op& op) {
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  Attributes& attributes = file->attributes;
  if (op.change.size_bytes) {
    if (file->IsDirectory()) return Error(EISDIR);
    if (!file->IsRegular()) return Error(EINVAL);
    file->content.resize(*op.change.size_bytes);
    attributes.size_bytes = *op.change.size_bytes;
    attributes.modified_ns = now_;
  }
  attributes.uid = op.change.uid.value_or(attributes.uid);
  attributes.gid = op.change.gid.value_or(attributes.gid);
  attributes.accessed_ns = op.change.accessed_ns.value_or(attributes.accessed_ns);
  attributes.modified_ns = op.change.modified_ns.value_or(attributes.modified_ns);
  attributes.changed_ns = now_;
  if (op.change.mode) SetMode(file, *op.change.mode);
  return {.attributes = attributes};
}

Answer PosixModel::OfXattr(const Op& op) {
  if (op.kind == OpKind::kSetXattr) {
    if (op.name.empty() || op.name.size() > 255) return Error(ERANGE);
    if (op.bytes.size() > 65'536) return Error(E2BIG);
    if ((op.name == kAccess || op.name == kDefault) && !Acl(op.bytes).IsSound()) return Error(EINVAL);
  }
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (op.kind == OpKind::kSetXattr) return SetXattr(op, file);
  if (op.kind == OpKind::kListXattr) {
    Answer answer;
    for (const auto& [name, value] : file->xattrs) answer.names.push_back(name);
    return answer;
  }
  const auto it = file->xattrs.find(op.name);
  if (it == file->xattrs.end()) return Error(ENODATA);
  if (op.kind == OpKind::kGetXattr) return {.bytes = it->second};
  file->xattrs.erase(it);
  file->attributes.changed_ns = now_;
  return {};
}

Answer PosixModel::SetXattr(const Op& op, File* file) {
  if (op.name == kDefault && !file->IsDirectory()) return Error(EACCES);
  const bool is_there = file->xattrs.contains(op.name);
  Acl acl(op.name == kAccess ? op.bytes : "");
  if (op.name == kAccess && acl.IsMinimal()) {
    file->xattrs.erase(op.name);
  } else {
    if (is_there && op.xattr_mode == XattrMode::kCreate) return Error(EEXIST);
    if (!is_there && op.xattr_mode == XattrMode::kReplace) return Error(ENODATA);
    file->xattrs[op.name] = op.bytes;
  }
  file->attributes.changed_ns = now_;
  if (op.name == kAccess) file->attributes.mode = (file->attributes.mode & ~mode_t{0777}) | acl.Mode();
  return {};
}

// Who has a file open may open it again, also without a name.
Answer PosixModel::OpenOrClose(const Op& op) {
  File* const file = Find(op.file);
  if (op.kind == OpKind::kOpen) {
    if (file == nullptr) return Error(ESTALE);
    if (file->opens[op.instance] == 0 && file->attributes.links == 0) return Error(ESTALE);
    ++file->opens[op.instance];
    return {};
  }
  if (file == nullptr || file->opens[op.instance] == 0) return Error(EBADF);
  --file->opens[op.instance];
  DropIfUnused(op.file);
  return {};
}

Answer PosixModel::Read(const Op& op) {
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (!file->IsRegular()) return Error(file->IsDirectory() ? EISDIR : EINVAL);
  Attributes& attributes = file->attributes;
  if (attributes.accessed_ns <= attributes.modified_ns || attributes.accessed_ns <= attributes.changed_ns ||
      attributes.accessed_ns + kDay < now_) {
    attributes.accessed_ns = now_;
  }
  if (op.offset >= file->content.size()) return {};
  return {.bytes = file->content.substr(op.offset, op.length)};
}

Answer PosixModel::Write(const Op& op) {
  if (op.bytes.empty()) return {};
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (!file->IsRegular()) return Error(file->IsDirectory() ? EISDIR : EINVAL);
  const uint64_t offset = op.append ? file->content.size() : op.offset;
  if (file->content.size() < offset + op.bytes.size()) file->content.resize(offset + op.bytes.size());
  file->content.replace(offset, op.bytes.size(), op.bytes);
  file->attributes.size_bytes = file->content.size();
  Touch(file);
  return {};
}

Answer PosixModel::Allocate(const Op& op) {
  const bool keeps = (op.flags & FALLOC_FL_KEEP_SIZE) != 0;
  const bool punches = (op.flags & FALLOC_FL_PUNCH_HOLE) != 0;
  const bool zeros = (op.flags & FALLOC_FL_ZERO_RANGE) != 0;
  if (op.length == 0) return Error(EINVAL);
  if ((op.flags & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) return Error(EOPNOTSUPP);
  if (punches && (zeros || !keeps)) return Error(EOPNOTSUPP);
  File* const file = Find(op.file);
  if (file == nullptr) return Error(ESTALE);
  if (!file->IsRegular()) return Error(file->IsDirectory() ? EISDIR : ENODEV);
  std::string& content = file->content;
  const uint64_t end = op.offset + op.length;
  if (!keeps && end > content.size()) content.resize(end);
  if ((punches || zeros) && op.offset < content.size()) {
    const uint64_t count = std::min<uint64_t>(end, content.size()) - op.offset;
    content.replace(op.offset, count, std::string(count, '\0'));
  }
  file->attributes.size_bytes = content.size();
  Touch(file);
  return {};
}

}  // namespace mangrove::fs
