// What takes names away. A file whose last name goes, and that nobody has open, goes with it, in the same edit. One that somebody has
// open, or that has more extents than one edit frees, is put into this node's tree of orphans first (orphans.cc).
//
// Who opens a file says so before it looks at the inode; who removes one has the inode locked when it looks who has it open. So one of
// the two sees the other.

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr size_t kRecordsAtOnce = 256;

}  // namespace

Task<absl::Status> Instance::NameOrphan(Edit* edit, uint64_t place, InodeNumber inode, bool orphan) {
  const absl::StatusOr<EditPage*> page = co_await edit->Get(kFirstPlacePage + place, PageKind::kPlace, Intent::kWrite);
  if (!page.ok()) co_return page.status();
  Tree orphans(edit, &space_, PlaceRoot(*page));
  if (orphan) co_return co_await orphans.Put(inode.value, std::string(1, '\0'));
  co_return co_await orphans.Erase(inode.value);
}

// Of this node's place, unless it is another's already.
Task<absl::Status> Instance::MakeOrphan(Edit* edit, Inode inode) {
  if (inode.orphan_place()) co_return absl::OkStatus();
  inode.set_orphan_place(pages_->NodePlace());
  co_return co_await NameOrphan(edit, pages_->NodePlace(), inode.number(), true);
}

Task<absl::Status> Instance::EndOrphan(Edit* edit, Inode inode) {
  const std::optional<uint64_t> place = inode.orphan_place();
  if (!place) co_return absl::OkStatus();
  inode.set_orphan_place(std::nullopt);
  co_return co_await NameOrphan(edit, *place, inode.number(), false);
}

// Pages of a tree of metadata, what its records name is none of its business; as many as go into one edit. True: that was all.
Task<absl::StatusOr<bool>> Instance::FreeTree(Edit* edit, TreeRoot root) {
  Tree tree(edit, &space_, root);
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree.Scan(0, ~uint64_t{0}, kRecordsAtOnce);
  if (!records.ok()) co_return records.status();
  if (records->empty() && !tree.IsEmpty()) co_return PosixError(EIO, "a tree without records that is not empty");
  for (const TreeRecord& record : *records) {
    const absl::Status status = co_await tree.Erase(record.key);
    if (!status.ok()) co_return status;
  }
  co_return tree.IsEmpty();
}

// Frees what the inode has, and at last itself: true then. REQUIRES: no names, nobody has it open.
Task<absl::StatusOr<bool>> Instance::FreeSome(Edit* edit, Inode inode) {
  if (inode.streams() != InodeNumber{}) {
    const absl::Status status = co_await FreeSomeStreams(edit, inode);
    if (!status.ok()) co_return status;
    co_return false;
  }
  if (inode.IsRegular()) {
    Stream stream(edit, &space_, inode);
    const absl::StatusOr<bool> all = co_await stream.Punch({0, kMostFileBytes / kPageSize + 1});
    if (!all.ok() || !*all) co_return all;
  } else {
    const absl::StatusOr<bool> all = co_await FreeTree(edit, inode.main_root());
    if (!all.ok() || !*all) co_return all;
  }
  const absl::StatusOr<bool> all = co_await FreeTree(edit, inode.xattr_root());
  if (!all.ok() || !*all) co_return all;
  inode.set_mode(0);
  const absl::Status status = co_await space_.GiveBack(edit, inode.number().value);
  if (!status.ok()) co_return status;
  co_return true;
}

// Its last name has gone.
Task<absl::Status> Instance::RemoveOrKeep(Edit* edit, Inode inode) {
  bool is_open = IsOpen(inode.number());
  if (!is_open && (inode.IsRegular() || inode.IsDirectory())) {
    const absl::StatusOr<bool> elsewhere = co_await pages_->IsOpenElsewhere(inode.number());
    if (!elsewhere.ok()) co_return elsewhere.status();
    is_open = *elsewhere;
  }
  if (!is_open) {
    const absl::StatusOr<bool> gone = co_await FreeSome(edit, inode);
    if (!gone.ok()) co_return gone.status();
    if (*gone) co_return co_await EndOrphan(edit, inode);  // If it was being made shorter.
  }
  co_return co_await MakeOrphan(edit, inode);
}

Task<absl::Status> Instance::DropLink(Edit* edit, Inode inode) {
  inode.set_changed(pages_->NowNs());
  inode.set_links(inode.IsDirectory() ? 0 : inode.links() - 1);
  if (inode.links() > 0) co_return absl::OkStatus();
  if (inode.Has(Inode::kStream)) {
    const absl::Status status = co_await LeaveOwner(edit, inode);
    if (!status.ok()) co_return status;
  }
  co_return co_await RemoveOrKeep(edit, inode);
}

// --- Operations -------------------------------------------------------------------------------------------------------

Task<absl::Status> Instance::Unlink(FoundFile directory, std::string name) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  InodeNumber removed;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    removed = {};
    absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kWrite);
    if (!parent.ok()) co_return parent.status();
    Directory entries(&edit, &space_, *parent);
    const auto entry = co_await entries.Find(name);
    if (!entry.ok()) co_return entry.status();
    if (!entry->has_value()) co_return PosixError(ENOENT, absl::StrCat("there is no \"", name, "\""));
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, (*entry)->inode, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    if (inode->IsDirectory()) co_return PosixError(EISDIR, absl::StrCat("\"", name, "\" is a directory"));
    absl::Status status = co_await entries.Remove((*entry)->key);
    if (status.ok()) status = co_await TouchNames(&edit, *parent);
    if (status.ok()) status = co_await DropLink(&edit, *inode);
    if (inode->mode() != 0 && inode->links() == 0) removed = inode->number();
    co_return status;
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok() || removed == InodeNumber{} || IsOpen(removed)) co_return status;
  // The name has gone. What is left of the file is freed now, or later.
  (co_await FinishRemoval(removed)).IgnoreError();
  co_return absl::OkStatus();
}

Task<absl::Status> Instance::RemoveDirectory(FoundFile directory, std::string name) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  InodeNumber removed;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    removed = {};
    absl::StatusOr<Inode> parent = co_await GetDirectory(&edit, directory, Intent::kWrite);
    if (!parent.ok()) co_return parent.status();
    Directory entries(&edit, &space_, *parent);
    const auto entry = co_await entries.Find(name);
    if (!entry.ok()) co_return entry.status();
    if (!entry->has_value()) co_return PosixError(ENOENT, absl::StrCat("there is no \"", name, "\""));
    if (!S_ISDIR((*entry)->type)) co_return PosixError(ENOTDIR, absl::StrCat("\"", name, "\" is no directory"));
    const absl::StatusOr<Inode> inode = co_await GetDirectory(&edit, (*entry)->inode, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    const Directory below(&edit, &space_, *inode);
    if (!below.IsEmpty()) co_return PosixError(ENOTEMPTY, absl::StrCat("\"", name, "\" is not empty"));
    absl::Status status = co_await entries.Remove((*entry)->key);
    if (!status.ok()) co_return status;
    parent->set_links(parent->links() - 1);
    Touch(&*parent);
    status = co_await DropLink(&edit, *inode);
    if (inode->mode() != 0) removed = inode->number();
    co_return status;
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (status.ok() && removed != InodeNumber{} && !IsOpen(removed)) (co_await FinishRemoval(removed)).IgnoreError();
  co_return status;
}

Task<absl::Status> Instance::Open(FoundFile file) { return OpenMade(file, false); }

Task<absl::Status> Instance::OpenMade(FoundFile file, bool is_unnamed) {
  const InodeNumber number = file.inode;
  absl::Status status = co_await pages_->PublishOpen(number, true);
  if (!status.ok()) co_return status;
  ++opening_[number];
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    // One that is open here may be opened again, by its descriptor.
    if (inode->links() == 0 && !is_unnamed && !open_.contains(number)) {
      co_return PosixError(ESTALE, "the file's last name was removed");
    }
    co_return absl::OkStatus();
  };
  status = co_await RunEdit(pages_, body);
  ++open_[number];
  if (--opening_[number] == 0) opening_.erase(number);
  if (!status.ok()) (co_await Close(file)).IgnoreError();
  co_return status;
}

Task<absl::Status> Instance::Close(FoundFile file) {
  const InodeNumber number = file.inode;
  const auto it = open_.find(number);
  if (it == open_.end()) co_return PosixError(EBADF, absl::StrCat("inode ", number.value, " is not open"));
  const bool is_last = --it->second == 0;
  if (is_last) open_.erase(it);
  const absl::Status published = co_await pages_->PublishOpen(number, false);
  if (!is_last) co_return published;
  bool is_orphan = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    is_orphan = inode.ok() && inode->links() == 0;
    co_return inode.status();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok() && ErrnoOf(status) != ESTALE) NoteLeftover(number);  // It may be one.
  if (is_orphan && !IsOpen(number)) co_return co_await FinishRemoval(number);
  co_return published.ok() && ErrnoOf(status) != ESTALE ? status : published;
}

}  // namespace mangrove::fs
