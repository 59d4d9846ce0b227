#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kMostTargetBytes = 4095;
constexpr size_t kTargetChunk = 1000;
// Who sweeps up what nodes leave behind meets a file between its making and its opening at most now and then.
constexpr int kMostAttempts = 8;

absl::Status NoSuchName(absl::string_view name) {
  return PosixError(ENOENT, absl::StrCat("there is no \"", name, "\""));
}

}  // namespace

// ENOTDIR: it is none. ENOENT: it has been removed. EUCLEAN: it is damaged.
Task<absl::StatusOr<Inode>> Instance::GetDirectory(Edit* edit, FoundFile file, Intent intent) {
  absl::StatusOr<Inode> directory = co_await Inode::Get(edit, file, intent);
  if (!directory.ok()) co_return directory;
  if (!directory->IsDirectory()) {
    co_return PosixError(ENOTDIR, absl::StrCat("inode ", file.inode.value, " is no directory"));
  }
  if (directory->links() == 0) {
    co_return PosixError(ENOENT, absl::StrCat("the directory of inode ", file.inode.value, " was removed"));
  }
  if (absl::Status s = CheckUndamaged(*directory); !s.ok()) co_return s;
  co_return directory;
}

absl::Status Instance::CheckUndamaged(const Inode& directory) {
  if (!directory.Has(Inode::kDamaged)) return absl::OkStatus();
  return PosixError(EUCLEAN, absl::StrCat("the directory of inode ", directory.number().value,
                                          " is damaged, and too large to be made anew: what is in it is denied"));
}

// Its entries change.
void Instance::Touch(Inode* directory) const {
  const int64_t now = pages_->NowNs();
  directory->set_modified(now);
  directory->set_changed(now);
}

Task<absl::StatusOr<Attributes>> Instance::Lookup(FoundFile directory, std::string name) {
  if (name.starts_with(kStreamsPrefix)) co_return co_await LookupStreams(directory, name.substr(kStreamsPrefix.size()));
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  Attributes found;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kRead);
    if (!parent.ok()) co_return parent.status();
    Directory entries(&edit, &space_, *parent);
    const auto entry = co_await entries.Find(name);
    if (!entry.ok()) co_return entry.status();
    if (!entry->has_value()) co_return NoSuchName(name);
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, (*entry)->inode, Intent::kRead);
    if (ErrnoOf(inode.status()) == ESTALE) {  // To look again would not help.
      co_return PosixError(EIO, absl::StrCat("\"", name, "\" is the name of inode ", (*entry)->inode.value,
                                             ", which is none: ", inode.status().message()));
    }
    if (!inode.ok()) co_return inode.status();
    const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *inode);
    if (told.ok()) found = *told;
    co_return told.status();
  };
  const absl::Status status = co_await RunLook(pages_, body);
  if (!status.ok()) co_return status;
  co_return found;
}

Task<absl::Status> Instance::WriteTarget(Edit* edit, Inode inode, std::string target) {
  Tree tree(edit, &space_, inode.main_root());
  for (size_t at = 0; at < target.size(); at += kTargetChunk) {
    const absl::Status status = co_await tree.Put(at, target.substr(at, kTargetChunk));
    if (!status.ok()) co_return status;
  }
  inode.set_size(target.size());
  co_return absl::OkStatus();
}

// With as many links as it has from the beginning, in no directory yet.
Task<absl::StatusOr<Inode>> Instance::MakeInode(Edit* edit, Inode directory, NewFile file) {
  const absl::StatusOr<uint64_t> number = co_await space_.TakeInode(edit);
  if (!number.ok()) co_return number.status();
  const absl::StatusOr<EditPage*> page = co_await edit->Make(*number, PageKind::kInode);
  if (!page.ok()) co_return page.status();
  const int64_t now = pages_->NowNs();
  const bool hands_down = (directory.mode() & S_ISGID) != 0;
  const bool is_directory = S_ISDIR(file.mode);
  Inode inode(*page);
  inode.Initialize({.generation = NewGeneration(pages_),
                    .mode = file.mode | (hands_down && is_directory ? S_ISGID : 0),
                    .links = is_directory ? 2U : 1U,
                    .uid = file.caller.uid,
                    .gid = hands_down ? directory.attributes().gid : file.caller.gid,
                    .device = S_ISCHR(file.mode) || S_ISBLK(file.mode) ? file.device : 0,
                    .size_bytes = is_directory ? kPageSize : 0,
                    .accessed_ns = now,
                    .modified_ns = now,
                    .changed_ns = now,
                    .born_ns = now},
                   is_directory ? directory.number() : InodeNumber{});
  if (directory.Has(Inode::kStreams)) {  // I4
    inode.Set(Inode::kStream, true);
    inode.set_parent(directory.parent());
  }
  if (S_ISLNK(file.mode)) {
    const absl::Status status = co_await WriteTarget(edit, inode, file.target);
    if (!status.ok()) co_return status;
    co_return inode;
  }
  const absl::Status copies = co_await InheritCopies(edit, directory, inode);
  if (!copies.ok()) co_return copies;
  const absl::StatusOr<mode_t> mode = co_await InheritAcl(edit, directory, inode, file);
  if (!mode.ok()) co_return mode.status();
  inode.set_mode((inode.mode() & ~mode_t{0777}) | (*mode & 0777));
  co_return inode;
}

Task<absl::StatusOr<Attributes>> Instance::MakeFile(FoundFile directory, std::string name, NewFile file) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  Attributes made;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kWrite);
    if (!parent.ok()) co_return parent.status();
    Directory entries(&edit, &space_, *parent);
    const auto entry = co_await entries.Find(name);
    if (!entry.ok()) co_return entry.status();
    if (entry->has_value()) co_return PosixError(EEXIST, absl::StrCat("there is a \"", name, "\""));
    const bool is_directory = S_ISDIR(file.mode);
    if (parent->Has(Inode::kStreams) && !S_ISREG(file.mode)) co_return PosixError(EPERM, "streams are regular files");
    if (is_directory && parent->links() >= kMostLinks) co_return PosixError(EMLINK, "too many directories in one");
    const absl::StatusOr<Inode> inode = co_await MakeInode(&edit, *parent, file);
    if (!inode.ok()) co_return inode.status();
    absl::Status status = co_await entries.Add(name, inode->number(), file.mode & S_IFMT);
    if (!status.ok()) co_return status;
    if (is_directory) parent->set_links(parent->links() + 1);
    status = co_await TouchNames(&edit, *parent);
    if (!status.ok()) co_return status;
    const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *inode);
    if (told.ok()) made = *told;
    co_return told.status();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return made;
}

// An orphan from the start, so that no loss leaves it behind. Others may take it for one until it is open: then another one is made.
Task<absl::StatusOr<Attributes>> Instance::MakeUnnamed(Caller caller, FoundFile directory, mode_t mode,
                                                       bool may_be_named) {
  Attributes made;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    made = {};
    const absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kRead);
    if (!parent.ok()) co_return parent.status();
    if (parent->IsOfStreams()) co_return PosixError(EPERM, "a stream has a name");
    NewFile file{.caller = caller, .mode = S_IFREG | (mode & 07777)};
    absl::StatusOr<Inode> inode = co_await MakeInode(&edit, *parent, std::move(file));
    if (!inode.ok()) co_return inode.status();
    inode->set_links(0);
    inode->Set(Inode::kMayBeNamed, may_be_named);
    made = inode->attributes();
    co_return co_await MakeOrphan(&edit, *inode);
  };
  absl::Status status;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    status = co_await RunEdit(pages_, body);
    if (!status.ok()) break;
    status = co_await OpenMade(made.id(), true);
    if (status.ok()) co_return made;
    if (ErrnoOf(status) != ESTALE) break;
  }
  if (made.inode != InodeNumber{}) NoteLeftover(made.inode);  // It may be one.
  co_return status;
}

Task<absl::StatusOr<Attributes>> Instance::MakeNode(Caller caller, FoundFile directory, std::string name, mode_t mode,
                                                    dev_t device) {
  const mode_t type = mode & S_IFMT;
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK) {
    co_return PosixError(EINVAL, absl::StrCat("no file has mode ", absl::Hex(mode)));
  }
  NewFile file{.caller = caller, .mode = mode, .device = device};
  co_return co_await MakeFile(directory, std::move(name), std::move(file));
}

Task<absl::StatusOr<Attributes>> Instance::MakeDirectory(Caller caller, FoundFile directory, std::string name,
                                                         mode_t mode) {
  return MakeFile(directory, std::move(name), {.caller = caller, .mode = S_IFDIR | (mode & 07777)});
}

Task<absl::StatusOr<Attributes>> Instance::MakeSymlink(Caller caller, FoundFile directory, std::string name,
                                                       std::string target) {
  if (target.empty()) co_return PosixError(ENOENT, "a symbolic link to nothing");
  if (target.size() > kMostTargetBytes) {
    co_return PosixError(ENAMETOOLONG,
                         absl::StrCat("a symbolic link of ", target.size(), " bytes; at most ", kMostTargetBytes));
  }
  NewFile file{.caller = caller, .mode = S_IFLNK | 0777, .target = std::move(target)};
  co_return co_await MakeFile(directory, std::move(name), std::move(file));
}

Task<absl::StatusOr<Attributes>> Instance::Link(FoundFile file, FoundFile directory, std::string name) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  Attributes linked;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kWrite);
    if (!parent.ok()) co_return parent.status();
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    Directory entries(&edit, &space_, *parent);
    const auto entry = co_await entries.Find(name);
    if (!entry.ok()) co_return entry.status();
    if (entry->has_value()) co_return PosixError(EEXIST, absl::StrCat("there is a \"", name, "\""));
    if (inode->IsDirectory()) co_return PosixError(EPERM, "a directory has one name only");
    if (inode->IsOfStreams() || parent->IsOfStreams()) co_return PosixError(EPERM, "a stream has one name only");
    // Nobody frees it meanwhile: it is open here.
    const bool gets_first = inode->links() == 0 && inode->Has(Inode::kMayBeNamed) && open_.contains(inode->number());
    if (inode->links() == 0 && !gets_first) co_return PosixError(ESTALE, "the file's last name was removed");
    if (inode->links() >= kMostLinks) co_return PosixError(EMLINK, absl::StrCat("a file with ", kMostLinks, " names"));
    edit.SetGrows();
    absl::Status status = co_await entries.Add(name, inode->number(), inode->mode() & S_IFMT);
    if (!status.ok()) co_return status;
    if (gets_first && !inode->Has(Inode::kShrinking)) status = co_await EndOrphan(&edit, *inode);
    if (!status.ok()) co_return status;
    inode->Set(Inode::kMayBeNamed, false);
    inode->set_links(inode->links() + 1);
    inode->set_changed(pages_->NowNs());
    Touch(&*parent);
    linked = inode->attributes();
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return linked;
}

}  // namespace mangrove::fs
