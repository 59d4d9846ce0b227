// Extended attributes: records in a tree of the inode. A key is 40 bits of the name's hash, 8 bits that tell names of one hash apart, 16 bits
// that count the pieces of a long value. The first piece begins with: length of the name 1, length of the value 4, the name.

#include <xxhash.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/acl.h"
#include "fs/extended.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kPieces = uint64_t{1} << 16;
constexpr uint64_t kSameHash = 256;
constexpr size_t kPieceBytes = 1000;
constexpr size_t kHeadBytes = 5;
constexpr char kCopies[] = "user.mangrove.copies";

uint64_t FirstKeyOf(std::string_view name) { return XXH3_64bits(name.data(), name.size()) >> 24 << 24; }

bool IsFirstPiece(const TreeRecord& record) { return record.key % kPieces == 0; }

absl::Status CheckHead(const TreeRecord& record) {
  if (record.value.size() >= kHeadBytes &&
      record.value.size() >= kHeadBytes + static_cast<unsigned char>(record.value[0])) {
    return absl::OkStatus();
  }
  return PosixError(EIO, absl::StrCat("the first piece of an extended attribute has ", record.value.size(), " bytes"));
}
std::string_view NameIn(const TreeRecord& record) {
  return std::string_view(record.value).substr(kHeadBytes, static_cast<unsigned char>(record.value[0]));
}
std::string_view BytesIn(const TreeRecord& record) {
  return IsFirstPiece(record) ? std::string_view(record.value).substr(kHeadBytes + NameIn(record).size())
                              : std::string_view(record.value);
}

// The pieces of the attribute of this name, among those of its hash.
absl::StatusOr<std::vector<TreeRecord>> PiecesOf(std::string_view name, std::vector<TreeRecord> records) {
  std::vector<TreeRecord> pieces;
  bool is_it = false;
  for (TreeRecord& record : records) {
    if (IsFirstPiece(record)) {
      if (absl::Status s = CheckHead(record); !s.ok()) return s;
      is_it = NameIn(record) == name;
    }
    if (is_it) pieces.push_back(std::move(record));
  }
  return pieces;
}

// Who asks for another namespace wants to know that it is not there, and would take an attribute that only keeps its bytes for what it is elsewhere.
absl::Status CheckNamespace(std::string_view name) {
  for (const std::string_view prefix : {"user.", "trusted.", "security."}) {
    if (!name.starts_with(prefix)) continue;
    if (name.size() > prefix.size()) return absl::OkStatus();
    return PosixError(EINVAL, absl::StrCat("an attribute \"", std::string(name), "\" without a name of its own"));
  }
  if (name == kAccessAcl || name == kDefaultAcl) return absl::OkStatus();
  return PosixError(EOPNOTSUPP, absl::StrCat("attribute \"", std::string(name), "\" is in no known namespace"));
}

Task<absl::StatusOr<std::vector<TreeRecord>>> RecordsOfHash(Tree* tree, std::string name) {
  const uint64_t first = FirstKeyOf(name);
  return tree->Scan(first, first + (kSameHash * kPieces - 1), ~size_t{0});
}

// Of all attributes of a file, when one has been put: ENOSPC if that was too much. Streams are not counted.
Task<absl::Status> CheckTogether(Tree* tree) {
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree->Scan(0, ~uint64_t{0}, ~size_t{0});
  if (!records.ok()) co_return records.status();
  size_t listed = 0;
  size_t bytes = 0;
  for (const TreeRecord& record : *records) {
    if (IsFirstPiece(record)) {
      if (absl::Status s = CheckHead(record); !s.ok()) co_return s;
      listed += NameIn(record).size() + 1;
      bytes += NameIn(record).size();
    }
    bytes += BytesIn(record).size();
  }
  if (listed > kMostXattrBytes) {
    co_return PosixError(ENOSPC, absl::StrCat("a list of the file's attributes would have ", listed,
                                              " bytes; expected at most ", kMostXattrBytes));
  }
  if (bytes > kMostXattrBytesTogether) {
    co_return PosixError(ENOSPC, absl::StrCat("the file's attributes would have ", bytes,
                                              " bytes together; expected at most ", kMostXattrBytesTogether));
  }
  co_return absl::OkStatus();
}

}  // namespace

absl::Status NoAttribute(std::string_view name) {
  return PosixError(ENODATA, absl::StrCat("there is no attribute \"", std::string(name), "\""));
}

Task<absl::StatusOr<std::optional<std::string>>> Instance::FindXattr(Edit* edit, Inode inode, std::string name) {
  Tree tree(edit, &space_, inode.xattr_root());
  absl::StatusOr<std::vector<TreeRecord>> records = co_await RecordsOfHash(&tree, name);
  if (!records.ok()) co_return records.status();
  const absl::StatusOr<std::vector<TreeRecord>> pieces = PiecesOf(name, *std::move(records));
  if (!pieces.ok()) co_return pieces.status();
  if (pieces->empty()) co_return std::nullopt;
  std::string value;
  for (const TreeRecord& piece : *pieces) value += BytesIn(piece);
  if (value.size() != GetLittle<uint32_t>(std::span<const char>(pieces->front().value), 1)) {
    co_return PosixError(EIO, absl::StrCat("attribute \"", name, "\" has another length than its pieces"));
  }
  co_return std::optional<std::string>(std::move(value));
}

Task<absl::StatusOr<bool>> Instance::EraseXattr(Edit* edit, Inode inode, std::string name) {
  Tree tree(edit, &space_, inode.xattr_root());
  absl::StatusOr<std::vector<TreeRecord>> records = co_await RecordsOfHash(&tree, name);
  if (!records.ok()) co_return records.status();
  const absl::StatusOr<std::vector<TreeRecord>> pieces = PiecesOf(name, *std::move(records));
  if (!pieces.ok()) co_return pieces.status();
  for (const TreeRecord& piece : *pieces) {
    const absl::Status status = co_await tree.Erase(piece.key);
    if (!status.ok()) co_return status;
  }
  co_return !pieces->empty();
}

Task<absl::Status> Instance::PutXattr(Edit* edit, Inode inode, std::string name, std::string value, XattrMode mode) {
  const absl::StatusOr<bool> was_there = co_await EraseXattr(edit, inode, name);
  if (!was_there.ok()) co_return was_there.status();
  if (*was_there && mode == XattrMode::kCreate) {
    co_return PosixError(EEXIST, absl::StrCat("there is an attribute \"", name, "\""));
  }
  if (!*was_there && mode == XattrMode::kReplace) co_return NoAttribute(name);
  Tree tree(edit, &space_, inode.xattr_root());
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await RecordsOfHash(&tree, name);
  if (!records.ok()) co_return records.status();
  uint64_t key = FirstKeyOf(name);
  const uint64_t end = key + kSameHash * kPieces;
  for (const TreeRecord& record : *records) {
    if (record.key == key) key += kPieces;
  }
  if (key == end) co_return PosixError(ENOSPC, absl::StrCat(kSameHash, " attributes have the same hash"));
  std::string piece(kHeadBytes, '\0');
  piece[0] = static_cast<char>(name.size());
  PutLittle({piece.data(), piece.size()}, 1, static_cast<uint32_t>(value.size()));
  piece += name;
  for (size_t at = 0;;) {
    const size_t more = std::min(kPieceBytes - piece.size(), value.size() - at);
    piece.append(value, at, more);
    at += more;
    const absl::Status status = co_await tree.Put(key++, std::move(piece));
    if (!status.ok() || at == value.size()) co_return status;
    piece.clear();
  }
}

absl::Status CheckXattrs(const std::vector<TreeRecord>& records) {
  uint64_t missing = 0;  // Bytes of the attribute that has begun.
  uint64_t next = 0;
  for (const TreeRecord& record : records) {
    if (IsFirstPiece(record)) {
      if (absl::Status s = CheckHead(record); !s.ok()) return s;
      const std::string_view name = NameIn(record);
      if (missing > 0 || record.key < FirstKeyOf(name) || record.key >= FirstKeyOf(name) + kSameHash * kPieces) {
        return PosixError(EIO, absl::StrCat("attribute \"", std::string(name), "\" is not where it belongs"));
      }
      missing = GetLittle<uint32_t>(std::span<const char>(record.value), 1);
    } else if (record.key != next || missing == 0) {
      return PosixError(EIO, absl::StrCat("key ", record.key, " is a piece of no attribute"));
    }
    const size_t bytes = BytesIn(record).size();
    if (bytes > missing || (bytes == 0 && missing > 0)) {
      return PosixError(
          EIO, absl::StrCat("key ", record.key, " of the attributes has ", bytes, " bytes, ", missing, " are missing"));
    }
    missing -= bytes;
    next = record.key + 1;
  }
  if (missing == 0) return absl::OkStatus();
  return PosixError(EIO, absl::StrCat(missing, " bytes of the last attribute are missing"));
}

void DropBrokenXattrs(std::vector<TreeRecord>* records) {
  std::vector<TreeRecord> whole;
  std::vector<TreeRecord> one;
  const auto end = [&] {
    if (CheckXattrs(one).ok()) whole.insert(whole.end(), one.begin(), one.end());
    one.clear();
  };
  for (TreeRecord& record : *records) {
    if (IsFirstPiece(record)) end();
    one.push_back(std::move(record));
  }
  end();
  *records = std::move(whole);
}

// --- Operations -------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<std::string>> Instance::GetXattr(FoundFile file, std::string name) {
  std::optional<std::string> value;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    absl::StatusOr<std::optional<std::string>> found = std::optional<std::string>();
    if (inode->IsOfStreams()) {
      if (name == kAccessAcl) found = co_await AclOfStreams(&edit, *inode);
    } else if (name.starts_with(kStreamXattrPrefix)) {
      found = co_await StreamValue(&edit, *inode, name.substr(kStreamXattrPrefix.size()));
    } else {
      found = co_await FindXattr(&edit, *inode, name);
    }
    if (found.ok()) value = *std::move(found);
    co_return found.status();
  };
  absl::Status status;
  if (name.starts_with(kStreamXattrPrefix)) {
    status = co_await RunEdit(pages_, body);  // It reads data.
  } else {
    status = co_await RunLook(pages_, body);
  }
  if (!status.ok()) co_return status;
  if (!value) co_return NoAttribute(name);
  co_return *std::move(value);
}

Task<absl::Status> Instance::SetXattr(FoundFile file, std::string name, std::string value, XattrOptions options) {
  if (name.empty() || name.size() > kMostXattrNameBytes) {
    co_return PosixError(ERANGE, "an attribute's name of that length");
  }
  if (value.size() > kMostXattrBytes) co_return PosixError(E2BIG, absl::StrCat("a value of ", value.size(), " bytes"));
  if (name.starts_with(kStreamXattrPrefix)) {
    co_return co_await SetStream(file, name.substr(kStreamXattrPrefix.size()), std::move(value), options.mode);
  }
  if (absl::Status s = CheckNamespace(name); !s.ok()) co_return s;
  const bool is_access = name == kAccessAcl;
  const bool is_acl = is_access || name == kDefaultAcl;
  if (absl::Status s = is_acl ? CheckAcl(value) : absl::OkStatus(); !s.ok()) co_return s;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    if (inode->IsOfStreams()) co_return PosixError(EOPNOTSUPP, "streams have no attributes of their own");
    if (name == kDefaultAcl && !inode->IsDirectory()) co_return PosixError(EACCES, "only directories hand ACLs down");
    inode->set_changed(pages_->NowNs());
    if (name == kCopies) {
      if (value != "1")
        co_return PosixError(EINVAL, absl::StrCat("\"", value, "\" copies; expected 1, or no attribute"));
      inode->Set(Inode::kOneCopy, true);
    }
    if (is_access) {
      const absl::StatusOr<mode_t> permissions = ModeOfAcl(value);
      if (!permissions.ok()) co_return permissions.status();
      const mode_t goes = 0777 | (options.clears_set_gid ? S_ISGID : 0);
      inode->set_mode((inode->mode() & ~goes) | *permissions);
      const absl::StatusOr<bool> minimal = IsMinimal(value);
      if (!minimal.ok()) co_return minimal.status();
      if (*minimal) co_return (co_await EraseXattr(&edit, *inode, name)).status();
    }
    edit.SetGrows();
    const absl::Status put = co_await PutXattr(&edit, *inode, name, value, options.mode);
    if (!put.ok()) co_return put;
    Tree tree(&edit, &space_, inode->xattr_root());
    co_return co_await CheckTogether(&tree);
  };
  co_return co_await RunEdit(pages_, body);
}

Task<absl::Status> Instance::RemoveXattr(FoundFile file, std::string name) {
  if (name.starts_with(kStreamXattrPrefix)) {
    co_return co_await RemoveStream(file, name.substr(kStreamXattrPrefix.size()));
  }
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    const absl::StatusOr<bool> was_there = co_await EraseXattr(&edit, *inode, name);
    if (!was_there.ok()) co_return was_there.status();
    if (!*was_there) co_return NoAttribute(name);
    if (name == kCopies) inode->Set(Inode::kOneCopy, false);
    inode->set_changed(pages_->NowNs());
    co_return absl::OkStatus();
  };
  co_return co_await RunEdit(pages_, body);
}

Task<absl::StatusOr<std::vector<std::string>>> Instance::ListXattr(FoundFile file) {
  std::vector<std::string> names;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    names.clear();
    size_t bytes = 0;
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    Tree tree(&edit, &space_, inode->xattr_root());
    const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree.Scan(0, ~uint64_t{0}, ~size_t{0});
    if (!records.ok()) co_return records.status();
    for (const TreeRecord& record : *records) {
      if (!IsFirstPiece(record)) continue;
      if (absl::Status s = CheckHead(record); !s.ok()) co_return s;
      names.emplace_back(NameIn(record));
      bytes += names.back().size() + 1;
    }
    const absl::StatusOr<std::vector<Directory::Entry>> streams = co_await StreamsOf(&edit, *inode);
    if (!streams.ok()) co_return streams.status();
    for (const Directory::Entry& stream : *streams) {
      // Longer ones are no names of attributes.
      if (kStreamXattrPrefix.size() + stream.name.size() > kMostXattrNameBytes) continue;
      names.push_back(absl::StrCat(std::string(kStreamXattrPrefix), stream.name));
      bytes += names.back().size() + 1;
    }
    if (bytes > kMostXattrBytes) co_return PosixError(E2BIG, absl::StrCat("attributes' names of ", bytes, " bytes"));
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return names;
}

// --- ACLs -------------------------------------------------------------------------------------------------------------

// The inode's mode was set.
Task<absl::Status> Instance::ChangeModeOfAcl(Edit* edit, Inode inode) {
  const std::string name(kAccessAcl);
  const absl::StatusOr<std::optional<std::string>> acl = co_await FindXattr(edit, inode, name);
  if (!acl.ok() || !acl->has_value()) co_return acl.status();
  absl::StatusOr<std::string> changed = WithMode(**acl, inode.mode());
  if (!changed.ok()) co_return PosixError(EIO, changed.status().message());
  co_return co_await PutXattr(edit, inode, name, *std::move(changed), XattrMode::kReplace);
}

// What is made in a directory of files that have one copy is so too.
Task<absl::Status> Instance::InheritCopies(Edit* edit, Inode directory, Inode made) {
  if (!directory.Has(Inode::kOneCopy) || (!made.IsRegular() && !made.IsDirectory())) co_return absl::OkStatus();
  made.Set(Inode::kOneCopy, true);
  co_return co_await PutXattr(edit, made, kCopies, "1", XattrMode::kAny);
}

// What the new file's permissions are: by the directory's default ACL, or by the caller's umask.
Task<absl::StatusOr<mode_t>> Instance::InheritAcl(Edit* edit, Inode directory, Inode made, NewFile file) {
  const std::string default_name(kDefaultAcl);
  const std::string access_name(kAccessAcl);
  const absl::StatusOr<std::optional<std::string>> handed = co_await FindXattr(edit, directory, default_name);
  if (!handed.ok()) co_return handed.status();
  if (!handed->has_value()) co_return file.mode & 0777 & ~file.caller.umask;
  absl::StatusOr<std::string> access = Inherited(**handed, file.mode);
  if (!access.ok()) co_return PosixError(EIO, access.status().message());
  const absl::StatusOr<mode_t> mode = ModeOfAcl(*access);
  const absl::StatusOr<bool> minimal = IsMinimal(*access);
  if (!mode.ok() || !minimal.ok()) co_return PosixError(EIO, "a default ACL that is none");
  absl::Status status;
  if (!*minimal) status = co_await PutXattr(edit, made, access_name, *std::move(access), XattrMode::kAny);
  if (status.ok() && S_ISDIR(file.mode)) {
    status = co_await PutXattr(edit, made, default_name, **handed, XattrMode::kAny);
  }
  if (!status.ok()) co_return status;
  co_return *mode;
}

}  // namespace mangrove::fs
