// What a check makes anew: trees from what of them can be read, pages that two files have, names in lost+found.

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/checker.h"
#include "fs/extended.h"
#include "fs/group_page.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

// What goes into one edit: a transaction's writes fit into half of a log.
constexpr size_t kMostRebuiltBytes = 768 * 1024;
constexpr char kLostAndFound[] = "lost+found";

}  // namespace

// --- Trees ------------------------------------------------------------------------------------------------------------

// Records that can be read go into an empty tree. The old one's pages are nobody's then, and the next sweep frees them. False: there are too
// many of them.
Task<absl::StatusOr<bool>> Checker::Rebuild(Edit* edit, Inode inode, Which which) {
  const std::string whose;
  const std::function<bool(uint64_t)> may_be_node = [this](uint64_t child) { return HasGroup(child, false); };
  const TreeRoot root = which == Which::kMain ? inode.main_root() : inode.xattr_root();
  CheckedTree checked(edit, root, &whose, &may_be_node);
  absl::StatusOr<std::vector<TreeRecord>> records = co_await checked.Gather(kMostRebuiltBytes);
  if (absl::IsResourceExhausted(records.status())) co_return false;
  if (!records.ok()) co_return records.status();
  NodeEditor(root.mutable_bytes()).Clear(0);
  Tree tree(edit, &space_, root);
  uint64_t end = 0;
  uint64_t pages = 0;
  if (which == Which::kXattrs) DropBrokenXattrs(&*records);
  for (TreeRecord& record : *records) {
    if (which == Which::kMain && inode.IsRegular()) {
      const absl::StatusOr<Extent> extent = DecodeExtent(record);
      if (!extent.ok() || extent->stream_page < end || !HasGroup(extent->page, true) ||
          FirstOf(extent->page) != FirstOf(extent->page + extent->count - 1)) {
        continue;
      }
      end = extent->end();
      pages += extent->count;
    }
    if (record.value.size() > Tree::kMostValueBytes) continue;
    const absl::Status status = co_await tree.Put(record.key, std::move(record.value));
    if (!status.ok()) co_return status;
  }
  if (which == Which::kMain && inode.IsRegular()) inode.set_pages(pages);
  if (which == Which::kMain) inode.Set(Inode::kDamaged, false);
  inode.set_changed(pages_->NowNs());
  co_return true;
}

// Once more in one edit. A directory that is too large for that is marked, and nobody uses it.
Task<absl::Status> Checker::RepairTree(uint64_t number, Which which, std::vector<std::string> problems) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    std::string done;
    if (options_.repair && !is_lossy_) {
      absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{number}, Intent::kWrite);
      if (!inode.ok()) co_return IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
      const absl::StatusOr<bool> is_made = co_await Rebuild(&edit, *inode, which);
      is_lossy_ = is_lossy_ || absl::IsDataLoss(is_made.status());
      if (!is_made.ok() && !absl::IsDataLoss(is_made.status())) co_return is_made.status();
      if (is_made.ok() && *is_made) done = "what can be read of it is put into a new tree";
      if (is_made.ok() && !*is_made && which == Which::kMain && inode->IsDirectory() && !inode->Has(Inode::kDamaged)) {
        inode->Set(Inode::kDamaged, true);
        done = "the directory is marked, and nobody uses it";
      }
    }
    for (const std::string& problem : problems) Found(problem, done);
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// --- Pages that two files have ----------------------------------------------------------------------------------------

Task<absl::Status> Checker::SetUsed(Edit* edit, uint64_t page) {
  const absl::StatusOr<EditPage*> group = co_await edit->Get(FirstOf(page), PageKind::kGroup, Intent::kWrite);
  if (group.ok()) GroupEditor(*group).Set({page % kGroupPages, 1}, true, false);
  co_return group.status();
}

// The page of the file becomes one of its own. Its bytes are written when the page is taken: if that is interrupted they are zeros.
Task<absl::Status> Checker::GiveCopy(uint64_t page, Owner owner, std::string problem) {
  std::string bytes(kPageSize, '\0');
  absl::Status status = co_await pages_->ReadData(page * kPageSize, std::as_writable_bytes(std::span(bytes)));
  if (!status.ok()) co_return status;
  uint64_t copy = 0;
  auto take = [&](Edit& edit) -> Task<absl::Status> {
    copy = 0;
    const absl::StatusOr<bool> has = co_await HasPage(&edit, page, owner);
    if (!has.ok() || !*has) co_return has.status();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{owner.inode}, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    const PageSpan place{owner.stream_page, 1};
    Stream stream(&edit, &space_, *inode);
    const absl::StatusOr<bool> punched = co_await stream.Punch(place);
    if (!punched.ok()) co_return punched.status();
    // The other one has it still.
    const absl::Status used = co_await SetUsed(&edit, page);
    if (!used.ok()) co_return used;
    const absl::StatusOr<std::vector<Extent>> filled = co_await stream.Fill(place);
    if (!filled.ok()) co_return filled.status();
    copy = filled->front().page;
    Found(problem, absl::StrCat("it has a copy of its own now, page ", copy));
    co_return absl::OkStatus();
  };
  status = co_await Look(take);
  if (!status.ok() || copy == 0) co_return status;
  // If this node is lost, what it wrote must not lie in a page that nobody has: S2.
  status = co_await pages_->SyncTransactions();
  if (!status.ok()) co_return status;
  auto write = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<bool> has = co_await HasPage(&edit, copy, owner);
    if (!has.ok() || !*has) co_return has.status();
    co_return co_await edit.WriteData(copy * kPageSize, std::as_bytes(std::span(bytes)));
  };
  status = co_await Look(write);
  if (!status.ok()) co_return status;
  co_return co_await pages_->Flush({copy, 1});
}

// --- Names ------------------------------------------------------------------------------------------------------------

// The directory, for writing. It is made if it is not there. Others' are passed over: what is recovered may have been in a directory that
// they could not look into.
Task<absl::StatusOr<Inode>> Checker::GetLostAndFound(Edit* edit, std::string* called) {
  absl::StatusOr<Inode> root = co_await Inode::Get(edit, InodeNumber{root_}, Intent::kWrite);
  if (!root.ok()) co_return root;
  Directory entries(edit, &space_, *root);
  std::string& name = *called;
  for (name = kLostAndFound;; name += "#") {
    const absl::StatusOr<std::optional<Directory::Entry>> there = co_await entries.Find(name);
    if (!there.ok()) co_return there.status();
    if (!there->has_value()) break;
    absl::StatusOr<Inode> found = co_await Inode::Get(edit, (*there)->inode, Intent::kWrite);
    if (!found.ok()) co_return found;
    const bool is_ours =
        found->IsDirectory() && found->attributes().uid == 0 && (found->mode() & (S_IWGRP | S_IWOTH)) == 0;
    if (is_ours) co_return found;
  }
  const absl::StatusOr<uint64_t> number = co_await space_.TakeInode(edit);
  if (!number.ok()) co_return number.status();
  const absl::StatusOr<EditPage*> page = co_await edit->Make(*number, PageKind::kInode);
  if (!page.ok()) co_return page.status();
  const int64_t now = pages_->NowNs();
  Inode directory(*page);
  directory.Initialize({.generation = NewGeneration(pages_),
                        .mode = S_IFDIR | 0700,
                        .links = 2,
                        .size_bytes = kPageSize,
                        .accessed_ns = now,
                        .modified_ns = now,
                        .changed_ns = now,
                        .born_ns = now},
                       root->number());
  const absl::Status status = co_await entries.Add(name, directory.number(), S_IFDIR);
  if (!status.ok()) co_return status;
  root->set_links(root->links() + 1);
  root->set_changed(now);
  co_return directory;
}

// A name that says its number. What it is called, from the root on.
Task<absl::StatusOr<std::string>> Checker::PutIntoLostAndFound(Edit* edit, Inode inode) {
  std::string called;
  absl::StatusOr<Inode> directory = co_await GetLostAndFound(edit, &called);
  if (!directory.ok()) co_return directory.status();
  Directory entries(edit, &space_, *directory);
  std::string name = absl::StrCat("#", inode.number().value);
  for (;;) {
    const absl::StatusOr<std::optional<Directory::Entry>> there = co_await entries.Find(name);
    if (!there.ok()) co_return there.status();
    if (!there->has_value()) break;
    name += "#";
  }
  const absl::Status status = co_await entries.Add(name, inode.number(), inode.mode() & S_IFMT);
  if (!status.ok()) co_return status;
  if (inode.IsOfStreams()) {  // Of an owner that it has lost, and whose permissions it had.
    inode.Set(Inode::kStream, false);
    inode.Set(Inode::kStreams, false);
    inode.set_parent({});
    inode.set_mode((inode.mode() & S_IFMT) | (inode.IsDirectory() ? 0700 : 0600));
  }
  directory->set_changed(pages_->NowNs());
  directory->set_modified(pages_->NowNs());
  if (inode.IsDirectory()) {
    directory->set_links(directory->links() + 1);
    inode.set_parent(directory->number());
    inode.set_changed(pages_->NowNs());
  }
  co_return absl::StrCat(called, "/", name);
}

// The key of a name that the directory has of it; 0: there is none.
Task<absl::StatusOr<uint64_t>> Checker::FindName(uint64_t directory, uint64_t inode) {
  uint64_t key = 0;
  uint64_t from = 0;
  bool is_last = false;
  while (key == 0 && !is_last) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      is_last = true;
      const absl::StatusOr<Inode> parent = co_await Inode::Get(&edit, InodeNumber{directory}, Intent::kRead);
      if (!parent.ok()) co_return IsDamage(parent.status()) ? absl::OkStatus() : parent.status();
      Directory entries(&edit, &space_, *parent);
      const absl::StatusOr<std::vector<Directory::Entry>> some = co_await entries.List(from, options_.records_at_once);
      if (!some.ok()) co_return IsDamage(some.status()) ? absl::OkStatus() : some.status();
      is_last = some->empty();
      for (const Directory::Entry& entry : *some) {
        from = entry.key;
        if (entry.inode.value == inode) key = entry.key;
      }
      co_return absl::OkStatus();
    };
    const absl::Status status = co_await Look(body);
    if (!status.ok()) co_return status;
  }
  co_return key;
}

// False: it is another's by now.
Task<absl::StatusOr<bool>> Checker::RemoveName(Edit* edit, uint64_t directory, uint64_t key, uint64_t inode) {
  absl::StatusOr<Inode> parent = co_await Inode::Get(edit, InodeNumber{directory}, Intent::kWrite);
  if (!parent.ok()) co_return parent.status();
  Tree tree(edit, &space_, parent->main_root());
  absl::StatusOr<std::optional<std::string>> value = co_await tree.Get(key);
  if (!value.ok()) co_return value.status();
  if (!value->has_value()) co_return false;
  const absl::StatusOr<Directory::Entry> entry = Directory::Decode({key, **std::move(value)});
  if (!entry.ok() || entry->inode.value != inode) co_return false;
  parent->set_changed(pages_->NowNs());
  if (S_ISDIR(entry->type) && parent->links() > 2) parent->set_links(parent->links() - 1);
  const absl::Status status = co_await tree.Erase(key);
  if (!status.ok()) co_return status;
  co_return true;
}

}  // namespace mangrove::fs
